// Rows and waves, and the plan's side of the contract.
//
// Invariant: a row is free, about to be stepped, out (its wave is), or waits; a plan's own row may
// also be asleep.

package trial

import (
	"bytes"
	"slices"

	"ringnbd/engine/layer"
	"ringnbd/proto"
)

type phase uint8

const (
	free phase = iota
	runnable
	out
	waiting
	asleep
)

// mostRows is how many rows there are.
const mostRows = 128

// row is a place in the table.
type row struct {
	layer.Row
	phase   phase
	node    int      // the plan
	request *request // it is the request itself
	parent  *op      // it is a segment of another row
	queued  bool     // its flush waits for another one of the same plan
	asked   layer.Row
	memory  []byte // of a Read, a Write, or an own row
	left    int    // operations out
	wave    layer.Wave
}

// Part is a plan in a tree.
type Part struct {
	Plan  layer.Plan
	Needs layer.Needs
	Size  uint64
	Below []Ref
}

// Ref is a device below a plan: Disk(i) or Sub(i), by their places in the rig and in the tree.
type Ref struct {
	disk bool
	at   int
}

// DiskRef is a disk of the rig.
func DiskRef(i int) Ref { return Ref{true, i} }

// SubRef is another plan of the tree.
func SubRef(i int) Ref { return Ref{false, i} }

// node is a plan and what belongs to it.
type node struct {
	Part
	flushing bool
	flushes  []*row // that wait, because one is under way
}

// freeRow takes a row, or returns nil.
func (w *World) freeRow() *row {
	if len(w.free) == 0 {
		return nil
	}
	r := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	return r
}

// plant makes the own rows of a plan.
func (w *World) plant(i int) {
	n := w.parts[i]
	var own []layer.Own
	for k, length := range n.Needs.Own {
		if length > layer.Most {
			w.failf("plan %d wants %d bytes for an own row", i, length)
		}
		r := w.freeRow()
		at := w.poolEnd
		w.poolEnd += uint64(length)
		if w.poolEnd > poolLen {
			w.failf("the pool is too small")
		}
		memory := w.pool[at:w.poolEnd:w.poolEnd]
		r.Row = layer.Row{ID: r.ID, Own: uint8(k + 1), Len: length, At: at}
		r.asked, r.node, r.phase, r.memory = r.Row, i, asleep, memory
		own = append(own, layer.Own{ID: r.ID, Memory: memory})
	}
	if owner, ok := n.Plan.(layer.Owner); ok {
		owner.Owns(mostRows, own)
	} else if own != nil {
		w.failf("plan %d needs own rows, and does not want to know them", i)
	}
}

// start gives a row to a plan.
func (w *World) start(r *row, node int, shape layer.Row) {
	shape.ID = r.ID
	r.Row, r.asked, r.node = shape, shape, node
	if shape.Op == layer.Read || shape.Op == layer.Write {
		r.memory = w.at(shape.At, uint64(shape.Len))
	}
	n := w.parts[node]
	if shape.Op == layer.Flush {
		if n.flushing {
			r.queued, r.phase = true, waiting
			n.flushes = append(n.flushes, r)
			return
		}
		n.flushing = true
	}
	w.awake(r)
}

func (w *World) awake(r *row) {
	r.phase = runnable
	w.runnable = append(w.runnable, r)
}

// settle steps every row that can go on, and asks every plan for more.
func (w *World) settle() {
	for bound := 0; ; bound++ {
		if bound > 100_000 {
			w.failf("steps follow steps without end")
		}
		for len(w.runnable) > 0 {
			r := w.runnable[0]
			w.runnable = w.runnable[1:]
			w.step(r)
			bound++
		}
		w.runnable = w.runnable[:0]
		for i := range w.parts {
			w.drain(i)
		}
		if len(w.runnable) == 0 {
			return
		}
	}
}

// drain asks a plan which rows may go on.
func (w *World) drain(i int) {
	for {
		id, ok := w.parts[i].Plan.Next()
		if !ok {
			return
		}
		if id >= mostRows {
			w.failf("plan %d names row %d", i, id)
		}
		r := &w.rows[id]
		if r.node != i || r.queued || r.phase != waiting && r.phase != asleep {
			w.failf("plan %d names row %d, which does not wait (phase %d)", i, id, r.phase)
		}
		w.awake(r)
	}
}

// step goes on with a row.
func (w *World) step(r *row) {
	w.steps++
	n := w.parts[r.node]
	then := n.Plan.Step(&r.Row, &r.wave)
	if a := r.asked; r.ID != a.ID || r.Op != a.Op || r.Flags != a.Flags || r.Own != a.Own ||
		r.Len != a.Len {
		w.failf("plan %d changed what row %d is: %+v, was %+v", r.node, r.ID, r.Row, a)
	}
	switch then {
	case layer.Done:
		w.done(r)
	case layer.Wait:
		r.phase = waiting
	case layer.Go:
		w.checkWave(r)
		r.phase = out
		r.Bad, r.Cause = 0, 0
		r.left = r.wave.N
		for i := range r.wave.N {
			w.issue(r, i)
		}
	default:
		w.failf("plan %d answers %d", r.node, then)
	}
}

// done ends a row.
func (w *World) done(r *row) {
	if w.tracing {
		w.tracef("done  plan %d row %d op %d errno %d", r.node, r.ID, r.Op, r.Errno)
	}
	if r.Own != 0 {
		r.Row = r.asked
		r.phase = asleep
		return
	}
	errno := r.Errno
	n := w.parts[r.node]
	if r.Op == layer.Flush {
		n.flushing = false
		if len(n.flushes) > 0 {
			next := n.flushes[0]
			n.flushes = slices.Delete(n.flushes, 0, 1)
			next.queued = false
			n.flushing = true
			w.awake(next)
		}
	}
	request, parent := r.request, r.parent
	r.request, r.parent, r.phase = nil, nil, free
	w.free = append(w.free, r)
	if request != nil {
		w.answered(request, errno)
		return
	}
	w.over(parent, errno)
}

