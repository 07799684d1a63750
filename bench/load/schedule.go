// The open loop's schedule: when requests are due, whatever the server does.
//
// Invariant: the times depend only on the rate, the kind of arrivals and the seed, or on a trace.
// Two schedules made alike step through the same times; the loop keeps a schedule for what it
// starts and a schedule for what is due, and their distance is the backlog.

package load

import "math"

// schedule steps through times in nanoseconds of the loop's clock.
type schedule struct {
	origin   int64
	interval float64 // nanoseconds, mean
	// at is the next arrival, in nanoseconds after origin: exact to 1 ns for 104 days.
	at      float64
	random  random
	poisson bool
	n       uint64 // arrivals stepped over

	trace *trace // the source of the times, if they are recorded
	speed float64
}

// newSchedule begins at origin. phase, in intervals, sets the schedules of several loops apart, so
// that even arrivals stay even together.
func newSchedule(origin int64, rate float64, poisson bool, seed uint64, phase float64) schedule {
	s := schedule{origin: origin, interval: 1e9 / rate, random: random(seed), poisson: poisson}
	if poisson {
		s.at = s.gap()
	} else {
		s.at = s.interval * phase
	}
	return s
}

func (s *schedule) gap() float64 {
	if s.poisson {
		return -math.Log(s.random.unit()) * s.interval
	}
	return s.interval
}

// next returns when the next request is due.
func (s *schedule) next() int64 {
	if s.trace != nil {
		return s.recorded()
	}
	return s.origin + int64(s.at)
}

// step goes on to the arrival after it.
func (s *schedule) step() {
	s.n++
	if s.trace == nil {
		s.at += s.gap()
	}
}

// advance steps over everything due up to now, and not beyond end.
func (s *schedule) advance(now, end int64) {
	for now = min(now, end); s.next() <= now; {
		s.step()
	}
}
