// The world: the order in which things happen, crashes, and how a run ends.
//
// Invariant: all that is drawn is drawn from the seed, and nothing depends on the order of a map.

package trial

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"ringnbd/engine/layer"
	"ringnbd/proto"
)

// Rig is what a run is about.
type Rig struct {
	Disks []*Disk
	// Boot makes the plans from what the disks hold, the root first. It is called again after each
	// crash.
	Boot func() ([]Part, error)
	// Initial is the content of the root's sectors at first, as Stamp or 0.
	Initial func(sector uint64) uint64
	// Whole tells whether the block at an offset has no place of its own: it changes as a whole.
	Whole func(off uint64) bool
	// Check is called after each crash with what the root holds there.
	Check       func(off uint64, data []byte) error
	Forgets     bool // after a crash everything is as at first
	JunkTrim    bool // until it is flushed, what was trimmed may be anything after a crash
	JunkReads   bool // what was trimmed may be anything at any time
	OriginFirst bool // device 0 of every plan is only read
	// Edges are offsets near which things are likely to go wrong.
	Edges []uint64
}

// Seen is what a run met.
type Seen struct {
	Steps, Requests, Crashes, Failures int
}

// Add adds what another run met.
func (s *Seen) Add(other Seen) {
	s.Steps += other.Steps
	s.Requests += other.Requests
	s.Crashes += other.Crashes
	s.Failures += other.Failures
}

// Rand is where all that is drawn comes from.
type Rand = rand.Rand

// Plan and Own are those of the seam.
type (
	Plan = layer.Plan
	Own  = layer.Own
)

// World is one run.
type World struct {
	rng      *rand.Rand
	rig      Rig
	now      uint64
	serial   uint64
	parts    []*node
	rows     []row
	free     []*row
	runnable []*row
	out      []*op
	running  []*request
	spots    []spot
	pool     []byte
	poolEnd  uint64
	slots    []uint64
	zero     []byte
	calm     bool // no disk fails
	refused  bool // a write with FUA has failed since the plan was made
	depth    int
	mix      [4]int  // bounds of reads, writes, zeroes, trims; the rest are flushes
	fua      float64 // portion
	bad      float64 // portion of operations that fail
	slow     float64 // portion of operations that take long

	steps, requests, crashes, failures int

	tracing bool
	trace   []string
}

// failure is what failf panics with.
type failure string

func (w *World) failf(format string, arguments ...any) {
	panic(failure(fmt.Sprintf(format, arguments...)))
}

func (w *World) tracef(format string, arguments ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%6d ", w.now)+fmt.Sprintf(format, arguments...))
	if len(w.trace) > 400 {
		w.trace = append(w.trace[:0], w.trace[len(w.trace)-200:]...)
	}
}

// Run runs a seed. Make makes the rig from a source of its own. The error has the last events.
func Run(seed uint64, make func(*Rand) Rig) (Seen, error) {
	seen, text, _ := run(seed, make, false)
	if text == "" {
		return seen, nil
	}
	_, again, trace := run(seed, make, true)
	if again != text {
		again += " (before: " + text + ": the seed does not repeat it)"
	}
	return seen, fmt.Errorf("seed %d: %s\n%s", seed, again, strings.Join(trace, "\n"))
}

func run(seed uint64, make func(*Rand) Rig, tracing bool) (seen Seen, text string,
	trace []string) {
	w := &World{rng: rand.New(rand.NewPCG(seed, 1)), serial: 1, tracing: tracing}
	w.pool = takePool()
	defer func() {
		givePool(w.pool)
		seen = Seen{Steps: w.steps, Requests: w.requests, Crashes: w.crashes, Failures: w.failures}
		trace = w.trace
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok && !tracing {
				text = fmt.Sprint("panic: ", p)
				return
			} else if !ok {
				panic(p)
			}
			text = string(f)
		}
	}()
	w.rig = make(w.rng)
	w.build()
	for range 1 + w.below(4) {
		w.epoch()
	}
	return
}

