// Kernel is the seam between the loop and everything outside it: all bytes and all time enter here, from io_uring or from the simulated kernel of
// engine/sim. Seven verbs, called by the loop's own thread only.

package engine

import (
	"time"

	"ringnbd/engine/uring"
)

// Kernel is a table of submissions and completions.
type Kernel interface {
	// SQE is the next free submission, zeroed, or nil when the queue is full and Enter must make room.
	SQE() *uring.SQE
	// Enter submits what is queued and waits for at least wait completions, or for the timeout (negative: none).
	Enter(wait uint32, timeout time.Duration) error
	// Reap copies completions out and gives their places back.
	Reap(out []uring.CQE) int
	// Now is a monotonic clock in nanoseconds.
	Now() int64
	// Shutdown ends both directions of a socket: whatever operation waits on it completes.
	Shutdown(fd int32)
	// CloseFD gives a socket back.
	CloseFD(fd int32)
}

// systemKernel is the Kernel that Linux provides.
type systemKernel struct{ *uring.Ring }

func (systemKernel) Now() int64 { return uring.Now() }
