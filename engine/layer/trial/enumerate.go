// Every order and every crash of a short history.
//
// Invariant: a history is run again from its beginning for each order, so that nothing is left of
// the order before it.

package trial

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"

	"ringnbd/engine/layer"
)

// Ask is a request of a history.
type Ask struct {
	Op       layer.Op
	Flags    uint8
	Off, Len uint64
}

// Counted is how much Enumerate has looked at.
type Counted struct {
	Orders, Moments, Images int
}

// Enumerate runs a history in every order in which its operations on disks may end and its requests
// begin, and makes, at every moment, the plan from everything that a crash may leave. The rig's
// watched part is its first length bytes. Disks do not fail.
func Enumerate(rig func() Rig, history []Ask, length uint64) (Counted, error) {
	e := &enumeration{rig: rig, history: history, length: length}
	for e.order() {
		if e.wrong != nil {
			return e.counted, e.wrong
		}
	}
	return e.counted, e.wrong
}

// enumeration is a walk through the tree of orders, depth first.
type enumeration struct {
	rig     func() Rig
	history []Ask
	length  uint64
	taken   []int // of each choice, which way
	ways    []int // of each choice, how many there are
	fresh   int   // choices before it were taken before in the same way
	counted Counted
	wrong   error
}

// order runs one order, and reports whether another is left.
func (e *enumeration) order() bool {
	e.counted.Orders++
	w := &World{rng: rand.New(rand.NewPCG(1, 1)), serial: 1, tracing: true, calm: true}
	w.pool = takePool()
	defer givePool(w.pool)
	if e.wrong = w.attempt(func() { e.run(w) }); e.wrong != nil {
		return true
	}
	// The last choice that has a way left takes it.
	for i := len(e.taken) - 1; i >= 0; i-- {
		if e.taken[i]+1 < e.ways[i] {
			e.taken, e.ways = e.taken[:i+1], e.ways[:i+1]
			e.taken[i]++
			e.fresh = i
			return true
		}
	}
	return false
}

// attempt runs f, and returns what it failed with.
func (w *World) attempt(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			text, ok := p.(failure)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("%s\n%s", text, strings.Join(w.trace, "\n"))
		}
	}()
	f()
	return nil
}

// run runs the history by the choices that are taken, and by first ways after them.
func (e *enumeration) run(w *World) {
	w.rig = e.rig()
	w.zero = make([]byte, Sector)
	w.rows = make([]row, mostRows)
	w.boot()
	w.watch(0, e.length)
	next := 0
	for depth := 0; ; depth++ {
		ways := len(w.out)
		begin := next < len(e.history) && w.admits(e.history[next])
		if begin {
			ways++
		}
		if ways == 0 {
			break
		}
		if depth == len(e.taken) {
			e.taken, e.ways = append(e.taken, 0), append(e.ways, ways)
		}
		way := e.taken[depth]
		if way == len(w.out) {
			w.now++
			a := e.history[next]
			next++
			if block := uint64(w.parts[0].Needs.Block); (a.Off|a.Len)%block != 0 {
				w.failf("%+v is not for a plan with blocks of %d bytes", a, block)
			}
			w.run(&request{op: a.Op, flags: a.Flags, off: a.Off, length: a.Len, asked: w.now,
				stamp: w.serial})
			w.serial++
		} else {
			o := w.out[way]
			w.out = append(w.out[:way:way], w.out[way+1:]...)
			w.complete(o)
		}
		w.settle()
		if depth >= e.fresh {
			e.counted.Moments++
			e.crashes(w)
		}
	}
	if next < len(e.history) || len(w.running) > 0 {
		w.failf("the history does not end")
	}
}

// admits reports whether nothing that runs is in the way of a request.
func (w *World) admits(a Ask) bool {
	changes := a.Op != layer.Read && a.Op != layer.Flush
	for _, r := range w.running {
		if a.Op == layer.Flush && r.op == layer.Flush ||
			changes && r.changes() && overlap(a.Off, a.Len, r.off, r.length) {
			return false
		}
	}
	return true
}

// crashes makes the plan from everything that a crash may leave now.
func (e *enumeration) crashes(w *World) {
	var cells []*cell
	for _, d := range w.rig.Disks {
		for _, c := range d.pending {
			if len(c.versions) > 1 {
				cells = append(cells, c)
			}
		}
	}
	saved := make([][]byte, len(cells))
	for i, c := range cells {
		saved[i] = c.now
	}
	e.images(w, cells)
	for i, c := range cells {
		c.now = saved[i]
	}
}

// images goes through the versions of each cell.
func (e *enumeration) images(w *World, cells []*cell) {
	if len(cells) == 0 {
		e.counted.Images++
		e.image(w)
		return
	}
	c := cells[0]
	for i, v := range c.versions {
		if again(c.versions[:i], v.data) {
			continue
		}
		c.now = v.data
		e.images(w, cells[1:])
	}
}

// again reports whether a content is among versions.
func again(versions []version, data []byte) bool {
	for _, v := range versions {
		if bytes.Equal(v.data, data) {
			return true
		}
	}
	return false
}

// image makes the plan from what the disks hold, in a world of its own, and compares.
func (e *enumeration) image(w *World) {
	after := &World{rng: rand.New(rand.NewPCG(1, 2)), rig: w.rig, calm: true, zero: w.zero,
		serial: 1, now: w.now}
	after.pool = takePool()
	defer givePool(after.pool)
	after.rows = make([]row, mostRows)
	after.boot()
	for _, s := range w.spots {
		copied := spot{off: s.off, whole: s.whole}
		for _, values := range s.values {
			copied.values = append(copied.values, append([]value(nil), values...))
		}
		after.spots = append(after.spots, copied)
	}
	after.verify()
}

// watch makes a stretch of the disk one that is watched.
func (w *World) watch(off, length uint64) {
	s := spot{off: off, values: make([][]value, length/Sector),
		whole: make([]bool, length/uint64(w.parts[0].Needs.Block))}
	for i := range s.values {
		s.values[i] = []value{{v: w.rig.Initial(off/Sector + uint64(i)), fixed: true,
			initial: true}}
	}
	w.spots = append(w.spots, s)
	w.whole()
}
