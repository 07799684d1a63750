// Holes: zeroes that a READ has read need not be sent. They are found by looking at the data, not
// by asking the file where its holes are: that costs nothing but a look at one word in 32 KiB, is
// true whatever else is written meanwhile, and finds zeroes that a file, a block device or a RAM
// disk stores as data.
//
// Invariant: the runs cover the request exactly and alternate. A hole is at least minHole bytes
// long, or half of the request: less is not worth a chunk. So data without long zeroes is one
// chunk, and a short request is at most three.

package engine

import (
	"bytes"

	"ringnbd/proto"
)

const (
	minHole = 32 << 10 // bytes: a hole saves copying them, and costs a chunk
	// holeUnit divides the ends of holes, but where the request itself begins or ends between
	// units.
	holeUnit = 512
	maxRuns  = 9 // of one reply; what comes after them is data, zero or not
	// searchPart is how many bytes of a reply are searched, and sent, at a time, and a little more.
	searchPart = 1 << 20
	// maxSearch is how many bytes are compared for that; what comes after them is data.
	maxSearch = searchPart + 4*minHole
)

type run struct {
	off, len uint64
	zero     bool
}

// holes takes the data of one READ apart.
type holes struct {
	loop *loop
	row  *tag
	runs [maxRuns]run
	n    int
	seen uint64 // bytes compared
}

var zeroUnit [holeUnit]byte

// find fills runs with what lies in [from, end). Zeroes are looked for only where every hole that
// is long enough must have some: at the multiples of minHole, and at the beginning; in a short
// request, on both sides of its middle.
func (h *holes) find(from, end uint64) {
	at, last, step, shortest := from, end-1, uint64(minHole), uint64(minHole)
	if n := end - from; n < 2*minHole {
		step, shortest = holeUnit, (n+1)/2
		last = max((from+n/2)&^(holeUnit-1), from)
		at = max(last-min(last, holeUnit), from)
	}
	data := from // where the data begins that is not in a run yet
	if h.loop.deviceOf(h.row).keeps() {
		for ; at <= last && h.n < maxRuns-2 && h.seen < maxSearch; at = (at + step) &^ (step - 1) {
			lo, hi := h.zeroes(at, data, end)
			whole := lo == from && hi == end
			if hi > at && (whole || hi-lo >= shortest && h.row.Flags&proto.CmdFlagDF == 0) {
				h.put(data, lo, false)
				h.put(lo, hi, true)
				data = hi
			}
			at = max(at, hi-min(hi, 1))
		}
	}
	h.put(data, end, false)
}

// put appends a run, unless it is empty.
func (h *holes) put(from, to uint64, zero bool) {
	if from < to {
		h.runs[h.n] = run{from, to - from, zero}
		h.n++
	}
}

// zeroes is the longest range of zeroes around at, in whole units, inside [first, end); empty if
// there is none at at.
func (h *holes) zeroes(at, first, end uint64) (lo, hi uint64) {
	lo, hi = at, at
	if !h.zero(at, min(at+8, end)) {
		return lo, hi
	}
	for hi < end && h.seen < maxSearch {
		next := min((hi+holeUnit)&^(holeUnit-1), end)
		if !h.zero(hi, next) {
			break
		}
		hi = next
	}
	for lo > first && hi > at {
		before := max((lo-1)&^(holeUnit-1), first)
		if !h.zero(before, lo) {
			break
		}
		lo = before
	}
	return lo, hi
}

// zero reports whether the bytes [from, to), which lie in one unit, are zero.
func (h *holes) zero(from, to uint64) bool {
	n := to - from
	h.seen += n
	var b []byte
	if d := h.loop.deviceOf(h.row); d.Kind == Memory {
		b = d.Memory.Bytes(from, int(n))
	} else {
		at, piece := from-h.row.lo, h.row.memory
		for ; at >= pieceSize; at -= pieceSize {
			piece = h.loop.leases.next[piece]
		}
		if at+n > pieceSize {
			// two pieces meet here; they do on units, unless the device's blocks are smaller
			return false
		}
		b = h.loop.pool.Bytes(h.loop.leases.offset(piece)+at, int(n))
	}
	return bytes.Equal(b, zeroUnit[:n])
}
