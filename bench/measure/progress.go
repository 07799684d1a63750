// Progress lines: one for each measurement, with the time that is left.
//
// Invariant: they go to the progress writer only, never into a report.

package measure

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// overhead is what a meeting takes besides warming up and measuring, in seconds: starting, writing
// back, stopping. It is a guess for the beginning; later the pace of the finished meetings counts.
const overhead = 0.4

// progress is how far a run has come.
type progress struct {
	w        io.Writer
	begun    time.Time
	done     int
	all      int
	planned  float64 // seconds, of all meetings
	passed   float64 // seconds, planned for those that are done
	duration func(Load) float64
}

// Estimate is how long a run will take.
func (s *Suite) Estimate() (meetings int, t time.Duration) {
	p := newProgress(nil, s.Rounds, s.meetings(), s.cost)
	return p.all, time.Duration(p.planned * float64(time.Second)).Round(time.Second)
}

// cost is the planned time of a meeting in seconds.
func (s *Suite) cost(l Load) float64 { return s.duration(l) + s.Warmup + overhead }

func newProgress(w io.Writer, rounds int, meetings []meeting,
	duration func(Load) float64) *progress {
	if w == nil {
		w = io.Discard
	}
	p := &progress{w: w, begun: time.Now(), all: rounds * len(meetings), duration: duration}
	for _, m := range meetings {
		p.planned += float64(rounds) * duration(m.load)
	}
	return p
}

// left estimates the time to the end from the pace so far.
func (p *progress) left() time.Duration {
	pace := 1.0
	if p.passed > 0 {
		pace = time.Since(p.begun).Seconds() / p.passed
	}
	return time.Duration((p.planned - p.passed) * pace * float64(time.Second)).Round(time.Second)
}

// met prints the outcome of a meeting.
func (p *progress) met(m meeting, round int, sample Sample, err error) {
	p.done++
	p.passed += p.duration(m.load)
	head := fmt.Sprintf("%*d/%d, %s left  round %d  %-11s %-45s %-15s", len(fmt.Sprint(p.all)),
		p.done, p.all, p.left(), round+1,
		m.load.Section, m.load, m.name())
	if err != nil {
		fmt.Fprintf(p.w, "%s FAILED: %s\n", head, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	fmt.Fprintf(p.w,
		"%s %8.0f req/s  p50 %6.0f µs  p99 %6.0f µs  cpu %5.1f µs  steal %4.1f %%  others %4.1f "+
			"%%\n",
		head, sample.RequestsPerSecond, sample.P50, sample.P99, sample.ServerCPU(),
		100*sample.Steal, 100*sample.Others)
}
