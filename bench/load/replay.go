// Replay: a trace's requests instead of drawn ones.
//
// Invariant: requests start in the order of the trace, whatever connection they go to: a request
// that has to wait holds back all requests after it. So there is one loop.

package load

import (
	"errors"
	"fmt"
	"math"
	"time"

	"ringnbd/engine/units"
	"ringnbd/proto"
)

// Replay is the trace that is replayed instead of a pattern.
type Replay struct {
	Path string // of the trace; "": there is none
	File string // the file in the trace whose requests count; "": the only file
	// Timed requests are due when they were started in the recording, else when a slot is free.
	Timed bool
	Speed float64 // with Timed: how much faster than the recording
}

// maxSpeed limits Replay.Speed in both directions.
const maxSpeed = 1e6

// checkReplay checks the other options together with a replay.
func (o *Options) checkReplay() error {
	r := &o.Replay
	switch {
	case o.Threads > 1:
		return o.errorf("{threads} %d with {replay}: a trace has one order, which one thread "+
			"keeps", o.Threads)
	case o.Rate > 0:
		return o.errorf("{rate} with {replay}: the times are in the trace ({replay-timing} " +
			"recorded, and {replay-speed})")
	case o.FlushEvery > 0 || o.ZeroPercent > 0:
		return o.errorf("{flush-every} and {zero-percent} with {replay}: the requests are in " +
			"the trace")
	case !(r.Speed >= 1/maxSpeed && r.Speed <= maxSpeed):
		return o.errorf("{replay-speed} %v: must be from %v to %v", r.Speed, 1/maxSpeed,
			maxSpeed)
	case !r.Timed && r.Speed != 1:
		return o.errorf("{replay-speed} needs {replay-timing} recorded; without it, " +
			"requests do not wait for their times anyway")
	}
	return nil
}

// open reports whether requests are due at certain times, in the queueing sense of an open loop.
func (o *Options) open() bool { return o.Rate > 0 || o.Replay.Timed }

// adopt makes the options those of a trace.
func (o *Options) adopt(t *trace) error {
	o.Pattern = Pattern{Name: "replay", Does: t.does}
	o.Sizes = Mix{Sizes: []uint64{max(uint64(t.largest), t.unit)}, Shares: []uint32{1}, total: 1}
	refuse := func(text string) error { return o.errorf("%s: "+text, t.path) }
	switch {
	case o.Fill && !o.does(kindRead) && !o.does(kindWrite) && !o.does(kindZero):
		return refuse("{fill} with nothing in the trace that data would matter to")
	case o.FUA && !o.changes():
		return refuse("{fua} with a trace that writes nothing")
	case (o.NoHole || o.FastZero) && !o.does(kindZero):
		return refuse("{no-hole} and {fast-zero} with a trace that has no write_zeroes")
	case !o.Verify:
		return nil
	case !o.does(kindRead):
		return refuse("{verify} with a trace that reads nothing")
	case !o.does(kindWrite) && !o.does(kindZero) && !o.Fill:
		return refuse("{verify} with a trace that writes nothing: add {fill}, since only what " +
			"this run has written can be judged")
	case t.unit%sector != 0:
		return t.lineError(t.misaligned(sector),
			o.spelled("{verify} needs offsets and lengths that are multiples of %d bytes, for "+
				"each sector is stamped"), sector)
	}
	return nil
}

// fitTrace checks the trace against the target, and names the line that does not fit.
func (p *plan) fitTrace() error {
	o, f, t := p.options, p.subject, p.trace
	needs := func(kind requestKind, flag uint16, what string) error {
		if t.does[kind] && f.Flags&flag == 0 {
			return t.lineError(t.first[kind], "the export does not offer %s", what)
		}
		return nil
	}
	for _, kind := range []requestKind{kindWrite, kindTrim, kindZero} {
		if t.does[kind] && f.Flags&proto.FlagReadOnly != 0 {
			return t.lineError(t.first[kind], "the export is read-only")
		}
	}
	if err := errors.Join(needs(kindTrim, proto.FlagSendTrim, "TRIM"),
		needs(kindFlush, proto.FlagSendFlush, "FLUSH"),
		needs(kindZero, proto.FlagSendWriteZeroes, "WRITE_ZEROES")); err != nil {
		return err
	}
	if err := p.fitTraceWindow(); err != nil {
		return err
	}
	if block := uint64(f.MinBlock); block > 1 && p.unit%block != 0 && t.end > 0 {
		return t.lineError(t.misaligned(block), "the export takes only multiples of %d bytes",
			block)
	}
	if limit := f.maxPayload(); uint64(t.largest) > limit {
		return t.lineError(t.widest, "%d bytes: the server takes at most %s in one request",
			t.largest, units.Exact(limit))
	}
	if o.Verify && !p.multiConn && o.Connections > 1 {
		return o.errorf("{verify} with {replay} on several connections: the server does not " +
			"promise that they see each other's writes (CAN_MULTI_CONN); use {connections} 1")
	}
	return nil
}

