// Checks of BLOCK_STATUS (CB). Invariant: what a server says of its blocks is held against what is
// read there.

package conform

import (
	"bytes"
	"slices"

	"ringnbd/proto"
)

var statusChecks = []Check{
	{"CB-01a", Should, "BLOCK_STATUS without a context is EINVAL",
		"there is nothing to answer with", []Need{NeedStructured}, statusWithoutContext},
	{"CB-01b", Should, "BLOCK_STATUS without structured replies is EINVAL",
		"there is no form to answer in", nil, statusWithoutStructure},
	{"CB-02", Must, "success is one chunk for each context that was selected, DONE on the last",
		"clients wait for each of them", []Need{NeedContexts}, statusOfAllContexts},
	{"CB-03", Must, "extents are not empty, and follow one another from the offset of the request",
		"clients walk by adding lengths; an empty one walks on the spot for ever",
		[]Need{NeedContexts}, statusExtents},
	{"CB-04", Must, "with REQ_ONE each context has one extent, no longer than the request",
		"clients that set it have room for one", []Need{NeedContexts}, statusOne},
	{"CB-05", Must,
		"without REQ_ONE only the last extent reaches beyond the request, and none beyond the " +
			"export's last block",
		"clients count on progress, and copy what they were told", []Need{NeedContexts},
		statusSums},
	{"CB-06", Should, "no more than 2^20 extents in a chunk",
		"a reply of any length is more than a client will buffer", []Need{NeedContexts},
		statusMost},
	{"CB-07", Should,
		"neighbours with equal status are one extent, and extents end at multiples of 512",
		"each costs eight bytes, and copying by them a request", []Need{NeedContexts, NeedPattern},
		statusMerged},
	{"CB-08a", Must, "what is called ZERO reads as zeroes, and data is not called ZERO",
		"whoever copies by the map leaves it out: data is lost", []Need{NeedContexts, NeedPattern},
		statusTruth},
	{"CB-08b", Must,
		"after WRITE, WRITE_ZEROES and TRIM the status is true at once, on other connections too",
		"a cached map of before the write loses the write in every copy",
		[]Need{NeedContexts, NeedWrite}, statusAfterChange},
	{"CB-08c", Must,
		"a status that is asked for while WRITEs go on never calls a finished one ZERO",
		"live migration does just this", []Need{NeedContexts, NeedWrite}, statusRace},
	{"CB-08d", Quality, "after NO_HOLE the area is not called a HOLE",
		"HOLE says that a write may fail for want of space, which NO_HOLE rules out",
		[]Need{NeedContexts, NeedWrite, NeedZeroes}, statusAfterNoHole},
	{"CB-08e", Quality, "holes of the image are told",
		"it is what saves copying them", []Need{NeedContexts, NeedImage, NeedPattern},
		statusTellsHoles},
	{"CB-09a", Should, "BLOCK_STATUS beyond the end is EINVAL",
		"there are no blocks to tell about", []Need{NeedContexts}, statusBeyondEnd},
	{"CB-09b", Must,
		"a request for all of the export, up to 4 GiB less a block, is answered within the rules",
		"sums of 32 bits overflow just there", []Need{NeedContexts}, statusLongest},
	{"CB-11", Should, "errors of BLOCK_STATUS are structured",
		"a simple reply cannot answer it, and clients wait for chunks", []Need{NeedContexts},
		statusErrorForm},
}

// eachContextMode runs a check in every mode with base:allocation.
func (t *T) eachContextMode(f func(c *Conn)) {
	t.inModes(slices.DeleteFunc(t.facts.richModes(), func(m Mode) bool { return !m.contexts() }), f)
}

// statusRanges are ranges of every size: a block, stripes, the whole, the tail, odd ones where
// bytes are allowed.
func (t *T) statusRanges() []span {
	block, size := t.block(), t.facts.Size
	list := []span{{0, block}, {0, min(size, 1<<20)}, {0, min(size, 1<<32-1) / block * block},
		{t.tail(block), size - t.tail(block)}}
	for _, at := range []uint64{HoleStart - block, HoleStart, StripeStart - block, StripeStart,
		StripeStart + Stripe, ScratchStart} {
		for _, n := range []uint64{block, 2 * block, Stripe, 4 * Stripe, 1 << 20} {
			if at+n <= size {
				list = append(list, span{at, n})
			}
		}
	}
	if t.facts.MinBlock() == 1 && size > StripeStart+4*Stripe {
		list = append(list, span{1, 1}, span{511, 2}, span{HoleStart - 1, 2},
			span{StripeStart + 1, Stripe}, span{StripeStart + Stripe - 1, 3*Stripe + 7})
	}
	return list
}

func statusWithoutContext(t *T) {
	for _, mode := range t.facts.Modes() {
		if mode == ModeStructured || mode == ModeExtended {
			t.within(mode.String(), func() {
				t.Open(mode).refused(Command(proto.CmdBlockStatus, 0, t.block()), EINVAL)
			})
		}
	}
}

func statusWithoutStructure(t *T) {
	t.Open(t.facts.richModes()[0]).refused(Command(proto.CmdBlockStatus, 0, t.block()), EINVAL)
}

