// Checks of extended headers in transmission (XH). Invariant: they run on servers that acknowledged
// NBD_OPT_EXTENDED_HEADERS, and are skips elsewhere.

package conform

import (
	"bytes"
	"encoding/binary"

	"ringnbd/proto"
)

var longHeaderChecks = []Check{
	{"XH-01a", Must,
		"each header of a reply has the request's own offset, in errors and in data from the " +
			"middle, too",
		"clients find their request by cookie and offset", []Need{NeedExtended}, extendedOffsets},
	{"XH-01b", Must, "a compact request after EXTENDED_HEADERS ends the connection",
		"its magic is wrong, and so is everything after it", []Need{NeedExtended},
		compactAfterExtended},
	{"XH-02", Must, "no reply is simple or structured, whatever the request",
		"clients read 32 bytes at a time", []Need{NeedExtended}, extendedOnly},
	{"XH-03a", Must, "WRITE with PAYLOAD_LEN writes, and is read back",
		"the flag says that there is data on the wire", []Need{NeedExtended, NeedWrite},
		extendedWrite},
	{"XH-03b", Quality, "WRITE without PAYLOAD_LEN is done, or refused with its data drained",
		"QEMU since 8.2 sends every WRITE so: data that is taken for headers costs it the " +
			"connection",
		[]Need{NeedExtended, NeedWrite}, extendedWriteBare},
	{"XH-04", Must,
		"PAYLOAD_LEN on a command that has no payload: the payload is drained, and the answer " +
			"EINVAL",
		"it is how later commands can be refused without losing the stream", []Need{NeedExtended},
		extendedPayloads},
	{"XH-05", Should,
		"PAYLOAD_LEN with more than the maximum payload ends the connection, or is drained",
		"nobody should read 2^63 bytes, and nobody allocate them", []Need{NeedExtended},
		extendedEnormous},
	{"XH-06", Must,
		"PAYLOAD_LEN with compact headers is a flag that nobody knows: EINVAL, and only WRITE " +
			"has data",
		"a server that takes it for data waits for ever", nil, payloadFlagCompact},
	{"XH-07", Must, "block status comes as type 6 with 64-bit extents, however small the request",
		"clients have one parser for it", []Need{NeedExtended, NeedContexts}, extendedStatus},
	{"XH-08", Must, "block status never comes as type 6 without extended headers",
		"compact clients do not know it", []Need{NeedContexts}, compactStatus},
	{"XH-09a", Must, "BLOCK_STATUS with a list of contexts answers those only",
		"it is what the list is for", []Need{NeedExtended, NeedContexts, NeedPayload},
		statusFilter},
	{"XH-09b", Must,
		"BLOCK_STATUS with a list that is no list, or with ids that nobody has: drained, then " +
			"EINVAL",
		"the payload comes from outside and is as hostile as the rest",
		[]Need{NeedExtended, NeedContexts}, statusFilterWrong},
	{"XH-10a", Should,
		"TRIM, WRITE_ZEROES, CACHE and BLOCK_STATUS of the whole export in one request",
		"64-bit lengths are what extended headers are for", []Need{NeedExtended, NeedWrite},
		extendedWhole},
	{"XH-10b", Must,
		"lengths of 5 GiB to 2^64-1 that are not there are out of range, not truncated to 32 bits",
		"5 GiB cut to 32 bits is 1 GiB, which may be inside", []Need{NeedExtended},
		extendedLengths},
	{"XH-11", Quality, "READ of more than 32 bits is refused at once",
		"nobody has memory for it", []Need{NeedExtended}, extendedLongRead},
	{"XH-12", Should, "no more than 2^20 extents in a chunk of type 6",
		"a reply of any length is more than a client will buffer",
		[]Need{NeedExtended, NeedContexts}, extendedMostExtents},
}

// extendedModes runs a check with extended headers, with a context if there is one.
func (t *T) extendedModes(f func(c *Conn)) {
	f(t.Open(pick(t.facts.Allocation, ModeExtendedContexts, ModeExtended)))
}

// extendedOffsets needs no judgement of its own: Conn compares the offset of each header.
func extendedOffsets(t *T) {
	t.extendedModes(func(c *Conn) {
		if t.facts.Pattern {
			c.readPattern()
		}
		c.wrongReplies()
		c.Succeeds(Read(t.tail(t.block()), t.block()))
		if c.offers(proto.CmdWrite) {
			c.wrote(t.Scratch(1<<20)+t.page(), Fill(1, int(t.page())))
		}
		c.StillUp("requests at many offsets")
	})
}

func compactAfterExtended(t *T) {
	c := t.Open(ModeExtended)
	c.Mode = ModeGo
	b := c.Encode(Read(0, t.block()))
	c.Mode = ModeExtended
	c.Write(append(b, make([]byte, proto.ExtRequestSize-proto.RequestSize)...))
	if got := c.Drained("after a compact request"); got > 0 {
		t.Differ("the server answers a compact request with %d bytes before it hangs up", got)
	}
}

