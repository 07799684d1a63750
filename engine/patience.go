// Patience: a client may seem late because this process did not run. The process is stopped (a
// debugger, a frozen cgroup), its machine is paused, or too busy to run it: when it goes on, every
// clock has jumped, and clients that did all they could seem to have stood still.
//
// Invariant: time in which the process did not run counts against no client: a loop that wanted to
// look every tickInterval counts no more than that for each look, and a deadline of the control
// plane is made of short sleeps, each of which counts for its nominal length.

package engine

import "time"

// minPauseNanos is the wait from which on a loop that wanted to look after tickInterval knows that
// it did not run.
const minPauseNanos = 2 * int64(tickInterval)

// clock is a loop's time, in nanoseconds.
type clock struct {
	now    int64 // the kernel's clock, without
	missed int64 // what it jumped by while the loop did not run
	tickAt int64 // the next tick
}

// tellTime sets the loop's clock. bounded says that the wait that has just ended was to be
// tickInterval at most. A wait without a bound counts in full: nothing was being timed then.
func (l *loop) tellTime(bounded bool) {
	now := l.kernel.Now() - l.missed
	if gap := now - l.now; bounded && gap > minPauseNanos {
		l.missed += gap - int64(tickInterval)
		now = l.now + int64(tickInterval)
		l.counters.Paused++
	}
	l.now = now
}

// Patience is a deadline of d that does not run while the process does not. stop ends it early.
func Patience(d time.Duration) (late <-chan struct{}, stop func()) {
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		for left := d; left > 0; left -= tickInterval {
			select {
			case <-time.After(min(left, tickInterval)):
			case <-stopped:
				return
			}
		}
		close(over)
	}()
	return over, func() { close(stopped) }
}
