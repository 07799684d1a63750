// An op is one operation in flight, from the submission that Enter took to the completion that it
// posts.
//
// Invariant: while an op is in flight the kernel owns the memory in own: only the kernel writes to
// it if into is set, and nothing changes it if not.

package sim

import (
	"fmt"

	"ringnbd/engine/uring"
)

// op is an operation in flight.
type op struct {
	sqe    uring.SQE
	serial uint64
	node   *node  // of its descriptor; nil for NOP, ASYNC_CANCEL and MADVISE
	due    uint64 // no completion before this instant
	own    []span
	lo, hi uint64 // addresses that own lies between
	into   bool   // the kernel writes to own
	shared bool   // own is memory that other operations may write too (a device in memory)
	sum    uint64 // of own, at submission or after the last scribble
	total  int
	moved  int    // bytes moved so far
	stash  []byte // bytes received and not yet given to the engine
	epoch  uint64 // of the disk at submission
	// dropped says that the sync of this write failed, and that what was dirty was dropped.
	dropped bool

	worker  bool // needs one of the kernel's workers
	running bool // has its worker
	refused bool // with RWF_NOWAIT: it cannot be done without waiting
}

// name returns the operation and its user_data, for messages.
func (o *op) name() string {
	return fmt.Sprintf("%s(user_data %#x)", opNames[o.sqe.OpCode], o.sqe.UserData)
}

// admit takes one submission. A submission that can never be right ends the run.
func (k *Kernel) admit(s *uring.SQE) {
	w := k.world
	o := &op{}
	if n := len(k.spare); n > 0 {
		o, k.spare = k.spare[n-1], k.spare[:n-1]
	}
	k.serial++
	*o = op{sqe: *s, serial: k.serial, own: o.own[:0], stash: o.stash[:0],
		due: w.clock + w.delay(w.mix.wireDelayNanos)}
	// every field that the operation knows is cleared in rest; what remains must be zero
	rest := *s
	rest.OpCode, rest.UserData = 0, 0
	switch s.OpCode {
	case opRecv:
		k.admitRecv(o, &rest)
	case opSendMsg:
		k.admitSend(o, &rest)
	case opPollAdd:
		k.admitPoll(o, &rest)
	case opReadFixed, opWriteFixed, opWrite:
		k.admitTransfer(o, &rest)
	case opFsync:
		k.admitFsync(o, &rest)
	case opFallocate:
		k.admitFallocate(o, &rest)
	case opUringCmd:
		k.admitDiscard(o, &rest)
	case opRead:
		if s.Flags&sqeFixedFile != 0 {
			k.admitTransfer(o, &rest)
		} else {
			k.admitEventRead(o, &rest)
		}
	case opMadvise:
		k.admitMadvise(o, &rest)
	case opFadvise:
		k.admitFadvise(o, &rest)
	case opCancel:
		rest.Addr, rest.Fd = 0, 0 // the kernel does not look at the descriptor
		o.due = w.clock
	case opNop:
	default:
		w.bug("opcode %d, which the simulated kernel does not know: %+v", s.OpCode, *s)
	}
	if rest != (uring.SQE{}) {
		w.bug("%s with fields or flags that it does not know: %+v, of which these are left "+
			"over: %+v", o.name(), *s, rest)
	}
	k.takeMemory(o)
	k.flight = append(k.flight, o)
	if chance(w.rng, w.mix.inline) {
		o.due = w.clock
		k.attempt(o)
	}
}

// attempt lets an operation go on, and reports whether it did.
func (k *Kernel) attempt(o *op) bool {
	w := k.world
	if k.mustWait(o) {
		return false
	}
	if o.into && !o.shared && w.rng.IntN(8) == 0 && chance(w.rng, w.mix.scribble) {
		k.checkUntouched(o)
		k.scribble(o)
	}
	var res int32
	var flags uint32
	moved, done := o.moved, false
	switch o.sqe.OpCode {
	case opRecv:
		res, flags, done = k.tryRecv(o)
	case opSendMsg:
		res, done = k.trySend(o)
	case opPollAdd:
		res, done = k.tryPoll(o)
	case opReadFixed:
		res, done = k.tryDiskRead(o), true
	case opWriteFixed, opWrite:
		res, done = k.tryDiskWrite(o)
	case opFsync:
		res, done = k.tryFsync(o), true
	case opFallocate:
		res, done = k.tryFallocate(o), true
	case opUringCmd:
		res, done = k.tryDiscard(o), true
	case opRead:
		if o.node.event != nil {
			res, done = k.tryEventRead(o)
		} else {
			res, done = k.tryDiskRead(o), true
		}
	case opMadvise:
		res, done = k.tryMadvise(o), true
	case opFadvise:
		res, done = k.tryFadvise(), true
	case opCancel:
		res, done = k.tryCancel(o), true
	case opNop:
		done = true
	}
	if done {
		k.post(o, res, flags)
	}
	return done || o.moved != moved
}

// post completes an operation: its memory is the engine's again once Reap has returned the
// completion.
func (k *Kernel) post(o *op, res int32, flags uint32) {
	w := k.world
	k.checkUntouched(o)
	k.copyOut(o)
	if o.running {
		k.running--
	}
	w.note("complete "+opNames[o.sqe.OpCode], "loop fd data res", int64(k.id), int64(o.sqe.Fd),
		int64(o.sqe.UserData), int64(res))
	for i, f := range k.flight {
		if f == o {
			k.flight = append(k.flight[:i], k.flight[i+1:]...)
			break
		}
	}
	for _, f := range k.flight {
		if f.sqe.OpCode == o.sqe.OpCode && f.node == o.node && f.serial < o.serial {
			w.mark(markReordered)
			break
		}
	}
	k.posted = append(k.posted, uring.CQE{UserData: o.sqe.UserData, Res: res, Flags: flags})
	k.spare = append(k.spare, o)
}

// fixedFile clears the registered file of a disk operation in rest, and returns its disk.
func (k *Kernel) fixedFile(o *op, rest *uring.SQE) *disk {
	s := &o.sqe
	if s.Flags&sqeFixedFile == 0 {
		k.world.bug("%s without IOSQE_FIXED_FILE", o.name())
	}
	if s.Fd < 0 || int(s.Fd) >= len(k.files) || k.files[s.Fd] == nil {
		k.world.bug("%s on registered file %d; there are %d", o.name(), s.Fd, len(k.files))
	}
	o.node = k.files[s.Fd]
	if o.node.disk == nil {
		k.world.bug("%s on a registered file that is not a disk", o.name())
	}
	rest.Flags &^= sqeFixedFile
	rest.Fd = 0
	return o.node.disk
}

// plainSocket clears the descriptor of a socket operation in rest, and returns its socket.
func (k *Kernel) plainSocket(o *op, rest *uring.SQE) *socket {
	o.node = k.world.node(o.sqe.Fd)
	if o.node.sock == nil {
		k.world.bug("%s on descriptor %d, which is not a socket", o.name(), o.sqe.Fd)
	}
	rest.Fd = 0
	return o.node.sock
}