// build makes what lasts for the whole run.
func (w *World) build() {
	w.zero = make([]byte, Sector)
	w.rows = make([]row, mostRows)
	w.boot()
	w.drawSpots()
	w.mix = [4]int{20 + w.below(20), 50 + w.below(30), 85, 95}
	w.mix[2] = w.mix[1] + w.below(95-w.mix[1])
	w.mix[3] = w.mix[2] + w.below(98-w.mix[2])
	w.fua = w.portion() / 3
	w.bad = []float64{0, 0, 0.003, 0.05}[w.below(4)]
	w.slow = []float64{0, 0.05, 0.3}[w.below(3)]
	w.depth = 1 + w.below(mostRunning)
}

// boot makes the plans.
func (w *World) boot() {
	parts, err := w.rig.Boot()
	if err != nil {
		w.failf("the plan cannot be made: %v", err)
	}
	w.out, w.running, w.runnable = w.out[:0], w.running[:0], w.runnable[:0]
	w.refused = false
	w.free = w.free[:0]
	for i := range w.rows {
		r := &w.rows[i]
		*r = row{}
		r.ID = uint32(i)
		w.free = append(w.free, r)
	}
	w.poolEnd = layer.Most + mostRunning*slotLen
	w.slots = w.slots[:0]
	for i := range uint64(mostRunning) {
		w.slots = append(w.slots, layer.Most+i*slotLen)
	}
	w.parts = w.parts[:0]
	for i, p := range parts {
		w.parts = append(w.parts, &node{Part: p})
		w.plant(i)
	}
	w.whole()
}

// whole notes which blocks have no place of their own.
func (w *World) whole() {
	block := uint64(w.parts[0].Needs.Block)
	for i := range w.spots {
		s := &w.spots[i]
		for k := range s.whole {
			s.whole[k] = w.rig.Whole != nil && w.rig.Whole(s.off+uint64(k)*block)
		}
	}
}

// poolLen is the memory of a world: the region of zeroes, requests, own rows.
const poolLen = 8 << 20

// pools are those that no run uses. Only their regions of zeroes are known to be anything.
var pools = make(chan []byte, 8)

func takePool() []byte {
	select {
	case p := <-pools:
		return p
	default:
		return make([]byte, poolLen)
	}
}

func givePool(p []byte) {
	select {
	case pools <- p:
	default:
	}
}

// drawSpots draws which stretches of the disk are used.
func (w *World) drawSpots() {
	block := uint64(w.parts[0].Needs.Block)
	size := w.parts[0].Size
	n := 2 + w.below(5)
	if w.chance(0.1) {
		n += 16
	}
	for len(w.spots) < n {
		length := min((4+uint64(w.below(40)))*block, size)
		off := uint64(w.rng.Int64N(int64(size/block))) * block
		if len(w.rig.Edges) > 0 && w.chance(0.6) {
			edge := w.rig.Edges[w.below(len(w.rig.Edges))] / block * block
			off = edge - min(edge, uint64(w.below(int(length/block)))*block)
		}
		off = min(off, size-length)
		if !w.taken(off, length) {
			w.watch(off, length)
		} else if n--; n == 0 {
			break
		}
	}
}

func (w *World) taken(off, length uint64) bool {
	for _, s := range w.spots {
		if overlap(off, length, s.off, s.end()-s.off) {
			return true
		}
	}
	return false
}

// epoch runs requests until the plan ends well, or in the middle of everything, and looks at what
// is there afterwards.
func (w *World) epoch() {
	w.calm = w.bad == 0
	turns := 20 + w.below(200)
	for range turns {
		w.turn(true)
	}
	if w.chance(0.3) {
		w.finish()
	}
	w.crashAll()
	w.boot()
	w.calm = true
	w.verify()
}

// turn lets some time pass.
func (w *World) turn(ask bool) {
	w.now++
	if ask {
		for range w.below(4) {
			w.ask()
		}
	}
	for range w.below(5) {
		if len(w.out) == 0 {
			break
		}
		i := w.below(len(w.out))
		o := w.out[i]
		if o.remaining--; o.remaining > 0 && ask {
			continue
		}
		w.out[i] = w.out[len(w.out)-1]
		w.out = w.out[:len(w.out)-1]
		w.complete(o)
	}
	w.cancel()
	w.settle()
}

