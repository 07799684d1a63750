package bench

// Targets: where ringnbd must get to, judged by a report. Invariant: a target is
// met only if every load that it is about was measured and meets it.

import (
	"fmt"
	"slices"
	"strings"
)

// Target is one thing that ringnbd must reach, and what was measured.
type Target struct {
	Name  string `json:"name"`  // the load and the figure
	Wants string `json:"wants"` // the bound
	Got   string `json:"got"`   // each load's figure; why not, if it was not measured
	Met   *bool  `json:"met"`   // nil: not measured, or not to be judged (Got says why)
}

// Verdict is Met in words.
func (t Target) Verdict() string {
	switch {
	case t.Met == nil:
		return "not judged"
	case *t.Met:
		return "met"
	}
	return "missed"
}

// Targets judges the report by the table of targets.
func (r *Report) Targets() []Target {
	var all []Target
	for _, g := range goals {
		all = append(all, g.judge(r))
	}
	return all
}

// goal is one row of the table: a figure of certain loads, and its bound.
type goal struct {
	name, wants string
	about       func(Load) bool
	figure      func(*Report, Load) (figured, bool)
	least, most float64 // the bound; 0: none on that side
	measured    int     // loads that must have a figure; fewer are no verdict, unless one is missed
}

// figured is a load's figure.
type figured struct {
	value   float64
	text    string
	excused bool // missing the bound says nothing about the server
}

// unmeasured is what a target got when no load that it is about was measured.
const unmeasured = "not measured"

func (g goal) meets(x float64) bool { return x >= g.least && (g.most == 0 || x <= g.most) }

func (g goal) judge(r *Report) Target {
	t := Target{Name: g.name, Wants: g.wants, Got: unmeasured}
	var loads []Load
	var figures []figured
	met, missed := 0, 0
	for _, l := range r.loads() {
		if !g.about(l) {
			continue
		}
		f, ok := g.figure(r, l)
		if !ok {
			continue
		}
		loads, figures = append(loads, l), append(figures, f)
		if g.meets(f.value) {
			met++
		} else if !f.excused {
			missed++
		}
	}
	if len(loads) > 0 {
		t.Got = labelled(loads, figures)
	}
	if verdict := met >= g.measured; verdict || missed > 0 {
		verdict = missed == 0
		t.Met = &verdict
	}
	return t
}

