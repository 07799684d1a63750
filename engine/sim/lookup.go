// Lookups, which a loop hands out instead of doing them itself. The world does each at a later
// moment of its choice, in any order, also if no client waits for it any more.
//
// Invariant: a lookup is in the loop's list (and the world was told that there is one), in lookups,
// or done.

package sim

// lookup is one BLOCK_STATUS request that a loop handed out.
type lookup struct {
	loop int
	tag  uint32
	due  uint64 // not before this instant
}

// takeLookups takes the lookups that a loop has handed out.
func (w *World) takeLookups(i int) {
	for _, t := range w.loops[i].Asked() {
		w.lookups = append(w.lookups,
			lookup{loop: i, tag: t, due: w.clock + w.delay(w.mix.slowDelayNanos)})
		if w.draining {
			w.mark(markLookupDrained)
		}
	}
}

// doLookup does one of the lookups that are due, and reports whether there was any.
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
