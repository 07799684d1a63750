// Replies of the transmission phase, judged chunk by chunk while they come.
//
// Invariant: nothing of a reply is believed before it was checked against the request it names and
// against what was negotiated; rules RP-01 to RP-17 and XH-01 hold of every Reply that Next
// returns, as far as one reply can show them.

package conform

import (
	"encoding/binary"
	"fmt"
	"slices"

	"ringnbd/proto"
)

// Reply is a whole reply.
type Reply struct {
	Request *Request
	Simple  bool
	Errno   uint32 // of the first error, 0 for success
	Message string // of the first error
	Errors  []ReplyError
	Data    []byte // of a READ that succeeded: its content, holes as zeroes
	Chunks  []Chunk
}

// ReplyError is one error chunk, or the error of a simple reply.
type ReplyError struct {
	Errno   uint32
	Message string
	Offset  uint64
	Located bool // Offset counts: the chunk was ERROR_OFFSET
}

// Chunk is one chunk of a structured or extended reply.
type Chunk struct {
	Flags   uint16
	Type    uint16
	Length  uint64 // of the payload on the wire
	Offset  uint64 // of content: where in the export
	Span    uint64 // of content: how many bytes of the export
	Context uint32 // of a block status: the context's id
	Extents []Extent
}

// Extent is one descriptor of a block status.
type Extent struct {
	Length uint64
	Flags  uint64
}

// pending is a request whose reply is not whole yet.
type pending struct {
	reply   *Reply
	covered []span // content so far, for overlaps and for completeness
	status  uint64 // bytes of block status so far
}

// What a reply may have, in bytes and in chunks, before it is one without end: far more than the
// spec's 2^20 extents of each context, or a READ in pieces of 512 bytes.
const (
	mostStatus = 64 << 20
	mostChunks = 1 << 19
	mostErrors = 1000
)

type span struct{ from, to uint64 }

// Errors that checks ask for, as they are on the wire (spec, "Error values").
const (
	EPERM     = uint32(proto.EPERM)
	ENOMEM    = uint32(proto.ENOMEM)
	EINVAL    = uint32(proto.EINVAL)
	ENOSPC    = uint32(proto.ENOSPC)
	EOVERFLOW = uint32(proto.EOVERFLOW)
	ENOTSUP   = uint32(proto.ENOTSUP)
)

// wireErrors are all that may be on the wire.
var wireErrors = []proto.Errno{proto.EPERM, proto.EIO, proto.ENOMEM, proto.EINVAL, proto.ENOSPC,
	proto.EOVERFLOW, proto.ENOTSUP, proto.ESHUTDOWN}

// ErrnoName is the name of an error value.
func ErrnoName(e uint32) string {
	if e == 0 || isWireError(e) {
		return proto.Errno(e).String()
	}
	return fmt.Sprintf("error %d, which is none of NBD's", e)
}

func isWireError(e uint32) bool { return slices.Contains(wireErrors, proto.Errno(e)) }

// Error is the reply's result for a person.
func (r *Reply) Error() string {
	if r.Message != "" {
		return fmt.Sprintf("%s (%q)", ErrnoName(r.Errno), r.Message)
	}
	return ErrnoName(r.Errno)
}

// Pending is the number of requests without a whole reply.
func (c *Conn) Pending() int { return len(c.pending) }

// Next reads until the reply to some request is whole, and gives it.
func (c *Conn) Next() *Reply {
	if len(c.pending) == 0 {
		panic("conform: Next without a request in flight")
	}
	for {
		var p *pending
		if c.Mode.Extended() {
			p = c.readExtended()
		} else {
			p = c.readCompact()
		}
		if p != nil {
			c.pending = slices.DeleteFunc(c.pending, func(other *pending) bool {
				return other == p
			})
			c.finish(p)
			return p.reply
		}
	}
}

// All reads the replies to everything in flight, in the order they come.
func (c *Conn) All() []*Reply {
	var list []*Reply
	for len(c.pending) > 0 {
		list = append(list, c.Next())
	}
	return list
}

// find is the first request in flight with this cookie.
func (c *Conn) find(cookie uint64) *pending {
	for _, p := range c.pending {
		if p.reply.Request.Cookie == cookie {
			return p
		}
	}
	c.t.Failf("a reply with the cookie %#x, which no request in flight has (%s)", cookie,
		c.inFlight())
	return nil
}

