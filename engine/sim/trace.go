// The trace is what a failed run prints: its last events, newest last. Its hash stands for the
// whole run: two runs of one seed must have the same.
//
// Invariant: an entry holds numbers and constant strings only, so that noting an event costs a
// copy, and only failures pay for formatting.

package sim

import (
	"fmt"
	"strings"
)

const (
	traceLines = 160
	traceArgs  = 6
)

// entry is one event.
type entry struct {
	tick, clock uint64
	verb        string
	names       string // names of the arguments, separated by blanks
	args        [traceArgs]int64
	n           int
}

// trace has the last events, and the hash of all.
type trace struct {
	ring  [traceLines]entry
	count uint64
	hash  uint64
}

// note records an event and advances the world's tick, so that every event has a tick of its own.
// names are the names of the arguments; only verb and arguments are part of the hash.
func (w *World) note(verb, names string, args ...int64) uint64 {
	w.tick++
	e := &w.trace.ring[w.trace.count%traceLines]
	*e = entry{tick: w.tick, clock: w.clock, verb: verb, names: names, n: len(args)}
	copy(e.args[:], args)
	w.trace.count++
	h := w.trace.hash
	for i := range verb {
		h = (h ^ uint64(verb[i])) * 1099511628211
	}
	for _, a := range args {
		h = (h ^ uint64(a)) * 1099511628211
	}
	w.trace.hash = h ^ w.clock
	return w.tick
}

func (e *entry) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%8d %11.3fms %-22s", e.tick, float64(e.clock)/1e6, e.verb)
	for i, name := range strings.Fields(e.names) {
		if i < e.n {
			fmt.Fprintf(&b, " %s=%d", name, e.args[i])
		}
	}
	return b.String()
}

// lines formats the last n entries.
func (t *trace) lines(n int) string {
	var b strings.Builder
	first := t.count - min(t.count, traceLines, uint64(n))
	for i := first; i < t.count; i++ {
		b.WriteString(t.ring[i%traceLines].String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Failure is the error of a run.
type Failure struct {
	seed  uint64
	why   string
	stack string // of the engine, if it panicked or failed inside a call to the kernel
	plan  string
	trace string
}

func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s\nplan: %s\nlast events (tick, virtual time, what):\n%s", f.seed,
		f.why, f.plan, f.trace)
	if f.stack != "" {
		fmt.Fprintf(&b, "stack:\n%s", f.stack)
	}
	return b.String()
}

// verdictPanic carries a failure up to Run through all running code, the engine's included.
type verdictPanic struct {
	why    string
	engine bool // found inside a call from the engine, so that its stack is of interest
}

// fail ends the run: a client or the disk has seen a mistake of the engine.
func (w *World) fail(format string, args ...any) {
	panic(verdictPanic{why: fmt.Sprintf(format, args...)})
}

// bug ends the run: the engine made a submission or a call that can never be right.
func (w *World) bug(format string, args ...any) {
	panic(verdictPanic{why: "engine bug: " + fmt.Sprintf(format, args...), engine: true})
}
