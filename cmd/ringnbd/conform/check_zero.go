// Checks of TRIM, WRITE_ZEROES and CACHE (CT, CZ, CC).
//
// Invariant: what must be zero is read, and so is what must not change.

package conform

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"

	"ringnbd/proto"
)

var zeroChecks = []Check{
	{"CT-01", must, []need{needWrite, needTrim},
		"TRIM touches nothing outside of its range",
		"a server that rounds outward discards data next to the range",
		trimNeighbours},
	{"CT-02a", should, []need{needWrite, needTrim},
		"TRIM beyond the end is EINVAL",
		"otherwise a part of it may have been done",
		func(t *trial) {
			t.refusesBeyondEnd(proto.CmdTrim)
		}},
	{"CT-02b", should, []need{needReadOnlyChange},
		"TRIM of a read-only export is EPERM",
		"the user learns why",
		func(t *trial) {
			t.refusesOnReadOnly(proto.CmdTrim)
		}},
	{"CT-03", should, []need{needWrite, needTrim, needRoom},
		"TRIM of more than the maximum payload does not cost the connection",
		"TRIM has no payload; the kernel trims up to 4 GiB at once",
		func(t *trial) {
			t.longCommand(proto.CmdTrim)
		}},
	{"CT-04", must, []need{needWrite, needTrim, needFUA},
		"TRIM with FUA succeeds",
		"FUA is allowed with every command once it is advertised",
		trimFUA},
	{"CT-05", should, []need{needWrite, needTrim},
		"TRIM never fails with ENOTSUP, and does not fail for lack of support",
		"TRIM is a hint: a server leaves what it cannot trim",
		trimSucceeds},
	{"CT-06", quality, []need{needWrite, needTrim, needPattern},
		"a TRIM of the rest of the export does not hold up READs on another connection",
		"mkfs trims the whole disk, and other requests would time out meanwhile",
		trimDoesNotBlock},
	{"CZ-01", must, []need{needWrite, needZeroes},
		"WRITE_ZEROES reads back as zeroes, and its neighbours are untouched",
		"old data in place of zeroes is a leak, and corrupts file systems",
		zeroesRead},
	{"CZ-02a", must, []need{needWrite, needZeroes},
		"NO_HOLE is supported with WRITE_ZEROES",
		"NO_HOLE comes with WRITE_ZEROES, and has no flag of its own",
		zeroesNoHole},
	{"CZ-02b", must, []need{needWrite, needZeroes, needImage},
		"after NO_HOLE the area is provisioned: the image has blocks for it",
		"WRITEs there must not fail for lack of space",
		zeroesProvisioned},
	{"CZ-03", must, []need{needWrite, needZeroes, needFastZero},
		"FAST_ZERO works, or is ENOTSUP with nothing changed",
		"the client then writes zeroes itself, and does not want to have lost time",
		zeroesFast},
	{"CZ-04", must, []need{needWrite, needZeroes},
		"WRITE_ZEROES without FAST_ZERO is never ENOTSUP",
		"the client did not ask for speed but for zeroes",
		zeroesNeverUnsupported},
	{"CZ-05", should, []need{needWrite, needZeroes, without(needFastZero)},
		"FAST_ZERO that is not advertised is EINVAL",
		"a slow success would break the promise of the flag",
		zeroesFastUnadvertised},
	{"CZ-06a", should, []need{needWrite, needZeroes},
		"WRITE_ZEROES beyond the end is ENOSPC",
		"as with WRITE",
		func(t *trial) {
			t.refusesBeyondEnd(proto.CmdWriteZeroes)
		}},
	{"CZ-06b", should, []need{needReadOnlyChange},
		"WRITE_ZEROES of a read-only export is EPERM",
		"as with WRITE",
		func(t *trial) {
			t.refusesOnReadOnly(proto.CmdWriteZeroes)
		}},
	{"CZ-07", should, []need{needWrite, needZeroes, needRoom},
		"WRITE_ZEROES of more than the maximum payload is done whole, or refused",
		"a server that cuts the range short reports success and leaves old data",
		zeroesLong},
	{"CZ-08", must, []need{needWrite, needZeroes, needFUA},
		"WRITE_ZEROES with FUA succeeds and reads back as zeroes",
		"FUA is allowed with every command once it is advertised",
		zeroesFUA},
	{"CZ-09", must, []need{needWrite, needZeroes, needByteUnit},
		"WRITE_ZEROES of odd ranges zeroes exactly those bytes",
		"with a minimum block of 1 there is nothing to round to",
		zeroesBytes},
	{"CC-01", may, []need{needCache},
		"CACHE succeeds or is EINVAL, and changes nothing",
		"it is a hint",
		cacheHint},
	{"CC-02", must, []need{needCache},
		"CACHE with a flag that it does not have fails",
		"a client must not believe that a later flag took effect",
		cacheFlags},
	{"CC-03a", quality, []need{without(needCache)},
		"CACHE that is not advertised is EINVAL, or works; the connection lives",
		"some clients send it all the same",
		cacheUnadvertised},
	{"CC-03b", quality, []need{needCache},
		"CACHE beyond the end is EINVAL; CACHE of more than the maximum payload works",
		"CACHE has no payload",
		cacheRanges},
}

