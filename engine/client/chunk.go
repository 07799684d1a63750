// Chunks of structured replies, of both layouts.
//
// Invariant: what a chunk says lies inside its request, is said once, and a reply that ends without
// an error is complete.

package client

import (
	"bytes"
	"unicode/utf8"

	"ringnbd/proto"
)

// maxErrors limits the error chunks of one reply: each of them is valid, but a server that sends
// them without end would keep its request for ever.
const maxErrors = 1 << 10

// readChunk reads what follows a chunk's header.
func (c *Conn) readChunk(head *proto.ReplyChunk) error {
	r, err := c.findRequest(head.Cookie)
	if err != nil {
		return err
	}
	if c.Framing == proto.Extended && head.Offset != r.Offset {
		return violated("a reply for offset %d to a request of offset %d", head.Offset, r.Offset)
	}
	r.begun = true
	switch kind := head.Type; {
	case head.Failed():
		err = c.readError(r, head)
	case kind == proto.ChunkNone:
	case kind == proto.ChunkOffsetData && r.Command == proto.CmdRead:
		err = c.readData(r, head)
	case kind == proto.ChunkOffsetHole && r.Command == proto.CmdRead:
		err = c.readHole(r)
	case (kind == proto.ChunkBlockStatus || kind == proto.ChunkBlockStatusExt) &&
		r.Command == proto.CmdBlockStatus:
		err = c.readStatus(r, head)
	default:
		err = violated("a chunk of type %d in the answer to %s", kind, CommandName(r.Command))
	}
	if err != nil || !head.Done() {
		return err
	}
	if r.err == nil {
		switch {
		case r.Command == proto.CmdRead && !r.received.isWhole(r.Offset, r.Offset+r.requested):
			return violated("the answer to READ of %d bytes at offset %d has gaps", r.requested,
				r.Offset)
		case r.Command == proto.CmdBlockStatus && r.contextsDone != 1<<len(c.contexts)-1:
			return violated("the answer to BLOCK_STATUS leaves out a meta context")
		}
	}
	c.finish(r)
	return nil
}

// destination checks a part of a READ's answer and returns its memory.
func (r *Request) destination(offset, length uint64) ([]byte, error) {
	if offset < r.Offset || offset-r.Offset >= r.requested ||
		length > r.requested-(offset-r.Offset) {
		return nil, violated("%d bytes for offset %d in the answer to READ of %d bytes at "+
			"offset %d", length, offset, r.requested, r.Offset)
	}
	if err := r.received.add(offset, offset+length); err != nil {
		return nil, err
	}
	return r.Data[offset-r.Offset:][:length], nil
}

// readData reads a chunk of data into the request's memory.
func (c *Conn) readData(r *Request, head *proto.ReplyChunk) error {
	b, err := c.next(8, peek)
	if err != nil {
		return err
	}
	memory, err := r.destination(proto.ParseDataOffset(b), head.Length-8)
	if err != nil {
		return err
	}
	c.consume(8)
	return c.readFull(memory)
}

// readHole clears the part of the request's memory that a hole covers.
func (c *Conn) readHole(r *Request) error {
	b, err := c.next(proto.HoleSize, peek)
	if err != nil {
		return err
	}
	offset, length, err := proto.ParseHoleChunk(b)
	if err != nil {
		return violation{err.Error()}
	}
	memory, err := r.destination(offset, uint64(length))
	if err != nil {
		return err
	}
	c.consume(proto.HoleSize)
	clear(memory)
	return nil
}

// readError reads an error chunk, of a known type or not. The longest error is a little longer than
// the stage, so it has a buffer of its own.
func (c *Conn) readError(r *Request, head *proto.ReplyChunk) error {
	switch {
	case head.Length > proto.MaxErrorChunk:
		return violated("an error of %d bytes", head.Length)
	case r.errors >= maxErrors:
		return violated("more than %d errors in one reply", maxErrors)
	case uint64(cap(c.reader.text)) < head.Length:
		c.reader.text = make([]byte, proto.MaxErrorChunk)
	}
	b := c.reader.text[:head.Length]
	if err := c.readFull(b); err != nil {
		return err
	}
	errno, text, at, err := proto.ParseErrorChunk(head.Type, b)
	if err != nil {
		return violation{err.Error()}
	}
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte("?"))
	}
	first := r.err == nil
	r.noteError(errno, text[:min(len(text), proto.MaxString)])
	if head.Type == proto.ChunkErrorOffset {
		if at < r.Offset || at-r.Offset >= max(r.requested, 1) {
			return violated("an error at offset %d in the answer to %s of %d bytes at offset %d",
				at, CommandName(r.Command), r.requested, r.Offset)
		}
		if first {
			r.failure.At, r.failure.Located = at, true
		}
	}
	return nil
}

// readStatus reads the extents of one context.
func (c *Conn) readStatus(r *Request, head *proto.ReplyChunk) error {
	top, size := proto.StatusSizes(head.Type)
	b, err := c.next(top, peek)
	if err != nil {
		return err
	}
	id, count, err := proto.ParseStatusHead(head, b)
	if err != nil {
		return violation{err.Error()}
	}
	c.consume(top)
	if err := c.markContext(r, id); err != nil {
		return err
	}
	described := uint64(0)
	for i := range count {
		if b, err = c.next(size, stageSize); err != nil {
			return err
		}
		e, err := proto.ParseStatusExtent(head.Type, b)
		if err != nil {
			return violation{err.Error()}
		}
		c.consume(size)
		if described >= r.requested && i > 0 {
			return violated("extents after the end of what BLOCK_STATUS asked for")
		}
		if e.Length > roundedSize(c.Size)-(r.Offset+described) {
			return violated("an extent of %d bytes at offset %d, beyond the end of the export "+
				"of %d bytes", e.Length, r.Offset+described, c.Size)
		}
		e.Length = min(e.Length, c.Size-(r.Offset+described))
		described += e.Length
		if id == r.Context {
			r.Extents = append(r.Extents, e)
		}
	}
	return nil
}

// roundedSize returns how far an extent may reach: some servers round the end of an export up to a
// sector.
func roundedSize(size uint64) uint64 { return (size + 511) &^ 511 }

// markContext notes that the reply has the extents of a context.
func (c *Conn) markContext(r *Request, id uint32) error {
	for i := range c.contexts {
		if c.contexts[i].id != id {
			continue
		}
		if r.contextsDone&(1<<i) != 0 {
			return violated("two answers for one meta context")
		}
		r.contextsDone |= 1 << i
		return nil
	}
	return violated("an answer for a meta context that was not selected")
}
