// The transmission half of the server in memory.
//
// Invariant: as in fake_test.go, it is right but for one flaw; the flaws of chunks are in how a
// right answer is packed.

package conform

import (
	"slices"
	"time"

	"ringnbd/proto"
)

// fakeRequest is a request as it was received.
type fakeRequest struct {
	flags, kind    uint16
	cookie, offset uint64
	length         uint32
	payload        []byte
}

// request serves one request, and reports whether the connection goes on.
func (c *fakeConn) request() bool {
	h := c.read(proto.RequestSize)
	if be.Uint32(h) != proto.RequestMagic && !c.is("request magic") {
		return false
	}
	r := fakeRequest{be.Uint16(h[4:]), be.Uint16(h[6:]), be.Uint64(h[8:]), be.Uint64(h[16:]),
		be.Uint32(h[24:]), nil}
	if r.kind == proto.CmdWrite {
		if r.length > 64<<20 {
			return false
		}
		r.payload = c.read(int(r.length))
	}
	if r.kind == proto.CmdDisc {
		return false
	}
	if e := c.refusal(&r); e != 0 {
		c.fail(&r, e)
		return true
	}
	c.perform(&r)
	return true
}

// fakeCommandFlags has the flags that each command may have.
var fakeCommandFlags = map[uint16]uint16{
	proto.CmdRead:        proto.CmdFlagFUA | proto.CmdFlagDF,
	proto.CmdWrite:       proto.CmdFlagFUA,
	proto.CmdFlush:       proto.CmdFlagFUA,
	proto.CmdTrim:        proto.CmdFlagFUA,
	proto.CmdWriteZeroes: proto.CmdFlagFUA | proto.CmdFlagNoHole,
	proto.CmdBlockStatus: proto.CmdFlagFUA | proto.CmdFlagReqOne,
}

// refusal returns the error for a request that must be refused, 0 for others.
func (c *fakeConn) refusal(r *fakeRequest) uint32 {
	flags, known := fakeCommandFlags[r.kind]
	if r.kind == proto.CmdRead && !c.structured {
		flags &^= proto.CmdFlagDF
	}
	size := uint64(len(c.disk))
	switch {
	case !known, r.flags&^flags != 0 && !c.is("any flag"):
		return einval
	case r.kind == proto.CmdFlush:
		return 0
	case r.kind == proto.CmdRead && r.length == fakeMax+512 && c.is("any length"):
		// this is right; the export is longer by that length
		c.endless(r)
	case (r.offset > size || uint64(r.length) > size-r.offset) &&
		(r.kind == proto.CmdWrite || r.kind == proto.CmdWriteZeroes):
		return enospc
	case r.offset > size || uint64(r.length) > size-r.offset:
		return einval
	case r.kind == proto.CmdRead && r.length > fakeMax:
		return eoverflow
	case r.kind == proto.CmdWrite && r.length > fakeMax:
		return einval
	case r.kind == proto.CmdBlockStatus && (!c.context || c.contextsOf != c.export) &&
		!c.is("keeps contexts") && !c.is("contexts of another"):
		return einval
	case r.kind == proto.CmdBlockStatus && (!c.context || r.length == 0):
		return einval
	}
	return 0
}

// endless answers a READ by data until the client is gone.
func (c *fakeConn) endless(r *fakeRequest) {
	if c.structured {
		b := be.AppendUint32(be.AppendUint32(nil, proto.ChunkMagic),
			uint32(proto.ReplyFlagDone)<<16|uint32(proto.ChunkOffsetData))
		c.send(be.AppendUint64(be.AppendUint32(be.AppendUint64(b, r.cookie), r.length), r.offset))
	} else {
		c.simple(r, 0, nil)
	}
	for {
		c.send(zeroes)
	}
}

func (c *fakeConn) simple(r *fakeRequest, e uint32, data []byte) {
	b := be.AppendUint32(nil, proto.SimpleReplyMagic)
	b = be.AppendUint32(b, e)
	b = be.AppendUint64(b, c.cookie(r))
	c.send(append(b, data...))
}

func (c *fakeConn) cookie(r *fakeRequest) uint64 {
	if c.is("cookie") {
		return r.cookie + 1
	}
	return r.cookie
}

func (c *fakeConn) chunk(r *fakeRequest, flags, kind uint16, data []byte) {
	if c.is("chunk flags") {
		flags |= 2
	}
	b := be.AppendUint32(nil, proto.ChunkMagic)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, kind)
	b = be.AppendUint64(b, c.cookie(r))
	b = be.AppendUint32(b, uint32(len(data)))
	c.send(append(b, data...))
}

func (c *fakeConn) fail(r *fakeRequest, e uint32) {
	if c.is("errno") {
		e = 121
	}
	if !c.structured || c.is("simple errors") && r.kind == proto.CmdRead {
		c.simple(r, e, nil)
		if c.is("data with an error") && r.kind == proto.CmdRead {
			c.send(make([]byte, 512))
		}
		return
	}
	if c.is("error 0") {
		e = 0
	}
	b := be.AppendUint32(nil, e)
	text := "the request is refused"
	b = be.AppendUint16(b, uint16(len(text)))
	if c.is("message length") {
		b[5]++
	}
	c.chunk(r, proto.ReplyFlagDone, proto.ChunkError, append(b, text...))
}

