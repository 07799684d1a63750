// A program that is faster: it locks a file before the one that makes it can.
//
// Invariant: a race is run until it is won, or so often that it is said to be one that cannot be
// won here; the file of a race that was won stays locked until the test ends.

package testbed

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// racesMost is how often a race is run: on two busy cores one in some ten is won.
const racesMost = 400

// LockFirst runs races for a path at which there is no file. attempt makes the file, and is refused
// it when it loses: that error is given. Between two races the file is removed.
func LockFirst(t *testing.T, path string, attempt func() error) error {
	t.Helper()
	for range racesMost {
		var ended atomic.Bool
		won := make(chan *os.File)
		go func() { won <- lockFirst(path, &ended) }()
		err := attempt()
		ended.Store(true)
		switch f := <-won; {
		case f != nil && err != nil:
			t.Cleanup(func() { _ = f.Close() })
			return err
		case f != nil: // it came when the attempt was over
			_ = f.Close()
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Skipf("of %d races none was won: whoever makes a file here always locks it first", racesMost)
	return nil
}

// lockFirst locks the file, or gives nil if somebody else has, or if the race has ended.
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
