// Waiting for a call that may never return: opening a file on storage that hangs ends when the
// storage answers, and a system call cannot be cancelled.
//
// Invariant: Await returns soon after its context ends, whatever the kernel does. The call may
// still complete later, so the process is to end without doing anything else.

package backing

import (
	"context"
	"errors"
	"time"
)

// awaitGrace is how long a call may still return after the context has ended. Most calls do, and
// clean up after themselves.
const awaitGrace = 250 * time.Millisecond

// ErrHangs is what Await returns for a call that did not return.
var ErrHangs = errors.New("interrupted; the storage does not answer")

// Await calls do, which may hang in the kernel, and returns its error; or ErrHangs, if the context
// ends and do does not return.
func Await(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(awaitGrace):
		return ErrHangs
	}
}
