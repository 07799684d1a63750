// Checks of extended headers in transmission (XH).
//
// Invariant: these checks run on servers that acknowledged NBD_OPT_EXTENDED_HEADERS, and are
// skipped on others.

package conform

import (
	"bytes"
	"encoding/binary"

	"ringnbd/proto"
)

var longHeaderChecks = []Check{
	{"XH-01a", must, []need{needExtended},
		"each header of a reply has the offset of the request, also in errors and in chunks from " +
			"the middle",
		"clients find their request by cookie and offset",
		extendedOffsets},
	{"XH-01b", must, []need{needExtended},
		"a compact request after EXTENDED_HEADERS ends the connection",
		"its magic is wrong, and what follows cannot be parsed",
		compactAfterExtended},
	{"XH-02", must, []need{needExtended},
		"no request gets a simple or structured reply",
		"clients read 32 bytes at a time",
		extendedOnly},
	{"XH-03a", must, []need{needExtended, needWrite},
		"the data of a WRITE with PAYLOAD_LEN is read back",
		"the flag says that data follows the header",
		extendedWrite},
	{"XH-03b", quality, []need{needExtended, needWrite},
		"a WRITE without PAYLOAD_LEN is done, or refused with its data drained",
		"QEMU since 8.2 sends all WRITEs so, and loses the connection if data is taken for " +
			"headers",
		extendedWriteBare},
	{"XH-04", must, []need{needExtended},
		"PAYLOAD_LEN on a command that has no payload is EINVAL, and the payload is drained",
		"so servers can refuse later commands and stay in step",
		extendedPayloads},
	{"XH-05", should, []need{needExtended},
		"PAYLOAD_LEN with more than the maximum payload ends the connection, or is drained",
		"a server should neither read nor allocate 2^63 bytes",
		extendedEnormous},
	{"XH-06", must, nil,
		"PAYLOAD_LEN with compact headers is an unknown flag: EINVAL, and only a WRITE has data",
		"a server that expects data waits for ever",
		payloadFlagCompact},
	{"XH-07", must, []need{needExtended, needContexts},
		"block status comes as chunks of type 6, with 64-bit extents, even for small requests",
		"clients have a single parser for it",
		extendedStatus},
	{"XH-08", must, []need{needContexts},
		"block status never comes as chunks of type 6 without extended headers",
		"clients with compact headers do not know type 6",
		compactStatus},
	{"XH-09a", must, []need{needExtended, needContexts, needPayload},
		"BLOCK_STATUS with a list of contexts is answered for those contexts only",
		"the list exists for this",
		statusFilter},
	{"XH-09b", must, []need{needExtended, needContexts},
		"BLOCK_STATUS with a malformed list, or with unknown ids, is drained and EINVAL",
		"the payload comes from outside and may be hostile",
		statusFilterWrong},
	{"XH-10a", should, []need{needExtended, needWrite},
		"TRIM, WRITE_ZEROES, CACHE and BLOCK_STATUS of the whole export work in one request",
		"extended headers exist for 64-bit lengths",
		extendedWhole},
	{"XH-10b", must, []need{needExtended},
		"lengths of 5 GiB to 2^64-1 beyond the end are refused, not cut to 32 bits",
		"5 GiB cut to 32 bits is 1 GiB, which may be inside the export",
		extendedLengths},
	{"XH-11", quality, []need{needExtended},
		"a READ of more than 4 GiB is refused at once",
		"a server has no memory for it",
		extendedLongRead},
	{"XH-12", should, []need{needExtended, needContexts},
		"no more than 2^20 extents in a chunk of type 6",
		"a client limits what it buffers",
		extendedMostExtents},
}

// extendedModes runs a check with extended headers, with base:allocation if the server has it.
func (t *trial) extendedModes(f func(c *conn)) {
	f(t.open(pick(t.profile.Allocation, modeExtendedContexts, modeExtended)))
}

// extendedOffsets does not judge: conn compares the offset of each header.
func extendedOffsets(t *trial) {
	t.extendedModes(func(c *conn) {
		if t.profile.Pattern {
			c.readPattern()
		}
		c.wrongReplies()
		c.succeeds(newRead(t.tail(t.block()), t.block()))
		if c.offers(proto.CmdWrite) {
			c.writeData(t.scratch(1<<20)+t.page(), fill(1, int(t.page())))
		}
		c.stillUp("requests at many offsets")
	})
}

func compactAfterExtended(t *trial) {
	c := t.open(modeExtended)
	c.mode = modeGo
	b := c.encode(newRead(0, t.block()))
	c.mode = modeExtended
	c.write(append(b, make([]byte, proto.ExtRequestSize-proto.RequestSize)...))
	if got := c.drain("after a compact request"); got > 0 {
		t.differ("the server answers a compact request with %d bytes before it hangs up", got)
	}
}

