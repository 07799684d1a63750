// Checks of READ (CR).
//
// Invariant: data is compared with what the suite knows the export to hold, not just its length.

package conform

import (
	"bytes"

	"ringnbd/proto"
)

var readChecks = []Check{
	{"CR-01", should, nil,
		"a READ beyond the end is EINVAL and brings no data",
		"bytes from beyond the export belong to other users",
		readBeyondEnd},
	{"CR-02", must, []need{needStructured, needDF, needPattern},
		"with DF a READ of data and holes comes in one chunk, with the zeroes sent as data",
		"a client that sets DF cannot put pieces together",
		unfragmented},
	{"CR-03", must, []need{needStructured, needDF, needPattern},
		"DF works up to 64 KiB; longer READs work or are EOVERFLOW without data",
		"every client may count on 64 KiB",
		unfragmentedSizes},
	{"CR-04", may, nil,
		"a READ of more than the maximum payload is refused, split or done, and the connection " +
			"lives",
		"clients find out by trying how long a READ may be",
		readAboveMaximum},
	{"CR-05", should, []need{needBlocks},
		"a READ that is not aligned to the minimum block size is EINVAL",
		"a request that must be refused must not half work",
		readMisaligned},
	{"CR-06a", must, []need{needPattern},
		"READ returns the data of the export: the first and the last block, holes as zeroes, " +
			"across every border",
		"an export exists for this",
		readEverything},
	{"CR-06b", must, nil,
		"a READ of the maximum payload works",
		"the server promised it; 32 MiB if it promised nothing",
		readMaximum},
	{"CR-06c", must, []need{needByteUnit, needPattern},
		"READs of single bytes at odd offsets work",
		"a minimum block of 1 promises it, and old clients assume it",
		readBytes},
}

func readBeyondEnd(t *trial) {
	t.eachMode(func(c *conn) {
		block := t.block()
		// the last block of which ends where the export ends
		whole := min(c.size, 1<<30) / block * block
		for _, s := range []area{{t.tail(block), 2 * block}, {c.size, block},
			{c.size + 16*block, block}, {c.size/block*block - whole, whole + block}} {
			want := []uint32{einval}
			if s.length > t.profile.maxPayload() {
				want = append(want, eoverflow)
			}
			c.refused(newRead(s.offset, s.length), want...)
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
			c.wantOneContentChunk(reply)
		}
		c.stillUp("READs with DF")
	})
}

// wantOneContentChunk judges a reply to a READ with DF. conn has made sure that its chunks hold all
// data; if there is only one chunk, the holes are in it.
func (c *conn) wantOneContentChunk(r *reply) {
	n := r.count(proto.ChunkOffsetData) + r.count(proto.ChunkOffsetHole)
	c.t.want(n <= 1, "%s: %d chunks with content in spite of DF", r.request, n)
}

func unfragmentedSizes(t *trial) {
	t.eachChunkMode(func(c *conn) {
		at := (stripeStart + stripe/2) / t.block() * t.block()
		r := newRead(at, 64<<10).with(proto.CmdFlagDF)
		c.wantOneContentChunk(c.wantRead(r, expected(at, 64<<10), "64 KiB with DF"))
		for _, n := range []uint64{128 << 10, 1 << 20} {
			r := newRead(stripeStart, n).with(proto.CmdFlagDF)
			reply := c.do(r)
			c.wantOneContentChunk(reply)
			if reply.errno != 0 {
				t.want(reply.errno == eoverflow,
					"%s: %s; EOVERFLOW is the only error for it", r, reply.errorText())
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
			t.skip("the server has no maximum payload")
		}
		if n > longCost {
			t.skip("a READ of more than the maximum payload of %d bytes would take too long",
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
		minBlock := t.profile.minBlock()
		for _, r := range []*request{
			newRead(1, minBlock),
			newRead(0, minBlock-1),
			newRead(minBlock/2, minBlock),
			newRead(0, minBlock+minBlock/2),
		} {
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
