// The client's side of the transmission phase: simple replies, headers of chunks, and their
// payloads.
//
// Invariant: no length of the server is believed before it is compared with the bytes at hand;
// nothing here allocates; results are well-formed, and the caller checks them against its request.

package proto

import (
	"encoding/binary"
	"errors"
)

// Errors of a server whose replies break the rules. After any of them the connection must be
// closed.
var (
	errSimpleReply = errors.New("the server's reply has a wrong magic: the connection is out of " +
		"step")
	errChunk = errors.New("the server's reply chunk has a wrong magic: the connection is " +
		"out of step")
	errChunkShape = errors.New("the server's reply chunk has a length or flags that its type " +
		"does not have")
	errExtent = errors.New("the server's block status has an extent of no length")
)

// ParseSimpleReply parses the first SimpleReplySize bytes of b, which must be that long. Data
// follows them if the request was a READ and the error is Success. A value that is not in the spec
// counts as EINVAL, as the spec demands.
func ParseSimpleReply(b []byte) (cookie uint64, e Errno, err error) {
	_ = b[SimpleReplySize-1]
	if binary.BigEndian.Uint32(b) != SimpleReplyMagic {
		return 0, 0, errSimpleReply
	}
	e = Errno(binary.BigEndian.Uint32(b[4:]))
	if !e.inSpec() {
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

// Done reports whether this is the last chunk of its reply.
func (c *ReplyChunk) Done() bool { return c.Flags&ReplyFlagDone != 0 }

// Failed reports whether this chunk is an error, of a known type or not.
func (c *ReplyChunk) Failed() bool { return c.Type&ChunkErrorBit != 0 }

// ParseReplyChunk parses the first ChunkSize bytes of b, which must be that long.
func ParseReplyChunk(b []byte) (ReplyChunk, error) {
	_ = b[ChunkSize-1]
	if binary.BigEndian.Uint32(b) != ChunkMagic {
		return ReplyChunk{}, errChunk
	}
	c := ReplyChunk{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Length: uint64(binary.BigEndian.Uint32(b[16:])),
	}
	return c, c.check(false)
}

// ParseExtReplyChunk parses the first ExtReplySize bytes of b, which must be that long.
func ParseExtReplyChunk(b []byte) (ReplyChunk, error) {
	_ = b[ExtReplySize-1]
	if binary.BigEndian.Uint32(b) != ExtReplyMagic {
		return ReplyChunk{}, errChunk
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

// check compares the length with the type ("Structured reply types"). Unknown types pass: what was
// negotiated decides whether they may come, and is not known here.
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
		ok = ok && c.Length >= 6 && c.Length <= MaxErrorChunk
	case ChunkErrorOffset:
		ok = ok && c.Length >= 14 && c.Length <= MaxErrorChunk
	}
	if !ok {
		return errChunkShape
	}
	return nil
}

// ParseHoleChunk parses the HoleSize bytes of an OFFSET_HOLE, which b must have.
func ParseHoleChunk(b []byte) (offset uint64, length uint32, err error) {
	_ = b[HoleSize-1]
	offset, length = binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	if length == 0 {
		err = errChunkShape
	}
	return offset, length, err
}

// ParseDataOffset parses the offset in the first 8 bytes of an OFFSET_DATA, which b must have.
func ParseDataOffset(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// ParseErrorChunk parses the whole payload of an error, by the type of its chunk. The text is a
// part of b, unchecked. at is the offset of the failure, meaningful only with ChunkErrorOffset. Of
// an unknown type only the error value is parsed. A value that is not in the spec counts as EINVAL,
// as does Success, which is not an error.
func ParseErrorChunk(kind uint16, b []byte) (e Errno, text []byte, at uint64, err error) {
	if len(b) < 6 {
		if kind != ChunkError && kind != ChunkErrorOffset && len(b) < 4 {
			return EINVAL, nil, 0, nil // an unknown error, which may have any shape
		}
		if len(b) < 4 || kind == ChunkError || kind == ChunkErrorOffset {
			return 0, nil, 0, errChunkShape
		}
	}
	if e = Errno(binary.BigEndian.Uint32(b)); !e.inSpec() || e == Success {
		e = EINVAL
	}
	if kind != ChunkError && kind != ChunkErrorOffset {
		return e, nil, 0, nil
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	rest := b[6:]
	switch {
	case kind == ChunkError && n != len(rest), kind == ChunkErrorOffset && n+8 != len(rest):
		return 0, nil, 0, errChunkShape
	case kind == ChunkErrorOffset:
		at = binary.BigEndian.Uint64(rest[n:])
	}
	return e, rest[:n], at, nil
}

// StatusExtent is one descriptor of a block status.
type StatusExtent struct {
	Length uint64 // bytes, never 0
	Flags  uint64 // their meaning depends on the context
}

// ParseStatusHead parses the head of a block status chunk whose header passed its parser: the
// context, and how many descriptors follow. b must have the size that StatusSizes returns.
func ParseStatusHead(c *ReplyChunk, b []byte) (context uint32, count uint64, err error) {
	head, extent := StatusSizes(c.Type)
	_ = b[head-1]
	count = (c.Length - uint64(head)) / uint64(extent)
	if c.Type == ChunkBlockStatusExt && uint64(binary.BigEndian.Uint32(b[4:])) != count {
		return 0, 0, errChunkShape
	}
	return binary.BigEndian.Uint32(b), count, nil
}

// ParseStatusExtent parses one descriptor. b must have the size that StatusSizes returns.
func ParseStatusExtent(kind uint16, b []byte) (e StatusExtent, err error) {
	if kind == ChunkBlockStatusExt {
		e = StatusExtent{Length: binary.BigEndian.Uint64(b), Flags: binary.BigEndian.Uint64(b[8:])}
	} else {
		e = StatusExtent{Length: uint64(binary.BigEndian.Uint32(b)),
			Flags: uint64(binary.BigEndian.Uint32(b[4:]))}
	}
	if e.Length == 0 {
		err = errExtent
	}
	return e, err
}
