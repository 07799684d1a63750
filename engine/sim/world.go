// A World is one simulated machine with its clients, made from a seed: descriptors, disks, sockets,
// rings, and one virtual clock.
//
// Invariant: every decision comes from the generator of the world or of a client, all seeded by the
// seed; nothing depends on time, addresses or the order of a map.

package sim

import (
	"fmt"
	"math/rand/v2"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// Loop is an event loop of the engine, driven by the world, on one of the world's kernels (the i-th
// loop on the i-th kernel).
type Loop interface {
	Turn()            // one turn: enter, record, settle
	Connections() int // adopted and not closed yet
	Drain()           // begin an orderly shutdown
	Cut()             // close every connection now
	// Idle returns nil if no connection is left and every tag, lease, stage and claim was returned.
	Idle() error
	// Asked returns the requests that it hands out to be looked up, each once, and only if the loop
	// said that there are any.
	Asked() []uint32
	LookUp(tag uint32) (late bool) // looks up a request; late: its client is gone
}

// World is everything outside the engine.
type World struct {
	Seed  uint64
	Plan  Plan
	Marks Marks
	// Reopen returns the content of a layered disk, from that of the disks below.
	Reopen func(base, over []byte) ([]byte, error)

	rng        *rand.Rand
	mix        mix
	clock      uint64 // nanoseconds
	tick       uint64 // events
	trace      trace
	nodes      []*node
	kernels    []*Kernel
	loops      []Loop
	coroutines []*coroutine
	disks      []*disk
	models     []*model
	exports    []*served
	operator
	socks         []*socket
	clients       []*client
	lookups       []lookup
	stack         string // of the loop that panicked
	requests      []*request
	conns         uint32
	ids           uint32
	left          int // requests still to be sent
	calm          bool
	draining      bool
	drainedAt     uint64 // virtual time
	pausedAtDrain uint64 // how long loops had been paused by drainedAt
	pausedNanos   uint64 // time in which no loop ran, or will not run until pausedUntil
	pausedUntil   uint64 // the end of the last pause
	cutAt         int    // of left: when the file is truncated; -1 = never
	drainAt       int    // of left: when the engine is told to shut down; -1 = never
	crashAt       uint64 // tick of the next look at what a power cut would leave
}

// node is what a descriptor refers to.
type node struct {
	sock  *socket
	disk  *disk
	event *eventfd
}

// eventfd is the counter of an eventfd.
type eventfd struct{ count uint64 }

// firstFD keeps the world's descriptors apart from the process's own.
const firstFD = 1000

// New makes the world of a seed. The caller opens an engine of the shape of Plan on kernels from
// NewKernel, and calls Run.
func New(seed uint64) *World { return Scripted(seed, nil) }

// decisions is a source of random numbers of which a fuzzer has chosen the upper eight bits of the
// first.
type decisions struct {
	chosen []byte
	rest   *rand.PCG
}

// Uint64 implements rand.Source.
func (s *decisions) Uint64() uint64 {
	x := s.rest.Uint64()
	if len(s.chosen) > 0 {
		x = uint64(s.chosen[0])<<56 | x>>8
		s.chosen = s.chosen[1:]
	}
	return x
}

// Scripted makes the world of a seed, but with its first decisions (the plan, the mix, and what
// follows) made by a fuzzer: a byte for each.
func Scripted(seed uint64, chosen []byte) *World {
	w := &World{Seed: seed,
		rng: rand.New(&decisions{chosen, rand.NewPCG(seed, 0x9e3779b97f4a7c15)}), clock: 1e9}
	w.Plan = drawPlan(w.rng)
	w.mix = w.Plan.mix
	w.left = w.Plan.requests
	for i := range w.Plan.Exports {
		w.addDisk(&w.Plan.Exports[i])
	}
	w.places = map[int]bool{}
	for i := range w.Plan.Exports[:len(w.Plan.Exports)-w.Plan.idle] {
		w.serve(w.open(w.disks[i]), w.Plan.Exports[i], 0)
	}
	for _, v := range w.Plan.Views {
		w.serve(w.exports[v.Disk].opening, v.ExportPlan, v.Base)
	}
	for i := range w.Plan.clients {
		w.clients = append(w.clients,
			&client{world: w, id: i, rng: rand.New(rand.NewPCG(seed, uint64(i)+1))})
	}
	w.cutAt, w.drainAt = -1, -1
	if chance(w.rng, w.mix.truncate) {
		w.cutAt = w.rng.IntN(w.left)
	}
	if w.Plan.drain {
		w.drainAt = w.rng.IntN(w.left)
	}
	return w
}

// Memory returns the content of a disk in memory.
func (w *World) Memory(disk int) *uring.Arena { return w.disks[disk].memory }

// addDisk adds a disk with its model.
func (w *World) addDisk(p *ExportPlan) *disk {
	d := w.newDisk(len(w.disks), p)
	d.addLower()
	w.disks, w.models = append(w.disks, d), append(w.models, w.newModel(d))
	return d
}

// Close frees the memory that is not Go's.
func (w *World) Close() {
	for _, d := range w.disks {
		if d.memory != nil {
			_ = d.memory.Close()
		}
	}
}

// Eventfd makes a descriptor that wakes a loop. notify may be called inside a turn of any loop.
func (w *World) Eventfd() (fd int32, notify func()) {
	e := &eventfd{}
	return w.openFD(&node{event: e}), func() { e.count++ }
}

// Hash stands for everything that happened; two runs of a seed have the same hash.
func (w *World) Hash() uint64 { return w.trace.hash }

// openFD returns a descriptor for a node: the lowest that is free, as in the kernel, so that a
// stale descriptor soon refers to another node.
func (w *World) openFD(n *node) int32 {
	for i, other := range w.nodes {
		if other == nil {
			w.nodes[i] = n
			return int32(i + firstFD)
		}
	}
	w.nodes = append(w.nodes, n)
	return int32(len(w.nodes) - 1 + firstFD)
}

// node returns what a descriptor of the engine refers to.
func (w *World) node(fd int32) *node {
	if i := int(fd) - firstFD; i >= 0 && i < len(w.nodes) && w.nodes[i] != nil {
		return w.nodes[i]
	}
	w.bug("descriptor %d is not open", fd)
	return nil
}

// delay draws a duration up to limit.
func (w *World) delay(limit uint64) uint64 {
	if limit == 0 || w.rng.IntN(3) == 0 {
		return 0
	}
	return w.rng.Uint64N(limit)
}

// pickLoop returns a loop that has room for a connection, or -1.
func (w *World) pickLoop() int {
	at := w.rng.IntN(len(w.loops))
	for i := range w.loops {
		if k := (at + i) % len(w.loops); w.loops[k].Connections() < w.Plan.Connections {
			return k
		}
	}
	return -1
}

// oldestRead returns the tick at which the oldest READ or BLOCK_STATUS in flight was sent; the
// greatest number if there is none.
func (w *World) oldestRead() uint64 {
	oldest := ^uint64(0)
	for _, c := range w.clients {
		for _, r := range c.inFlight {
			if (r.Command == proto.CmdRead || r.Command == proto.CmdBlockStatus) && r.sent != 0 {
				oldest = min(oldest, r.sent)
			}
		}
		if c.reading != nil {
			oldest = min(oldest, c.reading.sent)
		}
	}
	return oldest
}

// markOverlaps marks how a change that was just sent meets other changes in flight.
func (w *World) markOverlaps(c *client, r *request) {
	block := uint64(c.model.disk.plan.Block)
	for _, other := range w.clients {
		for _, o := range other.inFlight {
			if o == r || other.model != c.model || !o.isChange() || !o.valid() || o.sent == 0 {
				continue
			}
			near := o.Length > 0 && o.lo()/block <= (r.hi()-1)/block &&
				r.lo()/block <= (o.hi()-1)/block
			switch {
			case o.overlaps(r) && other == c:
				w.mark(markOverlapSame)
			case o.overlaps(r) && other.x != c.x:
				w.mark(markOverlapViews)
			case o.overlaps(r):
				w.mark(markOverlapCross)
			case near:
				w.mark(markNeighbourWrites)
			}
		}
	}
}

// checkCrash compares what a power cut would leave now with what it may leave.
func (w *World) checkCrash(m *model) {
	w.mark(markCrashChecked)
	m.compare(w.crashContent(m.disk), true)
}

// failure turns a panic of the checker or of the engine into the error of Run.
func (w *World) failure(p any) *Failure {
	f := &Failure{seed: w.Seed, plan: w.Plan.String(), trace: w.trace.lines(60)}
	if v, ok := p.(verdictPanic); ok {
		f.why = v.why
		if !v.engine {
			return f
		}
	} else {
		f.why = fmt.Sprintf("panic: %v", p)
	}
	f.stack = w.stack
	return f
}
