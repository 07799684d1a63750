// Polling: whether a loop that has nothing to do looks for work for a while before it sleeps.
//
// Invariant: with a fixed span every wait begins with a look; else at most one wait in maxPollRest
// begins with a look that finds nothing, in the long run.

package engine

import "time"

// PollAuto as Config.Poll looks for work only while that finds some: when completions come so fast
// that sleeping and being woken would take longer than waiting for them.
const PollAuto = time.Duration(-1)

const (
	// pollAutoNanos is about what to sleep and be woken costs in CPU time, so that a look that
	// finds nothing at most doubles it.
	pollAutoNanos = int64(8e3)
	// maxPollRest is how many waits begin without a look after a look that found nothing.
	maxPollRest = 256
)

// poll decides for one loop.
type poll struct {
	span  int64 // nanoseconds of one look; 0: never
	fixed bool  // a look before every sleep, whatever it brings
	rest  int   // waits to come without a look
	// what rest will be after the next look that finds nothing; doubles up to maxPollRest
	pause int
}

// newPoll makes the poll of a Config.Poll.
func newPoll(d time.Duration) poll {
	if d == PollAuto {
		return poll{span: pollAutoNanos, pause: 1}
	}
	return poll{span: d.Nanoseconds(), fixed: true}
}

// due reports whether this wait begins with a look, and counts it.
func (p *poll) due() bool {
	if p.rest > 0 {
		p.rest--
		return false
	}
	return p.span > 0
}

// paid counts a look that found something.
func (p *poll) paid() { p.pause = max(p.pause/2, 1) }

// failed counts a look that found nothing.
func (p *poll) failed() {
	if !p.fixed {
		p.rest, p.pause = p.pause, min(2*p.pause, maxPollRest)
	}
}
