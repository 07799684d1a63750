// A Bell wakes a goroutine of the control plane from a loop's thread: an eventfd whose reader
// sleeps in Go's poller and not on a thread of its own.
//
// Invariant: to ring takes one system call, never waits and never allocates; a Wait that begins
// after Ring returns at once.

package uring

import (
	"os"

	"golang.org/x/sys/unix"
)

// Bell may be rung by any thread and is waited for by one goroutine.
type Bell struct {
	fd   int
	file *os.File
}

// NewBell makes a bell.
func NewBell() (*Bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, callError("eventfd", errnoOf(err))
	}
	return &Bell{fd, os.NewFile(uintptr(fd), "bell")}, nil
}

// Ring wakes the goroutine that waits. It must not be called after Close.
func (b *Bell) Ring() { Notify(b.fd) }

// Wait sleeps until the bell has been rung. An error means that it was closed.
func (b *Bell) Wait() error {
	var word [8]byte
	_, err := b.file.Read(word[:])
	return err
}

// Close ends Wait.
func (b *Bell) Close() { _ = b.file.Close() }
