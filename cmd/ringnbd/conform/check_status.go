// Checks of BLOCK_STATUS (CB).
//
// Invariant: what a server reports of its blocks is compared with what is read there.

package conform

import (
	"bytes"
	"slices"

	"ringnbd/proto"
)

var statusChecks = []Check{
	{"CB-01a", should, []need{needStructured},
		"BLOCK_STATUS without a context is EINVAL",
		"there is no context to report",
		statusWithoutContext},
	{"CB-01b", should, nil,
		"BLOCK_STATUS without structured replies is EINVAL",
		"simple replies cannot hold a status",
		statusWithoutStructure},
	{"CB-02", must, []need{needContexts},
		"success is one chunk for each context that was selected, with DONE on the last",
		"clients wait for each chunk",
		statusOfAllContexts},
	{"CB-03", must, []need{needContexts},
		"extents are not empty, and follow one another from the offset of the request",
		"clients add up lengths; with an empty extent they never get on",
		statusExtents},
	{"CB-04", must, []need{needContexts},
		"with REQ_ONE each context has one extent, no longer than the request",
		"clients that set REQ_ONE have room for one extent",
		statusOne},
	{"CB-05", must, []need{needContexts},
		"without REQ_ONE only the last extent reaches beyond the request, and no extent beyond " +
			"the export's last block",
		"clients copy by the extents, and would copy twice or beyond the end",
		statusSums},
	{"CB-06", should, []need{needContexts},
		"no more than 2^20 extents in a chunk",
		"a client limits what it buffers",
		statusMost},
	{"CB-07", should, []need{needContexts, needPattern},
		"neighbouring blocks with equal status are one extent, and extents end at multiples of " +
			"512",
		"each extent costs eight bytes, and a request of a client that copies",
		statusMerged},
	{"CB-08a", must, []need{needContexts, needPattern},
		"extents that are ZERO read as zeroes, and data is not called ZERO",
		"a client that copies leaves out what is ZERO, and data would be lost",
		statusTruth},
	{"CB-08b", must, []need{needContexts, needWrite},
		"after WRITE, WRITE_ZEROES and TRIM the status is true at once, also on other connections",
		"copies made by an old status lose the WRITE",
		statusAfterChange},
	{"CB-08c", must, []need{needContexts, needWrite},
		"a status that is asked for during WRITEs never calls a finished WRITE ZERO",
		"live migration does so",
		statusRace},
	{"CB-08d", quality, []need{needContexts, needWrite, needZeroes},
		"after NO_HOLE the area is not called a HOLE",
		"HOLE says that a WRITE may fail for lack of space, which NO_HOLE rules out",
		statusAfterNoHole},
	{"CB-08e", quality, []need{needContexts, needImage, needPattern},
		"holes of the image are reported",
		"a client that copies can skip them",
		statusTellsHoles},
	{"CB-09a", should, []need{needContexts},
		"BLOCK_STATUS beyond the end is EINVAL",
		"there are no blocks to report",
		statusBeyondEnd},
	{"CB-09b", must, []need{needContexts},
		"a request for all of the export, up to 4 GiB less a block, is answered within the rules",
		"sums of 32 bits overflow there",
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

// statusRanges returns ranges of every kind: a block, stripes, the whole, the tail, odd ranges if
// the minimum block is 1.
func (t *trial) statusRanges() []area {
	block, size := t.block(), t.profile.Size
	list := []area{{0, block}, {0, min(size, 1<<20)}, {0, min(size, 1<<32-1) / block * block},
		{t.tail(block), size - t.tail(block)}}
	for _, at := range []uint64{holeStart - block, holeStart, stripeStart - block, stripeStart,
		stripeStart + stripe, scratchStart} {
		for _, n := range []uint64{block, 2 * block, stripe, 4 * stripe, 1 << 20} {
			if at+n <= size {
				list = append(list, area{at, n})
			}
		}
	}
	if t.profile.minBlock() == 1 && size > stripeStart+4*stripe {
		list = append(list, area{1, 1}, area{511, 2}, area{holeStart - 1, 2},
			area{stripeStart + 1, stripe}, area{stripeStart + stripe - 1, 3*stripe + 7})
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

// openContexts enters transmission with every context that the server lists.
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
				conn.status(newCommand(proto.CmdBlockStatus, s.offset, s.length))
				conn.status(newCommand(proto.CmdBlockStatus, s.offset,
					s.length).with(proto.CmdFlagReqOne))
			}
			conn.stillUp("BLOCK_STATUS")
		}
	})
}

