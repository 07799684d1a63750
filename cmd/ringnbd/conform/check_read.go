// Checks of READ (CR). Invariant: data is compared with what the suite knows to be there, never
// only with its length.

package conform

import (
	"bytes"

	"ringnbd/proto"
)

var readChecks = []Check{
	{"CR-01", should, nil,
		"a READ beyond the end is EINVAL and brings no data",
		"bytes from behind the export are somebody else's",
		readBeyondEnd},
	{"CR-02", must, []need{needStructured, needDF, needPattern},
		"with DF a READ of data and holes comes in one chunk, the zeroes written out",
		"the client that asks for it cannot put pieces together",
		unfragmented},
	{"CR-03", must, []need{needStructured, needDF, needPattern},
		"DF works up to 64 KiB; beyond, it works or is EOVERFLOW without data",
		"64 KiB is what every client may count on",
		unfragmentedSizes},
	{"CR-04", may, nil,
		"a READ of more than the maximum payload is refused, or split, or done; the connection " +
			"lives",
		"clients find out how much they may ask for by asking",
		readAboveMaximum},
	{"CR-05", should, []need{needBlocks},
		"a READ that is not aligned to the minimum block size is EINVAL",
		"what is promised to be refused must not half work",
		readMisaligned},
	{"CR-06a", must, []need{needPattern},
		"READ brings what is there: first and last block, holes as zeroes, across every border",
		"it is what the whole thing is for",
		readEverything},
	{"CR-06b", must, nil,
		"a READ of the maximum payload works",
		"it is what the server promised, or 32 MiB for those that promise nothing",
		readMaximum},
	{"CR-06c", must, []need{needByteUnit, needPattern},
		"single bytes at odd offsets",
		"a minimum block of 1 means it; old clients assume it",
		readBytes},
}

func readBeyondEnd(t *trial) {
	t.eachMode(func(c *conn) {
		block := t.block()
		// of which the last block ends where the export does
		whole := min(c.size, 1<<30) / block * block
		for _, s := range []span{{t.tail(block), 2 * block}, {c.size, block},
			{c.size + 16*block, block}, {c.size/block*block - whole, whole + block}} {
			want := []uint32{einval}
			if s.to > t.profile.maxPayload() {
				want = append(want, eoverflow)
			}
			c.refused(newRead(s.from, s.to), want...)
		}
	})
}

func unfragmented(t *trial) {
	t.eachChunkMode(func(c *conn) {
		for _, r := range t.patternReads() {
			if r.length > 64<<10 {
				continue
			}
			reply := c.wantRead(r.with(proto.CmdFlagDF), expected(r.offset, r.length), "with DF")
			c.oneContent(reply)
		}
		c.stillUp("READs with DF")
	})
}

// oneContent judges a reply to a READ with DF. Conn has seen to it that its chunks hold all of the
// data; if there is only one, there is no hole left out.
func (c *conn) oneContent(r *reply) {
	n := r.count(proto.ChunkOffsetData) + r.count(proto.ChunkOffsetHole)
	c.t.want(n <= 1, "%s: %d chunks with content in spite of DF", r.request, n)
}

func unfragmentedSizes(t *trial) {
	t.eachChunkMode(func(c *conn) {
		at := (stripeStart + stripe/2) / t.block() * t.block()
		c.oneContent(c.wantRead(newRead(at, 64<<10).with(proto.CmdFlagDF), expected(at, 64<<10),
			"64 KiB with DF"))
		for _, n := range []uint64{128 << 10, 1 << 20} {
			r := newRead(stripeStart, n).with(proto.CmdFlagDF)
			reply := c.do(r)
			c.oneContent(reply)
			if reply.errno != 0 {
				t.want(reply.errno == eoverflow, "%s: %s; EOVERFLOW is the only error for it", r,
					reply.errorText())
				t.want(reply.count(proto.ChunkOffsetData) == 0, "%s: data and EOVERFLOW", r)
				continue
			}
			t.want(bytes.Equal(reply.data, expected(stripeStart, n)), "%s: wrong data", r)
		}
		c.stillUp("large READs with DF")
	})
}

func readAboveMaximum(t *trial) {
	t.eachMode(func(c *conn) {
		n := t.profile.maxPayload() + t.block()
		if n > 1<<32-1 {
			t.skip("the server knows no maximum payload")
		}
		if n > longCost {
			t.skip("the maximum payload of %d bytes is more than a READ is worth",
				t.profile.maxPayload())
		}
		if n > c.size {
			t.skip("the export is smaller than the maximum payload of %d bytes",
				t.profile.maxPayload())
		}
		if reply := c.mayWork(newRead(0, n), eoverflow, einval); reply != nil && reply.errno == 0 &&
			t.profile.Pattern {
			got := min(uint64(len(reply.data)), scratchStart)
			t.want(bytes.Equal(reply.data[:got], expected(0, got)), "%s: wrong data", reply.request)
		}
	})
}

func readMisaligned(t *trial) {
	t.eachMode(func(c *conn) {
		least := t.profile.minBlock()
		for _, r := range []*request{newRead(1, least), newRead(0, least-1),
			newRead(least/2, least),
			newRead(0, least+least/2)} {
			c.refused(r, einval)
		}
	})
}

func readEverything(t *trial) {
	t.eachMode(func(c *conn) {
		c.readPattern()
		c.wantData(0, expected(0, scratchStart), "the suite's data")
		last := t.tail(t.block())
		c.succeeds(newRead(last, c.size-last))
		if t.profile.minBlock() == 1 {
			c.succeeds(newRead(c.size-1, 1))
		}
		c.stillUp("READs of everything")
	})
}

func readMaximum(t *trial) {
	t.eachMode(func(c *conn) {
		n := min(t.profile.maxPayload(), 1<<25, c.size) / t.block() * t.block()
		reply := c.succeeds(newRead(0, n))
		if t.profile.Pattern {
			got := min(n, scratchStart)
			t.want(bytes.Equal(reply.data[:got], expected(0, got)), "%s: wrong data", reply.request)
		}
		c.stillUp("a READ of the maximum payload")
	})
}

func readBytes(t *trial) {
	t.eachMode(func(c *conn) {
		for _, at := range []uint64{0, 1, 511, 512, 513, 4095, 4096, holeStart - 1, holeStart,
			stripeStart - 1, stripeStart, stripeStart + stripe - 1, scratchStart - 1} {
			c.wantRead(newRead(at, 1), expected(at, 1), "a byte")
			n := min(4099, scratchStart-at)
			c.wantRead(newRead(at, n), expected(at, n), "an odd length")
		}
		c.stillUp("READs of single bytes")
	})
}
