// The flawed server's answers: what it does with a request that it did not refuse, and how it packs
// the reply.
//
// Invariant: as in flawed_test.go.

package conform

import (
	"bytes"

	"ringnbd/proto"
)

// chunk is the raw parts of a chunk, for the flaws that proto could not pack.
func (c *flawedConn) chunk(r *proto.Request, kind uint16, done bool, payload ...byte) {
	if c.is("no DONE") {
		done = false
	}
	b := make([]byte, proto.ExtReplySize)
	b = append(b[:c.Framing.PutChunk(b, r, kind, uint64(len(payload)), done)], payload...)
	if c.Framing == proto.Extended && c.is("offset of the chunk") && len(payload) >= 8 {
		copy(b[16:24], payload[:8])
	}
	c.send(b)
}

func (c *flawedConn) simple(r *proto.Request, e proto.Errno, data []byte) {
	b := make([]byte, proto.SimpleReplySize)
	proto.PutSimpleReply(b, r.Cookie, e)
	c.send(append(b, data...))
}

func (c *flawedConn) fail(r *proto.Request, e proto.Errno) {
	switch {
	case c.Framing == proto.Simple,
		c.Framing == proto.Structured && c.is("simple errors") && r.Command != proto.CmdRead,
		c.Framing == proto.Extended && c.is("simple in extended"):
		c.simple(r, e, nil)
		if c.Framing == proto.Simple && c.is("data with an error") && r.Command == proto.CmdRead {
			c.send(make([]byte, 512))
		}
		return
	}
	text := "the request is refused"
	if c.is("no text") {
		text = ""
	}
	b := append(be.AppendUint16(be.AppendUint32(nil, uint32(e)), uint16(len(text))), text...)
	switch {
	case c.is("errors with offsets") && r.Length > 0 && r.Offset <= 1<<62:
		c.chunk(r, proto.ChunkErrorOffset, true, be.AppendUint64(b, r.Offset)...)
	case c.is("errors outside"):
		c.chunk(r, proto.ChunkErrorOffset, true, be.AppendUint64(b, r.Offset+r.Length)...)
	case c.is("two errors"):
		c.chunk(r, proto.ChunkError, false, b...)
		c.chunk(r, proto.ChunkError, true, b...)
	case c.is("short error"):
		c.chunk(r, proto.ChunkError, true, b[:4]...)
	default:
		c.chunk(r, proto.ChunkError, true, b...)
	}
}

func (c *flawedConn) succeed(r *proto.Request) {
	switch {
	case c.Framing == proto.Simple, c.Framing == proto.Extended && c.is("simple in extended"):
		c.simple(r, 0, nil)
	case c.is("data in every reply") && r.Command != proto.CmdRead:
		c.chunk(r, proto.ChunkOffsetData, true, make([]byte, 9)...)
	case c.is("unknown chunk"):
		c.chunk(r, 9, true)
	default:
		c.chunk(r, proto.ChunkNone, true)
	}
}

func (c *flawedConn) perform(r *proto.Request, payload []byte) {
	end := r.Offset + r.Length
	inside := end >= r.Offset && end <= c.facts.Size
	switch r.Command {
	case proto.CmdRead:
		data := make([]byte, min(r.Length, 64<<20))
		c.lock.Lock()
		if r.Offset < c.facts.Size {
			copy(data, c.bytes()[c.place(r.Offset):])
		}
		if c.is("one lock") {
			defer c.lock.Unlock()
		} else {
			c.lock.Unlock()
		}
		c.performRead(r, data)
		return
	case proto.CmdWrite:
		c.performWrite(r, payload)
	case proto.CmdTrim, proto.CmdWriteZeroes:
		if inside {
			c.performZeroes(r)
		}
	case proto.CmdCache:
		if c.is("CACHE changes") {
			c.change(r.Offset, r.Offset+1, 0xcc)
		}
	case proto.CmdBlockStatus:
		c.performStatus(r, payload)
		return
	}
	c.succeed(r)
}

func (c *flawedConn) performWrite(r *proto.Request, payload []byte) {
	at := r.Offset
	switch {
	case at > c.facts.Size || c.is("forgets FUA") && r.Flags&proto.CmdFlagFUA != 0:
		return
	case c.is("rounds down"):
		at = at / 512 * 512
	case c.is("loses the last byte") && len(payload) > 1:
		payload = payload[:len(payload)-1]
	case c.is("writes one more"):
		payload = append(payload, 0x99)
	}
	write := func() {
		c.lock.Lock()
		copy(c.bytes()[c.place(at):], payload)
		c.lock.Unlock()
	}
	if c.is("DISC loses") {
		c.late = &write
		return
	}
	write()
}

