// A program that wins a race: it locks a new file before the program that creates the file can.
//
// Invariant: a race is run until it is won, or maxRaces times, and then the test is skipped; the
// file of a race that was won stays locked until the test ends.

package testbed

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// maxRaces bounds the races: on two busy cores about one in ten is won.
const maxRaces = 400

// LockFirst runs races for a path at which there is no file. attempt creates the file, and fails
// when it loses the race: LockFirst returns that error. Between two races the file is removed.
func LockFirst(t *testing.T, path string, attempt func() error) error {
	t.Helper()
	for range maxRaces {
		var ended atomic.Bool
		won := make(chan *os.File)
		go func() { won <- lockFirst(path, &ended) }()
		err := attempt()
		ended.Store(true)
		switch f := <-won; {
		case f != nil && err != nil:
			t.Cleanup(func() { _ = f.Close() })
			return err
		case f != nil: // the lock came after the attempt had ended
			_ = f.Close()
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Skipf("of %d races none was won: the program that creates a file here always locks it first",
		maxRaces)
	return nil
}

// lockFirst locks the file, or returns nil if another program has locked it or the race has ended.
func lockFirst(path string, ended *atomic.Bool) *os.File {
	for !ended.Load() {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return os.NewFile(uintptr(fd), path)
		}
		_ = unix.Close(fd)
		return nil
	}
	return nil
}
