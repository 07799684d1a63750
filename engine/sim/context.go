// Meta contexts of simulated exports: a context of the disk, like base:allocation, and patterns,
// which are functions of the offset, so that every extent of an answer can be checked to the byte.
//
// Invariant: what the Source of the disk calls zero is zero at that moment; what the Source of a
// pattern says depends only on the offset.

package sim

import (
	"bytes"
	"errors"
	"math/rand/v2"

	"ringnbd/proto"
)

// ContextPlan describes one meta context of an export.
type ContextPlan struct {
	proto.Context
	unit uint64 // bytes for which a pattern stays the same; 0: the context of the disk
}

// Source has the status of one context of an export; the engine calls it when the world lets a
// lookup happen.
type Source struct {
	x    *served
	disk *disk
	plan *ContextPlan
}

// Source returns the source of the i-th meta context of an export.
func (w *World) Source(export, i int) *Source {
	x := w.exports[export]
	return &Source{x: x, disk: x.disk, plan: &x.plan.Contexts[i]}
}

// drawContexts gives an export the context of the disk, and up to three patterns, some of them
// wide.
func drawContexts(r *rand.Rand, e *ExportPlan) {
	e.Contexts = []ContextPlan{{Context: proto.Context{Name: "sim:disk"}}}
	for i := range r.IntN(4) {
		p := ContextPlan{Context: proto.Context{Name: "sim:" + string(rune('a'+i)),
			Wide: r.IntN(2) == 0}}
		p.unit = []uint64{64, 512, 4096, 1 << 20}[r.IntN(4)]
		if e.Size > 1<<30 {
			p.unit *= 1 << 16
		}
		e.Contexts = append(e.Contexts, p)
	}
	if r.IntN(16) == 0 { // the maximum
		for i := len(e.Contexts); i < proto.MaxContexts; i++ {
			e.Contexts = append(e.Contexts,
				ContextPlan{Context: proto.Context{Name: "sim:" + string(rune('A'+i))}, unit: 4096})
		}
	}
}

// pattern returns the status of the bytes at off.
func (p *ContextPlan) pattern(off uint64) uint64 {
	x := mixed(uint32(len(p.Name))+uint32(p.Name[len(p.Name)-1]), off/p.unit) % 3
	if p.Wide {
		return x<<40 | x
	}
	return x << 30
}

var errLookup = errors.New("the simulated lookup failed")

// Status implements the engine's Context. It also emits extents beyond the requested range, empty
// extents and neighbours of the same status, and it fails sometimes.
func (s *Source) Status(off, length uint64, emit func(length, status uint64) bool) error {
	w := s.disk.world
	if s.x.stage == removed {
		w.bug("%s of export %d is looked up, and the export has gone", s.plan.Name, s.x.index)
	}
	broken := s.plan.unit == 0 && chance(w.rng, w.mix.lookupError)
	end, finds := off+length, w.rng.IntN(2) == 0
	if w.rng.IntN(3) == 0 {
		end += w.rng.Uint64N(1 << 20)
	}
	for at := off; at < end; {
		if broken && w.rng.IntN(3) == 0 {
			w.mark(markLookupFailed)
			return errLookup
		}
		n, status := s.next(at, end, finds)
		switch w.rng.IntN(64) {
		case 0:
			n = 1 + w.rng.Uint64N(n)
		case 1:
			n = 0
		}
		if !emit(n, status) {
			return nil
		}
		at += n
	}
	return nil
}

// next returns the extent at off. finds says that stored zeroes are told from data.
func (s *Source) next(off, end uint64, finds bool) (n, status uint64) {
	d := s.disk
	switch size := d.plan.Size; {
	case off >= size:
		return end - off, 3 // beyond the export: the engine must ignore it
	case s.plan.unit > 0:
		return min(s.plan.unit-off%s.plan.unit, end-off), s.plan.pattern(off)
	case d.plan.Backing == Null:
		return end - off, statusHole | statusZero
	default:
		end = min(end, size)
	}
	status = d.status(off/sectorSize, finds)
	at := off
	for at < end && d.status(at/sectorSize, finds) == status {
		at = (at/sectorSize + 1) * sectorSize
	}
	return min(at, end) - off, status
}

// status returns the status of a sector.
func (d *disk) status(s uint64, finds bool) uint64 {
	if d.plan.onDisk() && d.hole[s] {
		return statusHole | statusZero
	}
	b := d.cache[s*sectorSize : min((s+1)*sectorSize, uint64(len(d.cache)))]
	if (finds || d.memory != nil) && bytes.Equal(b, zeroSector[:len(b)]) {
		return statusZero
	}
	return 0
}

var zeroSector [sectorSize]byte

// Status bits of base:allocation ("base:allocation metadata context"), which sim:disk uses too.
const (
	statusHole = 1 << 0
	statusZero = 1 << 1
)
