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
	{"RQ-01", Must, "a request with a wrong magic ends the connection",
		"after a wrong magic nobody knows where the next request begins; an answer to garbage " +
			"may be a write in the wrong place", nil, wrongMagics},
	{"RQ-02", Must, "the cookie comes back bit for bit, whatever it is",
		"clients find their request by it; one that is swapped, cut or taken for a number gives " +
			"one request's data to another", nil, oddCookies},
	{"RQ-03", Quality, "two requests in flight with the same cookie are both answered",
		"a client should not do this, but a server that keys its state by the cookie loses a " +
			"request or crashes", nil, sameCookies},
	{"RQ-04", Should, "an unknown command is EINVAL, and its length is no payload",
		"a server that waits for bytes that never come hangs the connection; one that hangs up " +
			"takes all requests in flight with it", nil, unknownCommands},
	{"RQ-05", Should, "an unknown command flag is EINVAL, and a WRITE's data is drained",
		"a flag that is ignored promises something that does not happen; data that is not " +
			"drained is parsed as requests", nil, unknownFlags},
	{"RQ-06", Should, "a known flag on the wrong command is EINVAL, and a WRITE's data is drained",
		"the same as with unknown flags: silently ignored, a later extension could not use it", nil,
		misplacedFlags},
	{"RQ-07", Must, "FUA is accepted with every command, once it is advertised",
		"clients are allowed to set it anywhere; some do it on all they send", []Need{NeedFUA},
		flagFUAEverywhere},
	{"RQ-08", Should, "FUA that is not advertised is EINVAL",
		"accepted and ignored, it would promise that data is on stable storage",
		[]Need{Without(NeedFUA), NeedWrite}, flagFUAUnadvertised},
	{"RQ-09", Should, "a command that is not advertised is EINVAL, or works",
		"clients exist that do not look at the flags first", nil, unadvertised},
	{"RQ-10", Must,
		"many requests in flight: each is answered once and with its own data, in whatever order",
		"a swapped or interleaved reply is corruption that no checksum sees", []Need{NeedPattern},
		manyInFlight},
	{"RQ-11", Must, "offset and length that overflow 64 bits are beyond the end, and nothing else",
		"a sum that wraps round passes the range check: this is how servers write and read " +
			"outside of the export", nil, overflows},
	{"RQ-12", Must, "a WRITE of the maximum payload that is refused is drained whole",
		"32 MiB parsed as requests are a million chances to do harm", []Need{NeedWrite},
		drainedWrite},
	{"RQ-13a", Quality, "a WRITE of 4 GiB less one byte neither hurts nor is taken for granted",
		"a buffer allocated by a number from the wire is a denial of service", []Need{NeedWrite},
		enormousWrite},
	{"RQ-13b", Should, "a WRITE of 32 MiB is answered even if the server's maximum payload is less",
		"the spec calls 2^25 bytes the least that may be taken for an attack",
		[]Need{NeedWrite, needSmallPayload}, payloadAboveMaximum},
	{"RQ-14", Should, "a request of length zero does not cost the connection",
		"the outcome is unspecified, but hanging up is not wanted, and a data chunk without " +
			"data is malformed", nil, zeroLengths},
	{"RQ-15", Quality,
		"length zero at the very end is as anywhere else; behind the end it is an error",
		"off-by-one errors of range checks live here", nil, zeroLengthsAtEnd},
}

var needSmallPayload = Need{"a maximum payload of less than 32 MiB", func(f *Facts) bool {
	return f.MaxPayload() < 1<<25
}}

func wrongMagics(t *T) {
	magics := []uint32{0, proto.SimpleReplyMagic, proto.ChunkMagic, proto.ExtReplyMagic, 0x12560953,
		0x96744668, 0x25609514, 0x13956025}
	for _, mode := range t.facts.richModes() {
		other := proto.ExtRequestMagic
		if mode.Extended() {
			other = proto.RequestMagic
		}
		for _, magic := range append([]uint32{other}, magics...) {
			t.within(mode.String(), func() {
				c := t.Open(mode)
				defer c.Close()
				b := c.Encode(Read(0, t.block()))
				binary.BigEndian.PutUint32(b, magic)
				c.Write(b)
				got := c.Drained("after a request with the magic " + hex(magic))
				t.Prefer(got == 0 ||
					len(t.differs) > 0,
					"the server answers the magic %s with %d bytes before it hangs up", hex(magic),
					got)
			})
		}
	}
	t.alive("requests with wrong magics")
}

