// What is plotted, by section. Invariant: a plot shows medians out of the report,
// as the tables do, and says what was not measured.

package show

import (
	"fmt"
	"slices"
	"strings"

	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// quantity is a figure of a sample that can be plotted.
type quantity struct {
	name   string // of the figure
	unit   string // of the axis, with what is counted
	format func(float64) string
	limit  bool // the raw limit has it too
	split  bool // the parts are user and system time
	of     func(measure.Load, measure.Sample) []float64
}

var (
	rateQuantity = quantity{name: "Requests per second", unit: "requests/s", format: shortNumber,
		limit: true,
		of: func(_ measure.Load, s measure.Sample) []float64 {
			return []float64{s.RequestsPerSecond}
		}}
	bandwidthQuantity = quantity{name: "Bandwidth", unit: "MiB/s", format: shortNumber, limit: true,
		of: func(_ measure.Load, s measure.Sample) []float64 {
			return []float64{s.BytesPerSecond / (1 << 20)}
		}}
	cpuQuantity = quantity{name: "Server CPU per request", unit: "server CPU, µs per request",
		format: shortNumber, split: true,
		of: func(_ measure.Load, s measure.Sample) []float64 {
			return []float64{s.ServerUser, s.ServerSystem}
		}}
	cpuPerGiBQuantity = quantity{name: "Server CPU per GiB", unit: "server CPU, ms per GiB",
		format: shortNumber, split: true,
		of: func(l measure.Load, s measure.Sample) []float64 {
			k := (1 << 30) / float64(max(l.BlockSize, 1)) / 1e3
			return []float64{s.ServerUser * k, s.ServerSystem * k}
		}}
	perCPUQuantity = quantity{name: "Requests per CPU second",
		unit: "requests per second of server CPU", format: shortNumber,
		of: func(_ measure.Load, s measure.Sample) []float64 {
			return []float64{s.RequestsPerCPUSecond()}
		}}
	p50Quantity = quantity{name: "Latency, p50", unit: "median latency (p50)", format: shortTime,
		limit: true,
		of:    func(_ measure.Load, s measure.Sample) []float64 { return []float64{s.P50} }}
	p99Quantity = quantity{name: "Latency, p99", unit: "99th percentile of latency (p99)",
		format: shortTime, limit: true,
		of: func(_ measure.Load, s measure.Sample) []float64 { return []float64{s.P99} }}
	memoryQuantity = quantity{name: "Peak resident memory", unit: "peak resident memory, MiB",
		format: shortNumber,
		of: func(_ measure.Load, s measure.Sample) []float64 {
			return []float64{float64(s.PeakRSS) / (1 << 20)}
		}}
	startQuantity = quantity{name: "Time to start", unit: "from start to first greeting",
		format: func(s float64) string {
			return shortTime(s * 1e6)
		},
		of: func(_ measure.Load, s measure.Sample) []float64 { return []float64{s.StartSeconds} }}
)

// value sums the parts.
func (q quantity) value(l measure.Load, s measure.Sample) float64 {
	var sum float64
	for _, v := range q.of(l, s) {
		sum += v
	}
	return sum
}

// spread is the smallest and the largest value over the rounds.
func (q quantity) spread(r *measure.Result) (low, high float64) {
	for i, s := range r.Samples {
		v := q.value(r.Load, s)
		if i == 0 {
			low = v
		}
		low, high = min(low, v), max(high, v)
	}
	return low, high
}

// plots makes the figures of a report and counts them.
type plots struct {
	report report
	looks  looks
	made   int
}

func (p *plots) id() string {
	p.made++
	return fmt.Sprintf("figure-%d", p.made)
}

// section makes the figures of one section.
func (p *plots) section(name string) []drawing {
	loads := p.report.Section(name)
	pattern := func(l measure.Load) any { return []any{l.Pattern, l.ReadPercent} }
	backend := func(l measure.Load) any {
		return []any{l.Pattern, l.ReadPercent, l.Backend, l.BlockSize, l.Transport}
	}
	switch name {
	case "disk":
		return p.bars(loads, pattern, rateQuantity, cpuQuantity)
	case "depth":
		return p.lines(loads, backend, depthAxis, rateQuantity, p50Quantity)
	case "large":
		return p.bars(loads, func(l measure.Load) any {
			return l.BlockSize
		}, bandwidthQuantity, cpuPerGiBQuantity)
	case "null":
		return p.bars(loads, pattern, rateQuantity, perCPUQuantity)
	case "connections":
		return p.lines(loads, backend, connectionsAxis, cpuQuantity, p99Quantity)
	case "idle":
		return p.bars(loads, pattern, cpuQuantity, memoryQuantity)
	case "exports":
		return p.bars(loads, pattern, cpuQuantity, startQuantity)
	case "curve":
		return p.lines(loads, backend, rateAxis, p50Quantity, p99Quantity)
	case "poll":
		return p.bars(loads, pattern, p50Quantity, cpuQuantity)
	case "memory", "loop", "unaligned":
		return p.bars(loads, func(measure.Load) any { return 0 }, rateQuantity, cpuQuantity)
	default:
		return p.bars(loads, backend, rateQuantity, cpuQuantity)
	}
}

// mostGroups is how many loads one plot with bars shows; more go into further plots.
const mostGroups = 6

// facets divides loads by a key, in the order of the run.
func facets(loads []measure.Load, key func(measure.Load) any, most int) [][]measure.Load {
	var names []string
	parts := map[string][]measure.Load{}
	for _, l := range loads {
		name := fmt.Sprint(key(l))
		if _, ok := parts[name]; !ok {
			names = append(names, name)
		}
		parts[name] = append(parts[name], l)
	}
	var all [][]measure.Load
	for _, name := range names {
		all = slices.AppendSeq(all, slices.Chunk(parts[name], most))
	}
	return all
}

// attributes are a load's parts in words; an empty one is not worth a word.
func attributes(l measure.Load) []string {
	pattern := l.Pattern
	if l.ReadPercent > 0 {
		pattern += fmt.Sprintf(" %d:%d", l.ReadPercent, 100-l.ReadPercent)
	}
	a := []string{pattern, units.Exact(uint64(l.BlockSize)),
		fmt.Sprintf("%d × %d", l.Connections, l.Depth), l.Backend, l.Transport, "", "", ""}
	if l.Rate > 0 {
		a[5] = "at " + measure.RateText(l.Rate) + "/s"
	}
	switch l.Section {
	case "idle":
		a[6] = units.Plural(l.Idle, "idle connection")
	case "exports":
		a[7] = units.Plural(l.Exports+1, "export")
	}
	return a
}

// distinguish says what some loads have in common, and for each what is its own.
func distinguish(loads []measure.Load) (common string, own []string) {
	all := make([][]string, len(loads))
	for i, l := range loads {
		all[i] = attributes(l)
	}
	words := make([][]string, len(loads))
	var shared []string
	for k := range attributes(measure.Load{}) {
		same := true
		for _, a := range all {
			same = same && a[k] == all[0][k]
		}
		if same && all[0][k] != "" {
			shared = append(shared, all[0][k])
		}
		for i, a := range all {
			if !same && a[k] != "" {
				words[i] = append(words[i], a[k])
			}
		}
	}
	for _, w := range words {
		own = append(own, strings.Join(w, ", "))
	}
	return strings.Join(shared, ", "), own
}

// bars makes one plot per facet and quantity.
func (p *plots) bars(loads []measure.Load, key func(measure.Load) any,
	quantities ...quantity) []drawing {
	var all []drawing
	for _, part := range facets(loads, key, mostGroups) {
		common, own := distinguish(part)
		for _, q := range quantities {
			chart := barChart{id: p.id(), title: q.name + ": " + common, unit: q.unit,
				format: q.format, legend: []legendEntry{}}
			for i, l := range part {
				chart.groups = append(chart.groups, p.barGroup(l, own[i], q))
			}
			chart.legend = barLegend(chart, q)
			chart.notes = p.strainedNotes(part, own)
			if q.name == memoryQuantity.name {
				chart.notes = append(chart.notes, p.perIdle(part)...)
			}
			all = append(all, chart.draw())
		}
	}
	return all
}

// strainedNotes names the bars of servers that did less than they were asked for.
func (p *plots) strainedNotes(loads []measure.Load, own []string) []string {
	var words []string
	for i, l := range loads {
		for _, server := range p.report.Servers(l) {
			if result := p.report.Result(l, server); len(result.Samples) > 0 &&
				isStrained(l, result.Median) {
				words = append(words, strings.TrimSuffix(server+" at "+own[i], " at "))
			}
		}
	}
	if len(words) == 0 {
		return nil
	}
	return []string{"The offered rate was not reached, or requests that were due had not been " +
		"started at the end: " + strings.Join(words, "; ") + "."}
}

func (p *plots) barGroup(l measure.Load, label string, q quantity) barGroup {
	g := barGroup{label: label}
	if raw := p.report.Raw(l); raw != nil && q.limit && len(raw.Samples) > 0 {
		g.limit = q.value(raw.Load, raw.Median)
	}
	for _, server := range p.report.Servers(l) {
		g.rows = append(g.rows, p.barRow(p.report.Result(l, server), q))
	}
	return g
}

func (p *plots) barRow(result *measure.Result, q quantity) barRow {
	row := barRow{name: clip(result.Server)}
	if len(result.Samples) == 0 {
		row.failed = "failed"
		return row
	}
	k := p.looks[result.Server].ink
	opacity := 1.0
	for _, v := range q.of(result.Load, result.Median) {
		if !finite(v) || v < 0 {
			v = 0
		}
		row.parts = append(row.parts, barPart{value: v, ink: k, opacity: opacity})
		opacity = 0.5
	}
	row.low, row.high = q.spread(result)
	return row
}

// longestName is what a plot has room for.
const longestName = 20

// clip shortens a server's name for a plot; the tables have it whole.
func clip(name string) string {
	r := []rune(name)
	if len(r) <= longestName {
		return name
	}
	return string(r[:longestName-1]) + "…"
}

// barLegend explains what in a plot is not explained by its own words.
func barLegend(b barChart, q quantity) []legendEntry {
	var entries []legendEntry
	if q.split {
		entries = append(entries, legendEntry{Name: "user", Swatch: barSwatch(inkRingnbd, 1)},
			legendEntry{Name: "system", Swatch: barSwatch(inkRingnbd, 0.5)})
	}
	if slices.ContainsFunc(b.groups, func(g barGroup) bool { return g.limit > 0 }) {
		entries = append(entries, legendEntry{Name: "raw limit", Swatch: limitSwatch()})
	}
	if slices.ContainsFunc(b.groups, func(g barGroup) bool {
		return slices.ContainsFunc(g.rows, func(r barRow) bool { return r.high > r.low })
	}) {
		entries = append(entries,
			legendEntry{Name: "lowest to highest round", Swatch: spreadSwatch()})
	}
	return entries
}

// An overAxis is what grows in a plot with lines.
type overAxis struct {
	label string
	log   bool
	of    func(measure.Load) float64
	rest  func(measure.Load) measure.Load // the load without what grows
}

var (
	depthAxis = overAxis{label: "requests in flight (depth)", log: true,
		of: func(l measure.Load) float64 {
			return float64(l.Depth)
		},
		rest: func(l measure.Load) measure.Load { l.Depth = 0; return l }}
	connectionsAxis = overAxis{label: "connections", log: true, of: func(l measure.Load) float64 {
		return float64(l.Connections)
	},
		rest: func(l measure.Load) measure.Load { l.Connections, l.Depth = 0, 0; return l }}
	rateAxis = overAxis{label: "offered requests/s", of: func(l measure.Load) float64 {
		return l.Rate
	},
		rest: func(l measure.Load) measure.Load { l.Rate = 0; return l }}
)

// lines makes one plot per facet and quantity, with a line per server.
func (p *plots) lines(loads []measure.Load, key func(measure.Load) any, axis overAxis,
	quantities ...quantity) []drawing {
	var all []drawing
	for _, part := range facets(loads, key, len(loads)) {
		for _, q := range quantities {
			chart := lineChart{id: p.id(), x: axis.label, head: q.unit, logX: axis.log,
				format: q.format,
				logY:   q.name == p50Quantity.name || q.name == p99Quantity.name}
			chart.title = q.name + ": " + titleOver(part, axis)
			chart.series, chart.notes = p.series(part, axis, q)
			if axis.label == connectionsAxis.label && q.name == cpuQuantity.name {
				chart.notes = append(chart.notes, growthNotes(chart.series)...)
			}
			if len(chart.series) > 0 {
				all = append(all, chart.draw())
			}
		}
	}
	return all
}

// titleOver says what all the loads of a plot have in common.
func titleOver(loads []measure.Load, axis overAxis) string {
	words := attributes(loads[0])
	var kept []string
	shape := func(l measure.Load) string { return attributes(l)[2] }
	varied := slices.ContainsFunc(loads, func(l measure.Load) bool {
		return shape(l) != shape(loads[0])
	})
	for i, w := range words {
		if w == "" || i == 2 && varied || i == 5 && axis.rest(loads[0]).Rate == 0 {
			continue
		}
		kept = append(kept, w)
	}
	return strings.Join(kept, ", ")
}

// series collects the lines: the raw limit first when it has the quantity, then the
// servers in the order of the run.
func (p *plots) series(loads []measure.Load, axis overAxis,
	q quantity) (all []series, notes []string) {
	var names []string
	for _, l := range loads {
		for _, name := range p.report.Servers(l) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if q.limit {
		names = append([]string{measure.RawName}, names...)
	}
	strained := false
	for _, name := range names {
		s := series{name: name, look: p.looks[name]}
		var missing []string
		for _, l := range loads {
			result := p.report.Result(l, name)
			if name == measure.RawName {
				result = p.report.Raw(l)
			}
			if result == nil {
				continue
			}
			if len(result.Samples) == 0 {
				missing = append(missing, plainNumber(axis.of(l)))
				continue
			}
			at := point{x: axis.of(l), y: q.value(l, result.Median),
				strained: isStrained(l, result.Median)}
			at.low, at.high = q.spread(result)
			strained = strained || at.strained
			if finite(at.y) && at.y > 0 && at.x > 0 {
				s.points = append(s.points, at)
			}
		}
		slices.SortStableFunc(s.points, func(a, b point) int { return int(a.x - b.x) })
		if len(missing) > 0 {
			notes = append(notes,
				fmt.Sprintf("%s failed at %s.", name, strings.Join(missing, ", ")))
		}
		if len(s.points) > 0 {
			all = append(all, s)
		}
	}
	if strained {
		notes = append([]string{"Hollow: the offered rate was not reached, or requests that " +
			"were due had not been started at the end."}, notes...)
	}
	return all, notes
}

// growthNotes say by how much each line rises from its first point to its last.
func growthNotes(all []series) []string {
	var words []string
	for _, s := range all {
		first, last := s.points[0], s.points[len(s.points)-1]
		if last.x > first.x {
			word := fmt.Sprintf("%s %+.0f %% from %s to %s", s.name, 100*(last.y/first.y-1),
				plainNumber(first.x), plainNumber(last.x))
			if first.strained || last.strained {
				word += " (hollow)"
			}
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return nil
	}
	return []string{"CPU per request with more connections: " + strings.Join(words, "; ") + "."}
}

// perIdle says what a silent connection costs in memory: what the peak grew by with
// all of them, divided by their number.
func (p *plots) perIdle(loads []measure.Load) []string {
	var words []string
	for _, l := range loads {
		alone := l
		alone.Idle = 0
		for _, server := range p.report.Servers(l) {
			with, without := p.report.Result(l, server), p.report.Result(alone, server)
			if l.Idle == 0 || without == nil || len(with.Samples) == 0 ||
				len(without.Samples) == 0 {
				continue
			}
			each := float64(with.Median.PeakRSS-without.Median.PeakRSS) / float64(l.Idle) / 1024
			words = append(words, fmt.Sprintf("%s %s KiB", server, digits(each)))
		}
	}
	if len(words) == 0 {
		return nil
	}
	return []string{"For each idle connection: " + strings.Join(words, ", ") + "."}
}

// isStrained tells whether an open loop asked for more than was done. A hundredth is
// what the ends of a run blur.
func isStrained(l measure.Load, s measure.Sample) bool {
	return l.Rate > 0 &&
		(s.RequestsPerSecond < 0.99*l.Rate || float64(s.Backlog) > 0.01*float64(s.Requests))
}

// profile draws where the CPU time of each profiled load went.
func (p *plots) profile(profiles []measure.Profile) drawing {
	loads := make([]measure.Load, len(profiles))
	for i, f := range profiles {
		loads[i] = f.Load
	}
	common, own := distinguish(loads)
	chart := barChart{id: p.id(), title: "Server CPU per request by stage: " + common,
		unit: "server CPU, µs per request", format: shortNumber}
	for i, f := range profiles {
		row := barRow{name: clip(f.Server)}
		for _, s := range f.Stages {
			row.parts = append(row.parts,
				barPart{value: max(s.MicrosPerRequest, 0), ink: stageInk(s.Name), opacity: 1})
			if !slices.ContainsFunc(chart.legend, func(e legendEntry) bool {
				return e.Name == s.Name
			}) {
				chart.legend = append(chart.legend,
					legendEntry{Name: s.Name, Swatch: barSwatch(stageInk(s.Name), 1)})
			}
		}
		if k := len(chart.groups); k > 0 && loads[i] == loads[i-1] {
			chart.groups[k-1].rows = append(chart.groups[k-1].rows, row)
			continue
		}
		chart.groups = append(chart.groups, barGroup{label: own[i], rows: []barRow{row}})
	}
	return chart.draw()
}

func stageInk(name string) ink {
	if k, ok := stageInks[name]; ok {
		return k
	}
	return stageInks["other"]
}
