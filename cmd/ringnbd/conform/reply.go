// Replies of the transmission phase, judged chunk by chunk as they are read.
//
// Invariant: nothing in a reply is believed before it was checked against the request that it names
// and against what was negotiated. Every reply that nextReply returns keeps to the rules RP-01 to
// RP-17 and XH-01, as far as one reply can show them.

package conform

import (
	"encoding/binary"
	"fmt"
	"slices"

	"ringnbd/proto"
)

// reply is a complete reply.
type reply struct {
	request *request
	simple  bool
	errno   uint32 // of the first error, 0 for success
	message string // of the first error
	errors  []replyError
	data    []byte // of a READ that succeeded: its content, holes as zeroes
	chunks  []chunk
}

// replyError is one error chunk, or the error of a simple reply.
type replyError struct {
	errno   uint32
	message string
	offset  uint64
	located bool // offset is valid: the chunk was ERROR_OFFSET
}

// chunk is one chunk of a structured or extended reply.
type chunk struct {
	flags   uint16
	kind    uint16
	length  uint64 // of the payload on the wire
	offset  uint64 // of content: where in the export
	span    uint64 // of content: how many bytes of the export
	context uint32 // of a block status: the context's id
	extents []extent
}

// extent is one descriptor of a block status.
type extent struct {
	length uint64
	flags  uint64
}

// pending is a request whose reply is not complete yet.
type pending struct {
	reply   *reply
	covered []span // content so far, for overlaps and for completeness
	status  uint64 // bytes of block status so far
}

// Limits of a reply, in bytes and in chunks, beyond which it counts as endless: far more than the
// protocol's 2^20 extents for each context, or a READ in pieces of 512 bytes.
const (
	maxStatus = 64 << 20
	maxChunks = 1 << 19
	maxErrors = 1000
)

// span is the range [from, to) of the export.
type span struct{ from, to uint64 }

// Errors that checks ask for, as they are on the wire ("Error values" in the protocol).
const (
	eperm     = uint32(proto.EPERM)
	enomem    = uint32(proto.ENOMEM)
	einval    = uint32(proto.EINVAL)
	enospc    = uint32(proto.ENOSPC)
	eoverflow = uint32(proto.EOVERFLOW)
	enotsup   = uint32(proto.ENOTSUP)
)

// wireErrors has all errors that may be on the wire.
var wireErrors = []proto.Errno{proto.EPERM, proto.EIO, proto.ENOMEM, proto.EINVAL, proto.ENOSPC,
	proto.EOVERFLOW, proto.ENOTSUP, proto.ESHUTDOWN}

// errnoName returns the name of an error value.
func errnoName(e uint32) string {
	if e == 0 || isWireError(e) {
		return proto.Errno(e).String()
	}
	return fmt.Sprintf("error %d, which NBD does not have", e)
}

func isWireError(e uint32) bool { return slices.Contains(wireErrors, proto.Errno(e)) }

// errorText returns the reply's result for a person to read.
func (r *reply) errorText() string {
	if r.message != "" {
		return fmt.Sprintf("%s (%q)", errnoName(r.errno), r.message)
	}
	return errnoName(r.errno)
}

// hasStatus reports whether a chunk of the reply has extents of this context.
func (r *reply) hasStatus(context uint32) bool {
	return slices.ContainsFunc(r.chunks, func(c chunk) bool {
		return len(c.extents) > 0 && c.context == context
	})
}

// unanswered returns the number of requests without a complete reply.
func (c *conn) unanswered() int { return len(c.pending) }

