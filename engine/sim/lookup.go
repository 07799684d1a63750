// Lookups: what a loop hands out instead of doing it itself. The world does each at a later moment
// of its choice, in any order, also when nobody waits for it any more.
//
// Invariant: a lookup is with the loop (asked, and the world told so), in lookups, or done.

package sim

// lookup is one BLOCK_STATUS request that a loop handed out.
type lookup struct {
	loop int
	tag  uint32
	due  uint64 // not before this instant
}

// gather takes what a loop has handed out.
func (w *World) takeLookups(i int) {
	for _, t := range w.loops[i].Asked() {
		w.lookups = append(w.lookups,
			lookup{loop: i, tag: t, due: w.clock + w.delay(w.mix.slowDelayNanos)})
		if w.draining {
			w.mark(markLookupDrained)
		}
	}
}

// lookUp does one of the lookups that are due; false if there is none.
func (w *World) doLookup() bool {
	n := len(w.lookups)
	for i, at := 0, w.rng.IntN(n+1); i < n; i++ {
		k := (at + i) % n
		l := w.lookups[k]
		if l.due > w.clock {
			continue
		}
		w.lookups = append(w.lookups[:k], w.lookups[k+1:]...)
		w.note("look up", "loop tag", int64(l.loop), int64(l.tag))
		if w.loops[l.loop].LookUp(l.tag) {
			w.mark(markLookupLate)
		}
		return true
	}
	return false
}
