// Checks of BLOCK_STATUS (CB). Invariant: what a server says of its blocks is held against what is
// read there.

package conform

import (
	"bytes"
	"slices"

	"ringnbd/proto"
)

var statusChecks = []Check{
	{"CB-01a", should, []need{needStructured},
		"BLOCK_STATUS without a context is EINVAL",
		"there is nothing to answer with",
		statusWithoutContext},
	{"CB-01b", should, nil,
		"BLOCK_STATUS without structured replies is EINVAL",
		"there is no form to answer in",
		statusWithoutStructure},
	{"CB-02", must, []need{needContexts},
		"success is one chunk for each context that was selected, DONE on the last",
		"clients wait for each of them",
		statusOfAllContexts},
	{"CB-03", must, []need{needContexts},
		"extents are not empty, and follow one another from the offset of the request",
		"clients walk by adding lengths; an empty one walks on the spot for ever",
		statusExtents},
	{"CB-04", must, []need{needContexts},
		"with REQ_ONE each context has one extent, no longer than the request",
		"clients that set it have room for one",
		statusOne},
	{"CB-05", must, []need{needContexts},
		"without REQ_ONE only the last extent reaches beyond the request, and none beyond the " +
			"export's last block",
		"clients count on progress, and copy what they were told",
		statusSums},
	{"CB-06", should, []need{needContexts},
		"no more than 2^20 extents in a chunk",
		"a reply of any length is more than a client will buffer",
		statusMost},
	{"CB-07", should, []need{needContexts, needPattern},
		"neighbours with equal status are one extent, and extents end at multiples of 512",
		"each costs eight bytes, and copying by them a request",
		statusMerged},
	{"CB-08a", must, []need{needContexts, needPattern},
		"what is called ZERO reads as zeroes, and data is not called ZERO",
		"whoever copies by the map leaves it out: data is lost",
		statusTruth},
	{"CB-08b", must, []need{needContexts, needWrite},
		"after WRITE, WRITE_ZEROES and TRIM the status is true at once, on other connections too",
		"a cached map of before the write loses the write in every copy",
		statusAfterChange},
	{"CB-08c", must, []need{needContexts, needWrite},
		"a status that is asked for while WRITEs go on never calls a finished one ZERO",
		"live migration does just this",
		statusRace},
	{"CB-08d", quality, []need{needContexts, needWrite, needZeroes},
		"after NO_HOLE the area is not called a HOLE",
		"HOLE says that a write may fail for want of space, which NO_HOLE rules out",
		statusAfterNoHole},
	{"CB-08e", quality, []need{needContexts, needImage, needPattern},
		"holes of the image are told",
		"it is what saves copying them",
		statusTellsHoles},
	{"CB-09a", should, []need{needContexts},
		"BLOCK_STATUS beyond the end is EINVAL",
		"there are no blocks to tell about",
		statusBeyondEnd},
	{"CB-09b", must, []need{needContexts},
		"a request for all of the export, up to 4 GiB less a block, is answered within the rules",
		"sums of 32 bits overflow just there",
		statusLongest},
	{"CB-11", should, []need{needContexts},
		"errors of BLOCK_STATUS are structured",
		"a simple reply cannot answer it, and clients wait for chunks",
		statusErrorForm},
}

// eachContextMode runs a check in every mode with base:allocation.
func (t *trial) eachContextMode(f func(c *conn)) {
	t.inModes(slices.DeleteFunc(t.profile.richModes(), func(m mode) bool {
		return !m.contexts()
	}), f)
}

// statusRanges are ranges of every size: a block, stripes, the whole, the tail, odd ones where
// bytes are allowed.
func (t *trial) statusRanges() []span {
	block, size := t.block(), t.profile.Size
	list := []span{{0, block}, {0, min(size, 1<<20)}, {0, min(size, 1<<32-1) / block * block},
		{t.tail(block), size - t.tail(block)}}
	for _, at := range []uint64{holeStart - block, holeStart, stripeStart - block, stripeStart,
		stripeStart + stripe, scratchStart} {
		for _, n := range []uint64{block, 2 * block, stripe, 4 * stripe, 1 << 20} {
			if at+n <= size {
				list = append(list, span{at, n})
			}
		}
	}
	if t.profile.minBlock() == 1 && size > stripeStart+4*stripe {
		list = append(list, span{1, 1}, span{511, 2}, span{holeStart - 1, 2},
			span{stripeStart + 1, stripe}, span{stripeStart + stripe - 1, 3*stripe + 7})
	}
	return list
}

func statusWithoutContext(t *trial) {
	for _, mode := range t.profile.modes() {
		if mode == modeStructured || mode == modeExtended {
			t.within(mode.String(), func() {
				t.open(mode).refused(newCommand(proto.CmdBlockStatus, 0, t.block()), einval)
			})
		}
	}
}