func extendedOnly(t *trial) {
	t.extendedModes((*conn).everyCommand)
}

func extendedWrite(t *trial) {
	t.extendedModes(func(c *conn) {
		at := t.scratch(4 << 20)
		for _, n := range []uint64{t.block(), 64 << 10, 1 << 20} {
			data := fill(n, int(n))
			c.writeData(at, data)
			c.wantData(at, data, "after a WRITE")
		}
		c.stillUp("WRITEs")
	})
}

// extendedWriteBare takes success and every error alike, because the protocol only has a duty of
// the client here. It fails if the stream is out of step afterwards: the data is made of READs,
// which a server that does not drain it would answer.
func extendedWriteBare(t *trial) {
	t.extendedModes(func(c *conn) {
		at := t.scratch(1 << 20)
		for _, n := range []uint64{t.block(), 64 << 10} {
			before := fill(n, int(n))
			c.writeData(at, before)
			r := newWrite(at, before)
			r.bare = true
			c.fillWithReads(r)
			reply, complete := c.attempt(r)
			if reply == nil {
				c.differOnce(r, "the server hangs up on a WRITE without PAYLOAD_LEN")
				c.reopen(r.String())
				return
			}
			t.want(complete, "%s without PAYLOAD_LEN: its data was not taken", r)
			want := r.payload
			if reply.errno != 0 {
				t.prefer(reply.errno == einval,
					"%s without PAYLOAD_LEN: %s instead of EINVAL", r, reply.errorText())
				want = before
			}
			c.stillUp(r.String() + " without PAYLOAD_LEN")
			c.wantData(at, want, "after a WRITE without PAYLOAD_LEN")
		}
	})
}

// payload returns a command with data and PAYLOAD_LEN.
func payload(command uint16, offset uint64, data []byte) *request {
	return &request{command: command, flags: proto.CmdFlagPayloadLen, offset: offset,
		length: uint64(len(data)), payload: data}
}

func extendedPayloads(t *trial) {
	t.extendedModes(func(c *conn) {
		for _, n := range []int{1, 8, 512, 64 << 10} {
			for _, command := range []uint16{proto.CmdRead, proto.CmdFlush, proto.CmdTrim,
				proto.CmdCache, proto.CmdWriteZeroes, 0x7ff0} {
				if (&request{command: command}).changes() && !t.profile.Writable {
					continue
				}
				reply := c.refused(payload(command, t.safeOffset(command),
					bytes.Repeat([]byte{0x21, 0xe4, 0x1c, 0x71}, (n+3)/4)[:n]), einval)
				t.want(reply == nil || reply.errno != 0,
					"command %d with a payload of %d bytes: success", command, n)
			}
		}
	})
}

func extendedEnormous(t *trial) {
	t.extendedModes(func(c *conn) {
		for _, length := range []uint64{1 << 63, 1<<64 - 1, 1 << 40} {
			for _, command := range []uint16{proto.CmdRead, proto.CmdWrite, proto.CmdBlockStatus} {
				if command == proto.CmdWrite && !t.profile.Writable {
					continue
				}
				other := t.open(c.mode)
				r := payload(command, t.safeOffset(command), make([]byte, 64<<10))
				r.length = length
				other.number(r)
				_ = other.tryWrite(other.encode(r)) // the server may hang up in the middle
				if open, got := other.openAfter(4 * quiet); open && len(got) > 0 {
					other.expect(r)
					t.want(other.nextReply().errno != 0,
						"%s: success after 64 KiB of its payload", r)
				}
				other.close()
			}
		}
		c.stillUp("payloads of 2^40 bytes and more on other connections")
	})
}

func payloadFlagCompact(t *trial) {
	for _, mode := range t.profile.richModes() {
		if mode.extended() {
			continue
		}
		t.within(mode.String(), func() {
			c := t.open(mode)
			for _, command := range append(c.ranged(), proto.CmdFlush) {
				r := newRequest(command, t.safeOffset(command),
					t.block()).with(proto.CmdFlagPayloadLen)
				if command == proto.CmdFlush {
					r.offset, r.length = 0, 0
				}
				c.refused(r, einval)
			}
		})
	}
}

func extendedStatus(t *trial) {
	c := t.open(modeExtendedContexts)
	for _, s := range t.statusRanges() {
		for _, flags := range []uint16{0, proto.CmdFlagReqOne} {
			r := newCommand(proto.CmdBlockStatus, s.offset, s.length).with(flags)
			for _, chunk := range c.status(r) {
				t.want(chunk.kind == proto.ChunkBlockStatusExt || chunk.kind == proto.ChunkNone,
					"a chunk of type %d", chunk.kind)
			}
		}
	}
	c.stillUp("BLOCK_STATUS")
}

