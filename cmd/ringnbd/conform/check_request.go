// Checks of how requests are parsed (RQ): magics, cookies, commands and flags that do not exist or
// do not belong there, ranges that overflow, lengths that are nothing or too much. Invariant: each
// ends with the proof that the stream is in step, or that the server lives on.

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
		"after a wrong magic nobody knows where the next request begins; an answer to garbage " +
			"may be a write in the wrong place",
		wrongMagics},
	{"RQ-02", must, nil,
		"the cookie comes back bit for bit, whatever it is",
		"clients find their request by it; one that is swapped, cut or taken for a number gives " +
			"one request's data to another",
		oddCookies},
	{"RQ-03", quality, nil,
		"two requests in flight with the same cookie are both answered",
		"a client should not do this, but a server that keys its state by the cookie loses a " +
			"request or crashes",
		sameCookies},
	{"RQ-04", should, nil,
		"an unknown command is EINVAL, and its length is no payload",
		"a server that waits for bytes that never come hangs the connection; one that hangs up " +
			"takes all requests in flight with it",
		unknownCommands},
	{"RQ-05", should, nil,
		"an unknown command flag is EINVAL, and a WRITE's data is drained",
		"a flag that is ignored promises something that does not happen; data that is not " +
			"drained is parsed as requests",
		unknownFlags},
	{"RQ-06", should, nil,
		"a known flag on the wrong command is EINVAL, and a WRITE's data is drained",
		"the same as with unknown flags: silently ignored, a later extension could not use it",
		misplacedFlags},
	{"RQ-07", must, []need{needFUA},
		"FUA is accepted with every command, once it is advertised",
		"clients are allowed to set it anywhere; some do it on all they send",
		flagFUAEverywhere},
	{"RQ-08", should, []need{without(needFUA), needWrite},
		"FUA that is not advertised is EINVAL",
		"accepted and ignored, it would promise that data is on stable storage",
		flagFUAUnadvertised},
	{"RQ-09", should, nil,
		"a command that is not advertised is EINVAL, or works",
		"clients exist that do not look at the flags first",
		unadvertised},
	{"RQ-10", must, []need{needPattern},
		"many requests in flight: each is answered once and with its own data, in whatever order",
		"a swapped or interleaved reply is corruption that no checksum sees",
		manyInFlight},
	{"RQ-11", must, nil,
		"offset and length that overflow 64 bits are beyond the end, and nothing else",
		"a sum that wraps round passes the range check: this is how servers write and read " +
			"outside of the export",
		overflows},
	{"RQ-12", must, []need{needWrite},
		"a WRITE of the maximum payload that is refused is drained whole",
		"32 MiB parsed as requests are a million chances to do harm",
		drainedWrite},
	{"RQ-13a", quality, []need{needWrite},
		"a WRITE of 4 GiB less one byte neither hurts nor is taken for granted",
		"a buffer allocated by a number from the wire is a denial of service",
		enormousWrite},
	{"RQ-13b", should, []need{needWrite, needSmallPayload},
		"a WRITE of 32 MiB is answered even if the server's maximum payload is less",
		"the spec calls 2^25 bytes the least that may be taken for an attack",
		payloadAboveMaximum},
	{"RQ-14", should, nil,
		"a request of length zero does not cost the connection",
		"the outcome is unspecified, but hanging up is not wanted, and a data chunk without data " +
			"is malformed",
		zeroLengths},
	{"RQ-15", quality, nil,
		"length zero at the very end is as anywhere else; behind the end it is an error",
		"off-by-one errors of range checks live here",
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
				c.expect(r) // not Send, which would make up a cookie for 0
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
		// It is the client that breaks a rule here: whatever comes back is no failure of the
		// server's, unless it dies of it.
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
				r := newRequest(command, t.probeSafe(command), t.block()).with(1 << bit)
				if command == proto.CmdFlush {
					r.offset, r.length = 0, 0
				}
				c.refused(r, einval)
			}
		}
	})
}

// probeSafe is where a check may use a command: the scratch for those that change data.
func (t *trial) probeSafe(command uint16) uint64 {
	switch command {
	case proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes:
		return t.scratch(1 << 20)
	}
	return 0
}

// ownFlags are the flags that each command may carry beside FUA.
var ownFlags = map[uint16]uint16{
	proto.CmdRead:        proto.CmdFlagDF,
	proto.CmdWriteZeroes: proto.CmdFlagNoHole | proto.CmdFlagFastZero,
	proto.CmdBlockStatus: proto.CmdFlagReqOne,
}

func misplacedFlags(t *trial) {
	t.eachMode(func(c *conn) {
		for _, flag := range []uint16{proto.CmdFlagNoHole, proto.CmdFlagDF, proto.CmdFlagReqOne,
			proto.CmdFlagFastZero} {
			for _, command := range append(c.ranged(), proto.CmdFlush) {
				if !c.offers(command) || ownFlags[command]&flag != 0 {
					continue
				}
				r := newRequest(command, t.probeSafe(command), t.block()).with(flag)
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
			c.succeeds(newRequest(command, t.probeSafe(command), t.block()).with(proto.CmdFlagFUA))
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
			r := newCommand(command, t.probeSafe(command), t.block())
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
		// a dozen at a time, as a server may read no more requests until replies are taken
		for at := 0; at < len(list); at += 12 {
			c.sendAll(list[at:min(at+12, len(list))]...)
			for _, reply := range c.allReplies() {
				t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
				t.want(bytes.Equal(reply.data,
					expected(reply.request.offset, reply.request.length)),
					"%s: data of another place", reply.request)
			}
		}
		c.stillUp("many requests at a time")
	})
}

func overflows(t *trial) {
	block := t.block()
	t.eachMode(func(c *conn) {
		ranges := []span{{1<<64 - 1, 1}, {-block, block}, {-block, 8 * block}, {1 << 63, block},
			{1<<63 - block, 2 * block}, {-(8 * block), 1<<32 - block}}
		if c.mode.extended() {
			ranges = append(ranges, span{block, -block}, span{2 * block, -block},
				span{0, 1<<64 - 1}, span{0, 1 << 63}, span{1 << 63, 1 << 63})
		}
		for _, s := range ranges {
			for _, command := range c.ranged() {
				if command == proto.CmdWrite && s.to > 1<<20 {
					continue // its data would have to be sent
				}
				want := []uint32{beyondError[command]}
				if s.to%block != 0 || s.to > t.profile.maxPayload() {
					want = append(want, einval, eoverflow) // also misaligned, or also too long
				}
				if reply := c.refused(newRequest(command, s.from, s.to), want...); reply != nil &&
					reply.errno == 0 {
					t.failf("%s: success; the end of that range is not where the sum of 64 bits "+
						"says", reply.request)
				}
			}
		}
	})
}

func drainedWrite(t *trial) {
	t.eachMode(func(c *conn) {
		n := min(t.profile.maxPayload(), 1<<25) / t.block() * t.block()
		start := t.tail(t.block()) // one block of it is inside
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
		_ = c.tryWrite(c.encode(r)) // it may have hung up in the middle
		open, got := c.openAfter(t.patience / 10)
		if open && len(got) > 0 {
			// It answers before the data: then it must go on to drain, and neither hang up nor take
			// the data for requests.
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
			reply := c.survives(newRequest(command, t.probeSafe(command), 0))
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
