// The result of a run: as a table for people, and as JSON for programs.
//
// Invariant: the table shows nothing that the JSON does not have.

package load

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// Report is the result of a run. Times are in microseconds unless they say otherwise; sizes are in
// bytes.
type Report struct {
	Version     string `json:"version,omitempty"` // of the generator's program, set by it
	Target      string `json:"target"`
	Transport   string `json:"transport"` // unix, tcp or file
	Congestion  string `json:"congestionControl,omitempty"`
	ExportSize  uint64 `json:"exportSize"`
	MultiConn   bool   `json:"multiConn"`
	Direct      *bool  `json:"direct,omitempty"` // of a file: O_DIRECT
	Pattern     string `json:"pattern"`
	ReadPercent *int   `json:"readPercent,omitempty"`
	BlockSizes  string `json:"blockSizes"`
	Connections int    `json:"connections"`
	Depth       int    `json:"depth"`
	Threads     int    `json:"threads"`
	Idle        int    `json:"idle"` // further connections that stayed silent
	// IdleDropped counts idle connections that the server closed, or sent something on.
	IdleDropped int     `json:"idleDropped,omitempty"`
	Offset      uint64  `json:"offset"`
	Size        uint64  `json:"size"`
	Seed        uint64  `json:"seed"`
	Seconds     float64 `json:"seconds"` // measured
	Interrupted bool    `json:"interrupted"`

	Requests uint64 `json:"requests"` // replies without an error after the warm-up
	// RequestsTotal counts all replies, also those while filling and warming up, and errors.
	RequestsTotal     uint64  `json:"requestsTotal"`
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	BytesPerSecond    float64 `json:"bytesPerSecond"`

	Kinds     []kindReport  `json:"kinds"`
	Replay    *replayReport `json:"replay,omitempty"`
	Open      *openReport   `json:"openLoop,omitempty"`
	Verify    *Verified     `json:"verify,omitempty"`
	Generator Generator     `json:"generator"`

	Failures     uint64   `json:"failures"`
	FirstFailure string   `json:"firstFailure,omitempty"`
	Trouble      []string `json:"trouble,omitempty"` // why the exit status is not 0
	Notes        []string `json:"notes,omitempty"`
}

// kindReport is about a kind of request.
type kindReport struct {
	Kind              string            `json:"kind"`
	Requests          uint64            `json:"requests"` // replies after the warm-up
	RequestsPerSecond float64           `json:"requestsPerSecond"`
	BytesPerSecond    float64           `json:"bytesPerSecond"`
	Latency           Latency           `json:"latency"`
	Errors            map[string]uint64 `json:"errors,omitempty"` // by name
}