func statusExtents(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, s := range t.statusRanges() {
			c.status(newCommand(proto.CmdBlockStatus, s.offset, s.length))
		}
		var list []*request
		for _, s := range t.statusRanges() {
			list = append(list, newCommand(proto.CmdBlockStatus, s.offset, s.length))
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
			c.status(newCommand(proto.CmdBlockStatus, s.offset, s.length).with(proto.CmdFlagReqOne))
		}
		c.stillUp("BLOCK_STATUS with REQ_ONE")
	})
}

// statusOfRanges asks for the status of many ranges; status judges the replies, by one rule.
func (t *trial) statusOfRanges(rule string) {
	t.eachContextMode(func(c *conn) {
		for _, s := range t.statusRanges() {
			c.status(newCommand(proto.CmdBlockStatus, s.offset, s.length), rule)
		}
	})
}

func statusSums(t *trial) { t.statusOfRanges("CB-05") }

func statusMost(t *trial) {
	t.eachContextMode(func(c *conn) {
		longest := 0
		for at := uint64(0); at < c.size; {
			extents := c.allocation(c.status(newCommand(proto.CmdBlockStatus, at,
				min(c.size-at, 1<<32-t.block())), "CB-06"))
			longest = max(longest, len(extents))
			for _, x := range extents {
				at += x.length
			}
		}
		t.want(longest > 0, "no extents")
	})
}

func statusMerged(t *trial) { t.statusOfRanges("CB-07") }

func statusTruth(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, s := range c.zeroSpans(0, scratchStart) {
			want := expected(s.from, s.to-s.from)
			if i := firstDifference(want, make([]byte, len(want))); i >= 0 {
				t.failf("[%d, %d) is called ZERO, and there is data at %d", s.from, s.to,
					s.from+uint64(i))
			}
		}
		for _, s := range c.zeroSpans(scratchStart, c.size-scratchStart) {
			n := min(s.to-s.from, 1<<20)
			c.wantRead(newRead(s.from, n), make([]byte, n), "called ZERO")
			c.wantRead(newRead(s.to-n, n), make([]byte, n), "called ZERO")
		}
	})
}

// notZero fails if a block that was written is called ZERO.
func (c *conn) notZero(at, n uint64, when string) {
	for _, s := range c.zeroSpans(at, n) {
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

// statusMatches reads everything that is called ZERO.
func (c *conn) statusMatches(at, n uint64) {
	for _, s := range c.zeroSpans(at, n) {
		c.wantRead(newRead(s.from, s.to-s.from), make([]byte, s.to-s.from), "called ZERO")
	}
}

// statusRace writes forwards through a hole on one connection, while another asks for the status of
// the whole hole: WRITEs that were answered before the question was sent must not be called ZERO.
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
			writer.send(newWrite(at+i*piece, data)) // in flight while the status is asked for
			c.notAnsweredZero(at, pieces*piece, i*piece)
			reply := writer.nextReply()
			t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
		}
		c.notZero(at, pieces*piece, "after all WRITEs")
		c.stillUp("a race of WRITE and BLOCK_STATUS")
	})
}

// notAnsweredZero asks for the status of n bytes, of which the first done bytes have been written
// and answered.
func (c *conn) notAnsweredZero(at, n, done uint64) {
	end := at
	for _, x := range c.allocation(c.status(newCommand(proto.CmdBlockStatus, at, n))) {
		if x.flags&uint64(proto.StatusZero) != 0 && end < at+done {
			c.t.failf("[%d, %d) is called ZERO; up to %d it was written, and answered, before "+
				"the question", end, end+x.length, at+done)
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
		var zero uint64
		for _, s := range c.zeroSpans(holeStart, stripeStart-holeStart) {
			zero += s.to - s.from
		}
		t.prefer(zero == stripeStart-holeStart,
			"of a hole of %d bytes in the image %d are called ZERO", stripeStart-holeStart, zero)
		wanted := make([]byte, stripe)
		t.want(bytes.Equal(expected(stripeStart+stripe, stripe), wanted),
			"the suite's own data is not what it should be")
		t.prefer(len(c.zeroSpans(stripeStart, 8*stripe)) == 4,
			"of four holes between data %d are reported", len(c.zeroSpans(stripeStart, 8*stripe)))
	})
}

func statusBeyondEnd(t *trial) {
	t.eachContextMode(func(c *conn) {
		block := t.block()
		for _, s := range []area{{t.tail(block), 2 * block}, {c.size, block},
			{c.size + 64*block, block}} {
			c.refused(newCommand(proto.CmdBlockStatus, s.offset, s.length), einval)
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