func (c *flawedConn) performZeroes(r *proto.Request) {
	from := c.place(r.Offset)
	to := from + r.Length
	switch {
	case r.Command == proto.CmdTrim && c.is("TRIM outward"),
		r.Command == proto.CmdWriteZeroes && c.is("zeroes outward"):
		from, to = from/4096*4096, (to+4095)/4096*4096
	case c.is("zeroes inward") && r.Command == proto.CmdWriteZeroes:
		from, to = (from+511)/512*512, to/512*512
	case c.is("zeroes of 4 MiB") && r.Command == proto.CmdWriteZeroes:
		to = min(to, from+4<<20)
	}
	c.noHole = c.noHole || r.Flags&proto.CmdFlagNoHole != 0
	if from < to {
		c.lock.Lock()
		clear(c.bytes()[from:min(to, c.facts.Size)])
		c.lock.Unlock()
	}
}

func (c *flawedConn) performRead(r *proto.Request, data []byte) {
	if c.is("swapped") && len(c.last) == len(data) && len(data) > 4096 {
		c.last, data = data, c.last
	} else {
		c.last = data
	}
	if c.is("holes are full") && zero(data) {
		data = bytes.Repeat([]byte{0xff}, len(data))
	}
	if c.Framing == proto.Simple {
		c.simple(r, 0, data)
		if c.is("answers twice") {
			c.simple(r, 0, data)
		}
		return
	}
	head := be.AppendUint64(nil, r.Offset)
	half := uint64(len(data) / 2)
	switch {
	case len(data) == 0 && c.is("empty data"):
		c.chunk(r, proto.ChunkOffsetData, true, head...)
	case len(data) == 0:
		c.succeed(r)
	case c.oddRead(r, head, data):
	case r.Flags&proto.CmdFlagDF == 0 && zero(data),
		c.is("DF with holes") && zero(data[half:]) && zero(data[:1]):
		c.chunk(r, proto.ChunkOffsetHole, true, be.AppendUint32(head, uint32(len(data)))...)
	case half > 0 && r.Flags&proto.CmdFlagDF == 0 && half%512 == 0 && zero(data[half:]) &&
		!c.is("holes as data"):
		c.chunk(r, proto.ChunkOffsetData, false, append(head, data[:half]...)...)
		c.chunk(r, proto.ChunkOffsetHole, true,
			be.AppendUint32(be.AppendUint64(nil, r.Offset+half), uint32(uint64(len(data))-half))...)
	default:
		c.chunk(r, proto.ChunkOffsetData, true, append(head, data...)...)
	}
}

// oddRead packs the reply to a READ as a flaw wants it, and reports whether there was such a flaw.
func (c *flawedConn) oddRead(r *proto.Request, head, data []byte) bool {
	second := be.AppendUint64(nil, r.Offset+1)
	n := uint32(len(data))
	switch {
	case len(data) < 2:
		return false
	case c.is("overlap"):
		c.chunk(r, proto.ChunkOffsetData, false, append(head, data...)...)
		c.chunk(r, proto.ChunkOffsetHole, true, be.AppendUint32(second, 1)...)
	case c.is("gap"):
		c.chunk(r, proto.ChunkOffsetData, true, append(second, data[1:]...)...)
	case c.is("empty data chunk"):
		c.chunk(r, proto.ChunkOffsetData, false, head...)
		c.chunk(r, proto.ChunkOffsetData, true, append(head, data...)...)
	case c.is("long hole") && zero(data):
		c.chunk(r, proto.ChunkOffsetHole, true, be.AppendUint32(head, n+512)...)
	case c.is("hole of 16 bytes") && zero(data):
		c.chunk(r, proto.ChunkOffsetHole, true, be.AppendUint64(head, uint64(n))...)
	case c.is("early DONE"):
		c.chunk(r, proto.ChunkOffsetData, true, append(head, data[0])...)
		c.chunk(r, proto.ChunkOffsetData, true, append(second, data[1:]...)...)
	case c.is("error, then data"):
		e := append(be.AppendUint32(nil, uint32(proto.EIO)), 0, 0)
		c.chunk(r, proto.ChunkErrorOffset, false, be.AppendUint64(e, r.Offset)...)
		c.chunk(r, proto.ChunkOffsetData, true, append(head, data...)...)
	case c.is("odd pieces") && len(data) > 1000:
		c.chunk(r, proto.ChunkOffsetData, false, append(head, data[:100]...)...)
		c.chunk(r, proto.ChunkOffsetData, true,
			append(be.AppendUint64(nil, r.Offset+100), data[100:]...)...)
	case c.is("DF in pieces"):
		c.chunk(r, proto.ChunkOffsetData, false, append(head, data[0])...)
		c.chunk(r, proto.ChunkOffsetData, true, append(second, data[1:]...)...)
	case c.is("status in a READ"):
		c.chunk(r, proto.ChunkBlockStatus, true, make([]byte, 12)...)
	case c.is("another magic"):
		c.send(make([]byte, 64))
	default:
		return false
	}
	return true
}

var emptySector [512]byte