func oddCookies(t *T) {
	t.eachMode(func(c *Conn) {
		want := c.Succeeds(Read(0, t.block())).Data
		for _, cookie := range []uint64{0, 1, 1<<64 - 1, 1 << 63, 0x0102030405060708,
			0x6744669825609513, 1, 0} {
			for _, r := range []*Request{{Cookie: cookie, Length: t.block()},
				{Cookie: cookie, Type: 0x7ff0},
				{Cookie: cookie, Length: t.block(), Flags: 1 << 14}} {
				c.Expect(r) // not Send, which would make up a cookie for 0
				c.Write(c.Encode(r))
				if reply := c.Next(); r.Type == proto.CmdRead && r.Flags == 0 {
					t.Want(bytes.Equal(reply.Data, want),
						"%s with the cookie %#x: %s and other data than before", r, cookie,
						reply.Error())
				}
			}
		}
		c.StillUp("odd cookies")
	})
}

func sameCookies(t *T) {
	t.eachMode(func(c *Conn) {
		want := c.Succeeds(Read(0, t.block())).Data
		var list []*Request
		for range 8 {
			list = append(list, &Request{Cookie: 7, Length: t.block()})
		}
		// It is the client that breaks a rule here: whatever comes back is no failure of the
		// server's, unless it dies of it.
		if problem := t.Try(func() {
			c.SendAll(list...)
			for _, reply := range c.All() {
				t.Want(bytes.Equal(reply.Data, want), "%s: %s", reply.Request, reply.Error())
			}
			c.StillUp("eight requests with one cookie")
		}); problem != "" {
			t.Differ("with %s: %s", c.Mode, problem)
			c.Close()
		}
	})
}

func unknownCommands(t *T) {
	t.eachMode(func(c *Conn) {
		for _, command := range []uint16{9, 10, 31, 255, 256, 0x7fff, 0x8000, 0xffff} {
			c.refused(Command(command, 0, t.block()), EINVAL)
		}
		c.refused(Command(9, 1<<63, 1<<32-1), EINVAL)
	})
}

func unknownFlags(t *T) {
	t.eachMode(func(c *Conn) {
		first := 5
		if c.Mode.Extended() {
			first = 6 // bit 5 is PAYLOAD_LEN there
		}
		for bit := first; bit < 16; bit++ {
			for _, command := range append(c.ranged(), proto.CmdFlush) {
				if !c.offers(command) ||
					bit > 6 && bit < 15 && command != proto.CmdRead && command != proto.CmdWrite {
					continue
				}
				r := request(command, t.probeSafe(command), t.block()).With(1 << bit)
				if command == proto.CmdFlush {
					r.Offset, r.Length = 0, 0
				}
				c.refused(r, EINVAL)
			}
		}
	})
}

// probeSafe is where a check may use a command: the scratch for those that change data.
func (t *T) probeSafe(command uint16) uint64 {
	switch command {
	case proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes:
		return t.Scratch(1 << 20)
	}
	return 0
}

// ownFlags are the flags that each command may carry beside FUA.
var ownFlags = map[uint16]uint16{
	proto.CmdRead:        proto.CmdFlagDF,
	proto.CmdWriteZeroes: proto.CmdFlagNoHole | proto.CmdFlagFastZero,
	proto.CmdBlockStatus: proto.CmdFlagReqOne,
}

func misplacedFlags(t *T) {
	t.eachMode(func(c *Conn) {
		for _, flag := range []uint16{proto.CmdFlagNoHole, proto.CmdFlagDF, proto.CmdFlagReqOne,
			proto.CmdFlagFastZero} {
			for _, command := range append(c.ranged(), proto.CmdFlush) {
				if !c.offers(command) || ownFlags[command]&flag != 0 {
					continue
				}
				r := request(command, t.probeSafe(command), t.block()).With(flag)
				if command == proto.CmdFlush {
					r.Offset, r.Length = 0, 0
				}
				c.refused(r, EINVAL)
			}
		}
	})
}

func flagFUAEverywhere(t *T) {
	t.eachMode(func(c *Conn) {
		for _, command := range c.ranged() {
			c.Succeeds(request(command, t.probeSafe(command), t.block()).With(proto.CmdFlagFUA))
		}
		if c.offers(proto.CmdFlush) {
			c.Succeeds(Command(proto.CmdFlush, 0, 0).With(proto.CmdFlagFUA))
		}
		c.StillUp("FUA on every command")
	})
}

func flagFUAUnadvertised(t *T) {
	t.eachMode(func(c *Conn) {
		c.refused(request(proto.CmdWrite, t.Scratch(t.block()), t.block()).With(proto.CmdFlagFUA),
			EINVAL)
		c.refused(Read(0, t.block()).With(proto.CmdFlagFUA), EINVAL)
	})
}

func unadvertised(t *T) {
	sent := 0
	t.eachMode(func(c *Conn) {
		for command, bit := range map[uint16]uint16{proto.CmdFlush: proto.FlagSendFlush,
			proto.CmdTrim: proto.FlagSendTrim, proto.CmdWriteZeroes: proto.FlagSendWriteZeroes} {
			if c.Flags&bit != 0 || command != proto.CmdFlush && !t.facts.Writable {
				continue
			}
			sent++
			r := Command(command, t.probeSafe(command), t.block())
			if command == proto.CmdFlush {
				r.Offset, r.Length = 0, 0
			}
			c.mayWork(r, EINVAL)
		}
	})
	if sent == 0 {
		t.Skip("the server advertises all of FLUSH, TRIM and WRITE_ZEROES, or they may not be tried")
	}
}

