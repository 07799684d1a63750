// Checks of sizes, transmission flags and error values (S, TF, ER). Invariant: what the server said
// of itself is held against what it does.

package conform

import (
	"encoding/binary"

	"ringnbd/proto"
)

var sizeChecks = []Check{
	{"S-01", Must, "the minimum block size is a power of two up to 64 KiB",
		"clients align by masks", []Need{NeedBlockSize}, minimumBlock},
	{"S-02", Must,
		"the preferred block size is a power of two, 512 or more, and no less than the minimum",
		"clients size their buffers by it", []Need{NeedBlockSize}, preferredBlock},
	{"S-03", Must,
		"the maximum payload is no less than the preferred block, and 1 MiB if the export is " +
			"that large",
		"clients cut their requests by it", []Need{NeedBlockSize}, maximumPayload},
	{"S-04", Should,
		"a client that asked for no block sizes may use single bytes, or is told EINVAL",
		"old clients do, and ask nothing", nil, defaultSizes},
	{"S-05", Should, "the size of the export is a multiple of the minimum block",
		"the rest could never be read", nil, sizeOfBlocks},
	{"S-06", Must, "a server that enforces a minimum block tells it to those who ask",
		"a client cannot keep to what it was not told", []Need{Without(NeedBlocks)},
		enforcedUntold},
	{"S-07", Should, "what violates the advertised sizes is EINVAL, and changes nothing",
		"a server may count on its clients' word, not on its disk's sake", []Need{NeedBlocks},
		violatedSizes},
	{"S-08", Should,
		"misaligned TRIM, WRITE_ZEROES, CACHE and BLOCK_STATUS are EINVAL, as READ and WRITE are",
		"rounding outward destroys a neighbour", []Need{NeedBlocks}, misalignedCommands},
	{"S-09", Must,
		"a client that was told no block sizes does no harm with odd WRITEs: they are done " +
			"right, or refused",
		"a server of whole blocks must read, change and write, or say no", []Need{NeedWrite},
		oddWritesUntold},
	{"S-10", Should, "payloads up to 32 MiB are no attack, whatever maximum is advertised",
		"a client that did not ask sends them in good faith", []Need{NeedWrite}, payloadsOfDefault},
	{"S-11", Should, "commands without payload may be longer than the maximum payload",
		"nothing of that length is on the wire", []Need{NeedWrite, needRoom}, longCommands},
	{"S-12", Should, "GO works without asking for block sizes",
		"most clients never ask", []Need{NeedGo}, goWithoutSizes},
	{"ER-01", Must, "only the errors of the spec are on the wire",
		"other numbers mean something else on another system", nil, allErrors},
	{"ER-02", Should, "EOVERFLOW is only for what is too long",
		"clients answer it by asking for less, again and again", nil, noStrayOverflow},
	{"ER-03", Should, "ENOTSUP is only for FAST_ZERO, ENOMEM for nothing",
		"clients take ENOTSUP for a hint about speed", nil, noStrayUnsupported},
	{"TF-01", Must, "HAS_FLAGS is set in every mode",
		"without it the other flags mean nothing", nil, hasFlags},
	{"TF-02a", Must, "what is advertised works",
		"a flag is a promise", nil, advertisedWorks},
	{"TF-02b", Quality, "a read-only export does not advertise TRIM, WRITE_ZEROES or FAST_ZERO",
		"they cannot work", []Need{NeedReadOnly}, readOnlyFlags},
	{"TF-03", Must, "FAST_ZERO is not advertised without WRITE_ZEROES",
		"it is a flag of that command", nil, fastZeroAlone},
	{"TF-04", Must,
		"SEND_DF is set if, and only if, structured replies or extended headers were agreed on",
		"without them nothing is fragmented", nil, sendDF},
	{"TF-05", Must, "BLOCK_STATUS_PAYLOAD is not set without extended headers",
		"compact requests have no payload but WRITE's", nil, payloadFlag},
	{"TF-06", Must, "no flag that does not exist, and not SEND_RESIZE",
		"a client that knows a later meaning would use it", nil, unknownTransmissionFlags},
	{"CX-02", Must, "RESIZE is EINVAL, and not advertised",
		"nobody has agreed on what it does", nil, resizeUnknown},
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

func minimumBlock(t *T) {
	b := t.facts.Block
	t.Want(powerOfTwo(b.Min) && b.Min <= 64<<10, "the minimum block size is %d", b.Min)
}

func preferredBlock(t *T) {
	b := t.facts.Block
	t.Want(powerOfTwo(b.Preferred) && b.Preferred >= 512 && b.Preferred >= b.Min,
		"the preferred block size is %d, the minimum %d", b.Preferred, b.Min)
}

func maximumPayload(t *T) {
	b := t.facts.Block
	t.Want(b.Max >= b.Preferred, "the maximum payload is %d, the preferred block %d", b.Max,
		b.Preferred)
	t.Prefer(uint64(b.Max) >= min(1<<20, t.facts.Size),
		"the maximum payload is %d, less than 1 MiB", b.Max)
}

// openPlain goes to transmission without asking for block sizes.
func (t *T) openPlain() *Conn {
	c := t.Haggle()
	if !t.facts.Go {
		c.EnterExportName(t.Export())
		return c
	}
	list := c.Option(proto.OptGo, InfoData(t.Export()))
	last := list[len(list)-1]
	if last.Type == proto.RepErrBlockSizeReqd {
		t.Differ("GO without asking for block sizes: %s", last)
		c.EnterGo(t.Export())
		return c
	}
	c.WantReply(last, "GO that asks for nothing", proto.RepAck)
	info := c.Infos(list)
	c.Mode, c.Size, c.Flags = ModeGo, info.Size, info.Flags
	return c
}

func goWithoutSizes(t *T) { t.openPlain().StillUp("GO that asked for nothing") }

func defaultSizes(t *T) {
	c := t.openPlain()
	c.mayWork(Read(1, 1), EINVAL)
	c.mayWork(Read(511, 2), EINVAL)
	if !t.facts.Writable {
		return
	}
	at := t.Scratch(1 << 20)
	before := Fill(11, int(max(4096, t.block())))
	c.wrote(at, before)
	if reply := c.mayWork(Write(at+1, []byte{1, 2, 3}), EINVAL); reply != nil && reply.Errno == 0 {
		copy(before[1:], []byte{1, 2, 3})
	}
	c.wantRead(Read(at, uint64(len(before))), before, "after a WRITE of three bytes")
}

func sizeOfBlocks(t *T) {
	t.Prefer(t.facts.Size%t.facts.MinBlock() == 0, "%d bytes are not a multiple of %d",
		t.facts.Size, t.facts.MinBlock())
}

func enforcedUntold(t *T) {
	if t.facts.Block == nil && !t.facts.Pattern {
		t.Skip("nothing is known of the data, and no block sizes are advertised")
	}
	t.eachMode(func(c *Conn) {
		for _, r := range []*Request{Read(1, 1), Read(511, 1023), Read(4095, 2)} {
			if r.Offset+r.Length > c.Size {
				continue
			}
			reply := c.Do(r)
			t.Want(reply.Errno == 0, "%s: %s, although no minimum block was told when asked for", r,
				reply.Error())
		}
		c.StillUp("odd READs")
	})
}

func oddWritesUntold(t *T) {
	c := t.openPlain()
	at := t.Scratch(1 << 20)
	want := Fill(12, 64<<10)
	c.wrote(at, want)
	for i, s := range []span{{1, 1}, {511, 2}, {4095, 4098}, {7, 9000}, {8191, 1}} {
		data := Fill(uint64(i)+60, int(s.to))
		if reply := c.mayWork(Write(at+s.from, data), EINVAL); reply != nil && reply.Errno == 0 {
			copy(want[s.from:], data)
		}
		c.wantRead(Read(at, uint64(len(want))), want, "after an odd WRITE")
	}
}

func violatedSizes(t *T) {
	readMisaligned(t)
	if t.facts.Writable {
		writeMisaligned(t)
	}
}

func misalignedCommands(t *T) {
	t.eachMode(func(c *Conn) {
		least := t.facts.MinBlock()
		for _, command := range c.ranged() {
			at := t.probeSafe(command) + least*8
			for _, s := range []span{{at + 1, least}, {at, least - 1}, {at + least/2, least}} {
				c.refused(request(command, s.from, s.to), EINVAL)
			}
		}
	})
}

func payloadsOfDefault(t *T) {
	t.eachMode(func(c *Conn) {
		n := min(1<<25, c.Size-ScratchStart) / t.block() * t.block()
		c.mayWork(request(proto.CmdWrite, ScratchStart, n), EINVAL)
		c.mayWork(Read(0, min(1<<25, c.Size)/t.block()*t.block()), EOVERFLOW, EINVAL)
	})
}

func longCommands(t *T) {
	t.eachMode(func(c *Conn) {
		n := min(t.facts.MaxPayload()+8*t.block(), c.Size-ScratchStart) / t.block() * t.block()
		for _, command := range []uint16{proto.CmdTrim, proto.CmdWriteZeroes, proto.CmdCache,
			proto.CmdBlockStatus} {
			if c.offers(command) {
				c.sampled(Command(command, ScratchStart, n), EOVERFLOW, EINVAL)
			}
		}
	})
}

// everyError makes all the errors that a client can make, and gives the replies. Conn fails on
// numbers that the spec does not have.
func (c *Conn) everyError() []*Reply {
	list := c.wrongReplies()
	for _, command := range c.ranged() {
		for _, r := range []*Request{
			request(command, c.t.probeSafe(command), c.t.block()).With(1 << 13), request(command,
				c.Size, c.t.block()), request(command, -c.t.block(), c.t.block()),
		} {
			reply, _ := c.attempt(r)
			if reply == nil {
				c.reopen(r.String())
				continue
			}
			c.inStep(r.String())
			list = append(list, reply)
		}
	}
	return list
}

func allErrors(t *T) {
	seen := 0
	t.eachMode(func(c *Conn) {
		for _, reply := range c.everyError() {
			seen += len(reply.Errors)
		}
	})
	t.Want(seen > 0, "nothing was refused, whatever was wrong with it")
}

func noStrayOverflow(t *T) {
	t.eachMode(func(c *Conn) {
		for _, reply := range c.everyError() {
			t.Prefer(reply.Errno != EOVERFLOW, "%s: EOVERFLOW", reply.Request)
		}
	})
}

// longRead sends a READ that is longer than it need be served, and gives the reply if it is an
// error. Whoever serves it all the same, or takes long over it, does no wrong, and nobody needs the
// data: the connection is given up at the first header, as if the server had hung up.
func (c *Conn) longRead(r *Request) *Reply {
	c.Send(r)
	if _, got := c.Hangs(c.t.patience / 4); len(got) > 0 {
		h, err := c.r.Peek(proto.SimpleReplySize)
		failed := err == nil && binary.BigEndian.Uint16(h[6:])&proto.ChunkErrorBit != 0
		if err == nil && binary.BigEndian.Uint32(h) == proto.SimpleReplyMagic {
			failed = binary.BigEndian.Uint32(h[4:]) != 0
		}
		if err != nil || failed {
			return c.Next()
		}
	}
	c.reopen(r.String())
	return nil
}

func noStrayUnsupported(t *T) {
	t.eachMode(func(c *Conn) {
		list := c.everyError()
		for _, r := range []*Request{Read(0, min(t.facts.MaxPayload()+t.block(), 1<<32-1)),
			Read(0, longCost), Read(t.tail(t.block()), 1<<32-1)} {
			if beyond := r.Length > c.Size; !beyond &&
				(r.Length <= t.facts.MaxPayload() || r.Length > longCost) {
				continue
			}
			if reply := c.longRead(r); reply != nil {
				list = append(list, reply)
			}
		}
		for _, reply := range list {
			t.Prefer(reply.Errno != ENOTSUP, "%s: ENOTSUP", reply.Request)
			if reply.Errno == ENOMEM {
				c.differOnce(reply.Request, "ENOMEM")
			}
		}
	})
}

func hasFlags(t *T) {
	t.eachMode(func(c *Conn) {
		t.Want(c.Flags&proto.FlagHasFlags != 0, "the transmission flags are %#x", c.Flags)
	})
	t.within("EXPORT_NAME", func() {
		c := t.Open(ModeExportName)
		t.Want(c.Flags&proto.FlagHasFlags != 0, "the transmission flags are %#x", c.Flags)
	})
}

func advertisedWorks(t *T) {
	t.eachMode(func(c *Conn) {
		for _, command := range c.ranged() {
			if command == proto.CmdCache {
				continue // may always fail, even if advertised
			}
			c.Succeeds(request(command, t.probeSafe(command), t.block()))
		}
		if c.offers(proto.CmdFlush) {
			c.Succeeds(Command(proto.CmdFlush, 0, 0))
		}
		if c.Flags&proto.FlagSendFUA != 0 && t.facts.Writable {
			c.Succeeds(request(proto.CmdWrite, t.Scratch(t.block()),
				t.block()).With(proto.CmdFlagFUA))
		}
		c.StillUp("everything that is advertised")
	})
}

func readOnlyFlags(t *T) {
	t.readOnlyModes(func(c *Conn) {
		if set := c.Flags & (proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagSendFastZero); set != 0 && len(t.differs) == 0 {
			t.Differ("the transmission flags of a read-only export have %#x, of TRIM %#x, "+
				"WRITE_ZEROES %#x and FAST_ZERO %#x", set,
				proto.FlagSendTrim, proto.FlagSendWriteZeroes, proto.FlagSendFastZero)
		}
	})
}

func fastZeroAlone(t *T) {
	t.eachMode(func(c *Conn) {
		t.Want(c.Flags&proto.FlagSendFastZero == 0 ||
			c.Flags&proto.FlagSendWriteZeroes != 0, "the transmission flags are %#x", c.Flags)
	})
}

func sendDF(t *T) {
	for _, mode := range t.facts.Modes() {
		t.within(mode.String(), func() {
			c := t.Open(mode)
			defer c.Close()
			if mode.Structured() || mode.Extended() {
				t.Prefer(c.Flags&proto.FlagSendDF != 0, "SEND_DF is not set")
				return
			}
			t.Want(c.Flags&proto.FlagSendDF == 0, "SEND_DF is set")
		})
	}
}

func payloadFlag(t *T) {
	for _, mode := range t.facts.Modes() {
		t.within(mode.String(), func() {
			c := t.Open(mode)
			defer c.Close()
			set := c.Flags&proto.FlagBlockStatusPayload != 0
			t.Want(!set || mode.Extended(), "BLOCK_STATUS_PAYLOAD is set")
			t.Prefer(!set || mode.contexts(), "BLOCK_STATUS_PAYLOAD is set without a context")
		})
	}
}

func unknownTransmissionFlags(t *T) {
	t.eachMode(func(c *Conn) {
		t.Want(c.Flags&proto.FlagSendResize == 0,
			"SEND_RESIZE is set, which is of an extension nobody agreed on")
		t.Want(c.Flags>>13 == 0, "the transmission flags %#x have bits that do not exist", c.Flags)
	})
}

func resizeUnknown(t *T) {
	t.eachMode(func(c *Conn) {
		t.Want(c.Flags&proto.FlagSendResize == 0, "SEND_RESIZE is set")
		if !t.facts.Writable {
			t.Skip("it is not advertised; RESIZE itself needs %s", NeedWrite.Name)
		}
		c.refused(Command(proto.CmdResize, c.Size, 0), EINVAL)
	})
}
