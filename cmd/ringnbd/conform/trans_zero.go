// Checks of TRIM, WRITE_ZEROES and CACHE (CT, CZ, CC). Invariant: what is told to be zero is read,
// and what is not told to change is read, too.

package conform

import (
	"bytes"
	"fmt"
	"time"

	"ringnbd/proto"
)

var zeroChecks = []Check{
	{"CT-01", Must, "TRIM touches nothing outside of its range",
		"rounding outward discards a neighbour's data", []Need{NeedWrite, NeedTrim},
		trimNeighbours},
	{"CT-02a", Should, "TRIM beyond the end is EINVAL",
		"half of it may have been done before anyone looked", []Need{NeedWrite, NeedTrim},
		func(t *T) {
			t.beyond(proto.CmdTrim)
		}},
	{"CT-02b", Should, "TRIM of a read-only export is EPERM",
		"the user learns why", []Need{NeedReadOnlyChange}, func(t *T) {
			t.onReadOnly(proto.CmdTrim)
		}},
	{"CT-03", Should, "TRIM of more than the maximum payload does not cost the connection",
		"there is no payload; the kernel sends up to 4 GiB at once",
		[]Need{NeedWrite, NeedTrim, needRoom}, func(t *T) {
			t.longCommand(proto.CmdTrim)
		}},
	{"CT-04", Must, "TRIM with FUA succeeds",
		"FUA is allowed with every command once it is advertised",
		[]Need{NeedWrite, NeedTrim, NeedFUA}, trimFUA},
	{"CT-05", Should, "TRIM never fails with ENOTSUP, and not at all for want of support",
		"it is a hint: what cannot be trimmed is left as it is", []Need{NeedWrite, NeedTrim},
		trimSucceeds},
	{"CT-06", Quality, "a TRIM of all the scratch does not hold up READs on another connection",
		"mkfs trims the whole disk, and everything else times out meanwhile",
		[]Need{NeedWrite, NeedTrim, NeedPattern}, trimHoldsNobody},
	{"CZ-01", Must, "WRITE_ZEROES reads back as zeroes, and its neighbours are untouched",
		"old data where zeroes were asked for is a leak and a corrupt file system",
		[]Need{NeedWrite, NeedZeroes}, zeroesRead},
	{"CZ-02a", Must, "NO_HOLE is supported with WRITE_ZEROES",
		"it comes with WRITE_ZEROES; clients do not ask twice", []Need{NeedWrite, NeedZeroes},
		zeroesNoHole},
	{"CZ-02b", Must, "after NO_HOLE the area is provisioned: the image has blocks for it",
		"writes there must not fail for want of space", []Need{NeedWrite, NeedZeroes, NeedImage},
		zeroesProvisioned},
	{"CZ-03", Must, "FAST_ZERO works, or is ENOTSUP with nothing changed",
		"the client then writes zeroes itself, and wants to have lost no time",
		[]Need{NeedWrite, NeedZeroes, NeedFastZero}, zeroesFast},
	{"CZ-04", Must, "without FAST_ZERO there is no ENOTSUP",
		"the client did not ask for speed but for zeroes", []Need{NeedWrite, NeedZeroes},
		zeroesNeverUnsupported},
	{"CZ-05", Should, "FAST_ZERO that is not advertised is EINVAL",
		"accepted and slow, it would break its promise",
		[]Need{NeedWrite, NeedZeroes, Without(NeedFastZero)}, zeroesFastUnadvertised},
	{"CZ-06a", Should, "WRITE_ZEROES beyond the end is ENOSPC",
		"as with WRITE", []Need{NeedWrite, NeedZeroes}, func(t *T) {
			t.beyond(proto.CmdWriteZeroes)
		}},
	{"CZ-06b", Should, "WRITE_ZEROES of a read-only export is EPERM",
		"as with WRITE", []Need{NeedReadOnlyChange}, func(t *T) {
			t.onReadOnly(proto.CmdWriteZeroes)
		}},
	{"CZ-07", Should, "WRITE_ZEROES of more than the maximum payload is done whole, or refused",
		"a server that cuts it short leaves old data behind and says it did not",
		[]Need{NeedWrite, NeedZeroes, needRoom}, zeroesLong},
	{"CZ-08", Must, "WRITE_ZEROES with FUA succeeds and reads back as zeroes",
		"FUA is allowed with every command once it is advertised",
		[]Need{NeedWrite, NeedZeroes, NeedFUA}, zeroesFUA},
	{"CZ-09", Must, "WRITE_ZEROES of odd ranges zeroes exactly those bytes",
		"with a minimum block of 1 there is nothing to round to",
		[]Need{NeedWrite, NeedZeroes, NeedByteUnit}, zeroesBytes},
	{"CC-01", May, "CACHE succeeds or is EINVAL, and changes nothing",
		"it is a hint", []Need{NeedCache}, cacheHint},
	{"CC-02", Must, "CACHE with a flag that it does not have fails",
		"later flags ask for behaviour that clients must be able to count on", []Need{NeedCache},
		cacheFlags},
	{"CC-03a", Quality, "CACHE that is not advertised is EINVAL, or works; the connection lives",
		"clients exist that send it all the same", []Need{Without(NeedCache)}, cacheUnadvertised},
	{"CC-03b", Quality, "CACHE beyond the end is EINVAL; longer than the maximum payload is fine",
		"it has no payload", []Need{NeedCache}, cacheRanges},
}