func extendedOnly(t *T) {
	t.extendedModes(func(c *Conn) {
		c.wrongReplies()
		for _, command := range c.ranged() {
			c.Succeeds(request(command, t.probeSafe(command), t.block()))
		}
		if c.offers(proto.CmdFlush) {
			c.Succeeds(Command(proto.CmdFlush, 0, 0))
		}
		c.StillUp("every command")
	})
}

func extendedWrite(t *T) {
	t.extendedModes(func(c *Conn) {
		at := t.Scratch(4 << 20)
		for _, n := range []uint64{t.block(), 64 << 10, 1 << 20} {
			data := Fill(n, int(n))
			c.wrote(at, data)
			c.WantData(at, data, "after a WRITE")
		}
		c.StillUp("WRITEs")
	})
}

// extendedWriteBare takes success and every error alike, as the spec has only the client's duty.
// What it does not take is another stream afterwards: the data is made of READs, which a server
// that does not take it would answer.
func extendedWriteBare(t *T) {
	t.extendedModes(func(c *Conn) {
		at := t.Scratch(1 << 20)
		for _, n := range []uint64{t.block(), 64 << 10} {
			before := Fill(n, int(n))
			c.wrote(at, before)
			r := Write(at, before)
			r.Bare = true
			c.bait(r)
			reply, complete := c.attempt(r)
			if reply == nil {
				c.differOnce(r, "the server hangs up on a WRITE without PAYLOAD_LEN")
				c.reopen(r.String())
				return
			}
			t.Want(complete, "%s without PAYLOAD_LEN: its data was not taken", r)
			want := r.Payload
			if reply.Errno != 0 {
				t.Prefer(reply.Errno == EINVAL, "%s without PAYLOAD_LEN: %s instead of EINVAL", r,
					reply.Error())
				want = before
			}
			c.StillUp(r.String() + " without PAYLOAD_LEN")
			c.WantData(at, want, "after a WRITE without PAYLOAD_LEN")
		}
	})
}

// payload is a command with data and PAYLOAD_LEN.
func payload(command uint16, offset uint64, data []byte) *Request {
	return &Request{Type: command, Flags: proto.CmdFlagPayloadLen, Offset: offset,
		Length: uint64(len(data)), Payload: data}
}

func extendedPayloads(t *T) {
	t.extendedModes(func(c *Conn) {
		for _, n := range []int{1, 8, 512, 64 << 10} {
			for _, command := range []uint16{proto.CmdRead, proto.CmdFlush, proto.CmdTrim,
				proto.CmdCache, proto.CmdWriteZeroes, 0x7ff0} {
				if (&Request{Type: command}).changes() && !t.facts.Writable {
					continue
				}
				reply := c.refused(payload(command, t.probeSafe(command),
					bytes.Repeat([]byte{0x21, 0xe4, 0x1c, 0x71}, (n+3)/4)[:n]), EINVAL)
				t.Want(reply == nil ||
					reply.Errno != 0, "command %d with a payload of %d bytes: success", command, n)
			}
		}
	})
}

func extendedEnormous(t *T) {
	t.extendedModes(func(c *Conn) {
		for _, length := range []uint64{1 << 63, 1<<64 - 1, 1 << 40} {
			for _, command := range []uint16{proto.CmdRead, proto.CmdWrite, proto.CmdBlockStatus} {
				if command == proto.CmdWrite && !t.facts.Writable {
					continue
				}
				other := t.Open(c.Mode)
				r := payload(command, t.probeSafe(command), make([]byte, 64<<10))
				r.Length = length
				other.Name(r)
				_ = other.TryWrite(other.Encode(r)) // it may have hung up in the middle
				if open, got := other.Hangs(4 * quiet); open && len(got) > 0 {
					other.Expect(r)
					t.Want(other.Next().Errno != 0, "%s: success after 64 KiB of its payload", r)
				}
				other.Close()
			}
		}
		c.StillUp("payloads of 2^40 bytes and more on other connections")
	})
}

func payloadFlagCompact(t *T) {
	for _, mode := range t.facts.richModes() {
		if mode.Extended() {
			continue
		}
		t.within(mode.String(), func() {
			c := t.Open(mode)
			for _, command := range append(c.ranged(), proto.CmdFlush) {
				r := request(command, t.probeSafe(command), t.block()).With(proto.CmdFlagPayloadLen)
				if command == proto.CmdFlush {
					r.Offset, r.Length = 0, 0
				}
				c.refused(r, EINVAL)
			}
		})
	}
}

func extendedStatus(t *T) {
	c := t.Open(ModeExtendedContexts)
	for _, s := range t.statusRanges() {
		for _, flags := range []uint16{0, proto.CmdFlagReqOne} {
			for _, chunk := range c.status(Command(proto.CmdBlockStatus, s.from, s.to).With(flags)) {
				t.Want(chunk.Type == proto.ChunkBlockStatusExt ||
					chunk.Type == proto.ChunkNone, "a chunk of type %d", chunk.Type)
			}
		}
	}
	c.StillUp("BLOCK_STATUS")
}

