// Package testbed has what the tests of several packages set up.
//
//	testbed.go  serves a Unix socket in the test's own process, keeps a log, measures files
//	race.go     is a program that locks a file before the program that makes it can
//
// Invariant: only tests import this package, and nothing of it outlives the test that asked for it.
package testbed

import (
	"bytes"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Listen listens on a Unix socket until the test ends, and returns its path. Every connection is
// answered in a goroutine of its own, and closed afterwards.
func Listen(t testing.TB, answer func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answer(c)
			}()
		}
	}()
	return path
}

// LogBuffer is a log that may be read while it is written. A nil LogBuffer is empty.
type LogBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends to the log.
func (l *LogBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *LogBuffer) String() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Taken returns how many bytes of its disk a file takes.
func Taken(t testing.TB, path string) int64 {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}