func (c *Conn) inFlight() string {
	if len(c.pending) == 1 {
		return fmt.Sprintf("%#x: %s", c.pending[0].reply.Request.Cookie, c.pending[0].reply.Request)
	}
	return fmt.Sprintf("%d are", len(c.pending))
}

// waiting says what the next reply is for.
func (c *Conn) waiting() string {
	if len(c.pending) == 1 {
		return "the reply to " + c.pending[0].reply.Request.String()
	}
	return fmt.Sprintf("a reply to one of %d requests", len(c.pending))
}

// readCompact reads a simple reply or a chunk; it gives the request that is answered by it
// entirely, if one is.
func (c *Conn) readCompact() *pending {
	h := c.Read(proto.SimpleReplySize, c.waiting())
	switch magic := binary.BigEndian.Uint32(h); {
	case magic == proto.SimpleReplyMagic:
		return c.readSimple(h)
	case magic == proto.ChunkMagic && c.Mode.Structured():
	case magic == proto.ChunkMagic:
		c.t.Failf("%s: a structured reply, which was not negotiated (SR-03)", c.waiting())
	default:
		c.t.Failf("%s: wrong magic:%s", c.waiting(), shown(h))
	}
	h = append(h, c.Read(proto.ChunkSize-proto.SimpleReplySize, "the end of a chunk's header")...)
	p := c.find(binary.BigEndian.Uint64(h[8:]))
	return c.readChunk(p, binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:]),
		uint64(binary.BigEndian.Uint32(h[16:])))
}

func (c *Conn) readSimple(h []byte) *pending {
	p := c.find(binary.BigEndian.Uint64(h[8:]))
	r := p.reply
	switch {
	case len(r.Chunks) > 0:
		c.t.Failf("%s: a simple reply after structured chunks", r.Request)
	case c.Mode.Structured() && r.Request.Type == proto.CmdRead:
		c.t.Failf("%s: a simple reply to a READ although structured replies were negotiated (RP-02)", r.Request)
	case c.Mode.Structured() && r.Request.Type == proto.CmdBlockStatus &&
		binary.BigEndian.Uint32(h[4:]) == 0:
		c.t.Failf("%s: a simple reply to BLOCK_STATUS says success (CB-11)", r.Request)
	}
	r.Simple = true
	if e := binary.BigEndian.Uint32(h[4:]); e != 0 {
		c.note(p, ReplyError{Errno: e})
	} else if r.Request.Type == proto.CmdRead {
		r.Data = c.Read(int(r.Request.Length), "the data of "+r.Request.String())
	}
	return p
}

func (c *Conn) readExtended() *pending {
	h := c.Read(proto.ExtReplySize, c.waiting())
	if magic := binary.BigEndian.Uint32(h); magic != proto.ExtReplyMagic {
		c.t.Failf("%s: wrong magic for extended headers (XH-02):%s", c.waiting(), shown(h))
	}
	p := c.find(binary.BigEndian.Uint64(h[8:]))
	if offset := binary.BigEndian.Uint64(h[16:]); offset != p.reply.Request.Offset {
		c.t.Failf("%s: the header of its reply has the offset %d (XH-01)", p.reply.Request, offset)
	}
	return c.readChunk(p, binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:]),
		binary.BigEndian.Uint64(h[24:]))
}

// readChunk reads a chunk's payload; it gives p back if the reply is whole.
func (c *Conn) readChunk(p *pending, flags, kind uint16, length uint64) *pending {
	r := p.reply
	if flags&^proto.ReplyFlagDone != 0 {
		c.t.Failf("%s: a chunk with the flags %#x; only DONE exists (RP-04)", r.Request, flags)
	}
	chunk := Chunk{Flags: flags, Type: kind, Length: length}
	switch kind {
	case proto.ChunkNone:
		c.chunkNone(p, &chunk)
	case proto.ChunkOffsetData, proto.ChunkOffsetHole:
		c.chunkContent(p, &chunk)
	case proto.ChunkBlockStatus, proto.ChunkBlockStatusExt:
		c.chunkStatus(p, &chunk)
	case proto.ChunkError, proto.ChunkErrorOffset:
		c.chunkError(p, &chunk)
	default:
		c.t.Failf("%s: a chunk of type %#x, which does not exist (RP-17)", r.Request, kind)
	}
	if r.Chunks = append(r.Chunks, chunk); len(r.Chunks) > mostChunks ||
		len(r.Errors) > mostErrors {
		c.t.Failf("%s: %d chunks, %d of them errors, and no end", r.Request, len(r.Chunks),
			len(r.Errors))
	}
	if flags&proto.ReplyFlagDone != 0 {
		return p
	}
	return nil
}

