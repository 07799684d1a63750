// Replies in chunks, as a strict client reads them: magics, cookies and offsets right, DONE once
// and last, a READ covered exactly and in order, one chunk of BLOCK_STATUS for each requested
// context, errors alone and with a text.
//
// Invariant: a request stays in flight until its chunk with DONE has been taken; chunk is set while
// the payload of a chunk is arriving.

package sim

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf8"

	"ringnbd/proto"
)

// chunk is the header of a chunk, of either form ("Structured reply chunk message", "Extended reply
// chunk message").
type chunk struct {
	flags, kind uint16
	offset      uint64
	length      uint64
	r           *request
}

// reply is what the chunks of one request have brought so far.
type reply struct {
	data   []byte
	chunks int
	seen   proto.ContextSet
}

// Types of chunks ("Structured reply types").
const (
	chunkNone      = 0
	chunkData      = 1
	chunkHole      = 2
	chunkStatus    = 5
	chunkStatusExt = 6
	chunkError     = 1<<15 | 1
)

// headLeft returns how many bytes the header that is arriving still needs.
func (c *client) headLeft() int {
	switch c.habit.session.Framing {
	case proto.Simple:
		return 16 - len(c.head)
	case proto.Extended:
		return 32 - len(c.head)
	}
	if len(c.head) < 4 {
		return 4 - len(c.head)
	}
	if binary.BigEndian.Uint32(c.head) == magicSimple {
		return 16 - len(c.head)
	}
	return 20 - len(c.head)
}

// openChunk parses a chunk's header.
func (c *client) openChunk() {
	w, h := c.world, c.head
	extended := c.habit.session.Framing == proto.Extended
	magic := uint32(magicChunk)
	if extended {
		magic = magicChunkExt
	}
	if binary.BigEndian.Uint32(h) != magic {
		w.fail("connection %d got % x instead of a chunk", c.conn, h)
	}
	k := &chunk{flags: binary.BigEndian.Uint16(h[4:]), kind: binary.BigEndian.Uint16(h[6:])}
	if extended {
		k.offset, k.length = binary.BigEndian.Uint64(h[16:]), binary.BigEndian.Uint64(h[24:])
	} else {
		k.length = uint64(binary.BigEndian.Uint32(h[16:]))
	}
	k.r = c.findRequest(binary.BigEndian.Uint64(h[8:]), k.kind>>15 == 1)
	c.head = c.head[:0]
	r := k.r
	if extended && k.offset != r.Offset {
		w.fail("a chunk for %v has offset %d", r, k.offset)
	}
	if r.reply == nil {
		r.reply = &reply{}
		r.answered = w.note("answer in chunks", "connection id kind length", int64(c.conn),
			int64(r.id), int64(k.kind), int64(k.length))
	}
	r.reply.chunks++
	c.checkChunk(k, extended)
	c.chunk, c.payload = k, make([]byte, 0, k.length)
	if extended {
		w.mark(markChunkedExt)
	} else {
		w.mark(markChunked)
	}
	if k.length == 0 {
		c.takeChunk()
	}
}

// checkChunk checks a header against the request, before memory is allocated for the payload that
// it announces.
func (c *client) checkChunk(k *chunk, extended bool) {
	w, r := c.world, k.r
	done := k.flags&1 != 0
	limit := uint64(c.plan().MaxPayload)
	if limit == 0 {
		limit = 32 << 20
	}
	ok := k.flags&^1 == 0
	switch k.kind {
	case chunkNone:
		ok = ok && done && k.length == 0 && r.reply.chunks == 1 &&
			r.Command != proto.CmdBlockStatus && (r.Command != proto.CmdRead || r.Length == 0)
	case chunkData:
		ok = ok && r.Command == proto.CmdRead && k.length > 8 && k.length-8 <= r.Length &&
			k.length-8 <= limit
	case chunkHole:
		ok = ok && r.Command == proto.CmdRead && k.length == 12
	case chunkStatus:
		ok = ok && !extended && r.Command == proto.CmdBlockStatus && k.length >= 12 &&
			k.length%8 == 4 && k.length <= limit
	case chunkStatusExt:
		ok = ok && extended && r.Command == proto.CmdBlockStatus && k.length >= 24 &&
			k.length%16 == 8 && k.length <= limit
	case chunkError:
		ok = ok && done && k.length > 6 && k.length <= 6+4096 &&
			(r.reply.chunks == 1 || c.inParts(r))
	default: // ringnbd does not send the offset of an error
		ok = false
	}
	if !ok {
		w.fail("chunk %d for %v cannot be: flags %#x, type %#x, %d bytes", r.reply.chunks, r,
			k.flags, k.kind, k.length)
	}
}

