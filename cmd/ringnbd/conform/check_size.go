// Checks of sizes, transmission flags and error values (S, TF, ER), and of RESIZE (CX).
//
// Invariant: what the server said of itself is compared with what it does.

package conform

import (
	"encoding/binary"

	"ringnbd/proto"
)

var sizeChecks = []Check{
	{"S-01", must, []need{needBlockSize},
		"the minimum block size is a power of two up to 64 KiB",
		"clients align with masks",
		minimumBlock},
	{"S-02", must, []need{needBlockSize},
		"the preferred block size is a power of two, 512 or more, and not less than the minimum",
		"clients size their buffers by it",
		preferredBlock},
	{"S-03", must, []need{needBlockSize},
		"the maximum payload is not less than the preferred block, nor than 1 MiB if the export " +
			"is that large",
		"clients cut their requests by it",
		maximumPayload},
	{"S-04", should, nil,
		"a client that did not ask for block sizes may use single bytes, or gets EINVAL",
		"old clients use single bytes and do not ask",
		defaultSizes},
	{"S-05", should, nil,
		"the size of the export is a multiple of the minimum block",
		"the rest of the export could not be read",
		sizeOfBlocks},
	{"S-06", must, []need{without(needBlocks)},
		"a server that enforces a minimum block tells it to clients that ask",
		"a client cannot keep to a minimum that it was not told",
		enforcedUntold},
	{"S-07", should, []need{needBlocks},
		"a request that violates the advertised sizes is EINVAL, and changes nothing",
		"a server must not damage the disk because a client is wrong",
		violatedSizes},
	{"S-08", should, []need{needBlocks},
		"misaligned TRIM, WRITE_ZEROES, CACHE and BLOCK_STATUS are EINVAL, as READ and WRITE are",
		"a server that rounds outward destroys data next to the range",
		misalignedCommands},
	{"S-09", must, []need{needWrite},
		"odd WRITEs from a client that was not told block sizes are done right, or refused",
		"a server that works in blocks must read, modify and write them, or refuse",
		oddWritesUntold},
	{"S-10", should, []need{needWrite},
		"payloads up to 32 MiB do not cost the connection, whatever maximum is advertised",
		"a client that did not ask for block sizes sends them in good faith",
		payloadsOfDefault},
	{"S-11", should, []need{needWrite, needRoom},
		"commands without payload may be longer than the maximum payload",
		"the data is not on the wire",
		longCommands},
	{"S-12", should, []need{needGo},
		"GO works without a request for block sizes",
		"most clients never ask",
		goWithoutSizes},
	{"ER-01", must, nil,
		"only the errors of the protocol are on the wire",
		"other numbers have another meaning on another system",
		allErrors},
	{"ER-02", should, nil,
		"EOVERFLOW is only for requests that are too long",
		"clients react by shorter and shorter requests",
		noStrayOverflow},
	{"ER-03", should, nil,
		"ENOTSUP is only for FAST_ZERO, and ENOMEM for no request",
		"clients take ENOTSUP as a hint about speed",
		noStrayUnsupported},
	{"TF-01", must, nil,
		"HAS_FLAGS is set in every mode",
		"without it the other flags have no meaning",
		hasFlags},
	{"TF-02a", must, nil,
		"everything that is advertised works",
		"a flag is a promise",
		advertisedWorks},
	{"TF-02b", quality, []need{needReadOnly},
		"a read-only export does not advertise TRIM, WRITE_ZEROES or FAST_ZERO",
		"they cannot work there",
		readOnlyFlags},
	{"TF-03", must, nil,
		"FAST_ZERO is not advertised without WRITE_ZEROES",
		"FAST_ZERO is a flag of that command",
		fastZeroAlone},
	{"TF-04", must, nil,
		"SEND_DF is set if, and only if, structured replies or extended headers were agreed on",
		"without them no reply is fragmented",
		sendDF},
	{"TF-05", must, nil,
		"BLOCK_STATUS_PAYLOAD is not set without extended headers",
		"with compact headers only WRITE has a payload",
		payloadFlag},
	{"TF-06", must, nil,
		"flags that do not exist, and SEND_RESIZE, are not set",
		"a client that knows a later meaning would rely on it",
		unknownTransmissionFlags},
	{"CX-02", must, nil,
		"RESIZE is EINVAL, and not advertised",
		"its meaning has not been agreed on",
		resizeUnknown},
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

func minimumBlock(t *trial) {
	b := t.profile.Block
	t.want(powerOfTwo(b.Min) && b.Min <= 64<<10, "the minimum block size is %d", b.Min)
}

func preferredBlock(t *trial) {
	b := t.profile.Block
	t.want(powerOfTwo(b.Preferred) && b.Preferred >= 512 && b.Preferred >= b.Min,
		"the preferred block size is %d, the minimum %d", b.Preferred, b.Min)
}

func maximumPayload(t *trial) {
	b := t.profile.Block
	t.want(b.Max >= b.Preferred,
		"the maximum payload is %d, the preferred block %d", b.Max, b.Preferred)
	t.prefer(uint64(b.Max) >= min(1<<20, t.profile.Size),
		"the maximum payload is %d, less than 1 MiB", b.Max)
}

// openPlain enters transmission without a request for block sizes.
func (t *trial) openPlain() *conn {
	c := t.haggle()
	if !t.profile.Go {
		c.enterExportName(t.export())
		return c
	}
	list := c.option(proto.OptGo, infoData(t.export()))
	last := list[len(list)-1]
	if last.kind == proto.RepErrBlockSizeReqd {
		t.differ("GO without a request for block sizes: %s", last)
		c.enterGo(t.export())
		return c
	}
	c.wantReply(last, "GO without information requests", proto.RepAck)
	info := c.parseInfos(list)
	c.mode, c.size, c.flags = modeGo, info.size, info.flags
	return c
}

func goWithoutSizes(t *trial) { t.openPlain().stillUp("GO without information requests") }

func defaultSizes(t *trial) {
	c := t.openPlain()
	c.mayWork(newRead(1, 1), einval)
	c.mayWork(newRead(511, 2), einval)
	if !t.profile.Writable {
		return
	}
	at := t.scratch(1 << 20)
	before := fill(11, int(max(4096, t.block())))
	c.writeData(at, before)
	if reply := c.mayWork(newWrite(at+1, []byte{1, 2, 3}), einval); reply != nil &&
		reply.errno == 0 {
		copy(before[1:], []byte{1, 2, 3})
	}
	c.wantRead(newRead(at, uint64(len(before))), before, "after a WRITE of three bytes")
}

func sizeOfBlocks(t *trial) {
	t.prefer(t.profile.Size%t.profile.minBlock() == 0, "%d bytes are not a multiple of %d",
		t.profile.Size, t.profile.minBlock())
}

func enforcedUntold(t *trial) {
	if t.profile.Block == nil && !t.profile.Pattern {
		t.skip("the data is not known, and block sizes are not advertised")
	}
	t.eachMode(func(c *conn) {
		for _, r := range []*request{newRead(1, 1), newRead(511, 1023), newRead(4095, 2)} {
			if r.offset+r.length > c.size {
				continue
			}
			reply := c.do(r)
			t.want(reply.errno == 0, "%s: %s, although the server did not tell a minimum block "+
				"when asked", r,
				reply.errorText())
		}
		c.stillUp("odd READs")
	})
}

func oddWritesUntold(t *trial) {
	c := t.openPlain()
	at := t.scratch(1 << 20)
	want := fill(12, 64<<10)
	c.writeData(at, want)
	for i, s := range []area{{1, 1}, {511, 2}, {4095, 4098}, {7, 9000}, {8191, 1}} {
		data := fill(uint64(i)+60, int(s.length))
		reply := c.mayWork(newWrite(at+s.offset, data), einval)
		if reply != nil && reply.errno == 0 {
			copy(want[s.offset:], data)
		}
		c.wantRead(newRead(at, uint64(len(want))), want, "after an odd WRITE")
	}
}

func violatedSizes(t *trial) {
	readMisaligned(t)
	if t.profile.Writable {
		writeMisaligned(t)
	}
}

func misalignedCommands(t *trial) {
	t.eachMode(func(c *conn) {
		minBlock := t.profile.minBlock()
		for _, command := range c.ranged() {
			at := t.safeOffset(command) + minBlock*8
			for _, s := range []area{{at + 1, minBlock}, {at, minBlock - 1},
				{at + minBlock/2, minBlock}} {
				c.refused(newRequest(command, s.offset, s.length), einval)
			}
		}
	})
}

func payloadsOfDefault(t *trial) {
	t.eachMode(func(c *conn) {
		n := min(1<<25, c.size-scratchStart) / t.block() * t.block()
		c.mayWork(newRequest(proto.CmdWrite, scratchStart, n), einval)
		c.mayWork(newRead(0, min(1<<25, c.size)/t.block()*t.block()), eoverflow, einval)
	})
}

func longCommands(t *trial) {
	t.eachMode(func(c *conn) {
		n := min(t.profile.maxPayload()+8*t.block(), c.size-scratchStart) / t.block() * t.block()
		for _, command := range []uint16{proto.CmdTrim, proto.CmdWriteZeroes, proto.CmdCache,
			proto.CmdBlockStatus} {
			if c.offers(command) {
				c.sampleCommand(newCommand(command, scratchStart, n), eoverflow, einval)
			}
		}
	})
}

// everyError makes every error that a client can make, and returns the replies. conn fails on
// numbers that the protocol does not have.
func (c *conn) everyError() []*reply {
	list := c.wrongReplies()
	for _, command := range c.ranged() {
		block := c.t.block()
		for _, r := range []*request{
			newRequest(command, c.t.safeOffset(command), block).with(1 << 13),
			newRequest(command, c.size, block),
			newRequest(command, -block, block),
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

func allErrors(t *trial) {
	seen := 0
	t.eachMode(func(c *conn) {
		for _, reply := range c.everyError() {
			seen += len(reply.errors)
		}
	})
	t.want(seen > 0, "no wrong request was refused")
}

func noStrayOverflow(t *trial) {
	t.eachMode(func(c *conn) {
		for _, reply := range c.everyError() {
			t.prefer(reply.errno != eoverflow, "%s: EOVERFLOW", reply.request)
		}
	})
}

// longRead sends a READ that is longer than a server has to serve, and returns the reply if it is
// an error. A server that serves it, or takes long over it, is right, and the data is not needed:
// the connection is given up at the first header, as if the server had hung up.
func (c *conn) longRead(r *request) *reply {
	c.send(r)
	if _, got := c.openAfter(c.t.patience / 4); len(got) > 0 {
		h, err := c.r.Peek(proto.SimpleReplySize)
		failed := err == nil && binary.BigEndian.Uint16(h[6:])&proto.ChunkErrorBit != 0
		if err == nil && binary.BigEndian.Uint32(h) == proto.SimpleReplyMagic {
			failed = binary.BigEndian.Uint32(h[4:]) != 0
		}
		if err != nil || failed {
			return c.nextReply()
		}
	}
	c.reopen(r.String())
	return nil
}

func noStrayUnsupported(t *trial) {
	t.eachMode(func(c *conn) {
		list := c.everyError()
		for _, r := range []*request{newRead(0, min(t.profile.maxPayload()+t.block(), 1<<32-1)),
			newRead(0, longCost), newRead(t.tail(t.block()), 1<<32-1)} {
			if beyond := r.length > c.size; !beyond &&
				(r.length <= t.profile.maxPayload() || r.length > longCost) {
				continue
			}
			if reply := c.longRead(r); reply != nil {
				list = append(list, reply)
			}
		}
		for _, reply := range list {
			t.prefer(reply.errno != enotsup, "%s: ENOTSUP", reply.request)
			if reply.errno == enomem {
				c.differOnce(reply.request, "ENOMEM")
			}
		}
	})
}

func hasFlags(t *trial) {
	t.eachMode(func(c *conn) {
		t.want(c.flags&proto.FlagHasFlags != 0, "the transmission flags are %#x", c.flags)
	})
	t.within("EXPORT_NAME", func() {
		c := t.open(modeExportName)
		t.want(c.flags&proto.FlagHasFlags != 0, "the transmission flags are %#x", c.flags)
	})
}

func advertisedWorks(t *trial) {
	t.eachMode(func(c *conn) {
		for _, command := range c.ranged() {
			if command == proto.CmdCache {
				continue // CACHE may always fail, even if it is advertised
			}
			c.succeeds(newRequest(command, t.safeOffset(command), t.block()))
		}
		if c.offers(proto.CmdFlush) {
			c.succeeds(newCommand(proto.CmdFlush, 0, 0))
		}
		if c.flags&proto.FlagSendFUA != 0 && t.profile.Writable {
			c.succeeds(newRequest(proto.CmdWrite, t.scratch(t.block()),
				t.block()).with(proto.CmdFlagFUA))
		}
		c.stillUp("everything that is advertised")
	})
}

func readOnlyFlags(t *trial) {
	t.readOnlyModes(func(c *conn) {
		changing := proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagSendFastZero
		if set := c.flags & changing; set != 0 && len(t.differs) == 0 {
			t.differ("the transmission flags of a read-only export have %#x, of TRIM %#x, "+
				"WRITE_ZEROES %#x and FAST_ZERO %#x", set,
				proto.FlagSendTrim, proto.FlagSendWriteZeroes, proto.FlagSendFastZero)
		}
	})
}

func fastZeroAlone(t *trial) {
	t.eachMode(func(c *conn) {
		t.want(c.flags&proto.FlagSendFastZero == 0 || c.flags&proto.FlagSendWriteZeroes != 0,
			"the transmission flags are %#x", c.flags)
	})
}

func sendDF(t *trial) {
	for _, mode := range t.profile.modes() {
		t.within(mode.String(), func() {
			c := t.open(mode)
			defer c.close()
			if mode.structured() || mode.extended() {
				t.prefer(c.flags&proto.FlagSendDF != 0, "SEND_DF is not set")
				return
			}
			t.want(c.flags&proto.FlagSendDF == 0, "SEND_DF is set")
		})
	}
}

func payloadFlag(t *trial) {
	for _, mode := range t.profile.modes() {
		t.within(mode.String(), func() {
			c := t.open(mode)
			defer c.close()
			set := c.flags&proto.FlagBlockStatusPayload != 0
			t.want(!set || mode.extended(), "BLOCK_STATUS_PAYLOAD is set")
			t.prefer(!set || mode.contexts(), "BLOCK_STATUS_PAYLOAD is set without a context")
		})
	}
}

func unknownTransmissionFlags(t *trial) {
	t.eachMode(func(c *conn) {
		t.want(c.flags&proto.FlagSendResize == 0,
			"SEND_RESIZE is set, which is part of an extension that was not agreed on")
		t.want(c.flags>>13 == 0, "the transmission flags %#x have bits that do not exist", c.flags)
	})
}

func resizeUnknown(t *trial) {
	t.eachMode(func(c *conn) {
		t.want(c.flags&proto.FlagSendResize == 0, "SEND_RESIZE is set")
		if !t.profile.Writable {
			t.skip("RESIZE is not advertised; to send it needs %s", needWrite.name)
		}
		c.refused(newCommand(proto.CmdResize, c.size, 0), einval)
	})
}