func (c *Conn) chunkNone(p *pending, chunk *Chunk) {
	if chunk.Length != 0 || chunk.Flags&proto.ReplyFlagDone == 0 {
		c.t.Failf("%s: a chunk NONE with %d bytes and the flags %#x; it has none, and DONE (RP-05)",
			p.reply.Request, chunk.Length, chunk.Flags)
	}
}

// chunkContent reads OFFSET_DATA or OFFSET_HOLE into the reply's data.
func (c *Conn) chunkContent(p *pending, chunk *Chunk) {
	r := p.reply
	hole := chunk.Type == proto.ChunkOffsetHole
	switch {
	case r.Request.Type != proto.CmdRead:
		c.t.Failf("%s: a chunk with content; only READ has any", r.Request)
	case hole && chunk.Length != 12:
		c.t.Failf("%s: OFFSET_HOLE of %d bytes, not 12 (RP-07)", r.Request, chunk.Length)
	case !hole && chunk.Length < 9:
		c.t.Failf("%s: OFFSET_DATA of %d bytes; it has 9 or more (RP-06)", r.Request, chunk.Length)
	case !hole && chunk.Length-8 > r.Request.Length:
		c.t.Failf("%s: OFFSET_DATA of %d bytes, more than was asked for (RP-06)", r.Request,
			chunk.Length)
	case !hole && c.Block != nil && chunk.Length-8 > uint64(c.Block.Max):
		c.t.Failf("%s: a chunk of %d bytes, more than the maximum payload of %d (RP-16)", r.Request,
			chunk.Length, c.Block.Max)
	}
	chunk.Offset = binary.BigEndian.Uint64(c.Read(8, "the offset of a chunk"))
	if chunk.Span = chunk.Length - 8; hole {
		chunk.Span = uint64(binary.BigEndian.Uint32(c.Read(4, "the length of a hole")))
	}
	from, to := chunk.Offset, chunk.Offset+chunk.Span
	if chunk.Span == 0 || from < r.Request.Offset || to < from ||
		to > r.Request.Offset+r.Request.Length {
		c.t.Failf("%s: a chunk for %d bytes at %d, which is not inside (RP-06, RP-07)", r.Request,
			chunk.Span, chunk.Offset)
	}
	for _, s := range p.covered {
		if from < s.to && s.from < to {
			c.t.Failf("%s: a chunk for %d bytes at %d overlaps an earlier one (RP-06, RP-07)",
				r.Request, chunk.Span, chunk.Offset)
		}
	}
	for _, e := range r.Errors {
		if e.Located && from <= e.Offset && e.Offset < to {
			c.t.Failf("%s: a chunk for %d bytes at %d comes after an error at %d (RP-11)",
				r.Request, chunk.Span, chunk.Offset, e.Offset)
		}
	}
	p.covered = append(p.covered, span{from, to})
	if r.Data == nil {
		r.Data = make([]byte, r.Request.Length) // our own number, not the server's
	}
	if !hole {
		c.readInto(r.Data[from-r.Request.Offset:to-r.Request.Offset],
			"the data of "+r.Request.String())
	}
}