// issue asks a device below for a segment.
func (w *World) issue(r *row, i int) {
	s := r.wave.Seg[i]
	w.now++
	o := &op{seg: s, row: r, part: i, asked: w.now}
	if s.Op == layer.Read || s.Op == layer.Write {
		o.memory = w.at(s.At, uint64(s.Len))
	}
	if w.tracing {
		w.tracef("issue plan %d row %d: %+v", r.node, r.ID, s)
	}
	if s.Dev != layer.Nowhere {
		if ref := w.parts[r.node].Below[s.Dev]; ref.disk {
			o.disk = w.rig.Disks[ref.at]
		} else {
			child := w.freeRow()
			child.parent = o
			w.start(child, ref.at, layer.Row{Op: s.Op, Flags: s.Flags, Len: s.Len, Off: s.Off,
				At: s.At, Range: s.Range})
			return
		}
	}
	w.fate(o)
	w.out = append(w.out, o)
	if o.disk != nil {
		w.begin(o)
	}
}

// complete ends an operation of a disk.
func (w *World) complete(o *op) {
	w.now++
	if o.source != nil && !bytes.Equal(o.source, o.memory) {
		w.failf("memory of row %d changed while it was written to a disk", o.row.ID)
	}
	if o.disk == nil {
		clear(o.memory)
	} else {
		w.end(o)
	}
	w.over(o, o.errno)
}

// over ends a segment.
func (w *World) over(o *op, errno proto.Errno) {
	if w.tracing {
		w.tracef("over  plan %d row %d seg %d errno %d", o.row.node, o.row.ID, o.part, errno)
	}
	r := o.row
	if errno != 0 {
		r.Bad |= 1 << o.part
		if r.Cause == 0 {
			r.Cause = errno
		}
	}
	if r.left--; r.left == 0 {
		w.awake(r)
	}
}

// at is a part of the pool. The region of zeroes is its beginning.
func (w *World) at(at, length uint64) []byte {
	if at+length > w.poolEnd {
		w.failf("memory %d+%d is outside of the pool", at, length)
	}
	return w.pool[at:][:length:length]
}

// checkWave checks a wave against the contract.
func (w *World) checkWave(r *row) {
	if r.wave.N < 1 || r.wave.N > layer.WaveMost {
		w.failf("a wave of %d segments", r.wave.N)
	}
	for i := range r.wave.N {
		s := &r.wave.Seg[i]
		w.checkSegment(r, s)
		for k := range i {
			other := &r.wave.Seg[k]
			if s.Dev == other.Dev && (s.Op != layer.Read || other.Op != layer.Read) &&
				overlap(s.Off, extent(s), other.Off, extent(other)) {
				w.failf("segments of a wave overlap: %+v and %+v", *s, *other)
			}
			if s.Op == layer.Read && overlap(s.At, uint64(s.Len), other.At, uint64(other.Len)) {
				w.failf("segments of a wave share memory: %+v and %+v", *s, *other)
			}
		}
	}
}

func overlap(a, n, b, m uint64) bool { return n > 0 && m > 0 && a < b+m && b < a+n }

// checkSegment checks one segment.
func (w *World) checkSegment(r *row, s *layer.Segment) {
	size, align, readOnly := uint64(1<<63), uint64(Sector), false
	if s.Dev == layer.Nowhere {
		if s.Op != layer.Read {
			w.failf("nowhere is asked for %+v", *s)
		}
	} else {
		below := w.parts[r.node].Below
		if int(s.Dev) >= len(below) {
			w.failf("device %d does not exist", s.Dev)
		}
		if ref := below[s.Dev]; ref.disk {
			d := w.rig.Disks[ref.at]
			size, align, readOnly = d.Size, uint64(d.Align), d.ReadOnly
			w.checkAlone(s, d)
		} else {
			sub := w.parts[ref.at]
			size, align = sub.Size, uint64(sub.Needs.Block)
			readOnly = s.Dev == 0 && w.rig.OriginFirst
		}
	}
	n := extent(s)
	if s.Off+n > size || s.Off%align != 0 || n%align != 0 || n == 0 && s.Op != layer.Flush {
		w.failf("segment %+v does not fit its device of %d bytes by %d", *s, size, align)
	}
	if readOnly && s.Op != layer.Read {
		w.failf("segment %+v would change the origin", *s)
	}
	if s.Op != layer.Read && s.Op != layer.Write {
		return
	}
	zeroes := s.Op == layer.Write && s.At == 0 && n <= layer.Most
	lo, hi := r.asked.At, r.asked.At+uint64(r.asked.Len)
	if !zeroes && (s.At < lo || s.At+n > hi || n > layer.Most) {
		w.failf("segment %+v is not in its row's memory, %d to %d", *s, lo, hi)
	}
}

// checkAlone checks that no write of a place is out at the same time as another.
func (w *World) checkAlone(s *layer.Segment, d *Disk) {
	if s.Op == layer.Read || s.Op == layer.Flush {
		return
	}
	for _, o := range w.out {
		if o.disk == d && o.seg.Op != layer.Read && o.seg.Op != layer.Flush &&
			overlap(s.Off, extent(s), o.seg.Off, o.length()) {
			w.failf("writes of one place at once: %+v and %+v", *s, o.seg)
		}
	}
}
