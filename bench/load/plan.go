// The plan of a run: whether the options fit the target, and which part of the work each connection
// does.
//
// Invariant: a plan is fixed before the first loop turns; loops only read it. With a table, every
// block of the window is in the part of exactly one loop.

package load

import (
	"errors"
	"fmt"

	"ringnbd/engine/backing"
	"ringnbd/engine/units"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// subject is the export or file that the load is put on, and what is known about it.
type subject struct {
	proto.Export
	file       *backing.Backing // nil: a server
	congestion string           // of TCP sockets
	notes      []string
}

// part is a range of the window: where a connection draws its offsets from, or goes through in
// order.
type part struct{ first, blocks uint64 } // in units, counted from the window's beginning

type plan struct {
	options   *Options
	subject   *subject
	base      uint64 // bytes: where the window begins
	unit      uint64 // bytes
	largest   uint64 // bytes of a request with a payload
	window    uint64 // bytes
	blocks    uint64 // units of the window
	trace     *trace // to be replayed; nil: requests are drawn
	parts     []part // by connection
	fills     []part // by connection: the part that it writes before the run
	table     *table // with Options.Verify
	multiConn bool   // connections see each other's writes
	flags     [kinds]uint16
	ring      uring.Config
	// unregistered is why the buffers of a file's requests cannot be registered, if that is known
	// before the start.
	unregistered error
}

// newPlan checks what only the target can tell.
func newPlan(o *Options, f *subject, t *trace, run uint64) (*plan, error) {
	p := &plan{options: o, subject: f, trace: t, base: o.Offset, unit: o.Sizes.unit(),
		largest: o.Sizes.largest(), flags: commandFlags(o)}
	p.multiConn = f.file != nil || f.Flags&proto.FlagCanMultiConn != 0
	if t != nil {
		p.unit = t.unit
		if err := p.fitTrace(); err != nil {
			return nil, err
		}
	}
	if err := fitFlags(o, f); err != nil {
		return nil, err
	}
	if t == nil {
		if err := p.fitWindow(); err != nil {
			return nil, err
		}
	}
	if err := p.fitBlocks(); err != nil {
		return nil, err
	}
	if err := p.divide(); err != nil {
		return nil, err
	}
	if !o.Verify {
		return p, nil
	}
	if p.blocks > maxTable/8 {
		return nil, o.errorf("{verify} would have to remember %d blocks of %s, more than the %d "+
			"that %s hold: choose a smaller {size} or a larger {bs}, or verify another "+
			"trace", p.blocks, units.Exact(p.unit), maxTable/8, units.Exact(maxTable))
	}
	p.table = newTable(p.base, p.unit, p.blocks, run)
	return p, nil
}

// commandFlags returns the flags of each kind of request.
func commandFlags(o *Options) (flags [kinds]uint16) {
	if o.FUA {
		flags[kindWrite], flags[kindTrim], flags[kindZero] = proto.CmdFlagFUA, proto.CmdFlagFUA,
			proto.CmdFlagFUA
	}
	if o.NoHole {
		flags[kindZero] |= proto.CmdFlagNoHole
	}
	if o.FastZero {
		flags[kindZero] |= proto.CmdFlagFastZero
	}
	return flags
}

// fitFlags checks that the export can do what the pattern wants.
func fitFlags(o *Options, f *subject) error {
	needs := func(kind bool, flag uint16, what string) error {
		if kind && f.Flags&flag == 0 {
			return o.errorf("the export does not offer " + what +
				": choose another pattern or export")
		}
		return nil
	}
	if f.Flags&proto.FlagReadOnly != 0 && o.Writes() {
		fill := map[bool]string{true: " {fill}"}[o.Fill]
		return o.errorf("the export is read-only and the run would write ({pattern} %s"+fill+")",
			o.Pattern.Name)
	}
	if d := f.file; d != nil && o.does(kindZero) && !d.Device.Punch && !d.Device.ZeroRange {
		return errors.New("its file system can neither punch holes nor zero ranges: choose " +
			"another pattern or file")
	}
	return errors.Join(
		needs(o.does(kindTrim), proto.FlagSendTrim, "TRIM"),
		needs(o.does(kindZero), proto.FlagSendWriteZeroes, "WRITE_ZEROES"),
		needs(o.does(kindFlush), proto.FlagSendFlush, "FLUSH"),
		needs(o.FUA, proto.FlagSendFUA, "FUA ({fua})"),
		needs(o.FastZero, proto.FlagSendFastZero, "FAST_ZERO ({fast-zero})"),
	)
}

// maxPayload returns the longest payload that the target takes, in bytes.
func (f *subject) maxPayload() uint64 {
	if f.MaxPayload == 0 {
		return proto.DefaultMaxPayload
	}
	return uint64(f.MaxPayload)
}

// fitWindow checks that the window is inside the export.
func (p *plan) fitWindow() error {
	o, size := p.options, p.subject.Size
	if size == 0 && !o.Pattern.Does[kindFlush] {
		return errors.New("the export is empty: there is nothing to put load on")
	}
	if o.Offset >= size && !(o.Pattern.Does[kindFlush] && o.Offset == 0) {
		return o.errorf("{offset} %d is not inside the export, which has %d bytes", o.Offset,
			size)
	}
	window := size - o.Offset
	if o.Size > window {
		return o.errorf("{offset} %d and {size} %d end beyond the export, which has %d bytes",
			o.Offset, o.Size, size)
	}
	if o.Size > 0 {
		window = o.Size
	}
	p.blocks = window / p.unit
	p.window = window
	return nil
}

// fitBlocks checks that the export takes the sizes and offsets.
func (p *plan) fitBlocks() error {
	o, f := p.options, p.subject
	if o.Pattern.Does[kindFlush] && p.trace == nil {
		return nil // has neither
	}
	if block := uint64(f.MinBlock); block > 1 {
		if p.unit%block != 0 {
			return o.errorf("{bs} %s: the export takes only multiples of %d bytes", o.Sizes,
				block)
		}
		if o.Offset%block != 0 {
			return o.errorf("{offset} %d: the export takes only multiples of %d bytes", o.Offset,
				block)
		}
	}
	limit := f.maxPayload()
	if payload := o.does(kindRead) || o.does(kindWrite) || o.Fill; payload && p.largest > limit {
		return o.errorf("{bs} %s: the server takes at most %s in one request", o.Sizes,
			units.Exact(limit))
	}
	if p.trace == nil && p.window < p.largest {
		return o.errorf("the window of %d bytes is too small for requests of %s: choose a "+
			"smaller {bs} or a larger export", p.window, units.Exact(p.largest))
	}
	return nil
}

// divide gives every connection its part. Patterns in order have parts one after another. Random
// patterns have the whole window, unless a table needs every block to belong to one loop, or to one
// connection if the server does not promise CAN_MULTI_CONN.
func (p *plan) divide() error {
	o := p.options
	n := o.Connections
	p.parts, p.fills = make([]part, n), make([]part, n)
	largest := p.largest / p.unit
	for c := range n {
		own := p.share(c, c+1)
		p.fills[c] = own
		switch {
		case !o.Pattern.Random || o.Verify && !p.multiConn:
			p.parts[c] = own
		case o.Verify:
			p.parts[c] = p.share(loopSpan(p.loopOf(c), n, o.Threads))
		default:
			p.parts[c] = part{0, p.blocks}
		}
		if p.parts[c].blocks < largest && !o.Pattern.Does[kindFlush] && p.trace == nil {
			return fmt.Errorf("the window of %d bytes is too small for requests of %s on %d "+
				"connections", p.blocks*p.unit, units.Exact(p.largest), n)
		}
	}
	return nil
}

// share returns the part of connections from to to-1.
func (p *plan) share(from, to int) part {
	n := uint64(p.options.Connections)
	cut := func(c int) uint64 { return p.blocks/n*uint64(c) + min(uint64(c), p.blocks%n) }
	return part{cut(from), cut(to) - cut(from)}
}

// loopSpan returns the connections of a loop: neighbours, divided evenly.
func loopSpan(loop, connections, loops int) (from, to int) {
	return loop * connections / loops, (loop + 1) * connections / loops
}

func (p *plan) loopOf(c int) int {
	for loop := 0; ; loop++ {
		if _, to := loopSpan(loop, p.options.Connections, p.options.Threads); c < to {
			return loop
		}
	}
}
