// Traces: the requests of a recording in a compact table, in the order in which they were started,
// and what must be known about them before a target is.
//
// Invariant: a trace that was read does not change; times begin at 0 and never go back. A request
// takes 21 bytes and no pointer, so that ten million of them are 200 MiB and nothing to the garbage
// collector.

package load

import (
	"fmt"
	"math/bits"
	"time"

	"ringnbd/engine/units"
)

const (
	pieceBits = 16
	pieceSize = 1 << pieceBits // requests of a piece
)

// piece is a part of a trace; tables grow by pieces, so that nothing is copied.
type piece struct {
	at     [pieceSize]int64 // nanoseconds after the first request
	offset [pieceSize]uint64
	length [pieceSize]uint32
	kind   [pieceSize]requestKind
}

// entry is a request of a trace.
type entry struct {
	at     int64
	offset uint64
	length uint32
	kind   requestKind
}

type trace struct {
	path   string
	name   string // of the file in the trace that it was recorded on
	pieces []*piece
	n      int
	does   [kinds]bool
	first  [kinds]int // line
	began  int64      // nanoseconds: the first request, as the file has it

	unit     uint64 // bytes: what divides every offset and length
	smallest uint32 // payload of a read or write
	largest  uint32
	widest   int    // its line
	end      uint64 // bytes
	farthest int    // the line of the request that ends there
	powers   [64]int
}

// at returns the i-th request.
func (t *trace) at(i int) entry {
	p, k := t.pieces[i>>pieceBits], i&(pieceSize-1)
	return entry{p.at[k], p.offset[k], p.length[k], p.kind[k]}
}

// add appends the request of a line.
func (t *trace) add(e entry, line int) {
	if t.n == 0 {
		t.began = e.at
	} else {
		// several jobs in one file: fio takes a time that goes back for no time at all, too
		e.at = max(e.at, t.began+t.at(t.n-1).at)
	}
	k := t.n & (pieceSize - 1)
	if k == 0 {
		t.pieces = append(t.pieces, new(piece))
	}
	p := t.pieces[len(t.pieces)-1]
	p.at[k], p.offset[k], p.length[k], p.kind[k] = e.at-t.began, e.offset, e.length, e.kind
	t.n++
	if !t.does[e.kind] {
		t.does[e.kind], t.first[e.kind] = true, line
	}
	if e.kind != kindFlush {
		t.measure(&e, line)
	}
}

// measure keeps what is compared with the target's limits.
func (t *trace) measure(e *entry, line int) {
	if end := e.offset + uint64(e.length); end > t.end {
		t.end, t.farthest = end, line
	}
	both := e.offset | uint64(e.length)
	if at := &t.powers[bits.TrailingZeros64(both)]; *at == 0 {
		*at = line
	}
	t.unit = divisor(divisor(t.unit, e.offset), uint64(e.length))
	if e.kind != kindRead && e.kind != kindWrite {
		return
	}
	if t.largest == 0 || e.length < t.smallest {
		t.smallest = e.length
	}
	if e.length > t.largest {
		t.largest, t.widest = e.length, line
	}
}

// misaligned returns the first line whose offset or length is not a multiple of a power of two, or
// 0.
func (t *trace) misaligned(power uint64) int {
	line := 0
	for _, first := range t.powers[:bits.TrailingZeros64(power)] {
		if first > 0 && (line == 0 || first < line) {
			line = first
		}
	}
	return line
}

// lasts returns the time from the first request to the last.
func (t *trace) lasts() time.Duration { return time.Duration(t.at(t.n - 1).at) }

// sizes returns the payload of the requests, for people.
func (t *trace) sizes() string {
	switch {
	case t.largest == 0:
		return ""
	case t.smallest == t.largest:
		return units.Short(uint64(t.largest))
	}
	return units.Short(uint64(t.smallest)) + "-" + units.Short(uint64(t.largest))
}

// lineError returns the error about a line, which counts from 1.
func (t *trace) lineError(line int, format string, values ...any) error {
	return fmt.Errorf("%s: line %d: %s", t.path, line, fmt.Sprintf(format, values...))
}

// divisor returns the greatest common divisor.
func divisor(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