func compactStatus(t *T) {
	c := t.Open(ModeContexts)
	for _, s := range t.statusRanges() {
		for _, chunk := range c.status(Command(proto.CmdBlockStatus, s.from, s.to)) {
			t.Want(chunk.Type == proto.ChunkBlockStatus ||
				chunk.Type == proto.ChunkNone, "a chunk of type %d", chunk.Type)
		}
	}
	c.StillUp("BLOCK_STATUS")
}

// filter is the payload of BLOCK_STATUS that names contexts.
func filter(length uint64, ids ...uint32) []byte {
	b := binary.BigEndian.AppendUint64(nil, length)
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return b
}

func statusFilter(t *T) {
	c := t.openContexts(ModeExtendedContexts)
	t.Want(c.Flags&proto.FlagBlockStatusPayload != 0,
		"BLOCK_STATUS_PAYLOAD is not set with contexts (%#x)", c.Flags)
	length := c.upTo(1 << 20)
	for _, one := range c.Contexts {
		r := payload(proto.CmdBlockStatus, 0, filter(length, one.ID))
		q := c.asked(r)
		q.length, q.contexts = length, []uint32{one.ID}
		reply := c.Succeeds(r)
		for _, b := range judgeStatus(q, reply.Chunks) {
			t.Want(b.soft, "%s for the context %s: %s (%s)", r, one.Name, b.text, b.rule)
		}
	}
	var all []uint32
	for _, one := range c.Contexts {
		all = append(all, one.ID)
	}
	r := payload(proto.CmdBlockStatus, 0, filter(t.block(), all...)).With(proto.CmdFlagReqOne)
	q := c.asked(r)
	q.length = t.block()
	for _, b := range judgeStatus(q, c.Succeeds(r).Chunks) {
		t.Want(b.soft, "%s for all contexts: %s (%s)", r, b.text, b.rule)
	}
	c.StillUp("BLOCK_STATUS with lists of contexts")
}

func statusFilterWrong(t *T) {
	c := t.Open(ModeExtendedContexts)
	known := c.Contexts[0].ID
	lists := map[string][]byte{
		"an unknown context":         filter(t.block(), known+0x1234567),
		"one context twice":          filter(t.block(), known, known),
		"a known and an unknown one": filter(t.block(), known, ^known),
		"half a length":              {0, 0, 0, 0},
		"half an id":                 append(filter(t.block(), known), 0, 0),
		"a length beyond the end":    filter(c.Size+t.block(), known),
		"a length of 2^64-1":         filter(1<<64-1, known),
		"a thousand times one":       filter(t.block(), bytesOf(known, 1000)...),
	}
	for name, list := range lists {
		t.within(name, func() {
			reply := c.refused(payload(proto.CmdBlockStatus, 0, list), EINVAL)
			t.Want(reply == nil || reply.Errno != 0, "success")
		})
	}
}

func bytesOf(id uint32, n int) []uint32 {
	list := make([]uint32, n)
	for i := range list {
		list[i] = id
	}
	return list
}

func extendedWhole(t *T) {
	t.extendedModes(func(c *Conn) {
		for _, command := range []uint16{proto.CmdTrim, proto.CmdWriteZeroes, proto.CmdCache,
			proto.CmdBlockStatus} {
			if c.offers(command) {
				// a cache has to be read
				n := c.rest(pick[uint64](command == proto.CmdCache, longCost, c.Size))
				c.sampled(Command(command, ScratchStart, n), EOVERFLOW, EINVAL)
			}
		}
		if c.offers(proto.CmdBlockStatus) {
			c.status(Command(proto.CmdBlockStatus, 0, c.Size))
		}
	})
}

func extendedLengths(t *T) {
	t.extendedModes(func(c *Conn) {
		for _, length := range []uint64{5 << 30, 1<<32 + t.block(), 1 << 40, 1 << 63, -t.block()} {
			if length <= c.Size {
				continue
			}
			for _, command := range c.ranged() {
				if command == proto.CmdWrite {
					continue
				}
				reply := c.refused(Command(command, t.probeSafe(command), length),
					beyondError[command], EOVERFLOW)
				t.Want(reply == nil ||
					reply.Errno != 0, "%d bytes of command %d: success on an export of %d", length,
					command, c.Size)
			}
		}
	})
}

func extendedLongRead(t *T) {
	t.extendedModes(func(c *Conn) {
		c.refused(Read(0, 1<<32), EINVAL, EOVERFLOW)
		c.refused(Read(0, 1<<33+t.block()), EINVAL, EOVERFLOW)
	})
}

func extendedMostExtents(t *T) {
	c := t.Open(ModeExtendedContexts)
	c.status(Command(proto.CmdBlockStatus, 0, c.Size), "CB-06")
	c.StillUp("BLOCK_STATUS of everything")
}