var needRoom = need{"an export that is larger than the maximum payload by 17 MiB",
	func(p *Profile) bool {
		return p.Size > p.maxPayload()+scratchStart+1<<20
	}}

// refusesBeyondEnd sends a command on ranges beyond the end, and proves by the last blocks that no
// part of it was done.
func (t *trial) refusesBeyondEnd(command uint16) {
	t.eachMode(func(c *conn) {
		block := t.block()
		at := t.tail(2 * block)
		before := fill(uint64(c.mode)+uint64(command), int(c.size-at))
		c.writeData(at, before)
		for _, s := range []area{{at + block, 4 * block}, {c.size, block}, {c.size + block, block},
			{at, 1<<32 - block}} {
			c.refused(newCommand(command, s.offset, s.length), beyondError[command])
			c.wantRead(newRead(at, c.size-at), before,
				fmt.Sprintf("after command %d beyond the end", command))
		}
	})
}

func (t *trial) refusesOnReadOnly(command uint16) {
	t.readOnlyModes(func(c *conn) {
		c.wantReadOnly(newCommand(command, 0, t.block()))
	})
}

// sampleCommand sends a command on a long range that may fail with one of these errors, and reads
// samples of the data after it: the block before the range, the first block, one in the middle, the
// last.
func (c *conn) sampleCommand(r *request, errors ...uint32) {
	block := c.t.block()
	places := []uint64{r.offset, r.offset + r.length/2/block*block, r.offset + r.length - block}
	before := c.succeeds(newRead(r.offset-block, block)).data
	for i, at := range places {
		c.writeData(at, fill(uint64(i)+70, int(block)))
	}
	reply := c.mayWork(r, errors...)
	if reply == nil {
		return // the server hung up, which is noted
	}
	when := "after " + r.String()
	c.wantRead(newRead(r.offset-block, block), before, when+": the block before it")
	for i, at := range places {
		got := c.succeeds(newRead(at, block)).data
		kept := bytes.Equal(got, fill(uint64(i)+70, int(block)))
		switch {
		case reply.errno != 0 && (r.command == proto.CmdTrim || r.command == proto.CmdWriteZeroes):
			c.t.prefer(kept, "%s, which failed with %s: the block at %d has changed",
				when, reply.errorText(), at)
		case r.command == proto.CmdWriteZeroes:
			c.t.want(bytes.Equal(got, make([]byte, block)),
				"%s, which succeeded: the block at %d is not zero", when, at)
		case r.command != proto.CmdTrim: // trimmed blocks may read as anything
			c.t.want(kept, "%s: the block at %d has changed", when, at)
		}
	}
}