func (c *fakeConn) succeed(r *fakeRequest) {
	switch {
	case !c.structured:
		c.simple(r, 0, nil)
	case c.is("NONE"):
		c.chunk(r, proto.ReplyFlagDone, proto.ChunkNone, []byte{0})
	default:
		c.chunk(r, proto.ReplyFlagDone, proto.ChunkNone, nil)
	}
}

func (c *fakeConn) perform(r *fakeRequest) {
	end := r.offset + uint64(r.length)
	switch r.kind {
	case proto.CmdRead:
		if c.is("slow disk") {
			time.Sleep(40 * time.Millisecond)
		}
		c.lock.Lock()
		data := slices.Clone(c.disk[r.offset:end])
		c.lock.Unlock()
		c.performRead(r, data)
	case proto.CmdWrite:
		if !c.is("forgets writes") {
			c.lock.Lock()
			copy(c.disk[r.offset:], r.payload)
			c.lock.Unlock()
		}
		c.succeed(r)
	case proto.CmdWriteZeroes:
		if c.is("half zeroes") {
			end -= uint64(r.length) / 2
		}
		c.lock.Lock()
		clear(c.disk[r.offset:end])
		c.lock.Unlock()
		c.succeed(r)
	case proto.CmdFlush, proto.CmdTrim:
		c.succeed(r)
	case proto.CmdBlockStatus:
		c.performStatus(r)
	}
}

func (c *fakeConn) performRead(r *fakeRequest, data []byte) {
	at := be.AppendUint64(nil, r.offset)
	if c.is("outside") {
		at = be.AppendUint64(nil, r.offset+1)
	}
	content := append(at, data...)
	switch {
	case !c.structured && !c.is("structured all the same"), c.is("simple READ"):
		c.simple(r, 0, data)
	case len(data) == 0:
		c.succeed(r)
	case c.is("twice") && len(data) > 1:
		c.chunk(r, 0, proto.ChunkOffsetData, content)
		c.chunk(r, proto.ReplyFlagDone, proto.ChunkOffsetData, content[:9])
	case c.is("short READ") && len(data) > 1:
		c.chunk(r, proto.ReplyFlagDone, proto.ChunkOffsetData, content[:len(content)-1])
	case c.is("empty hole"):
		c.chunk(r, 0, proto.ChunkOffsetData, content)
		c.chunk(r, proto.ReplyFlagDone, proto.ChunkOffsetHole, append(at, 0, 0, 0, 0))
	case c.is("chunk type"):
		c.chunk(r, proto.ReplyFlagDone, 77, content)
	case r.flags&proto.CmdFlagDF == 0 && zero(data):
		c.chunk(r, proto.ReplyFlagDone, proto.ChunkOffsetHole, be.AppendUint32(at, r.length))
	case c.is("DF in pieces") && len(data) > 1:
		c.chunk(r, 0, proto.ChunkOffsetData, content[:9])
		c.chunk(r, proto.ReplyFlagDone, proto.ChunkOffsetData,
			append(be.AppendUint64(nil, r.offset+1), data[1:]...))
	default:
		c.chunk(r, proto.ReplyFlagDone, proto.ChunkOffsetData, content)
	}
}

// performStatus answers in runs of blocks of 4 KiB; a block of zeroes is a hole.
func (c *fakeConn) performStatus(r *fakeRequest) {
	const block = 4096
	id := uint32(7)
	if c.is("context id") {
		id = 8
	}
	b := be.AppendUint32(nil, id)
	c.lock.Lock()
	disk := slices.Clone(c.disk[r.offset : r.offset+uint64(r.length)])
	c.lock.Unlock()
	var length, status uint32
	for at := r.offset; at < r.offset+uint64(r.length); {
		n := min(block-at%block, r.offset+uint64(r.length)-at)
		s := uint32(0)
		if zero(disk[at-r.offset:at-r.offset+n]) || c.is("zero status") ||
			c.is("unlisted, and zero") {
			s = proto.StatusHole | proto.StatusZero
		}
		if s != status && length > 0 {
			b = be.AppendUint32(be.AppendUint32(b, length), status)
			length = 0
			if r.flags&proto.CmdFlagReqOne != 0 && !c.is("REQ_ONE") {
				break
			}
		}
		length, status, at = length+uint32(n), s, at+n
	}
	if length > 0 {
		b = be.AppendUint32(be.AppendUint32(b, length), status)
	}
	if c.is("empty extent") {
		b = append(b, make([]byte, 8)...)
	}
	for c.is("status without end") || c.is("status twice") {
		c.chunk(r, 0, proto.ChunkBlockStatus, b)
		if c.is("status twice") {
			break
		}
	}
	c.chunk(r, proto.ReplyFlagDone, proto.ChunkBlockStatus, b)
}