var needRoom = Need{"an export that is larger than the maximum payload by 17 MiB",
	func(f *Facts) bool {
		return f.Size > f.MaxPayload()+ScratchStart+1<<20
	}}

// beyond is a command on ranges beyond the end, with the last block as witness that nothing was
// done by half.
func (t *T) beyond(command uint16) {
	t.eachMode(func(c *Conn) {
		block := t.block()
		at := t.tail(2 * block)
		before := Fill(uint64(c.Mode)+uint64(command), int(c.Size-at))
		c.wrote(at, before)
		for _, s := range []span{{at + block, 4 * block}, {c.Size, block}, {c.Size + block, block},
			{at, 1<<32 - block}} {
			c.refused(Command(command, s.from, s.to), beyondError[command])
			c.wantRead(Read(at, c.Size-at), before,
				fmt.Sprintf("after command %d beyond the end", command))
		}
	})
}

func (t *T) onReadOnly(command uint16) {
	t.readOnlyModes(func(c *Conn) {
		c.wantReadOnly(Command(command, 0, t.block()))
	})
}

// sampled sends a command on a long range that may fail with one of these errors, and looks at
// samples of the data afterwards: the block before the range, the first, one in the middle, the
// last.
func (c *Conn) sampled(r *Request, errors ...uint32) {
	block := c.t.block()
	places := []uint64{r.Offset, r.Offset + r.Length/2/block*block, r.Offset + r.Length - block}
	before := c.Succeeds(Read(r.Offset-block, block)).Data
	for i, at := range places {
		c.wrote(at, Fill(uint64(i)+70, int(block)))
	}
	reply := c.mayWork(r, errors...)
	if reply == nil {
		return // it hung up, which is told
	}
	when := "after " + r.String()
	c.wantRead(Read(r.Offset-block, block), before, when+": the block before it")
	for i, at := range places {
		got := c.Succeeds(Read(at, block)).Data
		kept := bytes.Equal(got, Fill(uint64(i)+70, int(block)))
		switch {
		case reply.Errno != 0 && (r.Type == proto.CmdTrim || r.Type == proto.CmdWriteZeroes):
			c.t.Prefer(kept, "%s, which failed with %s: the block at %d has changed", when,
				reply.Error(), at)
		case r.Type == proto.CmdWriteZeroes:
			c.t.Want(bytes.Equal(got, make([]byte, block)),
				"%s, which succeeded: the block at %d is not zero", when, at)
		case r.Type != proto.CmdTrim: // what is trimmed may be anything
			c.t.Want(kept, "%s: the block at %d has changed", when, at)
		}
	}
}

// longCommand is a command without data on more than the maximum payload, all of it scratch.
func (t *T) longCommand(command uint16) {
	t.eachMode(func(c *Conn) {
		n := c.rest(1<<32 - t.block())
		c.sampled(Command(command, ScratchStart, n), EOVERFLOW, EINVAL)
	})
}

func trimNeighbours(t *T) {
	t.eachMode(func(c *Conn) {
		base := t.Scratch(4<<20) + 1<<20
		ranges := []span{{base, t.block()}, {base, 64 << 10}, {base + t.block(), 1 << 20}}
		if t.facts.MinBlock() == 1 {
			ranges = append(ranges, span{base + 1, 1}, span{base + 511, 4098},
				span{base + 3, 65536})
		}
		for i, s := range ranges {
			c.wrote(s.from, Fill(uint64(i), int(s.to)))
			unharmed := c.frame(s.from, s.to, uint64(i)+40)
			c.Succeeds(Command(proto.CmdTrim, s.from, s.to))
			unharmed(fmt.Sprintf("after TRIM of %d bytes at %d", s.to, s.from))
		}
		c.StillUp("TRIMs")
	})
}

