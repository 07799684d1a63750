// Checks of how requests are parsed (RQ): magics, cookies, commands and flags that do not exist or
// do not belong together, ranges that overflow, lengths that are 0 or too large.
//
// Invariant: each check ends with the proof that the stream is in step, or that the server lives.

package conform

import (
	"bytes"
	"encoding/binary"
	"time"

	"ringnbd/proto"
)

var requestChecks = []Check{
	{"RQ-01", must, nil,
		"a request with a wrong magic ends the connection",
		"after a wrong magic the server cannot know where the next request begins; it may carry " +
			"out garbage as a WRITE",
		wrongMagics},
	{"RQ-02", must, nil,
		"the cookie comes back bit for bit, whatever it is",
		"clients find their request by the cookie; if it is swapped or cut, a request gets the " +
			"data of another",
		oddCookies},
	{"RQ-03", quality, nil,
		"two requests in flight with the same cookie are both answered",
		"a client should not do this, but a server that finds requests by cookie loses one or " +
			"crashes",
		sameCookies},
	{"RQ-04", should, nil,
		"an unknown command is EINVAL, and its length does not announce a payload",
		"a server that waits for a payload hangs the connection; a server that hangs up loses " +
			"all requests in flight",
		unknownCommands},
	{"RQ-05", should, nil,
		"an unknown command flag is EINVAL, and a WRITE's data is drained",
		"a flag that is ignored promises something that does not happen; data that is not " +
			"drained is parsed as requests",
		unknownFlags},
	{"RQ-06", should, nil,
		"a known flag on the wrong command is EINVAL, and a WRITE's data is drained",
		"as with unknown flags: a later extension could not use a flag that servers ignore",
		misplacedFlags},
	{"RQ-07", must, []need{needFUA},
		"FUA is accepted with every command if it is advertised",
		"clients may set it anywhere, and some set it on every request",
		flagFUAEverywhere},
	{"RQ-08", should, []need{without(needFUA), needWrite},
		"FUA that is not advertised is EINVAL",
		"if it is accepted and ignored, the client believes that data is on stable storage",
		flagFUAUnadvertised},
	{"RQ-09", should, nil,
		"a command that is not advertised is EINVAL, or works",
		"some clients do not look at the flags first",
		unadvertised},
	{"RQ-10", must, []need{needPattern},
		"many requests in flight: each is answered once and with its own data, in any order",
		"a swapped or interleaved reply is a corruption that checksums of the disk do not see",
		manyInFlight},
	{"RQ-11", must, nil,
		"an offset and a length that overflow 64 bits are beyond the end",
		"a sum that wraps round passes the range check, and the server reads and writes outside " +
			"the export",
		overflows},
	{"RQ-12", must, []need{needWrite},
		"a WRITE of the maximum payload that is refused is drained completely",
		"32 MiB of data parsed as requests are a million chances to do harm",
		drainedWrite},
	{"RQ-13a", quality, []need{needWrite},
		"a WRITE of 4 GiB less one byte, of which only 64 KiB are sent, does not harm the server",
		"a server that allocates a buffer by a number from the wire can be put out of service",
		enormousWrite},
	{"RQ-13b", should, []need{needWrite, needSmallPayload},
		"a WRITE of 32 MiB is answered even if the server's maximum payload is less",
		"by the protocol a client that sends up to 2^25 bytes is not an attacker",
		payloadAboveMaximum},
	{"RQ-14", should, nil,
		"a request of length zero does not cost the connection",
		"the result is unspecified, but the connection should live, and a data chunk without " +
			"data is malformed",
		zeroLengths},
	{"RQ-15", quality, nil,
		"length zero at the very end is as anywhere else; beyond the end it is an error",
		"range checks are off by one here",
		zeroLengthsAtEnd},
}

var needSmallPayload = need{"a maximum payload of less than 32 MiB", func(p *Profile) bool {
	return p.maxPayload() < 1<<25
}}

func wrongMagics(t *trial) {
	magics := []uint32{0, proto.SimpleReplyMagic, proto.ChunkMagic, proto.ExtReplyMagic, 0x12560953,
		0x96744668, 0x25609514, 0x13956025}
	for _, mode := range t.profile.richModes() {
		other := proto.ExtRequestMagic
		if mode.extended() {
			other = proto.RequestMagic
		}
		for _, magic := range append([]uint32{other}, magics...) {
			t.within(mode.String(), func() {
				c := t.open(mode)
				defer c.close()
				b := c.encode(newRead(0, t.block()))
				binary.BigEndian.PutUint32(b, magic)
				c.write(b)
				got := c.drain("after a request with the magic " + hex(magic))
				t.prefer(got == 0 ||
					len(t.differs) > 0,
					"the server answers the magic %s with %d bytes before it hangs up", hex(magic),
					got)
			})
		}
	}
	t.alive("requests with wrong magics")
}