// nextReply reads until the reply to any request is complete, and returns that reply.
func (c *conn) nextReply() *reply {
	if len(c.pending) == 0 {
		panic("conform: nextReply without a request in flight")
	}
	for {
		var p *pending
		if c.mode.extended() {
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

// allReplies reads the replies to all requests in flight, in the order of arrival.
func (c *conn) allReplies() []*reply {
	var list []*reply
	for len(c.pending) > 0 {
		list = append(list, c.nextReply())
	}
	return list
}

// findPending returns the first request in flight with this cookie.
func (c *conn) findPending(cookie uint64) *pending {
	for _, p := range c.pending {
		if p.reply.request.cookie == cookie {
			return p
		}
	}
	c.t.failf("a reply with the cookie %#x, which no request in flight has (%s)",
		cookie, c.inFlight())
	return nil
}

func (c *conn) inFlight() string {
	if len(c.pending) == 1 {
		return fmt.Sprintf("%#x: %s", c.pending[0].reply.request.cookie, c.pending[0].reply.request)
	}
	return fmt.Sprintf("%d are", len(c.pending))
}

// waiting says what the next reply should be about.
func (c *conn) waiting() string {
	if len(c.pending) == 1 {
		return "the reply to " + c.pending[0].reply.request.String()
	}
	return fmt.Sprintf("a reply to one of %d requests", len(c.pending))
}

// readCompact reads a simple reply or a chunk. It returns the request whose reply this completes,
// or nil.
func (c *conn) readCompact() *pending {
	h := c.read(proto.SimpleReplySize, c.waiting())
	switch magic := binary.BigEndian.Uint32(h); {
	case magic == proto.SimpleReplyMagic:
		return c.readSimple(h)
	case magic == proto.ChunkMagic && c.mode.structured():
	case magic == proto.ChunkMagic:
		c.t.failf("%s: a structured reply, which was not negotiated (SR-03)", c.waiting())
	default:
		c.t.failf("%s: wrong magic:%s", c.waiting(), shown(h))
	}
	h = append(h, c.read(proto.ChunkSize-proto.SimpleReplySize, "the end of a chunk's header")...)
	p := c.findPending(binary.BigEndian.Uint64(h[8:]))
	return c.readChunk(p, binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:]),
		uint64(binary.BigEndian.Uint32(h[16:])))
}

func (c *conn) readSimple(h []byte) *pending {
	p := c.findPending(binary.BigEndian.Uint64(h[8:]))
	r := p.reply
	switch {
	case len(r.chunks) > 0:
		c.t.failf("%s: a simple reply after structured chunks", r.request)
	case c.mode.structured() && r.request.command == proto.CmdRead:
		c.t.failf("%s: a simple reply to a READ although structured replies were negotiated "+
			"(RP-02)", r.request)
	case c.mode.structured() && r.request.command == proto.CmdBlockStatus &&
		binary.BigEndian.Uint32(h[4:]) == 0:
		c.t.failf("%s: a simple reply to BLOCK_STATUS says success (CB-11)", r.request)
	}
	r.simple = true
	if e := binary.BigEndian.Uint32(h[4:]); e != 0 {
		c.note(p, replyError{errno: e})
	} else if r.request.command == proto.CmdRead {
		r.data = c.read(int(r.request.length), "the data of "+r.request.String())
	}
	return p
}

func (c *conn) readExtended() *pending {
	h := c.read(proto.ExtReplySize, c.waiting())
	if magic := binary.BigEndian.Uint32(h); magic != proto.ExtReplyMagic {
		c.t.failf("%s: wrong magic for extended headers (XH-02):%s", c.waiting(), shown(h))
	}
	p := c.findPending(binary.BigEndian.Uint64(h[8:]))
	if offset := binary.BigEndian.Uint64(h[16:]); offset != p.reply.request.offset {
		c.t.failf("%s: the header of its reply has the offset %d (XH-01)", p.reply.request, offset)
	}
	return c.readChunk(p, binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:]),
		binary.BigEndian.Uint64(h[24:]))
}

