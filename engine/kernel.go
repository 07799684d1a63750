// The kernel is the seam between the loop and everything outside it: all bytes and all time enter
// here, from io_uring or from the simulated kernel of engine/sim.
//
// Invariant: its methods are called by the loop's own thread only.

package engine

import (
	"time"

	"ringnbd/engine/uring"
)

// Kernel is a table of submissions and completions.
type Kernel interface {
	// SQE gives the next free submission, zeroed, or nil when the queue is full and Enter must make
	// room.
	SQE() *uring.SQE
	// Enter submits what is queued and waits for at least wait completions, or for the timeout
	// (negative: none).
	Enter(wait uint32, timeout time.Duration) error
	// Reap copies completions out and gives their places back.
	Reap(out []uring.CQE) int
	// Now is a monotonic clock in nanoseconds.
	Now() int64
	// RegisterBuffer registers the i-th buffer of the pool, see locked.go, and reports whether it
	// could.
	RegisterBuffer(i uint32) bool
	// SetFile puts a descriptor into an empty place of the registered files, or empties the place
	// (-1). When the kernel has let go of a file whose place was emptied, it posts a completion
	// whose token is of the kind onReleased, for the place; FileReleased accounts for it.
	SetFile(place uint32, fd int32) error
	FileReleased()
	// LimitWorkers limits the kernel's workers for operations on files.
	LimitWorkers(n uint32)
	// EndSending ends one direction of a socket: after all that was sent the client finds the end.
	EndSending(fd int32)
	// Shutdown ends both directions of a socket: every operation that waits on it completes.
	Shutdown(fd int32)
	// CloseFD closes a socket.
	CloseFD(fd int32)
}

// systemKernel is the Kernel that Linux provides.
type systemKernel struct {
	*uring.Ring
	poll poll
}

// LimitWorkers cannot fail where it has been called before, at the start.
func (k *systemKernel) LimitWorkers(n uint32) { _ = k.Ring.LimitWorkers(n, 0) }

func (*systemKernel) Now() int64 { return uring.Now() }

// Enter waits awake at first, if that is likely to pay off: a thread that sleeps in the kernel is
// woken some microseconds late, tens of them on a virtual machine, and to sleep and be woken costs
// two to four microseconds of CPU. What is queued goes to the kernel before, so that there is
// something to wait for. The kernel's work for completions is deferred to this thread and shows in
// memory, so looking costs no system call.
func (k *systemKernel) Enter(wait uint32, timeout time.Duration) error {
	if wait == 0 || timeout == 0 || !k.poll.due() {
		return k.Ring.Enter(wait, timeout)
	}
	if err := k.Ring.Enter(0, 0); err != nil {
		return err
	}
	for end := uring.Now() + k.poll.span; !k.Ready(); {
		if uring.Now() > end {
			k.poll.failed()
			return k.Ring.Enter(wait, timeout)
		}
	}
	k.poll.paid()
	return k.Ring.Enter(0, 0)
}
