// Targets: the bounds that ringnbd must reach, judged by a report.
//
// Invariant: a target is met only if every load that it is about was measured in two rounds at
// least and meets it in all of them; the figures are in targets_figures.go.

package judge

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"ringnbd/bench/measure"
)

// Target is a bound that ringnbd must reach, and what was measured.
type Target struct {
	Name  string `json:"name"`  // the load and the figure
	Wants string `json:"wants"` // the bound
	// each load's figure, with its range over the rounds where that holds the bound; why not, if it
	// was not measured
	Got string `json:"got"`
	// by the medians; nil: not measured, or not to be judged (Got says why)
	Met *bool `json:"met"`
	// some rounds meet the bound and others do not, so neither met nor missed
	Close bool `json:"close"`
}

// The verdicts.
const (
	Met       = "met"
	Close     = "close"
	Missed    = "missed"
	NotJudged = "not judged"
)

// Verdict is the outcome in words.
func (t Target) Verdict() string {
	switch {
	case t.Met == nil:
		return NotJudged
	case t.Close:
		return Close
	case *t.Met:
		return Met
	}
	return Missed
}

// Targets judges the report by the table of targets.
func Targets(r *measure.Report) []Target {
	var all []Target
	for _, g := range goals {
		all = append(all, g.judge(r))
	}
	return all
}

// goal is one row of the table: a figure of certain loads, and its bound.
type goal struct {
	name, wants     string
	about           func(measure.Load) bool
	figure          func(*measure.Report, measure.Load) (figured, bool)
	atLeast, atMost float64 // the bound; 0: none on that side
	// loads that must have a figure; with fewer there is no verdict, unless a bound is missed
	measured int
}

// figured is a load's figure.
type figured struct {
	rounds  []float64 // each round's; their median counts
	format  string    // of the number
	rest    string    // what is printed after it
	excused bool      // missing the bound says nothing about the server
}

// Enough is how many rounds a verdict needs: a single round does not show how figures vary.
const Enough = 2

// onlyOnce is said of figures of fewer rounds than enough.
const onlyOnce = ", one round only"

// Unmeasured is what Got says when no load that it is about was measured.
const Unmeasured = "not measured"

func (g goal) meets(x float64) bool { return x >= g.atLeast && (g.atMost == 0 || x <= g.atMost) }

// undecided reports whether some rounds meet the bound and others do not. Where missing the bound
// is excused, a round that misses it does not count.
func (g goal) undecided(f figured) bool {
	return len(f.rounds) >= Enough &&
		g.meets(slices.Min(f.rounds)) != g.meets(slices.Max(f.rounds)) && !f.excused
}

// text prints a figure; where the bound is among the rounds' figures, with their range.
func (g goal) text(f figured) string {
	number := func(x float64) string {
		if math.IsInf(x, 1) {
			return "∞"
		}
		return fmt.Sprintf(f.format, x)
	}
	s := number(measure.Median(f.rounds))
	if g.undecided(f) {
		s += " [" + number(slices.Min(f.rounds)) + ".." + number(slices.Max(f.rounds)) + "]"
	}
	return s + f.rest
}

func (g goal) judge(r *measure.Report) Target {
	t := Target{Name: g.name, Wants: g.wants, Got: Unmeasured}
	var loads []measure.Load
	var texts []string
	met, missed, undecided, missing := 0, 0, 0, 0
	var few []int // figures of too few rounds
	for _, l := range r.Loads() {
		if !g.about(l) {
			continue
		}
		f, ok := g.figure(r, l)
		if !ok || len(f.rounds) == 0 {
			continue
		}
		loads, texts = append(loads, l), append(texts, g.text(f))
		meets := g.meets(measure.Median(f.rounds))
		switch {
		case len(f.rounds) < Enough:
			few = append(few, len(texts)-1)
		case g.undecided(f):
			undecided++
			if !meets {
				missing++
			}
		case meets:
			met++
		case !f.excused:
			missed++
		}
	}
	if len(few) < len(texts) {
		for _, i := range few {
			texts[i] += onlyOnce
		}
	}
	if len(texts) > 0 {
		t.Got = labelled(loads, texts)
	}
	if len(few) > 0 && len(few) == len(texts) {
		t.Got += onlyOnce
	}
	if met+undecided >= g.measured || missed > 0 {
		medians := missed+missing == 0
		t.Met, t.Close = &medians, missed == 0 && undecided > 0
	}
	return t
}

