// A Kernel is one simulated ring: a small submission queue, operations in flight, a small
// completion queue. It satisfies the engine's Kernel interface; a world has one per loop.
//
// Invariant: an operation is in exactly one of these places: sq[head:tail], flight, posted
// (completed, but its task work has not run), cq.

package sim

import (
	"time"

	"ringnbd/engine/uring"
)

// Kernel belongs to the loop that was given it, and to the world, which completes its operations.
type Kernel struct {
	world       *World
	id          int
	sq          []uring.SQE
	head        uint32
	tail        uint32
	cq          []uring.CQE
	completions int // of cq
	posted      []uring.CQE
	flight      []*op
	spare       []*op
	arenas      []*uring.Arena
	fixed       *uring.Arena // the one that is registered
	registered  []bool       // by buffer: it is registered
	shift       uint         // a buffer is 1<<shift bytes
	files       []*node      // registered files
	alarm       uint64       // instant until which the loop wants to wait; 0 = for ever
	serial      uint64
	asleep      bool   // inside Enter, waiting
	lag         uint64 // instant until which the loop gets no processor

	workers int // at most; 0: nobody has said, and nobody counts them
	running int // operations that have one

	signalled bool   // a signal will end the wait
	pause     func() // gives the world the turn
}

// NewKernel makes the ring of one more loop.
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

// Attach lets the kernel see an arena: addresses outside the attached ones are faults.
func (k *Kernel) Attach(a *uring.Arena) { k.arenas = append(k.arenas, a) }

// RegisterBuffers makes an arena usable by READ_FIXED and WRITE_FIXED; buffer i is its i-th GiB.
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

// RegisterBuffer fills one place of the table, unless the limit on locked memory has been reached.
func (k *Kernel) RegisterBuffer(i uint32) bool {
	w := k.world
	if int(i) >= len(k.registered) || k.registered[i] {
		w.bug("registered buffer %d of %d is filled, or filled a second time", i, len(k.registered))
	}
	k.registered[i] = !chance(w.rng, w.mix.unpinnable)
	if !k.registered[i] {
		w.mark(markNotRegistered)
	}
	w.note("register", "loop buffer there", int64(k.id), int64(i), flag(k.registered[i]))
	return k.registered[i]
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// RegisterFiles sets the table of registered files.
func (k *Kernel) RegisterFiles(fds []int32) {
	k.files = k.files[:0]
	for _, fd := range fds {
		if fd < 0 { // a hole in the table
			k.files = append(k.files, nil)
			continue
		}
		k.files = append(k.files, k.world.node(fd))
	}
}

// LimitWorkers says how many workers there are, as IORING_REGISTER_IOWQ_MAX_WORKERS does. From then
// on whoever submits is held to count them.
func (k *Kernel) LimitWorkers(n uint32) { k.workers = int(n) }

// SQE is the next free submission, zeroed, or nil when the queue is full.
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

// Enter submits, lets some operations go on, shows what has completed, and waits if it is told to.
// While it waits the world goes on; it comes back when there is a completion, when the timeout has
// passed, or as after a signal if the mix has it, but not for nothing: what the engine left undone
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

// sleep waits for a completion. (It does not matter for how many: an engine that asks for more than
// one must live with fewer, as after a signal.)
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

// expose moves completions to where Reap sees them. What does not fit stays behind, as in the
// kernel's overflow list, until the next Enter.
func (k *Kernel) showCompletions() {
	n := min(len(k.posted), k.completions-len(k.cq))
	k.cq = append(k.cq, k.posted[:n]...)
	k.posted = append(k.posted[:0], k.posted[n:]...)
	if len(k.posted) > 0 {
		k.world.mark(markQueueOverflow)
	}
}

// Reap copies completions out and gives their places back.
func (k *Kernel) Reap(out []uring.CQE) int {
	n := copy(out, k.cq)
	k.cq = append(k.cq[:0], k.cq[n:]...)
	return n
}

// Now is the world's clock.
func (k *Kernel) Now() int64 { return int64(k.world.clock) }

// EndSending ends what the engine sends on a socket.
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

// CloseFD gives a descriptor back; the number is free for the next socket at once.
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

// advance lets one operation in flight make progress; false if none can now.
func (k *Kernel) advance() bool {
	w := k.world
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

// awake: the loop can run: it is not waiting, or what it waits for has come.
func (k *Kernel) awake() bool {
	return !k.asleep || len(k.posted) > 0 || k.signalled || k.alarm != 0 && k.alarm <= k.world.clock
}

// nextDue is the earliest instant after now at which an operation may complete or the loop wants to
// be woken; 0 if there is none.
func (k *Kernel) nextDue() uint64 {
	next := uint64(0)
	for _, o := range k.flight {
		next = earlier(next, o.due, k.world.clock)
		if o.node != nil && o.node.disk != nil {
			next = earlier(next, o.node.disk.hungUntil, k.world.clock)
		}
	}
	return earlier(earlier(next, k.alarm, k.world.clock), k.lag, k.world.clock)
}

// sooner is the smaller of two instants after now, where 0 is none.
func earlier(a, b, now uint64) uint64 {
	if b <= now {
		return a
	}
	if a == 0 {
		return b
	}
	return min(a, b)
}