// openContexts goes to transmission with every context that the server listed.
func (t *T) openContexts(mode Mode) *Conn {
	c := t.Haggle()
	c.Negotiate(pick(mode.Extended(), ModeExtended, ModeStructured))
	c.SetContexts(t.Export(),
		append([]string{proto.ContextAllocation},
			slices.DeleteFunc(slices.Clone(t.facts.Contexts), func(name string) bool {
				return name == proto.ContextAllocation
			})...)...)
	c.EnterGo(t.Export())
	c.Mode = mode
	return c
}

func statusOfAllContexts(t *T) {
	t.eachContextMode(func(c *Conn) {
		all := t.openContexts(c.Mode)
		for _, conn := range []*Conn{c, all} {
			for _, s := range t.statusRanges() {
				conn.status(Command(proto.CmdBlockStatus, s.from, s.to))
				conn.status(Command(proto.CmdBlockStatus, s.from, s.to).With(proto.CmdFlagReqOne))
			}
			conn.StillUp("BLOCK_STATUS")
		}
	})
}

func statusExtents(t *T) {
	t.eachContextMode(func(c *Conn) {
		for _, s := range t.statusRanges() {
			c.status(Command(proto.CmdBlockStatus, s.from, s.to))
		}
		var list []*Request
		for _, s := range t.statusRanges() {
			list = append(list, Command(proto.CmdBlockStatus, s.from, s.to))
		}
		c.SendAll(list...)
		for _, reply := range c.All() {
			t.Want(reply.Errno == 0, "%s, pipelined: %s", reply.Request, reply.Error())
			for _, b := range judgeStatus(c.asked(reply.Request), reply.Chunks) {
				t.Want(b.soft, "%s, pipelined: %s (%s)", reply.Request, b.text, b.rule)
			}
		}
		c.StillUp("many BLOCK_STATUS in flight")
	})
}

func statusOne(t *T) {
	t.eachContextMode(func(c *Conn) {
		for _, s := range t.statusRanges() {
			c.status(Command(proto.CmdBlockStatus, s.from, s.to).With(proto.CmdFlagReqOne))
		}
		c.StillUp("BLOCK_STATUS with REQ_ONE")
	})
}

func statusSums(t *T) {
	t.eachContextMode(func(c *Conn) {
		for _, s := range t.statusRanges() {
			c.status(Command(proto.CmdBlockStatus, s.from, s.to), "CB-05")
		}
	})
}

func statusMost(t *T) {
	t.eachContextMode(func(c *Conn) {
		most := 0
		for at := uint64(0); at < c.Size; {
			extents := c.allocation(c.status(Command(proto.CmdBlockStatus, at,
				min(c.Size-at, 1<<32-t.block())), "CB-06"))
			most = max(most, len(extents))
			for _, x := range extents {
				at += x.Length
			}
		}
		t.Want(most > 0, "no extents at all")
	})
}

func statusMerged(t *T) {
	t.eachContextMode(func(c *Conn) {
		for _, s := range t.statusRanges() {
			c.status(Command(proto.CmdBlockStatus, s.from, s.to), "CB-07")
		}
	})
}

func statusTruth(t *T) {
	t.eachContextMode(func(c *Conn) {
		for _, s := range c.zeroBits(0, ScratchStart) {
			want := Expected(s.from, s.to-s.from)
			if i := firstDifference(want, make([]byte, len(want))); i >= 0 {
				t.Failf("[%d, %d) is called ZERO, and there is data at %d", s.from, s.to,
					s.from+uint64(i))
			}
		}
		for _, s := range c.zeroBits(ScratchStart, c.Size-ScratchStart) {
			n := min(s.to-s.from, 1<<20)
			c.wantRead(Read(s.from, n), make([]byte, n), "called ZERO")
			c.wantRead(Read(s.to-n, n), make([]byte, n), "called ZERO")
		}
	})
}

// notZero fails if a place that was written is called ZERO.
func (c *Conn) notZero(at, n uint64, when string) {
	for _, s := range c.zeroBits(at, n) {
		c.t.Failf("%s: [%d, %d) is called ZERO", when, s.from, s.to)
	}
}

func statusAfterChange(t *T) {
	t.eachContextMode(func(c *Conn) {
		other := t.Open(c.Mode)
		watchers := []*Conn{c}
		if c.Flags&proto.FlagCanMultiConn != 0 {
			watchers = append(watchers, other)
		}
		at := t.Scratch(8 << 20)
		for round := range uint64(6) {
			for _, n := range []uint64{t.block(), 64 << 10, 1 << 20} {
				if c.offers(proto.CmdWriteZeroes) {
					c.Succeeds(Command(proto.CmdWriteZeroes, at, n))
					c.statusMatches(at, n)
				} else if c.offers(proto.CmdTrim) {
					c.Succeeds(Command(proto.CmdTrim, at, n))
				}
				c.wrote(at, Fill(round, int(n)))
				for _, watcher := range watchers {
					watcher.notZero(at, n, "after a WRITE of data was answered")
				}
				if c.offers(proto.CmdTrim) {
					c.Succeeds(Command(proto.CmdTrim, at, n))
					c.statusMatches(at, n)
				}
				at += n
			}
		}
		c.StillUp("changes and BLOCK_STATUS")
	})
}

