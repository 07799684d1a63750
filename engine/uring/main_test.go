// This file frames the tests: rings on a locked thread, files to work on, and a check that no
// descriptor is left open. All tests run against the real kernel.

package uring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("URING_TEST_ROLE"); role != "" {
		os.Exit(playRole(role))
	}
	// Go's own poller opens descriptors with the first pipe and keeps them.
	if r, w, err := os.Pipe(); err == nil {
		_ = r.Close()
		_ = w.Close()
	}
	before := openDescriptors()
	code := m.Run()
	for fd, target := range openDescriptors() {
		if before[fd] != target && code == 0 {
			fmt.Fprintf(os.Stderr, "descriptor %s (%s) was left open\n", fd, target)
			code = 1
		}
	}
	os.Exit(code)
}

// openDescriptors maps descriptor to what it is open on.
func openDescriptors() map[string]string {
	open := map[string]string{}
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		if target, err := os.Readlink(name); err == nil && !strings.HasPrefix(target, "/proc/") {
			open[name] = target
		}
	}
	return open
}

// newRing opens a ring on the test's thread and closes both at the end.
func newRing(t testing.TB, entries, completions uint32) *Ring {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := Open(Config{Entries: entries, Completions: completions})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Ring.Close: %v", err)
		}
	})
	return r
}

func newArena(t testing.TB, size int, huge bool) *Arena {
	t.Helper()
	a, err := NewArena(size, huge)
	if err != nil {
		t.Fatalf("NewArena: %v", err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("Arena.Close: %v", err)
		}
	})
	return a
}

func newEventfd(t testing.TB) int {
	t.Helper()
	fd, err := Eventfd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CloseFD(int32(fd)) })
	return fd
}

// socketpair makes two connected stream sockets in blocking mode.
func socketpair(t testing.TB) (a, b int32) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CloseFD(int32(fds[0])); CloseFD(int32(fds[1])) })
	return int32(fds[0]), int32(fds[1])
}

// newFile makes a file of that size full of zeroes that are written, not holes.
func newFile(t testing.TB, dir string, size int, flags int) int32 {
	t.Helper()
	name := filepath.Join(dir, "disk")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatalf("open %s with flags %#x: %v", name, flags, err)
	}
	t.Cleanup(func() { CloseFD(int32(fd)) })
	return int32(fd)
}

// collect enters and reaps until it has want completions, at most 10 seconds; more may remain.
func collect(t testing.TB, r *Ring, want int) []CQE {
	t.Helper()
	got := make([]CQE, 0, want)
	var out [64]CQE
	for end := Now() + int64(10*time.Second); len(got) < want; {
		if err := r.Enter(1, 100*time.Millisecond); err != nil {
			t.Fatalf("Enter: %v", err)
		}
		n := r.Reap(out[:min(len(out), want-len(got))])
		got = append(got, out[:n]...)
		if Now() > end {
			t.Fatalf("%d of %d completions after 10 seconds", len(got), want)
		}
	}
	return got
}

// results is collect, sorted by user_data.
func results(t testing.TB, r *Ring, want int) []CQE {
	t.Helper()
	got := collect(t, r, want)
	sort.Slice(got, func(i, j int) bool { return got[i].UserData < got[j].UserData })
	return got
}

// single runs a single prepared operation and returns its result.
func single(t testing.TB, r *Ring, prepare func(s *SQE)) int32 {
	t.Helper()
	s := r.SQE()
	if s == nil {
		t.Fatal("the submission queue is full")
	}
	prepare(s)
	data := s.UserData
	c := collect(t, r, 1)[0]
	if c.UserData != data {
		t.Fatalf("completion of %#x, want %#x", c.UserData, data)
	}
	return c.Res
}

func wantThreadError(t *testing.T, err error, what string) {
	t.Helper()
	var wrong *threadError
	if !errors.As(err, &wrong) || wrong.Owner == wrong.Caller ||
		!strings.Contains(err.Error(), "LockOSThread") {
		t.Errorf("%s on another thread: %v, want a threadError", what, err)
	}
}

// onOtherThread runs f on a thread of its own, which ends with it.
func onOtherThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// not unlocked: the thread exits with its goroutine, and with it whatever it registered
		runtime.LockOSThread()
		f()
	}()
	<-done
}

func errno(res int32) syscall.Errno { return syscall.Errno(-res) }
