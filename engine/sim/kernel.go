// A Kernel is one simulated ring: a small submission queue, operations in flight, a small
// completion queue. It implements the engine's Kernel interface; a world has one per loop.
//
// Invariant: an operation is in exactly one of these places: sq[head:tail], flight, posted
// (completed, but its task work has not run), cq.

package sim

import (
	"time"

	"ringnbd/engine/uring"
)

// Kernel is the ring of a loop; the world completes its operations.
type Kernel struct {
	world       *World
	id          int
	sq          []uring.SQE
	head        uint32
	tail        uint32
	cq          []uring.CQE
	completions int // capacity of cq
	posted      []uring.CQE
	flight      []*op
	spare       []*op
	arenas      []*uring.Arena
	fixed       *uring.Arena // the arena that is registered
	registered  []bool       // by buffer
	shift       uint         // a registered buffer is 1<<shift bytes
	files       []*node      // registered files
	letting     []letting    // files whose place was emptied, and that are not let go of
	alarm       uint64       // instant until which the loop waits at most; 0: for ever
	serial      uint64
	asleep      bool   // inside Enter, waiting
	lag         uint64 // instant until which the loop does not run

	workers int // limit of LimitWorkers; 0: no limit was set, and workers are not counted
	running int // operations that have a worker

	signalled bool   // a signal will end the wait
	pause     func() // returns control to the world
}

// NewKernel makes the ring of the next loop.
func (w *World) NewKernel(entries, completions uint32) *Kernel {
	k := &Kernel{world: w, id: len(w.kernels), sq: make([]uring.SQE, entries),
		completions: int(completions)}
	for _, d := range w.disks {
		if d.memory != nil {
			k.Attach(d.memory)
		}
	}
	w.kernels = append(w.kernels, k)
	return k
}

// Attach lets the kernel see an arena: an address outside the attached arenas is a fault.
func (k *Kernel) Attach(a *uring.Arena) { k.arenas = append(k.arenas, a) }

// registerBuffers makes an arena usable by READ_FIXED and WRITE_FIXED; buffer i is its i-th GiB.
func (k *Kernel) registerBuffers(a *uring.Arena) {
	k.SparseBuffers(a, fixedShift)
	for i := range k.registered {
		k.registered[i] = true
	}
}

// SparseBuffers makes a table of buffers of 1<<shift bytes of the arena, which RegisterBuffer
// fills.
func (k *Kernel) SparseBuffers(a *uring.Arena, shift uint) {
	k.Attach(a)
	k.fixed, k.shift, k.registered = a, shift, make([]bool, (a.Size()+1<<shift-1)>>shift)
}

// RegisterBuffer fills an entry of the table of buffers and reports whether it could: the limit on
// locked memory may have been reached.
func (k *Kernel) RegisterBuffer(i uint32) bool {
	w := k.world
	if int(i) >= len(k.registered) || k.registered[i] {
		w.bug("registered buffer %d of %d does not exist, or is filled twice", i, len(k.registered))
	}
	k.registered[i] = !chance(w.rng, w.mix.unpinnable)
	if !k.registered[i] {
		w.mark(markNotRegistered)
	}
	w.note("register", "loop buffer there", int64(k.id), int64(i), flag(k.registered[i]))
	return k.registered[i]
}

// flag returns a bool as an argument of note.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// LimitWorkers sets the number of workers, as IORING_REGISTER_IOWQ_MAX_WORKERS does. From then on
// the engine must account for every worker that its submissions take.
func (k *Kernel) LimitWorkers(n uint32) { k.workers = int(n) }

// SQE returns the next free submission, zeroed, or nil if the queue is full.
func (k *Kernel) SQE() *uring.SQE {
	if k.tail-k.head == uint32(len(k.sq)) {
		k.world.mark(markQueueFull)
		return nil
	}
	s := &k.sq[k.tail%uint32(len(k.sq))]
	*s = uring.SQE{}
	k.tail++
	return s
}

// Enter submits, lets some operations go on, shows completions, and waits if wait says so. While it
// waits, the world goes on. It returns when there is a completion, when the timeout has passed, or
// as after a signal if the mix has signals, but never without a reason: work that the engine forgot
// stays undone.
func (k *Kernel) Enter(wait uint32, timeout time.Duration) error {
	w := k.world
	w.clock += uint64(w.rng.IntN(2000))
	queued := k.tail - k.head
	n := queued
	if n > 0 && chance(w.rng, w.mix.partial) {
		n = 1 + uint32(w.rng.IntN(int(n)))
		if n < queued {
			w.mark(markEnterPartial)
		}
	}
	if queued > 0 {
		w.note("enter", "loop queued taken wait flight", int64(k.id), int64(queued), int64(n),
			int64(wait), int64(len(k.flight)))
	}
	for range n {
		s := &k.sq[k.head%uint32(len(k.sq))]
		k.head++
		k.admit(s)
	}
	for range w.rng.IntN(len(k.flight) + 1) {
		if !k.advance() {
			break
		}
	}
	k.showCompletions()
	// Linux does not wait when it could not take the whole queue
	if n == queued && wait > 0 && timeout != 0 && len(k.cq) == 0 {
		k.sleep(timeout)
	}
	return nil
}