// fitTraceWindow checks that the requests stay inside the export.
func (p *plan) fitTraceWindow() error {
	o, size, t := p.options, p.subject.Size, p.trace
	switch {
	case o.Size > 0 && t.end > o.Size:
		return t.lineError(t.farthest, o.spelled("ends at %d, beyond {size} %d"), t.end, o.Size)
	case t.end > 0 && (o.Offset > size || t.end > size-o.Offset):
		at := ""
		if o.Offset > 0 {
			at = fmt.Sprintf(o.spelled(" after {offset} %d"), o.Offset)
		}
		return t.lineError(t.farthest,
			"ends at %d%s, beyond the end of the export, which has %d bytes: it takes a larger "+
				"one (a sparse image will do)", t.end, at, size)
	}
	p.blocks = t.end / p.unit
	return nil
}

// startTraced starts the requests that may start, each on the next connection that has a slot.
func (l *loop) startTraced() {
	for l.quota > 0 && l.traced < l.plan.trace.n {
		c := l.offer()
		if c == none || !l.startRecorded(c, l.issued) {
			return
		}
		l.touch(c)
	}
}

// startRecorded starts the trace's next request on a connection that is ready, and reports whether
// it did: the request may have to wait. Where recorded times do not say when a FLUSH is due, it
// waits for all requests before it, because it covers only what has been answered.
func (l *loop) startRecorded(c uint32, at int64) bool {
	t := l.plan.trace
	e := t.at(l.traced)
	offset := l.plan.base + e.offset
	if e.kind == kindFlush {
		if !l.open && l.inflight > 0 {
			return false
		}
		offset = 0
	} else if !l.take(e.kind, offset, uint64(e.length)) {
		return false
	}
	l.traced++
	l.launch(c, e.kind, offset, uint64(e.length), at, false)
	return true
}

// offer returns the next connection in turn that is ready, or none.
func (l *loop) offer() uint32 {
	for range l.conns {
		c := l.rotor
		l.rotor++
		if l.rotor == uint32(len(l.conns)) {
			l.rotor = 0
		}
		if l.ready(c) {
			return c
		}
	}
	return none
}

// replayed reports whether all requests of the trace were started.
func (l *loop) replayed() bool { return l.plan.trace != nil && l.traced == l.plan.trace.n }

// newReplaySchedule returns a schedule with the times of a trace, from origin on.
func newReplaySchedule(origin int64, t *trace, speed float64) schedule {
	return schedule{origin: origin, trace: t, speed: speed}
}

// recorded returns when the next request is due: after the last request, never.
func (s *schedule) recorded() int64 {
	if s.n >= uint64(s.trace.n) {
		return math.MaxInt64
	}
	at := s.trace.at(int(s.n)).at
	if s.speed == 1 {
		return s.origin + at
	}
	return s.origin + int64(min(float64(at)/s.speed, math.MaxInt64/4))
}

// lasts returns how long the trace takes to be replayed; 0 if that depends on the target.
func (r *Replay) lasts(t *trace) time.Duration {
	if t == nil || !r.Timed {
		return 0
	}
	return time.Duration(min(float64(t.lasts())/r.Speed, math.MaxInt64/4))
}

// replayReport is about the trace of a replay.
type replayReport struct {
	Path     string  `json:"path"`
	File     string  `json:"file"` // in the trace
	Requests int     `json:"requests"`
	Started  int     `json:"started"`
	Timing   string  `json:"timing"` // fast or recorded
	Speed    float64 `json:"speed,omitempty"`
	Seconds  float64 `json:"seconds"` // that the recording lasted
}

func (o *Options) replayReport(t *trace, started int) *replayReport {
	r := &replayReport{Path: t.path, File: t.name, Requests: t.n, Started: started, Timing: "fast",
		Seconds: t.lasts().Seconds()}
	if o.Replay.Timed {
		r.Timing, r.Speed = "recorded", o.Replay.Speed
	}
	return r
}

// text returns the line of the table about the replay.
func (r *replayReport) text() string {
	text := fmt.Sprintf("replay: %s of %s requests, recorded on %s", units.Count(r.Started),
		units.Count(r.Requests), r.File)
	if r.Seconds > 0 {
		text += " in " + microseconds(r.Seconds*1e6)
	}
	if r.Timing == "recorded" {
		return text + fmt.Sprintf(", replayed at its times, %v times as fast", r.Speed)
	}
	return text + ", replayed as fast as they were answered"
}