func trimFUA(t *T) {
	t.eachMode(func(c *Conn) {
		c.Succeeds(Command(proto.CmdTrim, t.Scratch(1<<20), 1<<20).With(proto.CmdFlagFUA))
		c.StillUp("TRIM with FUA")
	})
}

func trimSucceeds(t *T) {
	t.eachMode(func(c *Conn) {
		for _, n := range []uint64{t.block(), 64 << 10, 1 << 20} {
			reply := c.Do(Command(proto.CmdTrim, t.Scratch(1<<20), n))
			t.Want(reply.Errno != ENOTSUP,
				"%s: ENOTSUP, which is for WRITE_ZEROES with FAST_ZERO only (ER-03)", reply.Request)
			t.Prefer(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
		}
		c.StillUp("TRIMs")
	})
}

func trimHoldsNobody(t *T) {
	a, b := t.Open(t.facts.Best()), t.Open(t.facts.Best())
	n := a.rest(1<<32 - t.block())
	for range 8 {
		a.Send(Command(proto.CmdTrim, ScratchStart, n))
	}
	worst := time.Duration(0)
	for i := range uint64(32) {
		at := i * 4 * Stripe % HoleStart
		worst = max(worst, took(func() {
			b.wantRead(Read(at, b.t.page()), Expected(at, b.t.page()),
				"while another connection trims")
		}))
	}
	a.All()
	t.Prefer(worst < t.patience/10, "a READ on another connection took %v",
		worst.Round(time.Millisecond))
}

// zero writes data, zeroes it, and judges the result and the neighbours. It gives the reply.
func (c *Conn) zero(at, n uint64, flags uint16) *Reply {
	data := Fill(at+n, int(n))
	c.overwrite(at, data)
	unharmed := c.frame(at, n, at+uint64(flags)+1)
	r := Command(proto.CmdWriteZeroes, at, n).With(flags)
	reply := c.Do(r)
	if reply.Errno == 0 {
		c.WantData(at, make([]byte, n), "after "+r.String())
	} else {
		// That a request which fails changes nothing is a SHOULD.
		if problem := c.t.Try(func() {
			c.WantData(at, data, "after "+r.String()+" which failed with "+reply.Error())
		}); problem != "" {
			c.t.Differ("%s", problem)
		}
	}
	unharmed("after " + r.String())
	return reply
}

func (c *Conn) zeroes(at, n uint64, flags uint16) {
	if reply := c.zero(at, n, flags); reply.Errno != 0 {
		c.t.Failf("%s: %s", reply.Request, reply.Error())
	}
}

func zeroesRead(t *T) {
	t.eachMode(func(c *Conn) {
		base := t.Scratch(4<<20) + 1<<20
		for _, s := range []span{{base, t.block()}, {base, 64 << 10}, {base + t.block(), 1 << 20},
			{base + 3*t.block(), 7 * t.block()}} {
			c.zeroes(s.from, s.to, 0)
		}
		c.StillUp("WRITE_ZEROES")
	})
}

func zeroesNoHole(t *T) {
	t.eachMode(func(c *Conn) {
		base := t.Scratch(4<<20) + 1<<20
		c.zeroes(base, t.block(), proto.CmdFlagNoHole)
		c.zeroes(base, 1<<20, proto.CmdFlagNoHole)
		c.StillUp("WRITE_ZEROES with NO_HOLE")
	})
}

func zeroesFast(t *T) {
	t.eachMode(func(c *Conn) {
		base := t.Scratch(4<<20) + 1<<20
		for _, flags := range []uint16{proto.CmdFlagFastZero,
			proto.CmdFlagFastZero | proto.CmdFlagNoHole} {
			reply := c.zero(base, 1<<20, flags)
			t.Want(reply.Errno == 0 ||
				reply.Errno == ENOTSUP, "%s: %s", reply.Request, reply.Error())
		}
		r := Command(proto.CmdWriteZeroes, ScratchStart, c.rest(c.Size)).With(proto.CmdFlagFastZero)
		c.sampled(r, ENOTSUP)
		c.StillUp("FAST_ZERO")
	})
}

func zeroesNeverUnsupported(t *T) {
	t.eachMode(func(c *Conn) {
		base := t.Scratch(4<<20) + 1<<20
		for _, flags := range []uint16{0, proto.CmdFlagNoHole} {
			for _, s := range []span{{base, t.block()}, {base, 1 << 20},
				{base + t.block(), 3 * t.block()}} {
				reply := c.Do(Command(proto.CmdWriteZeroes, s.from, s.to).With(flags))
				if c.Flags&proto.FlagSendFastZero != 0 {
					t.Want(reply.Errno != ENOTSUP, "%s: ENOTSUP", reply.Request)
				} else if reply.Errno == ENOTSUP {
					// the spec says SHOULD NOT to a server that does not advertise FAST_ZERO
					c.differOnce(reply.Request, "ENOTSUP")
				}
			}
		}
		c.StillUp("WRITE_ZEROES")
	})
}

func zeroesFastUnadvertised(t *T) {
	t.eachMode(func(c *Conn) {
		c.refused(Command(proto.CmdWriteZeroes, t.Scratch(1<<20),
			t.block()).With(proto.CmdFlagFastZero), EINVAL)
	})
}

func zeroesLong(t *T) {
	t.eachMode(func(c *Conn) {
		n := min(c.rest(c.Size)-t.block(), t.facts.MaxPayload()+80<<20)
		for at := uint64(ScratchStart); at < ScratchStart+n; at += n / 16 / t.block() * t.block() {
			c.wrote(at, Fill(at, int(t.block())))
		}
		last := ScratchStart + n - t.block()
		c.wrote(last, Fill(1, int(t.block())))
		c.wrote(last+t.block(), Fill(2, int(t.block())))
		if reply := c.mayWork(Command(proto.CmdWriteZeroes, ScratchStart, n), EOVERFLOW,
			EINVAL); reply == nil || reply.Errno != 0 {
			return
		}
		for at := uint64(ScratchStart); at < ScratchStart+n; at += n / 16 / t.block() * t.block() {
			c.wantRead(Read(at, t.block()), make([]byte, t.block()),
				"inside of a long WRITE_ZEROES")
		}
		c.wantRead(Read(last, t.block()), make([]byte, t.block()),
			"the last block of a long WRITE_ZEROES")
		c.wantRead(Read(last+t.block(), t.block()), Fill(2, int(t.block())),
			"the block behind a long WRITE_ZEROES")
	})
}

func zeroesFUA(t *T) {
	t.eachMode(func(c *Conn) {
		base := t.Scratch(4<<20) + 1<<20
		c.zeroes(base, 64<<10, proto.CmdFlagFUA)
		c.zeroes(base, t.block(), proto.CmdFlagFUA|proto.CmdFlagNoHole)
		c.StillUp("WRITE_ZEROES with FUA")
	})
}

func zeroesBytes(t *T) {
	t.eachMode(func(c *Conn) {
		base := t.Scratch(4<<20) + 1<<20
		for _, s := range []span{{base + 1, 1}, {base + 511, 2}, {base + 5, 4099},
			{base + 4095, 65538}, {base, 513}} {
			c.zeroes(s.from, s.to, 0)
		}
		c.StillUp("WRITE_ZEROES of odd ranges")
	})
}

func cacheHint(t *T) {
	t.eachMode(func(c *Conn) {
		n := c.upTo(1 << 20)
		before := c.Succeeds(Read(0, n)).Data
		c.mayWork(Command(proto.CmdCache, 0, n), EINVAL)
		c.wantRead(Read(0, n), before, "after CACHE")
	})
}

func cacheFlags(t *T) {
	t.eachMode(func(c *Conn) {
		for _, flag := range []uint16{proto.CmdFlagNoHole, proto.CmdFlagDF, proto.CmdFlagReqOne,
			proto.CmdFlagFastZero, 1 << 6, 1 << 15} {
			reply := c.refused(Command(proto.CmdCache, 0, t.block()).With(flag), EINVAL)
			t.Want(reply == nil ||
				reply.Errno != 0, "CACHE with the flag %s succeeds", hexFlag(flag))
		}
	})
}

func cacheUnadvertised(t *T) {
	t.eachMode(func(c *Conn) {
		c.mayWork(Command(proto.CmdCache, 0, t.block()), EINVAL)
		c.mayWork(Command(proto.CmdCache, c.Size, t.block()), EINVAL)
	})
}

func cacheRanges(t *T) {
	t.eachMode(func(c *Conn) {
		c.refused(Command(proto.CmdCache, c.Size, t.block()), EINVAL)
		c.refused(Command(proto.CmdCache, t.tail(t.block()), 2*t.block()), EINVAL)
		if n := min(c.Size,
			t.facts.MaxPayload()+longCost) / t.block() * t.block(); n > t.facts.MaxPayload() &&
			n < 1<<32 {
			c.mayWork(Command(proto.CmdCache, 0, n)) // any error is told
		}
	})
}