// sleep waits for a completion. (The number of completions does not matter: an engine that waits
// for several must accept fewer, as after a signal.)
func (k *Kernel) sleep(timeout time.Duration) {
	w := k.world
	if timeout > 0 {
		k.alarm = w.clock + uint64(timeout)
	}
	k.asleep = true
	for len(k.posted) == 0 && !k.signalled && (k.alarm == 0 || k.alarm > w.clock) {
		k.pause()
	}
	if k.signalled {
		w.mark(markEnterInterrupted)
	} else {
		k.showCompletions()
	}
	k.asleep, k.signalled, k.alarm = false, false, 0
}

// showCompletions moves completions to where Reap sees them. Completions that do not fit wait for
// the next Enter, as in the kernel's overflow list.
func (k *Kernel) showCompletions() {
	n := min(len(k.posted), k.completions-len(k.cq))
	k.cq = append(k.cq, k.posted[:n]...)
	k.posted = append(k.posted[:0], k.posted[n:]...)
	if len(k.posted) > 0 {
		k.world.mark(markQueueOverflow)
	}
}

// Reap copies completions out and frees their entries.
func (k *Kernel) Reap(out []uring.CQE) int {
	n := copy(out, k.cq)
	k.cq = append(k.cq[:0], k.cq[n:]...)
	return n
}

// Now returns the world's clock.
func (k *Kernel) Now() int64 { return int64(k.world.clock) }

// EndSending ends the engine's direction of a socket.
func (k *Kernel) EndSending(fd int32) {
	n := k.world.node(fd)
	if n.sock == nil {
		k.world.bug("end of sending on descriptor %d, which is not a socket", fd)
	}
	k.world.note("end of sending", "loop fd", int64(k.id), int64(fd))
	n.sock.out.ended = true
}

// Shutdown ends both directions of a socket.
func (k *Kernel) Shutdown(fd int32) {
	n := k.world.node(fd)
	if n.sock == nil {
		k.world.bug("shutdown of descriptor %d, which is not a socket", fd)
	}
	k.world.note("shutdown", "loop fd", int64(k.id), int64(fd))
	n.sock.serverShutdown()
}

// CloseFD closes a descriptor; its number is free for the next socket at once.
func (k *Kernel) CloseFD(fd int32) {
	w := k.world
	n := w.node(fd)
	if n.sock == nil {
		w.bug("close of descriptor %d, which is not a socket", fd)
	}
	for _, other := range w.kernels {
		for _, o := range other.flight {
			if o.node == n {
				w.bug("close of descriptor %d while %s is in flight on it", fd, o.name())
			}
		}
		for i := other.head; i != other.tail; i++ {
			s := &other.sq[i%uint32(len(other.sq))]
			if (s.OpCode == opRecv || s.OpCode == opSendMsg || s.OpCode == opPollAdd) &&
				s.Fd == fd {
				w.bug("close of descriptor %d while %s for it is queued", fd, opNames[s.OpCode])
			}
		}
	}
	w.note("close", "loop fd", int64(k.id), int64(fd))
	n.sock.serverClose()
	w.nodes[fd-firstFD] = nil
}

// advance lets one operation in flight make progress, and reports whether any could.
func (k *Kernel) advance() bool {
	w := k.world
	if k.letGo() {
		return true
	}
	n := len(k.flight)
	if n == 0 {
		return false
	}
	for i, at := 0, w.rng.IntN(n); i < n; i++ {
		o := k.flight[(at+i)%n]
		if o.due > w.clock {
			continue
		}
		if k.attempt(o) {
			return true
		}
	}
	return false
}

// awake reports whether the loop can run: it does not wait, or what it waits for has happened.
func (k *Kernel) awake() bool {
	return !k.asleep || len(k.posted) > 0 || k.signalled || k.alarm != 0 && k.alarm <= k.world.clock
}

// nextDue returns the earliest instant after now at which an operation may complete or the loop
// must be woken; 0 if there is none.
func (k *Kernel) nextDue() uint64 {
	next := uint64(0)
	for _, o := range k.flight {
		next = earlier(next, o.due, k.world.clock)
		if o.node != nil && o.node.disk != nil {
			next = earlier(next, o.node.disk.hungUntil, k.world.clock)
		}
	}
	for i := range k.letting {
		next = earlier(next, k.letting[i].due, k.world.clock)
	}
	return earlier(earlier(next, k.alarm, k.world.clock), k.lag, k.world.clock)
}

// earlier returns the earlier of two instants after now, where 0 is none.
func earlier(a, b, now uint64) uint64 {
	if b <= now {
		return a
	}
	if a == 0 {
		return b
	}
	return min(a, b)
}
