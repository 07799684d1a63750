// Polling: when a wait begins with a look, and that a loop which looks still sleeps, wakes and
// serves.

package engine

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// looks counts how many of n waits begin with a look; found says whether those find something.
func looks(p *poll, n int, found bool) int {
	seen := 0
	for range n {
		if !p.due() {
			continue
		}
		seen++
		if found {
			p.paid()
		} else {
			p.failed()
		}
	}
	return seen
}

func TestPollOff(t *testing.T) {
	p := newPoll(0)
	if n := looks(&p, 1000, true); n != 0 {
		t.Errorf("%d of 1000 waits looked, though polling is off", n)
	}
}

func TestPollFixed(t *testing.T) {
	p := newPoll(50 * time.Microsecond)
	if n := looks(&p, 1000, false); n != 1000 || p.span != 50_000 {
		t.Errorf("%d of 1000 waits looked, for %d ns; want all, for 50000", n, p.span)
	}
}

// TestPollAuto checks that looks which find nothing become rare, and that a look that pays off
// brings them back within the same number of waits.
func TestPollAuto(t *testing.T) {
	p := newPoll(PollAuto)
	if n := looks(&p, 100, true); n != 100 {
		t.Errorf("%d of 100 waits looked while that paid", n)
	}
	if n := looks(&p, 1_000_000, false); n > 1_000_000/maxPollRest+20 {
		t.Errorf("%d of a million waits looked in vain; at most one in %d may", n, maxPollRest)
	}
	if n := looks(&p, 2*maxPollRest, true); n < maxPollRest-1 {
		t.Errorf("only %d of %d waits looked after it had begun to pay again", n, 2*maxPollRest)
	}
}

// TestPollingLoopSleeps checks that a loop that polls answers, and uses no processor once its span
// of silence is over.
func TestPollingLoopSleeps(t *testing.T) {
	d := nullDevice(1 << 20)
	c := Config{Loops: 1, MaxConnections: 4, Poll: 200 * time.Microsecond}
	c.Memory = AmpleMemory(c)
	e := start(t, c, d)
	client := connect(t, e, 0)
	data := make([]byte, 4096)
	for range 1000 {
		if errno := client.call(proto.CmdRead, 0, 0, 4096, data); errno != proto.Success {
			t.Fatal(errno)
		}
	}
	turns := counted(t, e).Turns
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	time.Sleep(500 * time.Millisecond)
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	used := time.Duration(after.Utime.Nano() +
		after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	if more := counted(t, e).Turns - turns; more > 50 {
		t.Errorf("%d turns in half a second of silence", more)
	}
	if used > 250*time.Millisecond {
		t.Errorf("half a second of silence took %v of processor time", used)
	}
}

// TestLookingIsNotSleeping checks that a completion within the span is found by a thread that has
// not slept; without a span it has to sleep.
func TestLookingIsNotSleeping(t *testing.T) {
	for _, span := range []time.Duration{0, 100 * time.Millisecond} {
		awake := 0
		for range 20 {
			if enterOnce(t, span) == 0 {
				awake++
			}
		}
		// A thread may be stopped at any time, by the collector or by a busy machine: for so long
		// that what it would wait for is there already.
		if span == 0 && awake > 10 {
			t.Errorf("%d of 20 waits without a look did not sleep", awake)
		}
		if span > 0 && awake < 10 {
			t.Errorf("only %d of 20 waits with a look did without sleep", awake)
		}
	}
}

// enterOnce waits for a completion that another thread causes after a millisecond, and returns how
// often its own thread slept.
func enterOnce(t *testing.T, span time.Duration) int64 {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := uring.Open(uring.Config{Entries: 4})
	if err != nil {
		t.Fatal(err)
	}
	a, err := uring.NewArena(4096, false)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := uring.Eventfd()
	if err != nil {
		t.Fatal(err)
	}
	k := &systemKernel{ring, newPoll(span)}
	uring.PrepRead(k.SQE(), 7, int32(fd), a.Addr(0), 8, 0)
	if err := k.Enter(0, -1); err != nil {
		t.Fatal(err)
	}
	started, done := make(chan bool), make(chan bool)
	go func() {
		close(started)
		time.Sleep(time.Millisecond)
		uring.Notify(fd)
		close(done)
	}()
	<-started
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &before)
	var out [4]uring.CQE
	n := 0
	for n == 0 {
		if err := k.Enter(1, -1); err != nil {
			t.Fatal(err)
		}
		n = k.Reap(out[:])
	}
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &after)
	if out[0].UserData != 7 || out[0].Res != 8 {
		t.Fatalf("completion %+v", out[0])
	}
	<-done
	_ = ring.Close()
	_ = a.Close()
	_ = unix.Close(fd)
	return after.Nvcsw - before.Nvcsw
}