// chunkStatus reads BLOCK_STATUS, of which the form is judged here and the sense by the checks.
func (c *Conn) chunkStatus(p *pending, chunk *Chunk) {
	r := p.reply
	extended := chunk.Type == proto.ChunkBlockStatusExt
	head, size := uint64(4), uint64(8)
	if extended {
		head, size = 8, 16
	}
	switch {
	case r.Request.Type != proto.CmdBlockStatus:
		c.t.Failf("%s: a chunk with a block status, which nobody asked for", r.Request)
	case extended != c.Mode.Extended():
		c.t.Failf("%s: a block status of type %d with %s (XH-07, XH-08)", r.Request, chunk.Type,
			c.Mode)
	case chunk.Length < head+size || (chunk.Length-head)%size != 0 || chunk.Length > mostStatus:
		c.t.Failf("%s: a block status of %d bytes, which are no extents (CB-03)", r.Request,
			chunk.Length)
	}
	if p.status += chunk.Length; p.status > mostStatus {
		c.t.Failf("%s: %d bytes of block status for %d contexts, and no end", r.Request, p.status,
			len(c.Contexts))
	}
	b := c.Read(int(chunk.Length), "a block status")
	chunk.Context = binary.BigEndian.Uint32(b)
	if !slices.ContainsFunc(c.Contexts, func(x Context) bool { return x.ID == chunk.Context }) {
		c.t.Failf("%s: a block status for the context %d, which was not selected (CB-02)",
			r.Request, chunk.Context)
	}
	if slices.ContainsFunc(r.Chunks, func(x Chunk) bool {
		return len(x.Extents) > 0 && x.Context == chunk.Context
	}) {
		c.t.Failf("%s: a second block status for the context %d (CB-02)", r.Request, chunk.Context)
	}
	if n := (chunk.Length - head) / size; extended && uint64(binary.BigEndian.Uint32(b[4:])) != n {
		c.t.Failf("%s: a block status says that it has %d extents, and has %d (XH-07)", r.Request,
			binary.BigEndian.Uint32(b[4:]), n)
	}
	for b = b[head:]; len(b) > 0; b = b[size:] {
		x := Extent{uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))}
		if extended {
			x = Extent{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
		}
		if x.Length == 0 {
			c.t.Failf("%s: an extent of length 0 (CB-03)", r.Request)
		}
		chunk.Extents = append(chunk.Extents, x)
	}
}

func (c *Conn) chunkError(p *pending, chunk *Chunk) {
	r := p.reply
	head, what := uint64(6), "ERROR (RP-09)"
	if chunk.Type == proto.ChunkErrorOffset {
		head, what = 14, "ERROR_OFFSET (RP-10)"
	}
	if chunk.Length < head || chunk.Length > head+proto.MaxString {
		c.t.Failf("%s: a chunk %s of %d bytes", r.Request, what, chunk.Length)
	}
	b := c.Read(int(chunk.Length), "a chunk "+what)
	e := ReplyError{Errno: binary.BigEndian.Uint32(b), Located: head == 14}
	n := uint64(binary.BigEndian.Uint16(b[4:]))
	if n != chunk.Length-head {
		c.t.Failf("%s: a chunk %s of %d bytes with a message of %d", r.Request, what, chunk.Length,
			n)
	}
	message := b[6 : 6+n]
	c.checkString(message, "the message of a chunk "+what)
	e.Message = string(message)
	if e.Located {
		e.Offset = binary.BigEndian.Uint64(b[6+n:])
		if e.Offset < r.Request.Offset || e.Offset-r.Request.Offset >= r.Request.Length {
			c.t.Failf("%s: an error at %d, which is not inside (RP-10)", r.Request, e.Offset)
		}
	}
	if e.Errno == 0 {
		c.t.Failf("%s: a chunk %s with the error 0", r.Request, what)
	}
	c.note(p, e)
}

func (c *Conn) note(p *pending, e ReplyError) {
	if e.Errno != 0 && !isWireError(e.Errno) {
		c.t.Failf("%s: %s (ER-01)", p.reply.Request, ErrnoName(e.Errno))
	}
	r := p.reply
	if len(r.Errors) == 0 {
		r.Errno, r.Message = e.Errno, e.Message
	}
	r.Errors = append(r.Errors, e)
}

// finish judges a reply as a whole.
func (c *Conn) finish(p *pending) {
	r := p.reply
	if r.Errno != 0 {
		r.Data = nil
		return
	}
	switch r.Request.Type {
	case proto.CmdRead:
		var sum uint64
		for _, s := range p.covered {
			sum += s.to - s.from
		}
		if !r.Simple && sum != r.Request.Length {
			c.t.Failf("%s: the chunks hold %d bytes (RP-08)", r.Request, sum)
		}
	case proto.CmdBlockStatus:
		c.t.Want(p.status > 0, "%s: success without a block status (CB-02)", r.Request)
	}
}