// takeChunk takes a chunk whose payload is complete.
func (c *client) takeChunk() {
	k, b := c.chunk, c.payload
	c.chunk, c.payload = nil, nil
	r := k.r
	switch k.kind {
	case chunkData:
		c.addData(r, binary.BigEndian.Uint64(b), b[8:])
	case chunkHole:
		c.addHole(r, binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[8:])))
	case chunkStatus, chunkStatusExt:
		c.takeStatus(r, b, k.kind == chunkStatusExt)
	case chunkError:
		c.takeError(r, b)
		return
	}
	if k.flags&1 == 0 {
		return
	}
	c.removeInFlight(r)
	c.judge(r, proto.Success)
	switch r.Command {
	case proto.CmdRead:
		if len(r.reply.data) != int(r.Length) {
			c.world.fail("the chunks of %v bring %d bytes", r, len(r.reply.data))
		}
		c.checkRead(r, r.reply.data)
	case proto.CmdBlockStatus:
		if r.reply.seen != r.contexts {
			c.world.fail("%v asked for the contexts %#x and was told about %#x", r, r.contexts,
				r.reply.seen)
		}
		c.markStatus(r)
	}
	r.reply.data = nil
}

// addData takes data from off; chunks must come in the order of their offsets.
func (c *client) addData(r *request, off uint64, b []byte) {
	w, got := c.world, uint64(len(r.reply.data))
	if off != r.Offset+got || uint64(len(b)) > r.Length-got {
		w.fail("%v: %d bytes at %d, after %d bytes", r, len(b), off, got)
	}
	if r.Flags&proto.CmdFlagDF != 0 {
		w.mark(markDataWhole)
		if uint64(len(b)) != r.Length {
			w.fail("%v must not be split, and was", r)
		}
	}
	r.reply.data = append(r.reply.data, b...)
}

// addHole takes a hole: n zeroes from off.
func (c *client) addHole(r *request, off, n uint64) {
	w := c.world
	if n == 0 || n > r.Length {
		w.fail("%v: a hole of %d bytes", r, n)
	}
	if n == r.Length {
		w.mark(markHoleWhole)
	} else {
		w.mark(markHoleRead)
		if n < min(32<<10, (r.Length+1)/2) && !c.inParts(r) { // a part may be short
			w.fail("%v: a hole of %d bytes costs more than it saves", r, n)
		}
	}
	c.addData(r, off, make([]byte, n))
}

// takeError takes an error, which is a reply of its own.
func (c *client) takeError(r *request, b []byte) {
	w := c.world
	e, text := proto.Errno(binary.BigEndian.Uint32(b)), b[6:]
	if int(binary.BigEndian.Uint16(b[4:])) != len(text) || !utf8.Valid(text) ||
		bytes.IndexByte(text, 0) >= 0 {
		w.fail("%v was answered with a text of %d bytes that cannot be: %q", r,
			binary.BigEndian.Uint16(b[4:]), text)
	}
	if e == proto.Success || e.String() == "unknown error" {
		w.fail("%v was answered with error %d", r, e)
	}
	w.mark(markErrorText)
	c.removeInFlight(r)
	c.judge(r, e)
}

// extent is one descriptor of a BLOCK_STATUS.
type extent struct{ length, flags uint64 }

// takeStatus takes the extents of one context.
func (c *client) takeStatus(r *request, b []byte, extended bool) {
	w := c.world
	id := binary.BigEndian.Uint32(b)
	if id < 1 || id > proto.MaxContexts || r.contexts>>(id-1)&1 == 0 ||
		r.reply.seen>>(id-1)&1 != 0 {
		w.fail("%v asked for the contexts %#x, and after %#x number %d came", r, r.contexts,
			r.reply.seen, id)
	}
	r.reply.seen |= 1 << (id - 1)
	var list []extent
	if extended {
		if n := binary.BigEndian.Uint32(b[4:]); uint64(n) != uint64(len(b)-8)/16 {
			w.fail("%v: %d extents are announced in %d bytes", r, n, len(b))
		}
		for b = b[8:]; len(b) > 0; b = b[16:] {
			list = append(list, extent{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])})
		}
	} else {
		for b = b[4:]; len(b) > 0; b = b[8:] {
			list = append(list,
				extent{uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))})
		}
	}
	c.checkExtents(r, list, int(id-1))
}

