// The client's side of structured replies and extended headers: chunk headers, what stands in a
// chunk, requests of 32 bytes. Invariant: no length of the server is believed before it is compared
// with the bytes at hand, nothing here allocates, and what a caller is given is well-formed by
// itself; whether it fits the request is for who knows that.

package proto

import (
	"encoding/binary"
	"errors"
)

// Errors of a server whose chunks break the rules. None of them can be recovered from but by
// closing.
var (
	ErrSimpleReply = errors.New("the server's reply has a wrong magic: the connection is out of " +
		"step")
	ErrChunk = errors.New("the server's reply chunk has a wrong magic: the connection is " +
		"out of step")
	ErrChunkShape = errors.New("the server's reply chunk has a length or flags that its type " +
		"does not have")
	ErrExtent = errors.New("the server's block status has an extent of no length")
)

// ParseSimpleReply takes apart the first SimpleReplySize bytes of b, which must be that long. Data
// follows them if the request was a READ and the error is Success. A value that is not in the spec
// counts as EINVAL, as the spec has it.
func ParseSimpleReply(b []byte) (cookie uint64, e Errno, err error) {
	_ = b[SimpleReplySize-1]
	if binary.BigEndian.Uint32(b) != SimpleReplyMagic {
		return 0, 0, ErrSimpleReply
	}
	e = Errno(binary.BigEndian.Uint32(b[4:]))
	if !e.valid() {
		e = EINVAL
	}
	return binary.BigEndian.Uint64(b[8:]), e, nil
}

// ReplyChunk is the header of a chunk, of either layout ("Structured reply chunk message",
// "Extended reply chunk message"); Length bytes follow it.
type ReplyChunk struct {
	Cookie uint64
	Offset uint64 // of the request; of extended headers only
	Length uint64 // bytes
	Flags  uint16 // ReplyFlag...
	Type   uint16 // Chunk...
}

// Done says whether this is the last chunk of its reply.
func (c *ReplyChunk) Done() bool { return c.Flags&ReplyFlagDone != 0 }

// Failed says whether this chunk is an error, of a known type or not.
func (c *ReplyChunk) Failed() bool { return c.Type&ChunkErrorBit != 0 }

// ParseReplyChunk takes apart the first ChunkSize bytes of b, which must be that long.
func ParseReplyChunk(b []byte) (ReplyChunk, error) {
	_ = b[ChunkSize-1]
	if binary.BigEndian.Uint32(b) != ChunkMagic {
		return ReplyChunk{}, ErrChunk
	}
	c := ReplyChunk{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Length: uint64(binary.BigEndian.Uint32(b[16:])),
	}
	return c, c.check(false)
}

// ParseExtReplyChunk takes apart the first ExtReplySize bytes of b, which must be that long.
func ParseExtReplyChunk(b []byte) (ReplyChunk, error) {
	_ = b[ExtReplySize-1]
	if binary.BigEndian.Uint32(b) != ExtReplyMagic {
		return ReplyChunk{}, ErrChunk
	}
	c := ReplyChunk{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint64(b[24:]),
	}
	return c, c.check(true)
}

// check compares the length with the type ("Structured reply types"). Types that are not known
// pass: only who negotiated knows whether they may come.
func (c *ReplyChunk) check(extended bool) error {
	ok := c.Flags&^ReplyFlagDone == 0
	switch c.Type {
	case ChunkNone:
		ok = ok && c.Length == 0 && c.Done()
	case ChunkOffsetData:
		ok = ok && c.Length > 8
	case ChunkOffsetHole:
		ok = ok && c.Length == HoleSize
	case ChunkBlockStatus:
		ok = ok && !extended && c.Length >= 4+8 && (c.Length-4)%8 == 0 &&
			(c.Length-4)/8 <= MaxExtents
	case ChunkBlockStatusExt:
		ok = ok && extended && c.Length >= 8+16 && (c.Length-8)%16 == 0 &&
			(c.Length-8)/16 <= MaxExtents
	case ChunkError:
		ok = ok && c.Length >= 6 && c.Length <= ErrorChunkMost
	case ChunkErrorOffset:
		ok = ok && c.Length >= 14 && c.Length <= ErrorChunkMost
	}
	if !ok {
		return ErrChunkShape
	}
	return nil
}

// ParseHoleChunk takes apart the HoleSize bytes of an OFFSET_HOLE, which b must have.
func ParseHoleChunk(b []byte) (offset uint64, length uint32, err error) {
	_ = b[HoleSize-1]
	offset, length = binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	if length == 0 {
		err = ErrChunkShape
	}
	return offset, length, err
}

// ParseDataOffset is the offset that the first 8 bytes of an OFFSET_DATA are; b must have them.
func ParseDataOffset(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// ParseErrorChunk takes apart all of an error's payload, by the type of its chunk. The text is a
// part of b, unchecked. at is the offset of the failure, and meaningless but with ChunkErrorOffset.
// Of a type that is not known, only the error is understood. A value that is not in the spec counts
// as EINVAL, as does success, which is no error.
func ParseErrorChunk(kind uint16, b []byte) (e Errno, text []byte, at uint64, err error) {
	if len(b) < 6 {
		if kind != ChunkError && kind != ChunkErrorOffset && len(b) < 4 {
			return EINVAL, nil, 0, nil // an unknown error, which may have any shape
		}
		if len(b) < 4 || kind == ChunkError || kind == ChunkErrorOffset {
			return 0, nil, 0, ErrChunkShape
		}
	}
	if e = Errno(binary.BigEndian.Uint32(b)); !e.valid() || e == Success {
		e = EINVAL
	}
	if kind != ChunkError && kind != ChunkErrorOffset {
		return e, nil, 0, nil
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	rest := b[6:]
	switch {
	case kind == ChunkError && n != len(rest), kind == ChunkErrorOffset && n+8 != len(rest):
		return 0, nil, 0, ErrChunkShape
	case kind == ChunkErrorOffset:
		at = binary.BigEndian.Uint64(rest[n:])
	}
	return e, rest[:n], at, nil
}

// StatusExtent is one descriptor of a block status.
type StatusExtent struct {
	Length uint64 // bytes, never 0
	Flags  uint64 // what they mean depends on the context
}

// ParseStatusHead takes apart the head of a block status chunk whose header passed the parser: the
// context, and how many descriptors follow. b must have as many bytes as StatusSizes says.
func ParseStatusHead(c *ReplyChunk, b []byte) (context uint32, count uint64, err error) {
	head, extent := StatusSizes(c.Type)
	_ = b[head-1]
	count = (c.Length - uint64(head)) / uint64(extent)
	if c.Type == ChunkBlockStatusExt && uint64(binary.BigEndian.Uint32(b[4:])) != count {
		return 0, 0, ErrChunkShape
	}
	return binary.BigEndian.Uint32(b), count, nil
}

// ParseStatusExtent takes apart one descriptor. b must have as many bytes as StatusSizes says.
func ParseStatusExtent(kind uint16, b []byte) (e StatusExtent, err error) {
	if kind == ChunkBlockStatusExt {
		e = StatusExtent{Length: binary.BigEndian.Uint64(b), Flags: binary.BigEndian.Uint64(b[8:])}
	} else {
		e = StatusExtent{Length: uint64(binary.BigEndian.Uint32(b)),
			Flags: uint64(binary.BigEndian.Uint32(b[4:]))}
	}
	if e.Length == 0 {
		err = ErrExtent
	}
	return e, err
}