func statusWithoutStructure(t *trial) {
	t.open(t.profile.richModes()[0]).refused(newCommand(proto.CmdBlockStatus, 0, t.block()), einval)
}

// openContexts goes to transmission with every context that the server listed.
func (t *trial) openContexts(mode mode) *conn {
	c := t.haggle()
	c.negotiate(pick(mode.extended(), modeExtended, modeStructured))
	c.setContexts(t.export(),
		append([]string{proto.ContextAllocation},
			slices.DeleteFunc(slices.Clone(t.profile.Contexts), func(name string) bool {
				return name == proto.ContextAllocation
			})...)...)
	c.enterGo(t.export())
	c.mode = mode
	return c
}

func statusOfAllContexts(t *trial) {
	t.eachContextMode(func(c *conn) {
		all := t.openContexts(c.mode)
		for _, conn := range []*conn{c, all} {
			for _, s := range t.statusRanges() {
				conn.status(newCommand(proto.CmdBlockStatus, s.from, s.to))
				conn.status(newCommand(proto.CmdBlockStatus, s.from,
					s.to).with(proto.CmdFlagReqOne))
			}
			conn.stillUp("BLOCK_STATUS")
		}
	})
}

func statusExtents(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, s := range t.statusRanges() {
			c.status(newCommand(proto.CmdBlockStatus, s.from, s.to))
		}
		var list []*request
		for _, s := range t.statusRanges() {
			list = append(list, newCommand(proto.CmdBlockStatus, s.from, s.to))
		}
		c.sendAll(list...)
		for _, reply := range c.allReplies() {
			t.want(reply.errno == 0, "%s, pipelined: %s", reply.request, reply.errorText())
			for _, b := range judgeStatus(c.asked(reply.request), reply.chunks) {
				t.want(b.soft, "%s, pipelined: %s (%s)", reply.request, b.text, b.rule)
			}
		}
		c.stillUp("many BLOCK_STATUS in flight")
	})
}

func statusOne(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, s := range t.statusRanges() {
			c.status(newCommand(proto.CmdBlockStatus, s.from, s.to).with(proto.CmdFlagReqOne))
		}
		c.stillUp("BLOCK_STATUS with REQ_ONE")
	})
}

func statusSums(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, s := range t.statusRanges() {
			c.status(newCommand(proto.CmdBlockStatus, s.from, s.to), "CB-05")
		}
	})
}

func statusMost(t *trial) {
	t.eachContextMode(func(c *conn) {
		most := 0
		for at := uint64(0); at < c.size; {
			extents := c.allocation(c.status(newCommand(proto.CmdBlockStatus, at,
				min(c.size-at, 1<<32-t.block())), "CB-06"))
			most = max(most, len(extents))
			for _, x := range extents {
				at += x.length
			}
		}
		t.want(most > 0, "no extents at all")
	})
}

func statusMerged(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, s := range t.statusRanges() {
			c.status(newCommand(proto.CmdBlockStatus, s.from, s.to), "CB-07")
		}
	})
}

func statusTruth(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, s := range c.zeroBits(0, scratchStart) {
			want := expected(s.from, s.to-s.from)
			if i := firstDifference(want, make([]byte, len(want))); i >= 0 {
				t.failf("[%d, %d) is called ZERO, and there is data at %d", s.from, s.to,
					s.from+uint64(i))
			}
		}
		for _, s := range c.zeroBits(scratchStart, c.size-scratchStart) {
			n := min(s.to-s.from, 1<<20)
			c.wantRead(newRead(s.from, n), make([]byte, n), "called ZERO")
			c.wantRead(newRead(s.to-n, n), make([]byte, n), "called ZERO")
		}
	})
}

// notZero fails if a place that was written is called ZERO.
func (c *conn) notZero(at, n uint64, when string) {
	for _, s := range c.zeroBits(at, n) {
		c.t.failf("%s: [%d, %d) is called ZERO", when, s.from, s.to)
	}
}

func statusAfterChange(t *trial) {
	t.eachContextMode(func(c *conn) {
		other := t.open(c.mode)
		watchers := []*conn{c}
		if c.flags&proto.FlagCanMultiConn != 0 {
			watchers = append(watchers, other)
		}
		at := t.scratch(8 << 20)
		for round := range uint64(6) {
			for _, n := range []uint64{t.block(), 64 << 10, 1 << 20} {
				if c.offers(proto.CmdWriteZeroes) {
					c.succeeds(newCommand(proto.CmdWriteZeroes, at, n))
					c.statusMatches(at, n)
				} else if c.offers(proto.CmdTrim) {
					c.succeeds(newCommand(proto.CmdTrim, at, n))
				}
				c.writeData(at, fill(round, int(n)))
				for _, watcher := range watchers {
					watcher.notZero(at, n, "after a WRITE of data was answered")
				}
				if c.offers(proto.CmdTrim) {
					c.succeeds(newCommand(proto.CmdTrim, at, n))
					c.statusMatches(at, n)
				}
				at += n
			}
		}
		c.stillUp("changes and BLOCK_STATUS")
	})
}