// mayWork sends a request that may succeed, or fail with one of these errors.
func (c *Conn) mayWork(r *Request, errors ...uint32) *Reply {
	return c.refused(r, append(errors, 0)...)
}

func manyInFlight(t *T) {
	t.eachMode(func(c *Conn) {
		var list []*Request
		for i := uint64(0); i < 96; i++ {
			length := t.block() * (1 + i*i%37)
			list = append(list,
				Read((i*7919*t.block())%(HoleStart+2*Stripe)/t.block()*t.block(), length))
			if i%8 == 0 {
				list = append(list, Read(StripeStart+i*Stripe/2/t.block()*t.block(), 2*Stripe))
			}
		}
		// a dozen at a time, as a server may read no more requests until replies are taken
		for at := 0; at < len(list); at += 12 {
			c.SendAll(list[at:min(at+12, len(list))]...)
			for _, reply := range c.All() {
				t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
				t.Want(bytes.Equal(reply.Data,
					Expected(reply.Request.Offset, reply.Request.Length)),
					"%s: data of another place", reply.Request)
			}
		}
		c.StillUp("many requests at a time")
	})
}

func overflows(t *T) {
	block := t.block()
	t.eachMode(func(c *Conn) {
		ranges := []span{{1<<64 - 1, 1}, {-block, block}, {-block, 8 * block}, {1 << 63, block},
			{1<<63 - block, 2 * block}, {-(8 * block), 1<<32 - block}}
		if c.Mode.Extended() {
			ranges = append(ranges, span{block, -block}, span{2 * block, -block},
				span{0, 1<<64 - 1}, span{0, 1 << 63}, span{1 << 63, 1 << 63})
		}
		for _, s := range ranges {
			for _, command := range c.ranged() {
				if command == proto.CmdWrite && s.to > 1<<20 {
					continue // its data would have to be sent
				}
				want := []uint32{beyondError[command]}
				if s.to%block != 0 || s.to > t.facts.MaxPayload() {
					want = append(want, EINVAL, EOVERFLOW) // also misaligned, or also too long
				}
				if reply := c.refused(request(command, s.from, s.to), want...); reply != nil &&
					reply.Errno == 0 {
					t.Failf("%s: success; the end of that range is not where the sum of 64 bits "+
						"says", reply.Request)
				}
			}
		}
	})
}

func drainedWrite(t *T) {
	t.eachMode(func(c *Conn) {
		n := min(t.facts.MaxPayload(), 1<<25) / t.block() * t.block()
		start := t.tail(t.block()) // one block of it is inside
		before := c.Succeeds(Read(start, t.block())).Data
		c.refused(request(proto.CmdWrite, start, n), ENOSPC)
		c.wantRead(Read(start, t.block()), before,
			"after a WRITE beyond the end, which must not write its beginning")
	})
}

func enormousWrite(t *T) {
	t.eachMode(func(c *Conn) {
		r := request(proto.CmdWrite, 0, 0)
		r.Offset, r.Length, r.Payload = t.facts.Size, 1<<32-1, make([]byte, 64<<10)
		c.Name(r)
		_ = c.TryWrite(c.Encode(r)) // it may have hung up in the middle
		open, got := c.Hangs(t.patience / 10)
		if open && len(got) > 0 {
			// It answers before the data: then it must go on to drain, and neither hang up nor take
			// the data for requests.
			c.Expect(r)
			reply := c.Next()
			t.Want(reply.Errno != 0, "%s: success after 64 KiB of its data", r)
		}
		c.Close()
		t.alive("a WRITE of 4 GiB of which 64 KiB came")
	})
}

func payloadAboveMaximum(t *T) {
	t.eachMode(func(c *Conn) {
		c.mayWork(request(proto.CmdWrite, t.Scratch(1<<20), 1<<25), EINVAL, ENOSPC)
	})
}

func zeroLengths(t *T) {
	t.eachMode(func(c *Conn) {
		for _, command := range c.ranged() {
			reply := c.survives(request(command, t.probeSafe(command), 0))
			if reply != nil && reply.Errno == 0 && command == proto.CmdRead {
				t.Want(len(reply.Data) == 0, "%s: %d bytes", reply.Request, len(reply.Data))
			}
		}
	})
}

func zeroLengthsAtEnd(t *T) {
	t.eachMode(func(c *Conn) {
		for _, command := range c.ranged() {
			c.survives(request(command, c.Size, 0))
			c.refused(request(command, c.Size+t.block(), 0), beyondError[command], EINVAL)
		}
	})
}

// pause is long enough for a server to have read what was sent, and short enough to do it often.
const pause = 20 * time.Millisecond