func oddCookies(t *trial) {
	t.eachMode(func(c *conn) {
		want := c.succeeds(newRead(0, t.block())).data
		for _, cookie := range []uint64{0, 1, 1<<64 - 1, 1 << 63, 0x0102030405060708,
			0x6744669825609513, 1, 0} {
			for _, r := range []*request{{cookie: cookie, length: t.block()},
				{cookie: cookie, command: 0x7ff0},
				{cookie: cookie, length: t.block(), flags: 1 << 14}} {
				c.expect(r) // not by send, which would make up a cookie for 0
				c.write(c.encode(r))
				if reply := c.nextReply(); r.command == proto.CmdRead && r.flags == 0 {
					t.want(bytes.Equal(reply.data, want),
						"%s with the cookie %#x: %s and other data than before", r, cookie,
						reply.errorText())
				}
			}
		}
		c.stillUp("odd cookies")
	})
}

func sameCookies(t *trial) {
	t.eachMode(func(c *conn) {
		want := c.succeeds(newRead(0, t.block())).data
		var list []*request
		for range 8 {
			list = append(list, &request{cookie: 7, length: t.block()})
		}
		// The client breaks a rule here: nothing that comes back is a failure of the server, unless
		// it dies.
		if problem := t.try(func() {
			c.sendAll(list...)
			for _, reply := range c.allReplies() {
				t.want(bytes.Equal(reply.data, want), "%s: %s", reply.request, reply.errorText())
			}
			c.stillUp("eight requests with one cookie")
		}); problem != "" {
			t.differ("with %s: %s", c.mode, problem)
			c.close()
		}
	})
}

func unknownCommands(t *trial) {
	t.eachMode(func(c *conn) {
		for _, command := range []uint16{9, 10, 31, 255, 256, 0x7fff, 0x8000, 0xffff} {
			c.refused(newCommand(command, 0, t.block()), einval)
		}
		c.refused(newCommand(9, 1<<63, 1<<32-1), einval)
	})
}

func unknownFlags(t *trial) {
	t.eachMode(func(c *conn) {
		first := 5
		if c.mode.extended() {
			first = 6 // bit 5 is PAYLOAD_LEN there
		}
		for bit := first; bit < 16; bit++ {
			for _, command := range append(c.ranged(), proto.CmdFlush) {
				if !c.offers(command) ||
					bit > 6 && bit < 15 && command != proto.CmdRead && command != proto.CmdWrite {
					continue
				}
				r := newRequest(command, t.safeOffset(command), t.block()).with(1 << bit)
				if command == proto.CmdFlush {
					r.offset, r.length = 0, 0
				}
				c.refused(r, einval)
			}
		}
	})
}

// safeOffset returns an offset where a check may use a command: in the scratch for commands that
// change data.
func (t *trial) safeOffset(command uint16) uint64 {
	switch command {
	case proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes:
		return t.scratch(1 << 20)
	}
	return 0
}

// commandFlags has the flags that each command may have in addition to FUA.
var commandFlags = map[uint16]uint16{
	proto.CmdRead:        proto.CmdFlagDF,
	proto.CmdWriteZeroes: proto.CmdFlagNoHole | proto.CmdFlagFastZero,
	proto.CmdBlockStatus: proto.CmdFlagReqOne,
}

func misplacedFlags(t *trial) {
	t.eachMode(func(c *conn) {
		for _, flag := range []uint16{proto.CmdFlagNoHole, proto.CmdFlagDF, proto.CmdFlagReqOne,
			proto.CmdFlagFastZero} {
			for _, command := range append(c.ranged(), proto.CmdFlush) {
				if !c.offers(command) || commandFlags[command]&flag != 0 {
					continue
				}
				r := newRequest(command, t.safeOffset(command), t.block()).with(flag)
				if command == proto.CmdFlush {
					r.offset, r.length = 0, 0
				}
				c.refused(r, einval)
			}
		}
	})
}

func flagFUAEverywhere(t *trial) {
	t.eachMode(func(c *conn) {
		for _, command := range c.ranged() {
			c.succeeds(newRequest(command, t.safeOffset(command), t.block()).with(proto.CmdFlagFUA))
		}
		if c.offers(proto.CmdFlush) {
			c.succeeds(newCommand(proto.CmdFlush, 0, 0).with(proto.CmdFlagFUA))
		}
		c.stillUp("FUA on every command")
	})
}

func flagFUAUnadvertised(t *trial) {
	t.eachMode(func(c *conn) {
		c.refused(newRequest(proto.CmdWrite, t.scratch(t.block()),
			t.block()).with(proto.CmdFlagFUA),
			einval)
		c.refused(newRead(0, t.block()).with(proto.CmdFlagFUA), einval)
	})
}

