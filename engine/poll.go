// Whether a loop that has nothing to do looks for work for a while before it sleeps.
//
// Invariant: with a fixed span every wait begins with a look; else the share of looks that find
// nothing is bounded by 1 in pollRest.

package engine

import "time"

// PollAuto as Config.Poll looks for work only while that finds some: when completions come so fast
// that sleeping and being woken would take longer than waiting for them.
const PollAuto = time.Duration(-1)

const (
	// nanoseconds: about what to sleep and be woken costs in CPU time, so that a look that finds
	// nothing at most doubles it
	pollAutoSpan = int64(8e3)
	// waits, at most, that go by without a look after one that found nothing
	pollRest = 256
)

// poll decides it for one loop.
type poll struct {
	span  int64 // nanoseconds of one look; 0: never
	fixed bool  // a look before every sleep, whatever it brings
	rest  int   // waits to come without a look
	pause int   // what rest will be after the next look that finds nothing; doubles up to pollRest
}

// newPoll is for a Config.Poll.
func newPoll(d time.Duration) poll {
	if d == PollAuto {
		return poll{span: pollAutoSpan, pause: 1}
	}
	return poll{span: d.Nanoseconds(), fixed: true}
}

// due: this wait begins with a look.
func (p *poll) due() bool {
	if p.rest > 0 {
		p.rest--
		return false
	}
	return p.span > 0
}

// paid: a look found something.
func (p *poll) paid() { p.pause = max(p.pause/2, 1) }

// failed: a look found nothing.
func (p *poll) failed() {
	if !p.fixed {
		p.rest, p.pause = p.pause, min(2*p.pause, pollRest)
	}
}