// statusOf returns the extents of a range, in runs of 512 bytes.
func (c *flawedConn) statusOf(r *proto.Request, offset, length uint64) (list []extent) {
	c.lock.Lock()
	defer c.lock.Unlock()
	disk := c.bytes()
	if c.is("stale status") {
		if c.snapshot == nil {
			c.snapshot = append([]byte(nil), disk...)
		}
		disk = c.snapshot
	}
	for at := offset; at < offset+length; {
		n := min(512-at%512, offset+length-at)
		s := uint64(0)
		if bytes.Equal(disk[at:at+n], emptySector[:n]) {
			s = uint64(proto.StatusHole | proto.StatusZero)
		}
		if c.noHole && at >= scratchStart && !c.is("HOLE after NO_HOLE") {
			s &^= uint64(proto.StatusHole)
		}
		if last := len(list) - 1; last >= 0 && list[last].flags == s &&
			!(c.is("unmerged") && length <= 1<<20) {
			list[last].length += n
		} else {
			list = append(list, extent{n, s})
		}
		at += n
	}
	if r.Flags&proto.CmdFlagReqOne != 0 && !c.is("REQ_ONE is ignored") {
		list = list[:1]
	}
	return c.oddExtents(r, offset, length, list)
}

// oddExtents returns the extents as a flaw wants them.
func (c *flawedConn) oddExtents(r *proto.Request, offset, length uint64, list []extent) []extent {
	switch {
	case c.is("empty extent"):
		return append(list, extent{0, 0})
	case c.is("extents after the request") && r.Flags&proto.CmdFlagReqOne == 0:
		return append(list, extent{512, list[len(list)-1].flags ^ 1})
	case c.is("REQ_ONE is long") && r.Flags&proto.CmdFlagReqOne != 0 &&
		offset+length < c.facts.Size:
		list[0].length = length + 1
	case c.is("extent beyond the end") && offset+length == c.facts.Size &&
		r.Flags&proto.CmdFlagReqOne == 0:
		list[len(list)-1].length += 512
	case c.is("all zero"):
		list[0].flags = uint64(proto.StatusHole | proto.StatusZero)
	case c.is("no zero"):
		return []extent{{length, 0}}
	case c.is("third bit"):
		list[0].flags |= 4
	case c.is("upper bits"):
		list[0].flags |= 1 << 40
	case c.is("crumbs") && length > 100 && length <= 64<<10:
		list = nil
		for range length / 4 {
			list = append(list, extent{4, 0})
		}
	case c.is("odd extents") && list[0].length > 100 && length > 100:
		return append([]extent{{100, list[0].flags}, {list[0].length - 100, list[0].flags ^ 1}},
			list[1:]...)
	}
	return list
}

func (c *flawedConn) performStatus(r *proto.Request, payload []byte) {
	length, contexts := r.Length, c.Contexts
	if r.Filtered() {
		var filter proto.ContextSet
		var e proto.Errno
		length, filter, e = proto.ParseFilter(payload, c.Contexts)
		switch {
		case e != 0 && c.is("any context"):
			length, filter = 512, 1
		case e != 0:
			c.fail(r, e)
			return
		}
		if contexts = filter; c.is("ignores the list") {
			contexts = c.Contexts
		}
		probe := *r
		probe.Length, probe.Flags = length, r.Flags&^proto.CmdFlagPayloadLen
		if e, _ := proto.CheckRange(&probe, &c.facts); e != 0 {
			c.fail(r, e)
			return
		}
	}
	if c.is("status of nothing") && contexts == 0 {
		contexts = 1
	}
	if length = min(length, c.facts.Size-min(r.Offset, c.facts.Size)); length == 0 ||
		contexts == 0 {
		c.fail(r, proto.EINVAL)
		return
	}
	left := 0
	for i := range c.export.Contexts {
		left += int(contexts >> i & 1)
	}
	for i := range c.export.Contexts {
		if contexts>>i&1 == 0 {
			continue
		}
		left--
		if c.is("first context only") && left > 0 && i == 0 {
			left = 0
		}
		c.sendStatus(r, proto.ContextID(i), c.statusOf(r, r.Offset, length), left == 0)
		if left == 0 {
			return
		}
	}
}

func (c *flawedConn) sendStatus(r *proto.Request, id uint32, list []extent, done bool) {
	framing := c.Framing
	if c.is("type of the other kind") {
		framing = map[proto.Framing]proto.Framing{proto.Structured: proto.Extended,
			proto.Extended: proto.Structured}[framing]
	}
	b := make([]byte, framing.StatusHeadSize()+len(list)*framing.ExtentSize())
	framing.PutStatusHead(b, id, uint32(len(list)))
	if c.is("count of extents") && framing == proto.Extended {
		b[7]++
	}
	for i, x := range list {
		framing.PutExtent(b[framing.StatusHeadSize()+i*framing.ExtentSize():], x.length, x.flags)
	}
	if c.is("odd status length") {
		b = b[:len(b)-1]
	}
	c.chunk(r, framing.StatusKind(), done, b...)
}