// labelled prints the figures, each with what tells its load from the others:
// "0.94 (unix), 0.86 (tcp)".
func labelled(loads []Load, figures []figured) string {
	aspects := []func(Load) string{
		func(l Load) string { return l.Pattern },
		func(l Load) string { return fmt.Sprintf("%d × %d", l.Connections, l.Depth) },
		func(l Load) string { return l.Backend },
		func(l Load) string { return l.Transport },
	}
	aspects = slices.DeleteFunc(aspects, func(aspect func(Load) string) bool {
		return !slices.ContainsFunc(loads, func(l Load) bool { return aspect(l) != aspect(loads[0]) })
	})
	var texts []string
	for i, l := range loads {
		text := figures[i].text
		var names []string
		for _, aspect := range aspects {
			names = append(names, aspect(l))
		}
		if len(names) > 0 {
			text += " (" + strings.Join(names, ", ") + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// goals is the table of targets.
var goals = func() []goal {
	var all []goal
	for _, pattern := range []string{"randread", "randwrite"} {
		all = append(all, diskGoals(pattern)...)
	}
	return append(all, append(costGoals(), crowdGoals()...)...)
}()

// diskGoals are those of 4 KiB requests at depth 32 to a file by O_DIRECT.
func diskGoals(pattern string) []goal {
	name := map[string]string{"randread": "4 KiB random read", "randwrite": "4 KiB random write"}[pattern] + ", depth 32, file O_DIRECT"
	about := func(connections int) func(Load) bool {
		return func(l Load) bool {
			return l.Section == "disk" && l.Pattern == pattern && (connections == 0 || l.Connections == connections)
		}
	}
	return []goal{
		{name: name + ", 4 connections: requests/s", wants: "≥ 0.90 of the raw limit, unless CPU is the bound", about: about(4), figure: ofLimit, least: 0.90, measured: 2},
		{name: name + ", 1 connection: requests/s", wants: "≥ 0.80 of the raw limit, unless CPU is the bound", about: about(1), figure: ofLimit, least: 0.80, measured: 2},
		{name: name + ": requests/s", wants: "≥ 1.5 × the best O_DIRECT peer", about: about(0), figure: ofBest("ringnbd", requestRate, true), least: 1.5, measured: 4},
		{name: name + ": server CPU per request", wants: "≤ 0.5 × the best O_DIRECT peer", about: about(0), figure: ofBest("ringnbd", Sample.ServerCPU, false), most: 0.5, measured: 4},
	}
}

// costGoals are about the price of a request and the time it takes.
func costGoals() []goal {
	null := func(l Load) bool { return l.Section == "null" && l.Depth == usualDepth }
	sequential := func(l Load) bool { return l.Section == "large" && l.BlockSize == large }
	return []goal{
		{name: "null export, 4 KiB read, depth 32: requests per CPU second", wants: "≥ 6 × nbdkit", about: null, figure: ofNbdkit, least: 6, measured: 4},
		{name: "null export, 4 KiB read, 4 × 32: server CPU per request", wants: "≤ 2 µs", figure: serverCPU, most: 2, measured: 2,
			about: func(l Load) bool { return null(l) && l.Connections == 4 }},
		{name: "1 MiB sequential read and write, depth 16: bandwidth", wants: "≥ 0.95 of the raw limit or of the loopback, the lower", about: sequential, figure: ofCarried, least: 0.95, measured: 4},
		{name: "1 MiB sequential read and write, depth 16: server CPU per GiB", wants: "≤ 0.5 × the best O_DIRECT peer", about: sequential, figure: ofBest("ringnbd", Sample.ServerCPU, false), most: 0.5, measured: 4},
		{name: "4 KiB random read, depth 1: p50 added to the raw limit's", wants: "≤ 0.5 × what the best peer adds", figure: addedLatency, most: 0.5, measured: 1,
			about: func(l Load) bool { return l.Section == "depth" && l.Depth == 1 && l.Pattern == "randread" }},
		{name: "4 KiB random read, depth 1, --poll 50: p50", wants: "< that without", figure: polled, most: 0.999, measured: 2,
			about: func(l Load) bool { return l.Section == "poll" }},
		{name: "512 B random write: requests/s", wants: "≥ 1 × the best O_DIRECT peer", figure: ofBest("ringnbd", requestRate, true), least: 1, measured: 2,
			about: func(l Load) bool { return l.Section == "unaligned" }},
		{name: "512 B random write on the page cache: requests/s", wants: "≥ 1 × the best page cache peer", figure: ofBest("ringnbd-cached", requestRate, true), least: 1, measured: 2,
			about: func(l Load) bool { return l.Section == "unaligned" }},
	}
}

// crowdGoals are about many connections and many exports.
func crowdGoals() []goal {
	return []goal{
		{name: "1 to 1,000 connections at a fixed load: server CPU per request", wants: "≤ 1.20 × that of 1", most: 1.20, measured: 2,
			about:  func(l Load) bool { return l.Section == "connections" && l.Connections == crowd },
			figure: grown(Sample.ServerCPU, func(l *Load) { l.Connections = 1 })},
		{name: "1,000 idle connections: memory of each", wants: "≤ 16 KiB", figure: idleMemory, most: 16, measured: 1,
			about: func(l Load) bool { return l.Section == "idle" && l.Idle > 0 }},
		{name: "1,000 exports: start-up", wants: "≤ 1 s", figure: startUp, most: 1, measured: 2,
			about: func(l Load) bool { return l.Section == "exports" && l.Exports > 0 }},
		{name: "1 to 1,000 exports, null: server CPU per request", wants: "no more than with 1 (≤ 1.05)", most: 1.05, measured: 1,
			about:  func(l Load) bool { return l.Section == "exports" && l.Exports > 0 && l.Backend == Null },
			figure: grown(Sample.ServerCPU, func(l *Load) { l.Exports = 0 })},
	}
}

// busyEnough is the share of all cores beyond which CPU time is the bound: the
// kernel's own work for the disk and the network is not in the figures.
const busyEnough = 0.9

// ofLimit is ringnbd's requests per second as a share of the raw limit's. Where
// server and generator together use up the machine's cores, the raw limit, which
// needs neither a server nor a network, cannot be asked for.
func ofLimit(r *Report, l Load) (figured, bool) {
	x, ok := r.ofRaw(l, "ringnbd", requestRate)
	if !ok {
		return figured{}, false
	}
	m := r.result(l, "ringnbd").Median
	busy := (m.ServerCPU() + m.ClientCPU) * m.RequestsPerSecond / 1e6
	f := figured{value: x, text: fmt.Sprintf("%.2f", x)}
	if cores := float64(r.Machine.Cores); busy >= busyEnough*cores {
		f.excused = true
		f.text += fmt.Sprintf(", CPU is the bound: %.1f of %.0f cores", busy, cores)
	}
	return f, true
}

// ofBest is a figure of one of ours as a multiple of the best peer's.
func ofBest(our string, figure func(Sample) float64, more bool) func(*Report, Load) (figured, bool) {
	return func(r *Report, l Load) (figured, bool) {
		x, peer, ok := r.best(l, our, figure, more)
		return figured{value: x, text: fmt.Sprintf("%.2f × %s", x, peer)}, ok
	}
}

// ofNbdkit compares what is done for a second of CPU time.
func ofNbdkit(r *Report, l Load) (figured, bool) {
	ours, peer := r.result(l, "ringnbd"), r.result(l, "nbdkit")
	if ours == nil || peer == nil {
		return figured{}, false
	}
	x, ok := ratio(ours.Samples, peer.Samples, Sample.RequestsPerCPUSecond)
	return figured{value: x, text: fmt.Sprintf("%.1f", x)}, ok
}

func serverCPU(r *Report, l Load) (figured, bool) {
	ours := r.result(l, "ringnbd")
	if ours == nil || len(ours.Samples) == 0 {
		return figured{}, false
	}
	x := ours.Median.ServerCPU()
	return figured{value: x, text: fmt.Sprintf("%.2f µs", x)}, true
}

// ofCarried is ringnbd's bandwidth as a share of the raw limit's or of what the
// machine's loopback carries in one stream, whichever is lower.
func ofCarried(r *Report, l Load) (figured, bool) {
	bandwidth := func(s Sample) float64 { return s.BytesPerSecond }
	x, ok := r.ofRaw(l, "ringnbd", bandwidth)
	if !ok {
		return figured{}, false
	}
	of := "raw"
	if carried := r.Machine.Loopback[l.Transport]; carried > 0 {
		if y := r.result(l, "ringnbd").Median.BytesPerSecond / carried; y > x {
			x, of = y, "loopback"
		}
	}
	return figured{value: x, text: fmt.Sprintf("%.2f of %s", x, of)}, true
}

// addedLatency is what ringnbd adds to the raw limit's median latency, as a
// multiple of what the best peer adds.
func addedLatency(r *Report, l Load) (figured, bool) {
	raw, mine := r.raw(l), r.result(l, "ringnbd")
	if raw == nil || mine == nil {
		return figured{}, false
	}
	var best figured
	found := false
	for _, name := range r.servers(l) {
		if ours(name) {
			continue
		}
		x, ok := addedRatio(mine.Samples, r.result(l, name).Samples, raw.Samples)
		if ok && (!found || x > best.value) {
			mine, peer, limit := mine.Median.P50, r.result(l, name).Median.P50, raw.Median.P50
			best, found = figured{value: x, text: fmt.Sprintf("%.2f × %s: %+.0f and %+.0f µs on %.0f", x, name, mine-limit, peer-limit, limit)}, true
		}
	}
	return best, found
}

// addedRatio is the median over the rounds of what a adds to the median latency of
// raw, divided by what b adds. A round in which b adds nothing has no ratio.
func addedRatio(a, b, raw []Sample) (x float64, ok bool) {
	var v []float64
	for _, limit := range raw {
		for _, s := range a {
			for _, t := range b {
				if s.Round == limit.Round && t.Round == limit.Round && t.P50 > limit.P50 {
					v = append(v, (s.P50-limit.P50)/(t.P50-limit.P50))
				}
			}
		}
	}
	return median(v), len(v) > 0
}

// polled compares ringnbd with and without busy polling, and tells its price.
func polled(r *Report, l Load) (figured, bool) {
	poll, plain := r.result(l, "ringnbd-poll"), r.result(l, "ringnbd")
	if poll == nil || plain == nil {
		return figured{}, false
	}
	x, ok := ratio(poll.Samples, plain.Samples, func(s Sample) float64 { return s.P50 })
	text := fmt.Sprintf("%.2f: %.1f instead of %.1f µs for %.1f instead of %.1f µs of CPU", x,
		poll.Median.P50, plain.Median.P50, poll.Median.ServerCPU(), plain.Median.ServerCPU())
	return figured{value: x, text: text}, ok
}

// grown compares a figure of a load with that of another, which vary makes of it.
func grown(figure func(Sample) float64, vary func(*Load)) func(*Report, Load) (figured, bool) {
	return func(r *Report, l Load) (figured, bool) {
		other := l
		vary(&other)
		many, one := r.result(l, "ringnbd"), r.result(other, "ringnbd")
		if many == nil || one == nil {
			return figured{}, false
		}
		x, ok := ratio(many.Samples, one.Samples, figure)
		return figured{value: x, text: fmt.Sprintf("%.2f: %.2f after %.2f µs", x, figure(many.Median), figure(one.Median))}, ok
	}
}

// idleMemory is in KiB per idle connection.
func idleMemory(r *Report, l Load) (figured, bool) {
	none := l
	none.Idle = 0
	many, one := r.result(l, "ringnbd"), r.result(none, "ringnbd")
	if many == nil || one == nil || len(many.Samples) == 0 || len(one.Samples) == 0 {
		return figured{}, false
	}
	x := float64(many.Median.PeakRSS-one.Median.PeakRSS) / 1024 / float64(l.Idle)
	return figured{value: max(x, 0), text: fmt.Sprintf("%.1f KiB", x)}, true
}

func startUp(r *Report, l Load) (figured, bool) {
	ours := r.result(l, "ringnbd")
	if ours == nil || len(ours.Samples) == 0 {
		return figured{}, false
	}
	x := ours.Median.StartSeconds
	return figured{value: x, text: fmt.Sprintf("%.2f s", x)}, true
}