// labelled prints the figures, each with what distinguishes its load: "0.94 (unix), 0.86 (tcp)".
func labelled(loads []measure.Load, figures []string) string {
	aspects := []func(measure.Load) string{
		func(l measure.Load) string { return l.Pattern },
		func(l measure.Load) string { return fmt.Sprintf("%d × %d", l.Connections, l.Depth) },
		func(l measure.Load) string { return l.Backend },
		func(l measure.Load) string { return l.Transport },
	}
	aspects = slices.DeleteFunc(aspects, func(aspect func(measure.Load) string) bool {
		return !slices.ContainsFunc(loads, func(l measure.Load) bool {
			return aspect(l) != aspect(loads[0])
		})
	})
	var texts []string
	for i, l := range loads {
		text := figures[i]
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
	return slices.Concat(all, costGoals(), overlayGoals(), crowdGoals())
}()

// diskGoals are those of 4 KiB requests at depth 32 to a file by O_DIRECT.
func diskGoals(pattern string) []goal {
	name := map[string]string{"randread": "4 KiB random read",
		"randwrite": "4 KiB random write"}[pattern] + ", depth 32, file O_DIRECT"
	about := func(connections int) func(measure.Load) bool {
		return func(l measure.Load) bool {
			return l.Section == "disk" && l.Pattern == pattern &&
				(connections == 0 || l.Connections == connections)
		}
	}
	return []goal{
		{name: name + ", 4 connections: requests/s",
			wants: "≥ 0.90 of the raw limit, unless CPU is the bound", about: about(4),
			figure: ofLimit, atLeast: 0.90, measured: 2},
		{name: name + ", 1 connection: requests/s",
			wants: "≥ 0.80 of the raw limit, unless CPU is the bound", about: about(1),
			figure: ofLimit, atLeast: 0.80, measured: 2},
		{name: name + ": requests/s", wants: "≥ 1.5 × the best O_DIRECT peer", about: about(0),
			figure: ofFastest, atLeast: 1.5, measured: 4},
		{name: name + ": server CPU per request", wants: "≤ 0.5 × the cheapest of all peers",
			about: about(0), figure: ofCheapest, atMost: 0.5, measured: 4},
	}
}

// costGoals are about the price of a request and the time it takes.
func costGoals() []goal {
	null := func(l measure.Load) bool {
		return l.Section == "null" && l.Depth == measure.UsualDepth
	}
	sequential := func(l measure.Load) bool {
		return l.Section == "large" && l.BlockSize == measure.LargeBlock
	}
	return []goal{
		{name: "null export, 4 KiB read, depth 32: requests per CPU second", wants: "≥ 6 × nbdkit",
			about: null, figure: ofNbdkit, atLeast: 6, measured: 4},
		{name: "null export, 4 KiB read, 4 × 32: server CPU per request", wants: "≤ 2 µs",
			figure: plain(measure.Sample.ServerCPU, " µs"), atMost: 2, measured: 2,
			about: func(l measure.Load) bool { return null(l) && l.Connections == 4 }},
		{name: "1 MiB sequential read and write, depth 16: bandwidth",
			wants: "≥ 0.95 of the raw limit or of the loopback, the lower", about: sequential,
			figure: ofCarried, atLeast: 0.95, measured: 4},
		{name: "1 MiB sequential read and write, depth 16: server CPU per GiB",
			wants: "≤ 0.5 × the cheapest of all peers", about: sequential, figure: ofCheapest,
			atMost: 0.5, measured: 4},
		{name: "4 KiB random read, depth 1: p50 added to the raw limit's",
			wants:  "≤ 0.5 × what the best peer adds",
			figure: addedLatency, atMost: 0.5, measured: 1,
			about: func(l measure.Load) bool {
				return l.Section == "depth" && l.Depth == 1 && l.Pattern == "randread"
			}},
		{name: "4 KiB random read, depth 1, --poll 50: p50", wants: "< that without",
			figure: polled, atMost: 0.999, measured: 2,
			about: func(l measure.Load) bool { return l.Section == "poll" }},
		{name: "512 B random write: requests/s", wants: "≥ 1 × the best O_DIRECT peer",
			figure: ofBest("ringnbd", measure.RequestRate, true), atLeast: 1, measured: 2,
			about: func(l measure.Load) bool { return l.Section == "unaligned" }},
		{name: "512 B random write by O_DIRECT: requests/s",
			wants:  "≥ 1 × the best of all peers, page cache or not",
			figure: ofAll, atLeast: 1, measured: 2,
			about: func(l measure.Load) bool { return l.Section == "unaligned" }},
		{name: "512 B random write on the page cache: requests/s",
			wants:  "≥ 1 × the best page cache peer",
			figure: ofBest("ringnbd-cached", measure.RequestRate, true), atLeast: 1, measured: 2,
			about: func(l measure.Load) bool { return l.Section == "unaligned" }},
	}
}

// overlayGoals are about an overlay, beside a qcow2 image with a backing file.
func overlayGoals() []goal {
	about := func(l measure.Load) bool { return l.Section == "overlay" && l.Layered() }
	return []goal{
		{name: "overlay, 4 KiB, 4 × 32: CPU that it adds to a request on the file",
			wants: "less than qemu-nbd's qcow2 adds", about: about, figure: addedCost,
			atMost: 0.999, measured: 4},
		{name: "overlay, 4 KiB, 4 × 32: server CPU per request",
			wants: "less than the cheapest of all peers' qcow2", about: about, figure: ofCheapest,
			atMost: 0.999, measured: 4},
		{name: "overlay, 4 KiB, 4 × 32: requests/s", wants: "≥ 1 × the best O_DIRECT peer's qcow2",
			about: about, figure: ofBest("ringnbd", measure.RequestRate, true), atLeast: 1,
			measured: 4},
	}
}

// crowdGoals are about many connections and many exports.
func crowdGoals() []goal {
	return []goal{
		{name: "1 to 1,000 connections at a fixed load: server CPU per request",
			wants: "≤ 1.20 × that of 1", atMost: 1.20, measured: 2,
			about: func(l measure.Load) bool {
				return l.Section == "connections" && l.Connections == measure.Crowd
			},
			figure: grown(measure.Sample.ServerCPU, func(l *measure.Load) { l.Connections = 1 })},
		{name: "1,000 idle connections: memory of each", wants: "≤ 16 KiB", figure: idleMemory,
			atMost: 16, measured: 1,
			about: func(l measure.Load) bool { return l.Section == "idle" && l.Idle > 0 }},
		{name: "1,000 exports: start-up", wants: "≤ 1 s",
			figure: plain(func(s measure.Sample) float64 { return s.StartSeconds }, " s"),
			atMost: 1, measured: 2,
			about: func(l measure.Load) bool { return l.Section == "exports" && l.Exports > 0 }},
		{name: "1 to 1,000 exports: server CPU per request", wants: "no more than with 1 (≤ 1.05)",
			atMost: 1.05, measured: 2,
			about:  func(l measure.Load) bool { return l.Section == "exports" && l.Exports > 0 },
			figure: grown(measure.Sample.ServerCPU, func(l *measure.Load) { l.Exports = 0 })},
	}
}
