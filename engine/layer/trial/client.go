// Random requests to the plan at the root of a tree.
//
// Invariant: of the requests that run, no write of any kind overlaps another; at most one is a
// flush.

package trial

import (
	"ringnbd/engine/layer"
	"ringnbd/proto"
)

// request is one thing that was asked of the root.
type request struct {
	op        layer.Op
	flags     uint8
	off       uint64
	length    uint64
	at        uint64 // its memory in the pool
	memory    []byte
	stamp     uint64 // of what it writes
	asked     uint64 // when
	errno     proto.Errno
	forgotten bool // it was cancelled
	row       *row
}

func (r *request) changes() bool {
	return r.op == layer.Write || r.op == layer.Zero || r.op == layer.Trim
}

// mostRunning is how many requests may run, and slotLen the memory of each.
const (
	mostRunning = 12
	slotLen     = 256 << 10
)

// ask draws a request and runs it, if nothing is in its way.
func (w *World) ask() {
	if len(w.running) >= w.depth {
		return
	}
	w.now++
	r := &request{stamp: w.serial, asked: w.now}
	w.serial++
	w.draw(r)
	for _, other := range w.running {
		if r.op == layer.Flush && other.op == layer.Flush ||
			r.changes() && other.changes() && r.off < other.off+other.length &&
				other.off < r.off+r.length {
			return
		}
	}
	w.run(r)
}

// draw draws a request.
func (w *World) draw(r *request) {
	block := uint64(w.parts[0].Needs.Block)
	s := &w.spots[w.below(len(w.spots))]
	blocks := (s.end() - s.off) / block
	n := min(1+uint64(w.below(8)), blocks)
	switch {
	case w.chance(0.1):
		n = blocks
	case w.chance(0.3):
		n = 1
	}
	n = min(n, slotLen/block)
	r.off = s.off + uint64(w.below(int(blocks-n+1)))*block
	r.length = n * block
	switch p := w.below(100); {
	case p < w.mix[0]:
		r.op = layer.Read
	case p < w.mix[1]:
		r.op = layer.Write
	case p < w.mix[2]:
		r.op = layer.Zero
		r.flags = []uint8{0, layer.NoHole, layer.Fast, layer.NoHole | layer.Fast}[w.below(4)]
		w.drawRange(r, block)
	case p < w.mix[3]:
		r.op = layer.Trim
		w.drawRange(r, block)
	default:
		r.op, r.off, r.length = layer.Flush, 0, 0
	}
	if r.changes() && w.chance(w.fua) {
		r.flags |= layer.FUA
	}
}

// drawRange makes a range long at times: from where it is to anywhere.
func (w *World) drawRange(r *request, block uint64) {
	if w.chance(0.9) || r.flags&layer.NoHole != 0 {
		return
	}
	r.length = w.parts[0].Size - r.off
	if w.chance(0.5) {
		r.length = (1 + uint64(w.rng.Int64N(int64(r.length/block)))) * block
	}
}

// run gives a request to the root.
func (w *World) run(r *request) {
	row := w.freeRow()
	if row == nil {
		return
	}
	w.running = append(w.running, r)
	w.requests++
	r.row = row
	shape := layer.Row{Op: r.op, Flags: r.flags, Off: r.off}
	switch r.op {
	case layer.Read, layer.Write:
		slot := w.slots[len(w.slots)-1]
		w.slots = w.slots[:len(w.slots)-1]
		r.at = slot
		r.memory = w.pool[slot:][:r.length:r.length]
		shape.Len, shape.At = uint32(r.length), r.at
		for i := uint64(0); i < r.length; i += Sector {
			if r.op == layer.Write {
				Fill(r.memory[i:], Stamp(r.stamp, (r.off+i)/Sector))
			} else {
				Fill(r.memory[i:], w.junk())
			}
		}
	case layer.Zero, layer.Trim:
		shape.Range = r.length
	}
	if r.changes() {
		w.begun(r)
	}
	if w.tracing {
		w.tracef("ask   %v", r)
	}
	row.request = r
	w.start(row, 0, shape)
}

// answered ends a request.
func (w *World) answered(r *request, errno proto.Errno) {
	w.now++
	r.errno = errno
	if w.tracing {
		w.tracef("reply %v errno %d", r, errno)
	}
	for i, other := range w.running {
		if other == r {
			w.running = append(w.running[:i], w.running[i+1:]...)
			break
		}
	}
	switch {
	case r.op == layer.Flush && errno == 0 && !r.forgotten:
		w.flushed(r.asked)
	case r.changes():
		w.ended(r)
	case r.op == layer.Read && errno == 0 && !r.forgotten:
		w.checkRead(r)
	}
	if errno != 0 {
		w.failures++
		if w.calm && !w.excused(r) {
			w.failf("%v fails with %d although nothing has failed below", r, errno)
		}
	}
	if r.memory != nil {
		w.slots = append(w.slots, r.at)
	}
}

// excused reports whether a request may fail although its disks do what they are asked.
func (w *World) excused(r *request) bool {
	return r.op == layer.Zero && r.flags&layer.Fast != 0 ||
		w.broken() && (r.op == layer.Flush || r.flags&layer.FUA != 0)
}

// broken reports whether a flush of any disk has failed since the plan was made.
func (w *World) broken() bool {
	for _, d := range w.rig.Disks {
		if d.broken {
			return true
		}
	}
	return w.refused
}

// oldest is when the oldest read that is under way was asked for.
func (w *World) oldest() uint64 {
	oldest := w.now
	for _, r := range w.running {
		oldest = min(oldest, r.asked)
	}
	return oldest
}