// readChunk reads a chunk's payload. It returns p if this completes the reply, or nil.
func (c *conn) readChunk(p *pending, flags, kind uint16, length uint64) *pending {
	r := p.reply
	if flags&^proto.ReplyFlagDone != 0 {
		c.t.failf("%s: a chunk with the flags %#x; only DONE exists (RP-04)", r.request, flags)
	}
	chunk := chunk{flags: flags, kind: kind, length: length}
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
		c.t.failf("%s: a chunk of type %#x, which does not exist (RP-17)", r.request, kind)
	}
	r.chunks = append(r.chunks, chunk)
	if len(r.chunks) > maxChunks || len(r.errors) > maxErrors {
		c.t.failf("%s: %d chunks, %d of them errors, do not end the reply",
			r.request, len(r.chunks), len(r.errors))
	}
	if flags&proto.ReplyFlagDone != 0 {
		return p
	}
	return nil
}

func (c *conn) chunkNone(p *pending, chunk *chunk) {
	if chunk.length != 0 || chunk.flags&proto.ReplyFlagDone == 0 {
		c.t.failf("%s: a chunk NONE with %d bytes and the flags %#x; it has none, and DONE (RP-05)",
			p.reply.request, chunk.length, chunk.flags)
	}
}

// chunkContent reads OFFSET_DATA or OFFSET_HOLE into the reply's data.
func (c *conn) chunkContent(p *pending, chunk *chunk) {
	r := p.reply
	hole := chunk.kind == proto.ChunkOffsetHole
	switch {
	case r.request.command != proto.CmdRead:
		c.t.failf("%s: a chunk with content, which only a READ may have", r.request)
	case hole && chunk.length != 12:
		c.t.failf("%s: OFFSET_HOLE of %d bytes, not 12 (RP-07)", r.request, chunk.length)
	case !hole && chunk.length < 9:
		c.t.failf("%s: OFFSET_DATA of %d bytes; it has 9 or more (RP-06)", r.request, chunk.length)
	case !hole && chunk.length-8 > r.request.length:
		c.t.failf("%s: OFFSET_DATA of %d bytes, more than was asked for (RP-06)",
			r.request, chunk.length)
	case !hole && c.block != nil && chunk.length-8 > uint64(c.block.Max):
		c.t.failf("%s: a chunk of %d bytes, more than the maximum payload of %d (RP-16)",
			r.request, chunk.length, c.block.Max)
	}
	chunk.offset = binary.BigEndian.Uint64(c.read(8, "the offset of a chunk"))
	if chunk.span = chunk.length - 8; hole {
		chunk.span = uint64(binary.BigEndian.Uint32(c.read(4, "the length of a hole")))
	}
	from, to := chunk.offset, chunk.offset+chunk.span
	if chunk.span == 0 || from < r.request.offset || to < from ||
		to > r.request.offset+r.request.length {
		c.t.failf("%s: a chunk for %d bytes at %d, which is not inside the request (RP-06, RP-07)",
			r.request, chunk.span, chunk.offset)
	}
	for _, s := range p.covered {
		if from < s.to && s.from < to {
			c.t.failf("%s: a chunk for %d bytes at %d overlaps an earlier one (RP-06, RP-07)",
				r.request, chunk.span, chunk.offset)
		}
	}
	for _, e := range r.errors {
		if e.located && from <= e.offset && e.offset < to {
			c.t.failf("%s: a chunk for %d bytes at %d comes after an error at %d (RP-11)",
				r.request, chunk.span, chunk.offset, e.offset)
		}
	}
	p.covered = append(p.covered, span{from, to})
	if r.data == nil {
		r.data = make([]byte, r.request.length) // the length that the client asked for
	}
	if !hole {
		c.readInto(r.data[from-r.request.offset:to-r.request.offset],
			"the data of "+r.request.String())
	}
}