// checkExtents checks the extents of a context: inside the range, none empty, neighbours different,
// true, and as many as the reply has room for.
func (c *client) checkExtents(r *request, list []extent, context int) {
	w, p := c.world, &c.plan().Contexts[context]
	at, end, one := r.Offset, r.Offset+r.about, r.Flags&proto.CmdFlagReqOne != 0
	for i, x := range list {
		switch {
		case x.length == 0 || x.length > end-at:
			w.fail("%v: %s: extent %d, %d bytes from %d, is empty or leaves the range", r, p.Name,
				i, x.length, at)
		case i > 0 && x.flags == list[i-1].flags:
			w.fail("%v: %s: extents %d and %d are the same", r, p.Name, i-1, i)
		case p.unit > 0:
			c.checkPattern(r, p, at, x)
		case x.flags&^(statusHole|statusZero) != 0:
			w.fail("%v: %s: status %#x", r, p.Name, x.flags)
		case x.flags&statusZero != 0:
			w.mark(markStatusZero)
			c.model.checkZeroes(r, c.x.base+at, c.x.base+at+x.length)
		}
		at += x.length
	}
	limit := uint64(max(c.plan().MaxPayload, 64<<10))
	switch room := min(int(r.about/sectorSize)+2, int(limit/16)/2); {
	case one && len(list) != 1:
		w.fail("%v: %s: %d extents, where one was requested", r, p.Name, len(list))
	case at == end:
	case !one && len(list) < min(room, 500):
		w.fail("%v: %s: only %d extents, which end at %d", r, p.Name, len(list), at)
	case !one:
		w.mark(markStatusCut)
	}
	if p.Wide {
		w.mark(markStatusWide)
	}
}

// plan returns what the client was told of its export.
func (c *client) plan() *ExportPlan { return &c.told }

// checkPattern checks that an extent agrees with its pattern everywhere. If the connection is about
// to end, the loop need not look anything up: a status of 0 is always true.
func (c *client) checkPattern(r *request, p *ContextPlan, at uint64, x extent) {
	if x.flags == 0 && (c.parted || c.world.draining || c.retired || c.x.stage >= leaving) {
		c.world.mark(markStatusUnlooked)
		return
	}
	at += c.x.base
	for off := at; off < at+x.length; off = (off/p.unit + 1) * p.unit {
		if want := p.pattern(off); want != x.flags {
			c.world.fail("%v: %s: status %#x at %d, want %#x", r, p.Name, x.flags, off, want)
		}
	}
}

// markStatus marks what the engine has done for a BLOCK_STATUS.
func (c *client) markStatus(r *request) {
	w := c.world
	if r.Flags&proto.CmdFlagReqOne != 0 {
		w.mark(markStatusOne)
	}
	if r.contexts&(r.contexts-1) != 0 {
		w.mark(markStatusMany)
	}
	if r.filtered() {
		w.mark(markStatusFiltered)
	}
}

// checkZeroes checks the claim that [lo, hi) reads as zeroes: that must have been possible at some
// moment between request and reply.
func (m *model) checkZeroes(r *request, lo, hi uint64) {
	if m.disk.plan.Backing == Null {
		return
	}
	end := r.answered
	if m.disk.plan.Backing == Memory {
		end = m.world.tick
	}
	allowed := func(c *candidate) bool {
		return (c.dead == 0 || c.dead > r.sent) && c.w.sent <= end
	}
	for lo < hi {
		s := &m.stretches[m.find(lo)]
		if slices.ContainsFunc(s.candidates, func(c candidate) bool {
			return c.w.zero && allowed(&c)
		}) {
			lo = min(s.hi, hi)
			continue
		}
		n := min(s.hi, hi) - lo
		if bad, ok := m.check(lo, make([]byte, n), allowed, nil); !ok {
			m.failWrong("zeroes were claimed", r, bad, make([]byte, min(sectorSize, hi-bad)))
		}
		lo += n
	}
}
