// Checks of READ (CR). Invariant: data is compared with what the suite knows to be there, never
// only with its length.

package conform

import (
	"bytes"

	"ringnbd/proto"
)

var readChecks = []Check{
	{"CR-01", Should, "a READ beyond the end is EINVAL and brings no data",
		"bytes from behind the export are somebody else's", nil, readBeyondEnd},
	{"CR-02", Must, "with DF a READ of data and holes comes in one chunk, the zeroes written out",
		"the client that asks for it cannot put pieces together",
		[]Need{NeedStructured, NeedDF, NeedPattern}, unfragmented},
	{"CR-03", Must, "DF works up to 64 KiB; beyond, it works or is EOVERFLOW without data",
		"64 KiB is what every client may count on", []Need{NeedStructured, NeedDF, NeedPattern},
		unfragmentedSizes},
	{"CR-04", May,
		"a READ of more than the maximum payload is refused, or split, or done; the connection " +
			"lives",
		"clients find out how much they may ask for by asking", nil, readAboveMaximum},
	{"CR-05", Should, "a READ that is not aligned to the minimum block size is EINVAL",
		"what is promised to be refused must not half work", []Need{NeedBlocks}, readMisaligned},
	{"CR-06a", Must,
		"READ brings what is there: first and last block, holes as zeroes, across every border",
		"it is what the whole thing is for", []Need{NeedPattern}, readEverything},
	{"CR-06b", Must, "a READ of the maximum payload works",
		"it is what the server promised, or 32 MiB for those that promise nothing", nil,
		readMaximum},
	{"CR-06c", Must, "single bytes at odd offsets",
		"a minimum block of 1 means it; old clients assume it", []Need{NeedByteUnit, NeedPattern},
		readBytes},
}

func readBeyondEnd(t *T) {
	t.eachMode(func(c *Conn) {
		block := t.block()
		// of which the last block ends where the export does
		whole := min(c.Size, 1<<30) / block * block
		for _, s := range []span{{t.tail(block), 2 * block}, {c.Size, block},
			{c.Size + 16*block, block}, {c.Size/block*block - whole, whole + block}} {
			want := []uint32{EINVAL}
			if s.to > t.facts.MaxPayload() {
				want = append(want, EOVERFLOW)
			}
			c.refused(Read(s.from, s.to), want...)
		}
	})
}

func unfragmented(t *T) {
	t.eachChunkMode(func(c *Conn) {
		for _, r := range t.patternReads() {
			if r.Length > 64<<10 {
				continue
			}
			reply := c.wantRead(r.With(proto.CmdFlagDF), Expected(r.Offset, r.Length), "with DF")
			c.oneContent(reply)
		}
		c.StillUp("READs with DF")
	})
}

// oneContent judges a reply to a READ with DF. Conn has seen to it that its chunks hold all of the
// data; if there is only one, there is no hole left out.
func (c *Conn) oneContent(reply *Reply) {
	n := count([]*Reply{reply}, proto.ChunkOffsetData) +
		count([]*Reply{reply}, proto.ChunkOffsetHole)
	c.t.Want(n <= 1, "%s: %d chunks with content in spite of DF", reply.Request, n)
}

func unfragmentedSizes(t *T) {
	t.eachChunkMode(func(c *Conn) {
		at := (StripeStart + Stripe/2) / t.block() * t.block()
		c.oneContent(c.wantRead(Read(at, 64<<10).With(proto.CmdFlagDF), Expected(at, 64<<10),
			"64 KiB with DF"))
		for _, n := range []uint64{128 << 10, 1 << 20} {
			r := Read(StripeStart, n).With(proto.CmdFlagDF)
			reply := c.Do(r)
			c.oneContent(reply)
			if reply.Errno != 0 {
				t.Want(reply.Errno == EOVERFLOW, "%s: %s; EOVERFLOW is the only error for it", r,
					reply.Error())
				t.Want(count([]*Reply{reply}, proto.ChunkOffsetData) == 0, "%s: data and EOVERFLOW",
					r)
				continue
			}
			t.Want(bytes.Equal(reply.Data, Expected(StripeStart, n)), "%s: wrong data", r)
		}
		c.StillUp("large READs with DF")
	})
}

func readAboveMaximum(t *T) {
	t.eachMode(func(c *Conn) {
		n := t.facts.MaxPayload() + t.block()
		if n > 1<<32-1 {
			t.Skip("the server knows no maximum payload")
		}
		if n > longCost {
			t.Skip("the maximum payload of %d bytes is more than a READ is worth",
				t.facts.MaxPayload())
		}
		if n > c.Size {
			t.Skip("the export is smaller than the maximum payload of %d bytes",
				t.facts.MaxPayload())
		}
		if reply := c.mayWork(Read(0, n), EOVERFLOW, EINVAL); reply != nil && reply.Errno == 0 &&
			t.facts.Pattern {
			got := min(uint64(len(reply.Data)), ScratchStart)
			t.Want(bytes.Equal(reply.Data[:got], Expected(0, got)), "%s: wrong data", reply.Request)
		}
	})
}

func readMisaligned(t *T) {
	t.eachMode(func(c *Conn) {
		least := t.facts.MinBlock()
		for _, r := range []*Request{Read(1, least), Read(0, least-1), Read(least/2, least),
			Read(0, least+least/2)} {
			c.refused(r, EINVAL)
		}
	})
}

func readEverything(t *T) {
	t.eachMode(func(c *Conn) {
		c.readPattern()
		c.WantData(0, Expected(0, ScratchStart), "the suite's data")
		last := t.tail(t.block())
		c.Succeeds(Read(last, c.Size-last))
		if t.facts.MinBlock() == 1 {
			c.Succeeds(Read(c.Size-1, 1))
		}
		c.StillUp("READs of everything")
	})
}

func readMaximum(t *T) {
	t.eachMode(func(c *Conn) {
		n := min(t.facts.MaxPayload(), 1<<25, c.Size) / t.block() * t.block()
		reply := c.Succeeds(Read(0, n))
		if t.facts.Pattern {
			got := min(n, ScratchStart)
			t.Want(bytes.Equal(reply.Data[:got], Expected(0, got)), "%s: wrong data", reply.Request)
		}
		c.StillUp("a READ of the maximum payload")
	})
}

func readBytes(t *T) {
	t.eachMode(func(c *Conn) {
		for _, at := range []uint64{0, 1, 511, 512, 513, 4095, 4096, HoleStart - 1, HoleStart,
			StripeStart - 1, StripeStart, StripeStart + Stripe - 1, ScratchStart - 1} {
			c.wantRead(Read(at, 1), Expected(at, 1), "a byte")
			n := min(4099, ScratchStart-at)
			c.wantRead(Read(at, n), Expected(at, n), "an odd length")
		}
		c.StillUp("READs of single bytes")
	})
}