// Latency is in microseconds.
type Latency struct {
	Min   float64 `json:"min"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	P9999 float64 `json:"p9999"`
	Max   float64 `json:"max"`
}

// openReport is about the schedule of an open loop.
type openReport struct {
	Rate       float64 `json:"rate"` // requests per second that were asked for
	Arrivals   string  `json:"arrivals"`
	MaxBacklog uint64  `json:"backlogMost"` // requests that were due and not started
	// BacklogEnd counts requests that were due and never started, which have no latency.
	BacklogEnd uint64  `json:"backlogEnd"`
	Behind     bool    `json:"behind"` // the target did not keep up: see behind
	Lag        Latency `json:"lag"`    // from due to started
}

// Verified is the result of Options.Verify.
type Verified struct {
	Judged   uint64    `json:"judgedBytes"`
	Found    uint64    `json:"badBlocks"`
	Findings []finding `json:"findings,omitempty"` // about the first bad blocks
}

// Generator is what this program itself used, the kernel's work for it included.
type Generator struct {
	CPUSeconds      float64 `json:"cpuSeconds"`
	CPUPerRequest   float64 `json:"cpuPerRequest"` // microseconds
	RequestsPerTurn float64 `json:"requestsPerTurn"`
	Turns           uint64  `json:"turns"`
	Sends           uint64  `json:"sends"`
	Receives        uint64  `json:"receives"`
}

func newReport(r *run, t *tally, interrupted bool) *Report {
	o, f := r.options, &r.subject
	report := &Report{
		Target: o.Target.Text, Transport: o.Target.Network, Congestion: f.congestion,
		ExportSize: f.Size, MultiConn: r.plan.multiConn,
		Pattern: o.Pattern.Name, BlockSizes: o.Sizes.String(), Connections: o.Connections,
		Depth: o.Depth, Threads: o.Threads,
		Idle: o.Idle, IdleDropped: r.idle.dropped, RequestsTotal: t.answered,
		Offset: o.Offset, Size: r.plan.blocks * r.plan.unit, Seed: o.Seed, Seconds: t.seconds(),
		Interrupted: interrupted,
		Failures:    t.failures, Notes: f.notes,
	}
	if o.Mixed() {
		report.ReadPercent = &o.ReadPercent
	}
	if f.file != nil {
		report.Direct = &f.file.Device.Direct
	}
	var measured, inWindow uint64
	for k := range t.kinds {
		kt := &t.kinds[k]
		if kt.latency.h == nil && !anyError(kt) {
			continue
		}
		report.Kinds = append(report.Kinds,
			newKindReport(requestKind(k), kt, report.Seconds, f.file != nil))
		measured += kt.requests
		inWindow += kt.inWindow
		report.BytesPerSecond += report.Kinds[len(report.Kinds)-1].BytesPerSecond
	}
	report.Requests, report.RequestsPerSecond = measured, per(inWindow, report.Seconds)
	if r.trace != nil {
		report.Replay, report.BlockSizes = o.replayReport(r.trace,
			r.loops[0].traced), r.trace.sizes()
	}
	if r.trace != nil && measured == 0 && o.Warmup > 0 && !interrupted {
		report.Notes = append(report.Notes,
			"the trace was over before the warm-up was: nothing was measured")
	}
	if report.Open = r.openReport(t); report.Open != nil {
		counted := o.Count > 0 && measured+t.failures >= o.Count
		report.Open.Behind = !interrupted && !counted && report.Open.behind(report.Seconds)
	}
	if o.Verify {
		report.Verify = &Verified{Judged: t.judged, Found: t.found, Findings: t.findings}
		if !r.plan.multiConn && o.Connections > 1 {
			report.Notes = append(report.Notes,
				"the server does not offer CAN_MULTI_CONN: each connection verifies what it "+
					"wrote itself")
		}
	}
	report.Generator = Generator{CPUSeconds: r.cpu.Seconds(), Turns: t.turns, Sends: t.sends,
		Receives: t.receives}
	if measured > 0 {
		report.Generator.CPUPerRequest = r.cpu.Seconds() * 1e6 / float64(measured)
		report.Generator.RequestsPerTurn = float64(measured) / float64(max(t.turns, 1))
	}
	if t.first.there {
		report.FirstFailure = t.first.text(f.file != nil)
	}
	return report
}

// openReport returns the part of a report that only loads with a schedule have, or nil.
func (r *run) openReport(t *tally) *openReport {
	o := r.options
	open := &openReport{Rate: o.Rate, Arrivals: "constant", MaxBacklog: t.maxBacklog,
		BacklogEnd: t.backlog, Lag: latencyOf(t.lag)}
	switch {
	case o.Replay.Timed:
		open.Arrivals = "recorded"
		open.Rate = per(uint64(r.trace.n), o.Replay.lasts(r.trace).Seconds())
	case o.Rate == 0:
		return nil
	case o.Poisson:
		open.Arrivals = "poisson"
	}
	return open
}

// behind reports whether the backlog at the end of a run shows that the target did not keep up: it
// is more than a hundredth of the run's schedule, limited to at least a tenth of a second, which
// any stall near the end leaves, and at most a second. A run that was ended early, or by a count,
// does not end with its schedule and is not judged.
func (o *openReport) behind(seconds float64) bool {
	return o.Rate > 0 && float64(o.BacklogEnd)/o.Rate > min(max(seconds/100, 0.1), 1)
}

func anyError(k *kindTally) bool {
	for _, n := range k.errors {
		if n > 0 {
			return true
		}
	}
	return false
}

func newKindReport(kind requestKind, t *kindTally, seconds float64, file bool) kindReport {
	k := kindReport{Kind: kind.String(), Requests: t.requests,
		RequestsPerSecond: per(t.inWindow, seconds), BytesPerSecond: per(t.bytes, seconds),
		Latency: latencyOf(t.latency)}
	for e, n := range t.errors {
		if n > 0 {
			if k.Errors == nil {
				k.Errors = map[string]uint64{}
			}
			k.Errors[errnoName(uint32(e), file)] += n
		}
	}
	return k
}

func per(n uint64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds
}

func latencyOf(h histogram) Latency {
	if h.h == nil || h.h.TotalCount() == 0 {
		return Latency{}
	}
	us := func(ns int64) float64 { return float64(ns) / 1e3 }
	at := func(p float64) float64 { return us(h.h.ValueAtPercentile(p)) }
	return Latency{Min: us(h.h.Min()), Mean: h.h.Mean() / 1e3, P50: at(50), P90: at(90),
		P99: at(99), P999: at(99.9), P9999: at(99.99), Max: us(h.h.Max())}
}

// text names a failed request.
func (f *failure) text(file bool) string {
	name := f.kind.String()
	if f.kind == kindZero {
		name = "WRITE_ZEROES"
	}
	text := errnoName(f.errno, file) + " for a " + name
	if f.kind != kindFlush {
		text += " of " + strconv.FormatUint(uint64(f.length), 10) + " bytes at offset " +
			strconv.FormatUint(f.offset, 10)
	}
	return text + " on connection " + strconv.Itoa(f.connection)
}

// errnoName returns the protocol's name of an error, or Linux's.
func errnoName(e uint32, file bool) string {
	if name := proto.Errno(e).String(); !file && name != "unknown error" {
		return name
	}
	if name := unix.ErrnoName(syscall.Errno(e)); name != "" {
		return name
	}
	return "errno " + strconv.FormatUint(uint64(e), 10)
}