// statusMatches reads what is called ZERO.
func (c *conn) statusMatches(at, n uint64) {
	for _, s := range c.zeroBits(at, n) {
		c.wantRead(newRead(s.from, s.to-s.from), make([]byte, s.to-s.from), "called ZERO")
	}
}

// statusRace lets one connection write forwards through a hole while another asks for the status of
// all of it: what was answered before the question was sent must not be called ZERO.
func statusRace(t *trial) {
	t.eachContextMode(func(c *conn) {
		if c.flags&proto.FlagCanMultiConn == 0 {
			t.skip("the server does not promise that connections see each other's writes " +
				"(CAN_MULTI_CONN)")
		}
		const pieces = 128
		piece := max(32<<10, t.block())
		at := t.scratch(pieces * piece)
		if c.offers(proto.CmdTrim) {
			c.succeeds(newCommand(proto.CmdTrim, at, pieces*piece))
		} else if c.offers(proto.CmdWriteZeroes) {
			c.succeeds(newCommand(proto.CmdWriteZeroes, at, pieces*piece))
		}
		writer, data := t.open(t.profile.bestMode()), fill(77, int(piece))
		for i := range uint64(pieces) {
			writer.send(newWrite(at+i*piece, data)) // in flight while the question is asked
			c.notAnsweredZero(at, pieces*piece, i*piece)
			reply := writer.nextReply()
			t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
		}
		c.notZero(at, pieces*piece, "after all WRITEs")
		c.stillUp("a race of WRITE and BLOCK_STATUS")
	})
}

// notAnsweredZero asks for all n bytes of the area, of which the first done have been written and
// answered.
func (c *conn) notAnsweredZero(at, n, done uint64) {
	end := at
	for _, x := range c.allocation(c.status(newCommand(proto.CmdBlockStatus, at, n))) {
		if x.flags&uint64(proto.StatusZero) != 0 && end < at+done {
			c.t.failf("[%d, %d) is called ZERO; up to %d it was written, and answered, before "+
				"the question was asked", end, end+x.length, at+done)
		}
		end += x.length
	}
}

func statusAfterNoHole(t *trial) {
	t.eachContextMode(func(c *conn) {
		at := t.scratch(1 << 20)
		if c.offers(proto.CmdTrim) {
			c.succeeds(newCommand(proto.CmdTrim, at, 1<<20))
		}
		c.succeeds(newCommand(proto.CmdWriteZeroes, at, 1<<20).with(proto.CmdFlagNoHole))
		for _, x := range c.allocation(c.status(newCommand(proto.CmdBlockStatus, at, 1<<20))) {
			t.prefer(x.flags&uint64(proto.StatusHole) == 0,
				"after NO_HOLE %d bytes are called a HOLE", x.length)
		}
	})
}

func statusTellsHoles(t *trial) {
	t.eachContextMode(func(c *conn) {
		var told uint64
		for _, s := range c.zeroBits(holeStart, stripeStart-holeStart) {
			told += s.to - s.from
		}
		t.prefer(told == stripeStart-holeStart,
			"of a hole of %d bytes in the image %d are called ZERO", stripeStart-holeStart, told)
		wanted := make([]byte, stripe)
		t.want(bytes.Equal(expected(stripeStart+stripe, stripe), wanted),
			"the suite's own data is not what it should be")
		t.prefer(len(c.zeroBits(stripeStart, 8*stripe)) == 4,
			"of four holes among data %d are told", len(c.zeroBits(stripeStart, 8*stripe)))
	})
}

func statusBeyondEnd(t *trial) {
	t.eachContextMode(func(c *conn) {
		block := t.block()
		for _, s := range []span{{t.tail(block), 2 * block}, {c.size, block},
			{c.size + 64*block, block}} {
			c.refused(newCommand(proto.CmdBlockStatus, s.from, s.to), einval)
		}
	})
}

func statusLongest(t *trial) {
	t.eachContextMode(func(c *conn) {
		n := min(c.size, 1<<32-1) / t.block() * t.block()
		c.status(newCommand(proto.CmdBlockStatus, 0, n))
		if c.size >= 1<<32 {
			c.status(newCommand(proto.CmdBlockStatus, (c.size-n)/t.block()*t.block(), n))
			c.status(newCommand(proto.CmdBlockStatus, 1<<32-2*t.block(), 2*t.block()))
		}
		c.stillUp("BLOCK_STATUS of everything")
	})
}

func statusErrorForm(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, r := range []*request{newCommand(proto.CmdBlockStatus, c.size, t.block()),
			newCommand(proto.CmdBlockStatus, 0, t.block()).with(1 << 14)} {
			if reply := c.refused(r, einval); reply != nil && reply.errno != 0 {
				t.prefer(!reply.simple, "%s: the error is a simple reply", r)
			}
		}
	})
}
