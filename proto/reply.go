// Replies of the transmission phase, written into memory of the caller.
//
// Invariant: nothing here allocates, or keeps what it was given.

package proto

import "encoding/binary"

// PutSimpleReply writes the SimpleReplySize bytes of a simple reply to b, which must be that long.
// The data of a READ follows it if, and only if, e is Success ("Simple reply message").
func PutSimpleReply(b []byte, cookie uint64, e Errno) {
	_ = b[SimpleReplySize-1]
	binary.BigEndian.PutUint32(b, SimpleReplyMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(e))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// ChunkHeaderSize returns the length of a chunk's header, in bytes.
func (f Framing) ChunkHeaderSize() int {
	if f == Extended {
		return ExtReplySize
	}
	return ChunkSize
}

// PutChunk writes the header of one chunk of the reply to r, and returns its length in bytes
// ("Structured reply chunk message", "Extended reply chunk message"). payload is how many bytes
// follow the header; done marks the last chunk of the reply. The extended form repeats the offset
// of the request.
func (f Framing) PutChunk(b []byte, r *Request, kind uint16, payload uint64, done bool) int {
	n := f.ChunkHeaderSize()
	_ = b[n-1]
	var flags uint16
	if done {
		flags = ReplyFlagDone
	}
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
	if f == Extended {
		binary.BigEndian.PutUint32(b, ExtReplyMagic)
		binary.BigEndian.PutUint64(b[16:], r.Offset)
		binary.BigEndian.PutUint64(b[24:], payload)
		return n
	}
	binary.BigEndian.PutUint32(b, ChunkMagic)
	binary.BigEndian.PutUint32(b[16:], uint32(payload))
	return n
}

// Maximum lengths of whole chunks, in bytes, whatever the framing.
const (
	MaxHole  = ExtReplySize + 8 + 4
	MaxError = ExtReplySize + 4 + 2 + maxComplaint
)

// PutData writes the header and the offset of a chunk with n bytes of data from off. The data
// follows.
func (f Framing) PutData(b []byte, r *Request, off, n uint64, done bool) int {
	at := f.PutChunk(b, r, ChunkOffsetData, 8+n, done)
	binary.BigEndian.PutUint64(b[at:], off)
	return at + 8
}

// PutHole writes a whole chunk that stands for n zeroes from off. n must be less than 4 GiB.
func (f Framing) PutHole(b []byte, r *Request, off, n uint64, done bool) int {
	at := f.PutChunk(b, r, ChunkOffsetHole, 8+4, done)
	binary.BigEndian.PutUint64(b[at:], off)
	binary.BigEndian.PutUint32(b[at+8:], uint32(n))
	return at + 8 + 4
}

// PutNone writes a whole chunk that says only that the request has succeeded.
func (f Framing) PutNone(b []byte, r *Request) int {
	return f.PutChunk(b, r, ChunkNone, 0, true)
}

// PutError writes a whole error chunk, the last of its reply, with a text of at most maxComplaint
// bytes.
func (f Framing) PutError(b []byte, r *Request, e Errno, text []byte) int {
	at := f.PutChunk(b, r, ChunkError, uint64(4+2+len(text)), true)
	binary.BigEndian.PutUint32(b[at:], uint32(e))
	binary.BigEndian.PutUint16(b[at+4:], uint16(len(text)))
	return at + 6 + copy(b[at+6:], text)
}

// StatusKind returns the type of a chunk of block status in this framing. Its payload is a head,
// then extents.
func (f Framing) StatusKind() uint16 {
	if f == Extended {
		return ChunkBlockStatusExt
	}
	return ChunkBlockStatus
}

// StatusHeadSize returns the length of the head of a block status, in bytes.
func (f Framing) StatusHeadSize() int {
	head, _ := StatusSizes(f.StatusKind())
	return head
}

// ExtentSize returns the length of one extent, in bytes.
func (f Framing) ExtentSize() int {
	_, extent := StatusSizes(f.StatusKind())
	return extent
}

// PutStatusHead writes the head of a block status: the context, and with extended headers the
// number of extents.
func (f Framing) PutStatusHead(b []byte, context, extents uint32) {
	binary.BigEndian.PutUint32(b, context)
	if f == Extended {
		binary.BigEndian.PutUint32(b[4:], extents)
	}
}

// PutExtent writes one extent. Without extended headers length and status must fit in 32 bits.
func (f Framing) PutExtent(b []byte, length, status uint64) {
	if f == Extended {
		binary.BigEndian.PutUint64(b, length)
		binary.BigEndian.PutUint64(b[8:], status)
		return
	}
	binary.BigEndian.PutUint32(b, uint32(length))
	binary.BigEndian.PutUint32(b[4:], uint32(status))
}
