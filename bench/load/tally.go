// What a loop counts. Every loop has a tally of its own; they are merged when all have ended.
//
// Invariant: counting does not allocate: the histograms and the lists have their full size from the
// beginning.

package load

import (
	"math"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	maxLatency    = int64(1000e9) // nanoseconds; anything slower is recorded as this
	latencyDigits = 3
	maxFindings   = 16
	errnos        = 256
)

// histogram counts latencies. A latency above its range counts as the range's end.
type histogram struct{ h *hdrhistogram.Histogram }

func newHistogram() histogram { return histogram{hdrhistogram.New(1, maxLatency, latencyDigits)} }

func (h histogram) record(ns int64) {
	_ = h.h.RecordValue(min(max(ns, 0), maxLatency)) // in range by the clamp
}

// kindTally is about a kind of request.
type kindTally struct {
	requests uint64 // replies that were measured
	inWindow uint64 // replies before the measuring time was over, from which the rate follows
	bytes    uint64 // of the replies in the window
	errors   [errnos]uint64
	latency  histogram
}

// failure is the first request that failed.
type failure struct {
	there      bool
	kind       requestKind
	errno      uint32
	offset     uint64
	length     uint32
	connection int
}

type tally struct {
	// The measuring time. With startAt 0 it never began; with endAt MaxInt64 it ends with the last
	// reply.
	startAt, endAt int64
	lastAt         int64 // the last reply that was measured
	kinds          [kinds]kindTally
	done, bytes    uint64 // so far, for the progress line
	first          failure
	failures       uint64
	lost           uint64 // in flight on connections that died
	answered       uint64 // replies to anything at all

	backlog, maxBacklog uint64
	lag                 histogram // open loop: how long requests waited to be started

	judged   uint64 // bytes
	found    uint64
	findings []finding

	turns, sends, receives uint64
}

func newTally(o *Options) tally {
	t := tally{endAt: math.MaxInt64, findings: make([]finding, 0, maxFindings)}
	for k := range t.kinds {
		if o.does(requestKind(k)) {
			t.kinds[k].latency = newHistogram()
		}
	}
	if o.open() {
		t.lag = newHistogram()
	}
	return t
}

// count measures a reply.
func (t *tally) count(s *slot, now int64) {
	k := &t.kinds[s.kind]
	k.requests++
	k.latency.record(now - s.start)
	t.lastAt = now
	if now <= t.endAt {
		k.inWindow++
		k.bytes += uint64(s.length)
		t.done++
		t.bytes += uint64(s.length)
	}
}

// failed counts an error reply. It has no latency: how fast a server refuses is another question.
func (t *tally) failed(s *slot, errno uint32, connection int) {
	t.kinds[s.kind].errors[min(errno, errnos-1)]++
	t.failures++
	if !t.first.there {
		t.first = failure{true, s.kind, errno, s.offset, s.length, connection}
	}
}

func (t *tally) find(f finding) {
	t.found++
	if len(t.findings) < cap(t.findings) {
		t.findings = append(t.findings, f)
	}
}

// add merges the tally of another loop.
func (t *tally) add(o *tally) {
	for k := range t.kinds {
		a, b := &t.kinds[k], &o.kinds[k]
		a.requests += b.requests
		a.inWindow += b.inWindow
		a.bytes += b.bytes
		for e := range a.errors {
			a.errors[e] += b.errors[e]
		}
		if a.latency.h != nil {
			a.latency.h.Merge(b.latency.h)
		}
	}
	if t.lag.h != nil {
		t.lag.h.Merge(o.lag.h)
	}
	t.mergeTimes(o)
	if !t.first.there {
		t.first = o.first
	}
	t.failures += o.failures
	t.lost += o.lost
	t.answered += o.answered
	t.backlog += o.backlog
	t.maxBacklog += o.maxBacklog
	t.judged += o.judged
	t.found += o.found
	for _, f := range o.findings {
		if len(t.findings) < cap(t.findings) {
			t.findings = append(t.findings, f)
		}
	}
	t.turns += o.turns
	t.sends += o.sends
	t.receives += o.receives
}

func (t *tally) mergeTimes(o *tally) {
	if t.startAt == 0 {
		t.startAt = o.startAt
	}
	t.lastAt = max(t.lastAt, o.lastAt)
	if t.endAt == math.MaxInt64 || o.endAt != math.MaxInt64 && o.endAt > t.endAt {
		t.endAt = o.endAt
	}
}

// seconds returns the measuring time.
func (t *tally) seconds() float64 {
	end := t.endAt
	if end == math.MaxInt64 {
		end = t.lastAt
	}
	if t.startAt == 0 || end <= t.startAt {
		return 0
	}
	return float64(end-t.startAt) / 1e9
}
