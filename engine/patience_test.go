// Time in which the process did not run counts against no client.

package engine

import (
	"testing"
	"time"

	"ringnbd/engine/uring"
)

// clockKernel is a kernel with nothing but a clock.
type clockKernel struct {
	Kernel
	now int64
}

func (k *clockKernel) Now() int64      { return k.now }
func (k *clockKernel) SQE() *uring.SQE { return nil }

func TestAJumpOfTheClockIsForgiven(t *testing.T) {
	k := &clockKernel{now: 1e9}
	l := &loop{kernel: k, clock: clock{now: 1e9}}
	for _, step := range []struct {
		passed, told time.Duration
		bounded      bool
	}{
		{50 * time.Millisecond, 50 * time.Millisecond, true},
		{tickInterval, tickInterval, true},
		{5 * time.Second, tickInterval, true}, // stopped
		{tickInterval, tickInterval, true},    // and on as before
		{time.Hour, time.Hour, false},         // idle: it was to sleep as long as that
		{time.Hour, tickInterval, true},
	} {
		before := l.now
		k.now += int64(step.passed)
		l.tellTime(step.bounded)
		if told := time.Duration(l.now - before); told != step.told {
			t.Errorf("after %v (bounded: %v) the loop's clock went on by %v, want %v", step.passed,
				step.bounded, told, step.told)
		}
	}
	if l.counters.Paused != 2 {
		t.Errorf("%d pauses were counted", l.counters.Paused)
	}
}

func TestPatienceEnds(t *testing.T) {
	begun := time.Now()
	late, stop := Patience(250 * time.Millisecond)
	<-late
	if took := time.Since(begun); took < 240*time.Millisecond {
		t.Errorf("a deadline of 250 ms came after %v", took)
	}
	stop()
	_, stop = Patience(time.Hour)
	stop()
}
