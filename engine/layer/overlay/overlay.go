// The plan: what it is made of and needs, rows that wait, and what it tells about itself.
//
// Invariant: a row that waits is in exactly one of the sets ready, joined and saving, and leaves
// them when Next names it.

package overlay

import (
	"sync/atomic"

	"ringnbd/engine/layer"
	"ringnbd/proto"
)

// The devices, in their order.
const (
	Below uint8 = iota // the origin: is never written
	Top                // is written, trimmed and flushed
)

// Kind says whether what is written stays.
type Kind uint8

const (
	Persistent Kind = iota // flushed writes are there when the top is opened again
	ThrowAway              // the map is never saved, and a flush is answered at once
)

// States of a row: which answer it waits for.
const (
	begun    uint8 = iota
	reading        // a wave of reads is out
	writing        // a write is out, after which the map changes
	plain          // a write is out that changes nothing in the map and is durable when done
	zeroing        // zeroes are written into the top
	punching       // punches are out, or a long range goes on
	flushing       // a flush of the top is out, and nothing has to be saved
	joined         // waits for a round of saving
)

// Overlay is the plan. Its methods are the loop's, but for Extents and Stats.
type Overlay struct {
	m     *Map
	kind  Kind
	block uint64
	data  uint64 // where block 0 is in the top
	below uint64 // where block 0 is on the device of the origin
	ready rowSet // Next will name them
	save  saver
}

// New returns a plan over a map that was loaded, or, for a new or thrown-away top, is empty.
func New(m *Map, kind Kind) *Overlay {
	o := &Overlay{m: m, kind: kind, block: uint64(m.layout.Block), data: m.layout.DataAt}
	if kind == Persistent {
		o.save.make(m)
	}
	return o
}

// Shift says where on its device the origin begins, in bytes: a partition's start. It is called
// before any Step.
func (o *Overlay) Shift(below uint64) { o.below = below }

// Needs says what the plan needs: granularity, and memory for the pages of the map that it saves.
func (o *Overlay) Needs() layer.Needs {
	n := layer.Needs{Block: o.m.layout.Block}
	if o.kind == Persistent {
		n.Own = []uint32{uint32(cap(o.save.batch) * pageLen)}
	}
	return n
}

// Owns makes the tables of rows.
func (o *Overlay) Owns(rows uint32, own []layer.Own) {
	o.ready = newRowSet(rows)
	if o.kind == Persistent {
		o.save.own = own[0]
		o.save.joined, o.save.saving = newRowSet(rows), newRowSet(rows)
		o.save.lost = newRowSet(rows)
	}
}

// Step goes on with a row.
func (o *Overlay) Step(r *layer.Row, w *layer.Wave) layer.Then {
	w.N = 0
	if r.Own != 0 {
		return o.saveMap(r, w)
	}
	if r.State == joined {
		r.Errno = o.save.outcome(r.ID)
		return layer.Done
	}
	switch r.Op {
	case layer.Read:
		return o.read(r, w)
	case layer.Write:
		return o.write(r, w)
	case layer.Zero:
		if r.Flags&layer.NoHole != 0 {
			return o.fill(r, w)
		}
		return o.punch(r, w)
	case layer.Trim:
		return o.punch(r, w)
	case layer.Flush:
		return o.flush(r, w)
	}
	r.Errno = proto.EINVAL
	return layer.Done
}

// Next names a row that may go on, or the saver's own, if rows have joined and it is idle.
func (o *Overlay) Next() (id uint32, ok bool) {
	if id, ok = o.ready.take(); ok {
		return id, true
	}
	return o.save.next()
}

// Cancel forgets nothing: a row waits for the disk only.
func (o *Overlay) Cancel(uint32) bool { return false }

// add appends a segment to a wave.
func add(w *layer.Wave, s layer.Segment) {
	w.Seg[w.N] = s
	w.N++
}

// all reports whether a row's blocks are all in the top.
func (o *Overlay) all(r *layer.Row) bool {
	first, end := r.Off/o.block, (r.Off+uint64(r.Len))/o.block
	s, n := o.m.run(first, end)
	return s == Data && n == end-first
}

// set gives n blocks from b on a state, and notes which pages of the map have changed.
func (o *Overlay) set(b, n uint64, s State) {
	for end := b + n; b < end; {
		k := min(end, (b/pageBlocks+1)*pageBlocks) - b
		if o.m.set(b, k, s) && o.kind == Persistent {
			o.save.changed(b / pageBlocks)
		}
		b += k
	}
}

// durable ends a row whose work is done, after a round of saving if it has to be durable.
func (o *Overlay) durable(r *layer.Row) layer.Then {
	if r.Flags&layer.FUA == 0 || o.kind == ThrowAway {
		return layer.Done
	}
	return o.join(r)
}

// Extents tells the runs of length bytes from off on, in order, until yield says no.
func (o *Overlay) Extents(off, length uint64, yield func(off, length uint64, s State) bool) {
	o.m.Extents(off, length, yield)
}

// Stats is what an overlay tells about itself.
type Stats struct {
	Data   uint64 // bytes in the top
	Zeroes uint64 // bytes that are zeroes, and take no space
	Rounds uint64 // of saving the map
	Pages  uint64 // of the map that were written
	Failed bool   // a flush failed, and none will succeed
}

// counters are what Stats is made of and other goroutines read.
type counters struct {
	rounds, pages atomic.Uint64
	failed        atomic.Bool
}

// Stats may be called from anywhere.
func (o *Overlay) Stats() Stats {
	return Stats{Data: o.m.data.Load() * o.block, Zeroes: o.m.zeroes.Load() * o.block,
		Rounds: o.save.rounds.Load(), Pages: o.save.pages.Load(), Failed: o.save.failed.Load()}
}