// longCommand sends a command without data on more than the maximum payload, all of it scratch.
func (t *trial) longCommand(command uint16) {
	t.eachMode(func(c *conn) {
		n := c.longestAtScratch(1<<32 - t.block())
		c.sampleCommand(newCommand(command, scratchStart, n), eoverflow, einval)
	})
}

func trimNeighbours(t *trial) {
	t.eachMode(func(c *conn) {
		base := t.scratch(4<<20) + 1<<20
		ranges := []area{{base, t.block()}, {base, 64 << 10}, {base + t.block(), 1 << 20}}
		if t.profile.minBlock() == 1 {
			ranges = append(ranges, area{base + 1, 1}, area{base + 511, 4098},
				area{base + 3, 65536})
		}
		for i, s := range ranges {
			c.writeData(s.offset, fill(uint64(i), int(s.length)))
			unharmed := c.frame(s.offset, s.length, uint64(i)+40)
			c.succeeds(newCommand(proto.CmdTrim, s.offset, s.length))
			unharmed(fmt.Sprintf("after TRIM of %d bytes at %d", s.length, s.offset))
		}
		c.stillUp("TRIMs")
	})
}

func trimFUA(t *trial) {
	t.eachMode(func(c *conn) {
		c.succeeds(newCommand(proto.CmdTrim, t.scratch(1<<20), 1<<20).with(proto.CmdFlagFUA))
		c.stillUp("TRIM with FUA")
	})
}

