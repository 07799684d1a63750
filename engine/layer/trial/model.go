// What each sector may hold.
//
// Invariant: writes of one sector are in the order in which they ran, for they never run together.
// The first version is the oldest that a crash may leave.

package trial

import (
	"encoding/binary"

	"ringnbd/engine/layer"
)

// A sector with the content v holds v + k*stampStep in its word k, or zeroes where v is 0.
const stampStep = 0x9e37_79b9_7f4a_7c15

// Fill gives a sector the content v.
func Fill(p []byte, v uint64) {
	if v == 0 {
		clear(p[:Sector])
		return
	}
	for k := 0; k < Sector; k += 8 {
		binary.LittleEndian.PutUint64(p[k:], v)
		v += stampStep
	}
}

// content is what a sector holds; it is not whole if no write has made it so.
func content(p []byte) (v uint64, whole bool) {
	v = binary.LittleEndian.Uint64(p)
	step := uint64(stampStep)
	if v == 0 {
		step = 0
	}
	next := v
	for k := 0; k < Sector; k += 8 {
		if binary.LittleEndian.Uint64(p[k:]) != next {
			return v, false
		}
		next += step
	}
	return v, true
}

// Stamp is a content of a sector that differs for every source and sector.
func Stamp(source, sector uint64) uint64 {
	x := source*0xbf58_476d_1ce4_e5b9 + sector
	x ^= x >> 30
	x *= 0xbf58_476d_1ce4_e5b9
	x ^= x >> 27
	x *= 0x94d0_49bb_1331_11eb
	return x ^ x>>31 | 1
}

// value is what a sector was, is, or is about to be.
type value struct {
	v       uint64
	any     bool // a trim: until it is durable, a crash may leave anything
	req     *request
	done    uint64 // when it was done without an error; never otherwise
	fixed   bool   // durable
	initial bool   // it was there when the plan was made
}

// spot is a stretch of the disk that is used and watched.
type spot struct {
	off    uint64
	values [][]value // by sector
	whole  []bool    // by block: it had no place of its own when the plan was made
}

func (s *spot) end() uint64 { return s.off + uint64(len(s.values))*Sector }

// within calls f for each watched sector of a range.
func (w *World) within(off, length uint64, f func(sector uint64, values *[]value)) {
	for i := range w.spots {
		s := &w.spots[i]
		for at := max(off, s.off); at < min(off+length, s.end()); at += Sector {
			f(at/Sector, &s.values[(at-s.off)/Sector])
		}
	}
}

// begun notes a write that runs.
func (w *World) begun(r *request) {
	w.within(r.off, r.length, func(sector uint64, values *[]value) {
		v := value{req: r, done: never, any: r.op == layer.Trim}
		if r.op == layer.Write {
			v.v = Stamp(r.stamp, sector)
		}
		*values = append(w.prune(*values), v)
	})
}

// ended notes that a write was answered.
func (w *World) ended(r *request) {
	w.within(r.off, r.length, func(_ uint64, values *[]value) {
		for i := range *values {
			v := &(*values)[i]
			if v.req != r {
				continue
			}
			v.req = nil
			if r.errno == 0 && !r.forgotten {
				v.done = w.now
				v.fixed = r.flags&layer.FUA != 0 && !w.rig.Forgets
			}
			return
		}
	})
}

// flushed notes that all that was done before a time is durable.
func (w *World) flushed(before uint64) {
	if w.rig.Forgets {
		return
	}
	for s := range w.spots {
		for k := range w.spots[s].values {
			values := &w.spots[s].values[k]
			last := -1
			for i := range *values {
				if v := &(*values)[i]; v.done <= before {
					last = i
				}
			}
			if last >= 0 {
				(*values)[last].fixed = true
			}
		}
	}
}

// floor is the oldest value that a crash may leave: the last that is durable.
func floor(values []value) int {
	last := 0
	for i := range values {
		if values[i].fixed {
			last = i
		}
	}
	return last
}

// prune forgets values that neither a crash nor a read that is under way may return.
func (w *World) prune(values []value) []value {
	if last := floor(values); last > 0 && values[last].done < w.oldest() {
		return append(values[:0], values[last:]...)
	}
	return values
}

// checkRead compares what a read returned with what it may return.
func (w *World) checkRead(r *request) {
	for at := uint64(0); at < r.length; at += Sector {
		v, whole := content(r.memory[at:])
		i := 0
		w.within(r.off+at, Sector, func(sector uint64, values *[]value) {
			for i = range *values {
				x := &(*values)[i]
				// What was replaced before the read began is not allowed.
				match := x.v == v && whole || // or trimmed beside the read
					x.any && (x.done > r.asked && w.rig.JunkTrim || w.rig.JunkReads)
				if match && !w.replaced(*values, i, r.asked) {
					return
				}
			}
			w.failf("read of %d bytes at %d: sector %d holds %#x (whole: %v), allowed is %v",
				r.length, r.off, sector, v, whole, describe(*values))
		})
	}
}

// replaced reports whether a later value was done before a time.
func (w *World) replaced(values []value, i int, before uint64) bool {
	for _, later := range values[i+1:] {
		if later.done <= before {
			return true
		}
	}
	return false
}

// settled compares what is there after a crash with what may be, and goes on with what is there.
func (w *World) settled(s *spot, off uint64, data []byte) {
	block := int(w.parts[0].Needs.Block)
	for at := 0; at < len(data); at += block {
		first := (off - s.off + uint64(at)) / Sector
		onlyOld, canBeOld := -1, true
		for k := 0; k < block; k += Sector {
			i := first + uint64(k/Sector)
			v, whole := content(data[at+k:])
			old, later := false, false
			for _, x := range s.values[i][floor(s.values[i]):] {
				match := whole && x.v == v ||
					x.any && (!x.fixed && w.rig.JunkTrim || w.rig.JunkReads)
				old, later = old || match && x.initial, later || match && !x.initial
			}
			if !old && !later {
				w.failf("after the crash sector %d holds %#x (whole: %v), allowed is %v",
					s.off/Sector+i, v, whole, describe(s.values[i]))
			}
			if !later {
				onlyOld = int(i)
			}
			canBeOld = canBeOld && old
		}
		if onlyOld >= 0 && !canBeOld && s.whole[(off-s.off)/uint64(block)+uint64(at/block)] {
			w.failf("after the crash the block at %d is torn: sector %d is old, others are not",
				off+uint64(at), s.off/Sector+uint64(onlyOld))
		}
		for k := 0; k < block; k += Sector {
			v, _ := content(data[at+k:])
			i := first + uint64(k/Sector)
			s.values[i] = append(s.values[i][:0], value{v: v, fixed: true, initial: true})
		}
	}
}
