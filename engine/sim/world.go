// A World is one simulated machine with its clients, made from a seed: descriptors, disks, sockets,
// rings, and one virtual clock.
//
// Invariant: every decision comes from the world's generator or from a client's, which is seeded by
// it; nothing depends on time, addresses or the order of a map.

package sim

import (
	"fmt"
	"math/rand/v2"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// Loop is what the world drives: one event loop of the engine, on one of the world's kernels (the
// i-th loop on the i-th kernel).
type Loop interface {
	Turn()                                       // one turn: enter, record, settle
	Adopt(fd int32, export int, s proto.Session) // a negotiated socket
	Connections() int                            // adopted and not closed yet
	Drain()                                      // begin an orderly shutdown
	Cut()                                        // close every connection now
	// nil when no connection is left and every tag, lease, stage and claim is home
	Idle() error
	// requests that it has handed out to be looked up, each once, and only if it said that there
	// are some
	Asked() []uint32
	LookUp(tag uint32) (late bool) // looks one up; late: its client is gone
}

// World is everything outside the engine.
type World struct {
	Seed  uint64
	Plan  Plan
	Marks Marks

	rng           *rand.Rand
	mix           mix
	clock         uint64 // nanoseconds
	tick          uint64 // events
	trace         trace
	nodes         []*node
	kernels       []*Kernel
	loops         []Loop
	coroutines    []*coroutine
	disks         []*disk
	models        []*model
	socks         []*socket
	clients       []*client
	lookups       []lookup
	stack         string // of the loop that panicked
	requests      []*request
	conns         uint32
	ids           uint32
	left          int // requests still to be asked
	calm          bool
	draining      bool
	drainedAt     uint64 // virtual time
	pausedAtDrain uint64 // and how long loops had been stopped by then
	pausedNanos   uint64 // nanoseconds in which no loop ran, or will not before pausedTo
	pausedUntil   uint64 // the end of the last pause
	cutAt         int    // of left: when the file is truncated; -1 = never
	drainAt       int    // of left: when the engine is told to shut down; -1 = never
	crashAt       uint64 // tick of the next look at what a power cut would leave
}

// node is what a descriptor stands for.
type node struct {
	sock  *socket
	disk  *disk
	event *eventfd
}

type eventfd struct{ count uint64 }

// firstFD keeps the world's descriptors apart from the process's own.
const firstFD = 1000

// New makes the world of a seed. The caller opens an engine of the shape of Plan on kernels from
// NewKernel, and calls Run.
func New(seed uint64) *World { return Scripted(seed, nil) }

// decisions is a source of random numbers whose first ones somebody else has chosen, as far as
// eight bits go.
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

// Scripted makes the world of a seed, but with the first of its decisions (the plan, the mix, and
// what comes then) made by a fuzzer: a byte for each.
func Scripted(seed uint64, chosen []byte) *World {
	w := &World{Seed: seed,
		rng: rand.New(&decisions{chosen, rand.NewPCG(seed, 0x9e3779b97f4a7c15)}), clock: 1e9}
	w.Plan = drawPlan(w.rng)
	w.mix = w.Plan.mix
	w.left = w.Plan.requests
	for i := range w.Plan.Exports {
		d := w.newDisk(i, &w.Plan.Exports[i])
		if d.fd = -1; w.Plan.Exports[i].onDisk() {
			d.fd = w.openFD(&node{disk: d})
		}
		w.disks = append(w.disks, d)
		w.models = append(w.models, w.newModel(d))
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

// DiskFD is the descriptor of the disk behind an export; -1 if there is none.
func (w *World) DiskFD(export int) int { return int(w.disks[export].fd) }

// Memory is the content of an export in memory.
func (w *World) Memory(export int) *uring.Arena { return w.disks[export].memory }

// Close gives back the memory that is not Go's.
func (w *World) Close() {
	for _, d := range w.disks {
		if d.memory != nil {
			_ = d.memory.Close()
		}
	}
}

// Eventfd makes a descriptor to wake a loop with. notify may be called from inside a turn of any
// loop.
func (w *World) Eventfd() (fd int32, notify func()) {
	e := &eventfd{}
	return w.openFD(&node{event: e}), func() { e.count++ }
}

// Hash stands for everything that happened; two runs of a seed have the same.
func (w *World) Hash() uint64 { return w.trace.hash }

// open gives a descriptor to something: the lowest that is free, as the kernel does, so that a
// stale one soon means something else.
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

func (w *World) node(fd int32) *node {
	if i := int(fd) - firstFD; i >= 0 && i < len(w.nodes) && w.nodes[i] != nil {
		return w.nodes[i]
	}
	w.bug("descriptor %d is not open", fd)
	return nil
}

// delay draws a duration up to most.
func (w *World) delay(limit uint64) uint64 {
	if limit == 0 || w.rng.IntN(3) == 0 {
		return 0
	}
	return w.rng.Uint64N(limit)
}

// emptiest picks a loop that has room for a connection, or -1.
func (w *World) pickLoop() int {
	at := w.rng.IntN(len(w.loops))
	for i := range w.loops {
		if k := (at + i) % len(w.loops); w.loops[k].Connections() < w.Plan.Connections {
			return k
		}
	}
	return -1
}

// oldestRead is the tick at which the oldest READ or BLOCK_STATUS in flight was sent; the greatest
// number if there is none.
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

// crossings marks how a change that is now complete meets others in flight.
func (w *World) markOverlaps(c *client, r *request) {
	block := uint64(c.model.disk.plan.Block)
	for _, other := range w.clients {
		for _, o := range other.inFlight {
			if o == r || other.export != c.export || !o.isChange() || !o.valid() || o.sent == 0 {
				continue
			}
			near := o.Length > 0 && o.Offset/block <= (r.hi()-1)/block &&
				r.Offset/block <= (o.hi()-1)/block
			switch {
			case o.overlaps(r) && other == c:
				w.mark(markOverlapSame)
			case o.overlaps(r):
				w.mark(markOverlapCross)
			case near:
				w.mark(markNeighbourWrites)
			}
		}
	}
}

// crash compares what a power cut would leave now with what it may leave.
func (w *World) checkCrash(m *model) {
	w.mark(markCrashChecked)
	m.compare(m.disk.crashImage(w.rng), true)
}

// failure turns a panic, of the checker or of the engine, into what Run returns.
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