func trimSucceeds(t *trial) {
	t.eachMode(func(c *conn) {
		for _, n := range []uint64{t.block(), 64 << 10, 1 << 20} {
			reply := c.do(newCommand(proto.CmdTrim, t.scratch(1<<20), n))
			t.want(reply.errno != enotsup,
				"%s: ENOTSUP, which is for WRITE_ZEROES with FAST_ZERO only (ER-03)", reply.request)
			t.prefer(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
		}
		c.stillUp("TRIMs")
	})
}

func trimDoesNotBlock(t *trial) {
	a, b := t.open(t.profile.bestMode()), t.open(t.profile.bestMode())
	n := a.longestAtScratch(1<<32 - t.block())
	for range 8 {
		a.send(newCommand(proto.CmdTrim, scratchStart, n))
	}
	worst := time.Duration(0)
	for i := range uint64(32) {
		at := i * 4 * stripe % holeStart
		worst = max(worst, timed(func() {
			b.wantRead(newRead(at, b.t.page()), expected(at, b.t.page()),
				"while another connection trims")
		}))
	}
	a.allReplies()
	t.prefer(worst < t.patience/10, "a READ on another connection took %v",
		worst.Round(time.Millisecond))
}

// zero writes data, zeroes it, judges the result and the neighbours, and returns the reply.
func (c *conn) zero(at, n uint64, flags uint16) *reply {
	data := fill(at+n, int(n))
	c.overwrite(at, data)
	unharmed := c.frame(at, n, at+uint64(flags)+1)
	r := newCommand(proto.CmdWriteZeroes, at, n).with(flags)
	reply := c.do(r)
	if reply.errno == 0 {
		c.wantData(at, make([]byte, n), "after "+r.String())
	} else {
		// A request that fails SHOULD change nothing.
		if problem := c.t.try(func() {
			c.wantData(at, data, "after "+r.String()+" which failed with "+reply.errorText())
		}); problem != "" {
			c.t.differ("%s", problem)
		}
	}
	unharmed("after " + r.String())
	return reply
}

func (c *conn) mustZero(at, n uint64, flags uint16) {
	if reply := c.zero(at, n, flags); reply.errno != 0 {
		c.t.failf("%s: %s", reply.request, reply.errorText())
	}
}

func zeroesRead(t *trial) {
	t.eachMode(func(c *conn) {
		base := t.scratch(4<<20) + 1<<20
		for _, s := range []area{{base, t.block()}, {base, 64 << 10}, {base + t.block(), 1 << 20},
			{base + 3*t.block(), 7 * t.block()}} {
			c.mustZero(s.offset, s.length, 0)
		}
		c.stillUp("WRITE_ZEROES")
	})
}

func zeroesNoHole(t *trial) {
	t.eachMode(func(c *conn) {
		base := t.scratch(4<<20) + 1<<20
		c.mustZero(base, t.block(), proto.CmdFlagNoHole)
		c.mustZero(base, 1<<20, proto.CmdFlagNoHole)
		c.stillUp("WRITE_ZEROES with NO_HOLE")
	})
}

// zeroesProvisioned trims a part of the scratch, zeroes it with NO_HOLE and looks for the blocks in
// the image.
func zeroesProvisioned(t *trial) {
	f := t.image()
	defer f.Close()
	const n = 1 << 20
	c := t.open(t.profile.bestMode())
	at := t.scratch(n)
	if c.offers(proto.CmdTrim) {
		c.succeeds(newCommand(proto.CmdTrim, at, n))
	}
	c.succeeds(newCommand(proto.CmdWriteZeroes, at, n).with(proto.CmdFlagNoHole))
	if c.offers(proto.CmdFlush) {
		c.succeeds(newCommand(proto.CmdFlush, 0, 0))
	}
	before := allocated(t, f)
	c.overwrite(at, fill(1, n))
	if c.offers(proto.CmdFlush) {
		c.succeeds(newCommand(proto.CmdFlush, 0, 0))
	}
	if after := allocated(t, f); after >= before+n/2 {
		t.failf("after NO_HOLE the image had %d bytes of blocks, and %d after the area was "+
			"written: it was a hole", before, after)
	}
	c.wantData(at, fill(1, n), "after WRITE")
}

// allocated returns the bytes of the blocks that the image has.
func allocated(t *trial, f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		t.skip("the image: %v", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.skip("this system does not say how many blocks a file has")
	}
	return stat.Blocks * 512
}

func zeroesFast(t *trial) {
	t.eachMode(func(c *conn) {
		base := t.scratch(4<<20) + 1<<20
		for _, flags := range []uint16{proto.CmdFlagFastZero,
			proto.CmdFlagFastZero | proto.CmdFlagNoHole} {
			reply := c.zero(base, 1<<20, flags)
			t.want(reply.errno == 0 || reply.errno == enotsup,
				"%s: %s", reply.request, reply.errorText())
		}
		r := newCommand(proto.CmdWriteZeroes, scratchStart,
			c.longestAtScratch(c.size)).with(proto.CmdFlagFastZero)
		c.sampleCommand(r, enotsup)
		c.stillUp("FAST_ZERO")
	})
}

func zeroesNeverUnsupported(t *trial) {
	t.eachMode(func(c *conn) {
		base := t.scratch(4<<20) + 1<<20
		for _, flags := range []uint16{0, proto.CmdFlagNoHole} {
			for _, s := range []area{{base, t.block()}, {base, 1 << 20},
				{base + t.block(), 3 * t.block()}} {
				reply := c.do(newCommand(proto.CmdWriteZeroes, s.offset, s.length).with(flags))
				if c.flags&proto.FlagSendFastZero != 0 {
					t.want(reply.errno != enotsup, "%s: ENOTSUP", reply.request)
				} else if reply.errno == enotsup {
					// the protocol says SHOULD NOT for a server that does not advertise FAST_ZERO
					c.differOnce(reply.request, "ENOTSUP")
				}
			}
		}
		c.stillUp("WRITE_ZEROES")
	})
}

func zeroesFastUnadvertised(t *trial) {
	t.eachMode(func(c *conn) {
		c.refused(newCommand(proto.CmdWriteZeroes, t.scratch(1<<20),
			t.block()).with(proto.CmdFlagFastZero), einval)
	})
}

func zeroesLong(t *trial) {
	t.eachMode(func(c *conn) {
		n := min(c.longestAtScratch(c.size)-t.block(), t.profile.maxPayload()+80<<20)
		for at := uint64(scratchStart); at < scratchStart+n; at += n / 16 / t.block() * t.block() {
			c.writeData(at, fill(at, int(t.block())))
		}
		last := scratchStart + n - t.block()
		c.writeData(last, fill(1, int(t.block())))
		c.writeData(last+t.block(), fill(2, int(t.block())))
		if reply := c.mayWork(newCommand(proto.CmdWriteZeroes, scratchStart, n), eoverflow,
			einval); reply == nil || reply.errno != 0 {
			return
		}
		for at := uint64(scratchStart); at < scratchStart+n; at += n / 16 / t.block() * t.block() {
			c.wantRead(newRead(at, t.block()), make([]byte, t.block()),
				"inside a long WRITE_ZEROES")
		}
		c.wantRead(newRead(last, t.block()), make([]byte, t.block()),
			"the last block of a long WRITE_ZEROES")
		c.wantRead(newRead(last+t.block(), t.block()), fill(2, int(t.block())),
			"the block after a long WRITE_ZEROES")
	})
}

func zeroesFUA(t *trial) {
	t.eachMode(func(c *conn) {
		base := t.scratch(4<<20) + 1<<20
		c.mustZero(base, 64<<10, proto.CmdFlagFUA)
		c.mustZero(base, t.block(), proto.CmdFlagFUA|proto.CmdFlagNoHole)
		c.stillUp("WRITE_ZEROES with FUA")
	})
}

func zeroesBytes(t *trial) {
	t.eachMode(func(c *conn) {
		base := t.scratch(4<<20) + 1<<20
		for _, s := range []area{{base + 1, 1}, {base + 511, 2}, {base + 5, 4099},
			{base + 4095, 65538}, {base, 513}} {
			c.mustZero(s.offset, s.length, 0)
		}
		c.stillUp("WRITE_ZEROES of odd ranges")
	})
}

func cacheHint(t *trial) {
	t.eachMode(func(c *conn) {
		n := c.upTo(1 << 20)
		before := c.succeeds(newRead(0, n)).data
		c.mayWork(newCommand(proto.CmdCache, 0, n), einval)
		c.wantRead(newRead(0, n), before, "after CACHE")
	})
}

func cacheFlags(t *trial) {
	t.eachMode(func(c *conn) {
		for _, flag := range []uint16{proto.CmdFlagNoHole, proto.CmdFlagDF, proto.CmdFlagReqOne,
			proto.CmdFlagFastZero, 1 << 6, 1 << 15} {
			reply := c.refused(newCommand(proto.CmdCache, 0, t.block()).with(flag), einval)
			t.want(reply == nil || reply.errno != 0,
				"CACHE with the flag %s succeeds", hexFlag(flag))
		}
	})
}

func cacheUnadvertised(t *trial) {
	t.eachMode(func(c *conn) {
		c.mayWork(newCommand(proto.CmdCache, 0, t.block()), einval)
		c.mayWork(newCommand(proto.CmdCache, c.size, t.block()), einval)
	})
}

func cacheRanges(t *trial) {
	t.eachMode(func(c *conn) {
		c.refused(newCommand(proto.CmdCache, c.size, t.block()), einval)
		c.refused(newCommand(proto.CmdCache, t.tail(t.block()), 2*t.block()), einval)
		if n := min(c.size,
			t.profile.maxPayload()+longCost) / t.block() * t.block(); n > t.profile.maxPayload() &&
			n < 1<<32 {
			c.mayWork(newCommand(proto.CmdCache, 0, n)) // any error is a deviation
		}
	})
}
