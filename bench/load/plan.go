// Whether the options fit the target, and who does which part of the work.
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

// facts are what the target said about itself.
type facts struct {
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
	facts     *facts
	base      uint64 // bytes: where the window begins
	unit      uint64 // bytes
	largest   uint64 // bytes of a request with a payload
	window    uint64 // bytes
	blocks    uint64 // units of the window
	trace     *trace // to be replayed; nil: requests are drawn
	parts     []part // by connection
	fills     []part // by connection: what it writes before the run
	table     *table // with Options.Verify
	multiConn bool   // connections see each other's writes
	flags     [kinds]uint16
	ring      uring.Config
	// unregistered is why the buffers of a file's requests cannot be registered, if so much is
	// clear before a start.
	unregistered error
}

// newPlan checks what only the target can tell.
func newPlan(o *Options, f *facts, t *trace, run uint64) (*plan, error) {
	p := &plan{options: o, facts: f, trace: t, base: o.Offset, unit: o.Sizes.unit(),
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
	if p.blocks > tableMost/8 {
		return nil, o.errorf("{verify} would have to remember %d blocks of %s, more than the %d "+
			"that %s hold: choose a smaller {size} or a larger {bs}, or verify another "+
			"trace", p.blocks, units.Exact(p.unit), tableMost/8, units.Exact(tableMost))
	}
	p.table = newTable(p.base, p.unit, p.blocks, run)
	return p, nil
}

// commandFlags is what goes with each kind of request.
func commandFlags(o *Options) (flags [kinds]uint16) {
	if o.FUA {
		flags[Write], flags[Trim], flags[Zero] = proto.CmdFlagFUA, proto.CmdFlagFUA,
			proto.CmdFlagFUA
	}
	if o.NoHole {
		flags[Zero] |= proto.CmdFlagNoHole
	}
	if o.FastZero {
		flags[Zero] |= proto.CmdFlagFastZero
	}
	return flags
}

// fitFlags: can the export do what the pattern wants?
func fitFlags(o *Options, f *facts) error {
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
	if d := f.file; d != nil && o.does(Zero) && !d.Device.Punch && !d.Device.ZeroRange {
		return errors.New("its file system can neither punch holes nor zero ranges: choose " +
			"another pattern or file")
	}
	return errors.Join(
		needs(o.does(Trim), proto.FlagSendTrim, "TRIM"),
		needs(o.does(Zero), proto.FlagSendWriteZeroes, "WRITE_ZEROES"),
		needs(o.does(Flush), proto.FlagSendFlush, "FLUSH"),
		needs(o.FUA, proto.FlagSendFUA, "FUA ({fua})"),
		needs(o.FastZero, proto.FlagSendFastZero, "FAST_ZERO ({fast-zero})"),
	)
}

// payloadMost is the longest payload that the target takes, in bytes.
func (f *facts) payloadMost() uint64 {
	if f.MaxPayload == 0 {
		return proto.DefaultMaxPayload
	}
	return uint64(f.MaxPayload)
}

// fitWindow: is the window inside the export?
func (p *plan) fitWindow() error {
	o, size := p.options, p.facts.Size
	if size == 0 && !o.Pattern.Does[Flush] {
		return errors.New("the export is empty: there is nothing to put load on")
	}
	if o.Offset >= size && !(o.Pattern.Does[Flush] && o.Offset == 0) {
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

// fitBlocks: are sizes and offsets what the export takes?
func (p *plan) fitBlocks() error {
	o, f := p.options, p.facts
	if o.Pattern.Does[Flush] && p.trace == nil {
		return nil // has neither
	}
	if least := uint64(f.MinBlock); least > 1 {
		if p.unit%least != 0 {
			return o.errorf("{bs} %s: the export takes only multiples of %d bytes", o.Sizes,
				least)
		}
		if o.Offset%least != 0 {
			return o.errorf("{offset} %d: the export takes only multiples of %d bytes", o.Offset,
				least)
		}
	}
	most := f.payloadMost()
	if payload := o.does(Read) || o.does(Write) || o.Fill; payload && p.largest > most {
		return o.errorf("{bs} %s: the server takes at most %s in one request", o.Sizes,
			units.Exact(most))
	}
	if p.trace == nil && p.window < p.largest {
		return o.errorf("the window of %d bytes is too small for requests of %s: choose a "+
			"smaller {bs} or a larger export", p.window, units.Exact(p.largest))
	}
	return nil
}

// divide gives every connection its part. In order: one behind the other. At random: the whole
// window, unless a table wants every block to belong to one loop, or to one connection because the
// server does not promise more.
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
		if p.parts[c].blocks < largest && !o.Pattern.Does[Flush] && p.trace == nil {
			return fmt.Errorf("the window of %d bytes is too small for requests of %s on %d "+
				"connections", p.blocks*p.unit, units.Exact(p.largest), n)
		}
	}
	return nil
}

// share is the part of connections from to to-1.
func (p *plan) share(from, to int) part {
	n := uint64(p.options.Connections)
	cut := func(c int) uint64 { return p.blocks/n*uint64(c) + min(uint64(c), p.blocks%n) }
	return part{cut(from), cut(to) - cut(from)}
}

// loopSpan is the connections of a loop: neighbours, as evenly as can be.
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
