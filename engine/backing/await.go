// Waiting for what may never come back: opening a file on storage that hangs ends when the storage
// answers, and a system call cannot be called off.
//
// Invariant: who waits here is let go soon after its context ends, whatever the kernel does. What
// was being waited for is then left to itself: it may still happen, so the process is to end
// without doing anything else.

package backing

import (
	"context"
	"errors"
	"time"
)

// awaitGrace is how long something may still come back after the context has ended. Most does, and
// cleans up behind itself.
const awaitGrace = 250 * time.Millisecond

// ErrHangs is what Await gives for something that did not come back.
var ErrHangs = errors.New("interrupted; the storage does not answer")

// Await does something that may hang in the kernel, and gives its error; or ErrHangs, if the
// context ends and it does not come back.
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