// chunkStatus reads a chunk of block status. Its form is judged here, its meaning by the checks.
func (c *conn) chunkStatus(p *pending, chunk *chunk) {
	r := p.reply
	extended := chunk.kind == proto.ChunkBlockStatusExt
	head, size := uint64(4), uint64(8)
	if extended {
		head, size = 8, 16
	}
	switch {
	case r.request.command != proto.CmdBlockStatus:
		c.t.failf("%s: a chunk with a block status, which was not asked for", r.request)
	case extended != c.mode.extended():
		c.t.failf("%s: a block status of type %d with %s (XH-07, XH-08)",
			r.request, chunk.kind, c.mode)
	case chunk.length < head+size || (chunk.length-head)%size != 0 || chunk.length > maxStatus:
		c.t.failf("%s: a block status of %d bytes, which is not a number of whole extents (CB-03)",
			r.request, chunk.length)
	}
	if p.status += chunk.length; p.status > maxStatus {
		c.t.failf("%s: %d bytes of block status for %d contexts do not end the reply",
			r.request, p.status, len(c.contexts))
	}
	b := c.read(int(chunk.length), "a block status")
	chunk.context = binary.BigEndian.Uint32(b)
	if !slices.ContainsFunc(c.contexts, func(x metaContext) bool { return x.id == chunk.context }) {
		c.t.failf("%s: a block status for the context %d, which was not selected (CB-02)",
			r.request, chunk.context)
	}
	if r.hasStatus(chunk.context) {
		c.t.failf("%s: a second block status for the context %d (CB-02)", r.request, chunk.context)
	}
	if n := (chunk.length - head) / size; extended && uint64(binary.BigEndian.Uint32(b[4:])) != n {
		c.t.failf("%s: a block status that claims %d extents and has %d (XH-07)", r.request,
			binary.BigEndian.Uint32(b[4:]), n)
	}
	for b = b[head:]; len(b) > 0; b = b[size:] {
		x := extent{uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))}
		if extended {
			x = extent{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
		}
		if x.length == 0 {
			c.t.failf("%s: an extent of length 0 (CB-03)", r.request)
		}
		chunk.extents = append(chunk.extents, x)
	}
}

func (c *conn) chunkError(p *pending, chunk *chunk) {
	r := p.reply
	head, what := uint64(6), "ERROR (RP-09)"
	if chunk.kind == proto.ChunkErrorOffset {
		head, what = 14, "ERROR_OFFSET (RP-10)"
	}
	if chunk.length < head || chunk.length > head+proto.MaxString {
		c.t.failf("%s: a chunk %s of %d bytes", r.request, what, chunk.length)
	}
	b := c.read(int(chunk.length), "a chunk "+what)
	e := replyError{errno: binary.BigEndian.Uint32(b), located: head == 14}
	n := uint64(binary.BigEndian.Uint16(b[4:]))
	if n != chunk.length-head {
		c.t.failf("%s: a chunk %s of %d bytes with a message of %d",
			r.request, what, chunk.length, n)
	}
	message := b[6 : 6+n]
	c.checkString(message, "the message of a chunk "+what)
	e.message = string(message)
	if e.located {
		e.offset = binary.BigEndian.Uint64(b[6+n:])
		if e.offset < r.request.offset || e.offset-r.request.offset >= r.request.length {
			c.t.failf("%s: an error at %d, which is not inside the request (RP-10)",
				r.request, e.offset)
		}
	}
	if e.errno == 0 {
		c.t.failf("%s: a chunk %s with the error 0", r.request, what)
	}
	c.note(p, e)
}

func (c *conn) note(p *pending, e replyError) {
	if e.errno != 0 && !isWireError(e.errno) {
		c.t.failf("%s: %s (ER-01)", p.reply.request, errnoName(e.errno))
	}
	r := p.reply
	if len(r.errors) == 0 {
		r.errno, r.message = e.errno, e.message
	}
	r.errors = append(r.errors, e)
}

// finish judges a complete reply.
func (c *conn) finish(p *pending) {
	r := p.reply
	if r.errno != 0 {
		r.data = nil
		return
	}
	switch r.request.command {
	case proto.CmdRead:
		var sum uint64
		for _, s := range p.covered {
			sum += s.to - s.from
		}
		if !r.simple && sum != r.request.length {
			c.t.failf("%s: the chunks hold %d bytes (RP-08)", r.request, sum)
		}
	case proto.CmdBlockStatus:
		c.t.want(p.status > 0, "%s: success without a block status (CB-02)", r.request)
	}
}