func unadvertised(t *trial) {
	sent := 0
	t.eachMode(func(c *conn) {
		for command, bit := range map[uint16]uint16{proto.CmdFlush: proto.FlagSendFlush,
			proto.CmdTrim: proto.FlagSendTrim, proto.CmdWriteZeroes: proto.FlagSendWriteZeroes} {
			if c.flags&bit != 0 || command != proto.CmdFlush && !t.profile.Writable {
				continue
			}
			sent++
			r := newCommand(command, t.safeOffset(command), t.block())
			if command == proto.CmdFlush {
				r.offset, r.length = 0, 0
			}
			c.mayWork(r, einval)
		}
	})
	if sent == 0 {
		t.skip("the server advertises all of FLUSH, TRIM and WRITE_ZEROES, or they may not be " +
			"tried")
	}
}

// mayWork sends a request that may succeed, or fail with one of these errors.
func (c *conn) mayWork(r *request, errors ...uint32) *reply {
	return c.refused(r, append(errors, 0)...)
}

func manyInFlight(t *trial) {
	t.eachMode(func(c *conn) {
		var list []*request
		for i := uint64(0); i < 96; i++ {
			length := t.block() * (1 + i*i%37)
			list = append(list,
				newRead((i*7919*t.block())%(holeStart+2*stripe)/t.block()*t.block(), length))
			if i%8 == 0 {
				list = append(list, newRead(stripeStart+i*stripe/2/t.block()*t.block(), 2*stripe))
			}
		}
		// a dozen at a time, because a server may stop reading requests until its replies are read
		for at := 0; at < len(list); at += 12 {
			c.sendAll(list[at:min(at+12, len(list))]...)
			for _, reply := range c.allReplies() {
				t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
				t.want(bytes.Equal(reply.data,
					expected(reply.request.offset, reply.request.length)),
					"%s: data from another offset", reply.request)
			}
		}
		c.stillUp("many requests at a time")
	})
}

func overflows(t *trial) {
	block := t.block()
	t.eachMode(func(c *conn) {
		ranges := []area{{1<<64 - 1, 1}, {-block, block}, {-block, 8 * block}, {1 << 63, block},
			{1<<63 - block, 2 * block}, {-(8 * block), 1<<32 - block}}
		if c.mode.extended() {
			ranges = append(ranges, area{block, -block}, area{2 * block, -block},
				area{0, 1<<64 - 1}, area{0, 1 << 63}, area{1 << 63, 1 << 63})
		}
		for _, s := range ranges {
			for _, command := range c.ranged() {
				if command == proto.CmdWrite && s.length > 1<<20 {
					continue // its data would have to be sent
				}
				want := []uint32{beyondError[command]}
				if s.length%block != 0 || s.length > t.profile.maxPayload() {
					// the range is also misaligned, or also too long
					want = append(want, einval, eoverflow)
				}
				reply := c.refused(newRequest(command, s.offset, s.length), want...)
				if reply != nil && reply.errno == 0 {
					t.failf("%s: success, although the range ends beyond 64 bits", reply.request)
				}
			}
		}
	})
}

func drainedWrite(t *trial) {
	t.eachMode(func(c *conn) {
		n := min(t.profile.maxPayload(), 1<<25) / t.block() * t.block()
		start := t.tail(t.block()) // one block of the WRITE is inside the export
		before := c.succeeds(newRead(start, t.block())).data
		c.refused(newRequest(proto.CmdWrite, start, n), enospc)
		c.wantRead(newRead(start, t.block()), before,
			"after a WRITE beyond the end, which must not write its beginning")
	})
}

func enormousWrite(t *trial) {
	t.eachMode(func(c *conn) {
		r := newRequest(proto.CmdWrite, 0, 0)
		r.offset, r.length, r.payload = t.profile.Size, 1<<32-1, make([]byte, 64<<10)
		c.number(r)
		_ = c.tryWrite(c.encode(r)) // the server may hang up in the middle
		open, got := c.openAfter(t.patience / 10)
		if open && len(got) > 0 {
			// The server answers before the data. Then it must drain the data, and neither hang up
			// nor parse the data as requests.
			c.expect(r)
			reply := c.nextReply()
			t.want(reply.errno != 0, "%s: success after 64 KiB of its data", r)
		}
		c.close()
		t.alive("a WRITE of 4 GiB of which 64 KiB came")
	})
}

func payloadAboveMaximum(t *trial) {
	t.eachMode(func(c *conn) {
		c.mayWork(newRequest(proto.CmdWrite, t.scratch(1<<20), 1<<25), einval, enospc)
	})
}

func zeroLengths(t *trial) {
	t.eachMode(func(c *conn) {
		for _, command := range c.ranged() {
			reply := c.survives(newRequest(command, t.safeOffset(command), 0))
			if reply != nil && reply.errno == 0 && command == proto.CmdRead {
				t.want(len(reply.data) == 0, "%s: %d bytes", reply.request, len(reply.data))
			}
		}
	})
}

func zeroLengthsAtEnd(t *trial) {
	t.eachMode(func(c *conn) {
		for _, command := range c.ranged() {
			c.survives(newRequest(command, c.size, 0))
			c.refused(newRequest(command, c.size+t.block(), 0), beyondError[command], einval)
		}
	})
}

// pause is long enough for a server to have read what was sent, and short enough to do it often.
const pause = 20 * time.Millisecond