// statusMatches reads what is called ZERO.
func (c *Conn) statusMatches(at, n uint64) {
	for _, s := range c.zeroBits(at, n) {
		c.wantRead(Read(s.from, s.to-s.from), make([]byte, s.to-s.from), "called ZERO")
	}
}

// statusRace lets one connection write forwards through a hole while another asks for the status of
// all of it: what was answered before the question was sent must not be called ZERO.
func statusRace(t *T) {
	t.eachContextMode(func(c *Conn) {
		if c.Flags&proto.FlagCanMultiConn == 0 {
			t.Skip("the server does not promise that connections see each other's writes " +
				"(CAN_MULTI_CONN)")
		}
		const pieces = 128
		piece := max(32<<10, t.block())
		at := t.Scratch(pieces * piece)
		if c.offers(proto.CmdTrim) {
			c.Succeeds(Command(proto.CmdTrim, at, pieces*piece))
		} else if c.offers(proto.CmdWriteZeroes) {
			c.Succeeds(Command(proto.CmdWriteZeroes, at, pieces*piece))
		}
		writer, data := t.Open(t.facts.Best()), Fill(77, int(piece))
		for i := range uint64(pieces) {
			writer.Send(Write(at+i*piece, data)) // in flight while the question is asked
			c.notAnsweredZero(at, pieces*piece, i*piece)
			reply := writer.Next()
			t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
		}
		c.notZero(at, pieces*piece, "after all WRITEs")
		c.StillUp("a race of WRITE and BLOCK_STATUS")
	})
}

// notAnsweredZero asks for all n bytes of the area, of which the first done have been written and
// answered.
func (c *Conn) notAnsweredZero(at, n, done uint64) {
	end := at
	for _, x := range c.allocation(c.status(Command(proto.CmdBlockStatus, at, n))) {
		if x.Flags&uint64(proto.StatusZero) != 0 && end < at+done {
			c.t.Failf("[%d, %d) is called ZERO; up to %d it was written, and answered, before "+
				"the question was asked", end, end+x.Length, at+done)
		}
		end += x.Length
	}
}

func statusAfterNoHole(t *T) {
	t.eachContextMode(func(c *Conn) {
		at := t.Scratch(1 << 20)
		if c.offers(proto.CmdTrim) {
			c.Succeeds(Command(proto.CmdTrim, at, 1<<20))
		}
		c.Succeeds(Command(proto.CmdWriteZeroes, at, 1<<20).With(proto.CmdFlagNoHole))
		for _, x := range c.allocation(c.status(Command(proto.CmdBlockStatus, at, 1<<20))) {
			t.Prefer(x.Flags&uint64(proto.StatusHole) == 0,
				"after NO_HOLE %d bytes are called a HOLE", x.Length)
		}
	})
}

func statusTellsHoles(t *T) {
	t.eachContextMode(func(c *Conn) {
		var told uint64
		for _, s := range c.zeroBits(HoleStart, StripeStart-HoleStart) {
			told += s.to - s.from
		}
		t.Prefer(told == StripeStart-HoleStart,
			"of a hole of %d bytes in the image %d are called ZERO", StripeStart-HoleStart, told)
		wanted := make([]byte, Stripe)
		t.Want(bytes.Equal(Expected(StripeStart+Stripe, Stripe), wanted),
			"the suite's own data is not what it should be")
		t.Prefer(len(c.zeroBits(StripeStart, 8*Stripe)) == 4,
			"of four holes among data %d are told", len(c.zeroBits(StripeStart, 8*Stripe)))
	})
}

func statusBeyondEnd(t *T) {
	t.eachContextMode(func(c *Conn) {
		block := t.block()
		for _, s := range []span{{t.tail(block), 2 * block}, {c.Size, block},
			{c.Size + 64*block, block}} {
			c.refused(Command(proto.CmdBlockStatus, s.from, s.to), EINVAL)
		}
	})
}

func statusLongest(t *T) {
	t.eachContextMode(func(c *Conn) {
		n := min(c.Size, 1<<32-1) / t.block() * t.block()
		c.status(Command(proto.CmdBlockStatus, 0, n))
		if c.Size >= 1<<32 {
			c.status(Command(proto.CmdBlockStatus, (c.Size-n)/t.block()*t.block(), n))
			c.status(Command(proto.CmdBlockStatus, 1<<32-2*t.block(), 2*t.block()))
		}
		c.StillUp("BLOCK_STATUS of everything")
	})
}

func statusErrorForm(t *T) {
	t.eachContextMode(func(c *Conn) {
		for _, r := range []*Request{Command(proto.CmdBlockStatus, c.Size, t.block()),
			Command(proto.CmdBlockStatus, 0, t.block()).With(1 << 14)} {
			if reply := c.refused(r, EINVAL); reply != nil && reply.Errno != 0 {
				t.Prefer(!reply.Simple, "%s: the error is a simple reply", r)
			}
		}
	})
}