// cancel tells a plan, at times, that the client of a row has gone.
func (w *World) cancel() {
	if !w.chance(0.01) || len(w.running) == 0 {
		return
	}
	r := w.running[w.below(len(w.running))]
	if r.row.phase != waiting || r.row.queued {
		return
	}
	if w.parts[0].Plan.Cancel(r.row.ID) {
		r.forgotten = true
		w.done(r.row)
	}
}

// finish lets all that is under way come to an end.
func (w *World) finish() {
	for n := 0; len(w.out) > 0 || len(w.runnable) > 0; n++ {
		if n > 100_000 {
			w.failf("what is under way does not end")
		}
		w.turn(false)
	}
	for i := range w.rows {
		if r := &w.rows[i]; r.phase != free && r.phase != asleep {
			w.failf("row %d of plan %d (op %d, own %d) never ends", r.ID, r.node, r.Op, r.Own)
		}
	}
}

// crashAll ends the plans, and lets the disks forget.
func (w *World) crashAll() {
	w.crashes++
	if w.tracing {
		w.tracef("crash")
	}
	for _, d := range w.rig.Disks {
		w.crash(d)
	}
	if w.rig.Forgets {
		for _, s := range w.spots {
			for i := range s.values {
				s.values[i] = append(s.values[i][:0], value{fixed: true, initial: true,
					v: w.rig.Initial(s.off/Sector + uint64(i))})
			}
		}
	}
}

// verify reads everything that is watched, and compares.
func (w *World) verify() {
	block := uint64(w.parts[0].Needs.Block)
	for i := range w.spots {
		s := &w.spots[i]
		for off := s.off; off < s.end(); {
			n := min(s.end()-off, slotLen/block*block)
			data := w.readBack(off, n)
			w.settled(s, off, data)
			if w.rig.Check != nil {
				if err := w.rig.Check(off, data); err != nil {
					w.failf("after the crash: %v", err)
				}
			}
			off += n
		}
	}
}

// readBack reads through the plan, without comparing.
func (w *World) readBack(off, n uint64) []byte {
	data := make([]byte, 0, n)
	r := &request{op: layer.Read, off: off, length: n, asked: w.now, forgotten: true}
	w.run(r)
	memory := r.memory
	w.settle()
	for len(w.out) > 0 {
		w.turn(false)
	}
	if len(w.running) > 0 {
		w.failf("a read of %d bytes at %d does not end", n, off)
	}
	if r.errno != proto.Success {
		w.failf("a read of %d bytes at %d fails with %d", n, off, r.errno)
	}
	return append(data, memory...)
}

// fate decides how an operation ends, and when.
func (w *World) fate(o *op) {
	if w.chance(w.slow) {
		o.remaining = w.below(60)
	}
	s := &o.seg
	d := o.disk
	if d == nil {
		return
	}
	if s.Op == layer.Zero && s.Flags&layer.Fast != 0 && d.NoPunch {
		o.errno = proto.ENOTSUP
		return
	}
	if w.calm || !w.chance(w.bad) {
		return
	}
	o.errno = proto.EIO
	switch s.Op {
	case layer.Write, layer.Zero:
		if w.chance(0.5) {
			o.errno = proto.ENOSPC
		}
		if s.Flags&layer.FUA != 0 {
			w.refused = true
		}
	case layer.Flush:
		w.refused = true
	}
}

// chance is true for a portion of the calls.
func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

func (w *World) below(n int) int { return w.rng.IntN(n) }

// portion draws a probability, often an extreme one.
func (w *World) portion() float64 { return []float64{0, 0.1, 0.5, 0.9, 1}[w.below(5)] }

// junk is a content that nothing has written.
func (w *World) junk() uint64 { return w.rng.Uint64() | 1 }

// keep returns a copy that lasts.
func (w *World) keep(p []byte) []byte { return append([]byte(nil), p...) }

// describe prints values.
func describe(values []value) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%#x", v.v)
		if v.any {
			b.WriteString(" trim")
		}
		if v.fixed {
			b.WriteString(" durable")
		}
		if v.done == never {
			b.WriteString(" open")
		}
	}
	return b.String()
}

// String describes a request.
func (r *request) String() string {
	name := [...]string{"read", "write", "zero", "trim", "flush"}[r.op]
	return fmt.Sprintf("%s flags %d %d+%d stamp %d", name, r.flags, r.off, r.length, r.stamp)
}