func compactStatus(t *trial) {
	c := t.open(modeContexts)
	for _, s := range t.statusRanges() {
		for _, chunk := range c.status(newCommand(proto.CmdBlockStatus, s.offset, s.length)) {
			t.want(chunk.kind == proto.ChunkBlockStatus || chunk.kind == proto.ChunkNone,
				"a chunk of type %d", chunk.kind)
		}
	}
	c.stillUp("BLOCK_STATUS")
}

// filter returns the payload of a BLOCK_STATUS that names contexts.
func filter(length uint64, ids ...uint32) []byte {
	b := binary.BigEndian.AppendUint64(nil, length)
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return b
}

func statusFilter(t *trial) {
	c := t.openContexts(modeExtendedContexts)
	t.want(c.flags&proto.FlagBlockStatusPayload != 0,
		"BLOCK_STATUS_PAYLOAD is not set with contexts (%#x)", c.flags)
	length := c.upTo(1 << 20)
	for _, one := range c.contexts {
		r := payload(proto.CmdBlockStatus, 0, filter(length, one.id))
		q := c.asked(r)
		q.length, q.contexts = length, []uint32{one.id}
		reply := c.succeeds(r)
		for _, b := range judgeStatus(q, reply.chunks) {
			t.want(b.soft, "%s for the context %s: %s (%s)", r, one.name, b.text, b.rule)
		}
	}
	var all []uint32
	for _, one := range c.contexts {
		all = append(all, one.id)
	}
	r := payload(proto.CmdBlockStatus, 0, filter(t.block(), all...)).with(proto.CmdFlagReqOne)
	q := c.asked(r)
	q.length = t.block()
	for _, b := range judgeStatus(q, c.succeeds(r).chunks) {
		t.want(b.soft, "%s for all contexts: %s (%s)", r, b.text, b.rule)
	}
	c.stillUp("BLOCK_STATUS with lists of contexts")
}

func statusFilterWrong(t *trial) {
	c := t.open(modeExtendedContexts)
	known := c.contexts[0].id
	lists := map[string][]byte{
		"an unknown context":         filter(t.block(), known+0x1234567),
		"one context twice":          filter(t.block(), known, known),
		"a known and an unknown one": filter(t.block(), known, ^known),
		"half a length":              {0, 0, 0, 0},
		"half an id":                 append(filter(t.block(), known), 0, 0),
		"a length beyond the end":    filter(c.size+t.block(), known),
		"a length of 2^64-1":         filter(1<<64-1, known),
		"a context a thousand times": filter(t.block(), bytesOf(known, 1000)...),
	}
	for name, list := range lists {
		t.within(name, func() {
			reply := c.refused(payload(proto.CmdBlockStatus, 0, list), einval)
			t.want(reply == nil || reply.errno != 0, "success")
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

func extendedWhole(t *trial) {
	t.extendedModes(func(c *conn) {
		for _, command := range []uint16{proto.CmdTrim, proto.CmdWriteZeroes, proto.CmdCache,
			proto.CmdBlockStatus} {
			if c.offers(command) {
				// a server has to read what it caches
				n := c.longestAtScratch(pick[uint64](command == proto.CmdCache, longCost, c.size))
				c.sampleCommand(newCommand(command, scratchStart, n), eoverflow, einval)
			}
		}
		if c.offers(proto.CmdBlockStatus) {
			c.status(newCommand(proto.CmdBlockStatus, 0, c.size))
		}
	})
}

func extendedLengths(t *trial) {
	t.extendedModes(func(c *conn) {
		for _, length := range []uint64{5 << 30, 1<<32 + t.block(), 1 << 40, 1 << 63, -t.block()} {
			if length <= c.size {
				continue
			}
			for _, command := range c.ranged() {
				if command == proto.CmdWrite {
					continue
				}
				reply := c.refused(newCommand(command, t.safeOffset(command), length),
					beyondError[command], eoverflow)
				t.want(reply == nil || reply.errno != 0,
					"%d bytes of command %d: success on an export of %d", length,
					command, c.size)
			}
		}
	})
}

func extendedLongRead(t *trial) {
	t.extendedModes(func(c *conn) {
		c.refused(newRead(0, 1<<32), einval, eoverflow)
		c.refused(newRead(0, 1<<33+t.block()), einval, eoverflow)
	})
}

func extendedMostExtents(t *trial) {
	c := t.open(modeExtendedContexts)
	c.status(newCommand(proto.CmdBlockStatus, 0, c.size), "CB-06")
	c.stillUp("BLOCK_STATUS of everything")
}
