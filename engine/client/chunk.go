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

// errorsMost bounds the error chunks of one reply: each has a right to exist, but a server that
// sends them without end keeps its request for ever.
const errorsMost = 1 << 10

// chunk is what follows a chunk's header.
func (c *Conn) chunk(head *proto.ReplyChunk) error {
	r, err := c.find(head.Cookie)
	if err != nil {
		return err
	}
	if c.Framing == proto.Extended && head.Offset != r.Offset {
		return violated("a reply for offset %d to a request of offset %d", head.Offset, r.Offset)
	}
	r.begun = true
	switch kind := head.Type; {
	case head.Failed():
		err = c.failed(r, head)
	case kind == proto.ChunkNone:
	case kind == proto.ChunkOffsetData && r.Command == proto.CmdRead:
		err = c.data(r, head)
	case kind == proto.ChunkOffsetHole && r.Command == proto.CmdRead:
		err = c.hole(r)
	case (kind == proto.ChunkBlockStatus || kind == proto.ChunkBlockStatusExt) &&
		r.Command == proto.CmdBlockStatus:
		err = c.status(r, head)
	default:
		err = violated("a chunk of type %d in the answer to %s", kind, CommandName(r.Command))
	}
	if err != nil || !head.Done() {
		return err
	}
	if r.err == nil {
		switch {
		case r.Command == proto.CmdRead && !r.have.whole(r.Offset, r.Offset+r.asked):
			return violated("the answer to READ of %d bytes at offset %d has gaps", r.asked,
				r.Offset)
		case r.Command == proto.CmdBlockStatus && r.replied != 1<<len(c.Contexts)-1:
			return violated("the answer to BLOCK_STATUS leaves out a meta context")
		}
	}
	c.finish(r)
	return nil
}

// place checks a part of a READ and finds its memory.
func (r *Request) place(offset, length uint64) ([]byte, error) {
	if offset < r.Offset || offset-r.Offset >= r.asked || length > r.asked-(offset-r.Offset) {
		return nil,
			violated("%d bytes for offset %d in the answer to READ of %d bytes at offset %d",
				length, offset, r.asked, r.Offset)
	}
	if err := r.have.add(offset, offset+length); err != nil {
		return nil, err
	}
	return r.Data[offset-r.Offset:][:length], nil
}

func (c *Conn) data(r *Request, head *proto.ReplyChunk) error {
	b, err := c.need(8, peek)
	if err != nil {
		return err
	}
	memory, err := r.place(proto.ParseDataOffset(b), head.Length-8)
	if err != nil {
		return err
	}
	c.use(8)
	return c.fill(memory)
}

func (c *Conn) hole(r *Request) error {
	b, err := c.need(proto.HoleSize, peek)
	if err != nil {
		return err
	}
	offset, length, err := proto.ParseHoleChunk(b)
	if err != nil {
		return violation{err.Error()}
	}
	memory, err := r.place(offset, uint64(length))
	if err != nil {
		return err
	}
	c.use(proto.HoleSize)
	clear(memory)
	return nil
}

// failed is an error chunk, of a type that is known or not. The longest there may be is a little
// longer than the stage, so it has a place of its own.
func (c *Conn) failed(r *Request, head *proto.ReplyChunk) error {
	switch {
	case head.Length > proto.MaxErrorChunk:
		return violated("an error of %d bytes", head.Length)
	case r.errors >= errorsMost:
		return violated("more than %d errors in one reply", errorsMost)
	case uint64(cap(c.reader.text)) < head.Length:
		c.reader.text = make([]byte, proto.MaxErrorChunk)
	}
	b := c.reader.text[:head.Length]
	if err := c.fill(b); err != nil {
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
	r.refuse(errno, text[:min(len(text), proto.MaxString)])
	if head.Type == proto.ChunkErrorOffset {
		if at < r.Offset || at-r.Offset >= max(r.asked, 1) {
			return violated("an error at offset %d in the answer to %s of %d bytes at offset %d",
				at, CommandName(r.Command), r.asked, r.Offset)
		}
		if first {
			r.failure.At, r.failure.Located = at, true
		}
	}
	return nil
}

// status is the extents of one context.
func (c *Conn) status(r *Request, head *proto.ReplyChunk) error {
	top, size := proto.StatusSizes(head.Type)
	b, err := c.need(top, peek)
	if err != nil {
		return err
	}
	id, count, err := proto.ParseStatusHead(head, b)
	if err != nil {
		return violation{err.Error()}
	}
	c.use(top)
	if err := c.answered(r, id); err != nil {
		return err
	}
	told := uint64(0)
	for i := range count {
		if b, err = c.need(size, stageSize); err != nil {
			return err
		}
		e, err := proto.ParseStatusExtent(head.Type, b)
		if err != nil {
			return violation{err.Error()}
		}
		c.use(size)
		if told >= r.asked && i > 0 {
			return violated("extents behind the end of what BLOCK_STATUS asked for")
		}
		if e.Length > tail(c.Size)-(r.Offset+told) {
			return violated("an extent of %d bytes at offset %d, beyond the end of the export "+
				"of %d bytes", e.Length, r.Offset+told, c.Size)
		}
		e.Length = min(e.Length, c.Size-(r.Offset+told))
		told += e.Length
		if id == r.Context {
			r.Extents = append(r.Extents, e)
		}
	}
	return nil
}

// tail is how far an extent may reach: some servers round the end of an export up to a sector.
func tail(size uint64) uint64 { return (size + 511) &^ 511 }

// answered notes that a context was answered for.
func (c *Conn) answered(r *Request, id uint32) error {
	for i := range c.Contexts {
		if c.Contexts[i].ID != id {
			continue
		}
		if r.replied&(1<<i) != 0 {
			return violated("two answers for one meta context")
		}
		r.replied |= 1 << i
		return nil
	}
	return violated("an answer for a meta context that was not selected")
}
