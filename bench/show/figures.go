// What is plotted, by section.
//
// Invariant: a plot shows medians out of the report, as the tables do, and says what was not
// measured.

package show

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// figure is one plot with its words.
type figure struct {
	ID     string
	Title  string
	Notes  []string
	Legend []legendEntry
	Bars   *bars // or
	SVG    template.HTML
}

// legendEntry names one line or colour.
type legendEntry struct {
	Name   string
	Swatch template.HTML
	Strong bool
}

// quantity is a figure of a sample that can be plotted.
type quantity struct {
	name   string
	unit   string // of the axis, with what is counted
	format func(float64) string
	limit  bool // the raw limit has it too
	split  bool // the parts are user and system time
	parts  func(measure.Load, measure.Sample) []float64
}

// single makes the parts of a quantity that has one.
func single(of func(measure.Sample) float64) func(measure.Load, measure.Sample) []float64 {
	return func(_ measure.Load, s measure.Sample) []float64 { return []float64{of(s)} }
}

var (
	rateQuantity = quantity{name: "Requests per second", unit: "requests/s", format: shortNumber,
		limit: true, parts: single(measure.RequestRate)}
	bandwidthQuantity = quantity{name: "Bandwidth", unit: "MiB/s", format: shortNumber, limit: true,
		parts: single(func(s measure.Sample) float64 { return s.BytesPerSecond / (1 << 20) })}
	cpuQuantity = quantity{name: "Server CPU per request", unit: "server CPU, µs per request",
		format: shortNumber, split: true,
		parts: func(_ measure.Load, s measure.Sample) []float64 {
			return []float64{s.ServerUser, s.ServerSystem}
		}}
	cpuPerGiBQuantity = quantity{name: "Server CPU per GiB", unit: "server CPU, ms per GiB",
		format: shortNumber, split: true,
		parts: func(l measure.Load, s measure.Sample) []float64 {
			k := (1 << 30) / float64(max(l.BlockSize, 1)) / 1e3
			return []float64{s.ServerUser * k, s.ServerSystem * k}
		}}
	perCPUQuantity = quantity{name: "Requests per CPU second",
		unit: "requests per second of server CPU", format: shortNumber,
		parts: single(measure.Sample.RequestsPerCPUSecond)}
	p50Quantity = quantity{name: "Latency, p50", unit: "median latency (p50)", format: shortTime,
		limit: true, parts: single(func(s measure.Sample) float64 { return s.P50 })}
	p99Quantity = quantity{name: "Latency, p99", unit: "99th percentile of latency (p99)",
		format: shortTime, limit: true,
		parts: single(func(s measure.Sample) float64 { return s.P99 })}
	memoryQuantity = quantity{name: "Peak resident memory", unit: "peak resident memory, MiB",
		format: shortNumber,
		parts:  single(func(s measure.Sample) float64 { return float64(s.PeakRSS) / (1 << 20) })}
	startQuantity = quantity{name: "Time to start", unit: "from start to first greeting",
		format: shortTime,
		parts:  single(func(s measure.Sample) float64 { return 1e6 * s.StartSeconds })}
)

// value sums the parts.
func (q quantity) value(l measure.Load, s measure.Sample) (sum float64) {
	for _, v := range q.parts(l, s) {
		sum += v
	}
	return sum
}

// spread is the smallest and the largest value over the rounds.
func (q quantity) spread(r *measure.Result) (low, high float64) {
	var v []float64
	for _, s := range r.Samples {
		v = append(v, q.value(r.Load, s))
	}
	return slices.Min(v), slices.Max(v)
}

// plots makes the figures of a report and counts them.
type plots struct {
	report report
	made   int
}

func (p *plots) id() string {
	p.made++
	return fmt.Sprintf("figure-%d", p.made)
}

// section makes the figures of one section.
func (p *plots) section(name string) []figure {
	loads := p.report.Section(name)
	all := func(measure.Load) any { return 0 }
	pattern := func(l measure.Load) any { return []any{l.Pattern, l.ReadPercent} }
	size := func(l measure.Load) any { return l.BlockSize }
	backend := func(l measure.Load) any {
		return []any{l.Pattern, l.ReadPercent, l.Backend, l.BlockSize, l.Transport}
	}
	switch name {
	case "disk":
		return append(p.bars(loads, pattern, rateQuantity, cpuQuantity), p.latencies(loads)...)
	case "depth":
		return p.lines(loads, backend, depthAxis, rateQuantity, p50Quantity)
	case "large":
		return p.bars(loads, size, bandwidthQuantity, cpuPerGiBQuantity)
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
		return p.bars(loads, all, rateQuantity, cpuQuantity)
	default:
		return p.bars(loads, backend, rateQuantity, cpuQuantity)
	}
}

// maxGroups is how many loads one plot with bars shows; more go into further plots.
const maxGroups = 6

// facets divides loads by a key, in the order of the run.
func facets(loads []measure.Load, key func(measure.Load) any, maxLoads int) (all [][]measure.Load) {
	var names []string
	parts := map[string][]measure.Load{}
	for _, l := range loads {
		name := fmt.Sprint(key(l))
		if _, ok := parts[name]; !ok {
			names = append(names, name)
		}
		parts[name] = append(parts[name], l)
	}
	for _, name := range names {
		all = slices.AppendSeq(all, slices.Chunk(parts[name], maxLoads))
	}
	return all
}

// attributes are a load's parts in words; an empty attribute is not worth a word.
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
	var shared []string
	words := make([][]string, len(loads))
	for k, first := range attributes(loads[0]) {
		same := !slices.ContainsFunc(loads, func(l measure.Load) bool {
			return attributes(l)[k] != first
		})
		if same && first != "" {
			shared = append(shared, first)
		}
		for i, l := range loads {
			if word := attributes(l)[k]; !same && word != "" {
				words[i] = append(words[i], word)
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
	quantities ...quantity) (all []figure) {
	for _, part := range facets(loads, key, maxGroups) {
		common, own := distinguish(part)
		for _, q := range quantities {
			f := figure{ID: p.id(), Title: q.name + ": " + common,
				Notes: p.strainedNotes(part, own),
				Bars:  &bars{Unit: q.unit}}
			widest := p.widest(part, q)
			for i, l := range part {
				f.Bars.Groups = append(f.Bars.Groups, p.barGroup(l, own[i], q, widest))
			}
			f.Legend = f.Bars.legend(q)
			if q.name == memoryQuantity.name {
				f.Notes = append(f.Notes, p.perIdle(part)...)
			}
			all = append(all, f)
		}
	}
	return all
}

// widest is the largest value of some loads, that of every round and of the raw limit included.
func (p *plots) widest(loads []measure.Load, q quantity) float64 {
	widest := 0.0
	for _, result := range p.report.Results {
		limit := result.Server == measure.RawName && q.limit
		if len(result.Samples) > 0 && slices.ContainsFunc(loads, func(l measure.Load) bool {
			return result.Load == l || limit && result.Load == l.Limit()
		}) {
			_, high := q.spread(&result)
			widest = max(widest, high, q.value(result.Load, result.Median))
		}
	}
	if widest <= 0 || !finite(widest) {
		return 1
	}
	return widest
}

// An overAxis is what grows in a plot with lines.
type overAxis struct {
	label string
	log   bool
	of    func(measure.Load) float64
}

var (
	depthAxis = overAxis{"requests in flight (depth)", true,
		func(l measure.Load) float64 { return float64(l.Depth) }}
	connectionsAxis = overAxis{"connections", true,
		func(l measure.Load) float64 { return float64(l.Connections) }}
	rateAxis = overAxis{"offered requests/s", false, func(l measure.Load) float64 { return l.Rate }}
)

// dot is a point that each line of a plot has: a quantity of a load.
type dot struct {
	x    float64
	load measure.Load
	quantity
}

// lines makes one plot per facet and quantity, with a line per server.
func (p *plots) lines(loads []measure.Load, key func(measure.Load) any, over overAxis,
	quantities ...quantity) (all []figure) {
	for _, part := range facets(loads, key, len(loads)) {
		common, _ := distinguish(part)
		for _, q := range quantities {
			var dots []dot
			for _, l := range part {
				dots = append(dots, dot{over.of(l), l, q})
			}
			all = append(all, p.chart(lineChart{title: q.name + ": " + common, x: over.label,
				head: q.unit, logX: over.log, xText: plainNumber, format: q.format,
				logY: q.name == p50Quantity.name || q.name == p99Quantity.name}, dots)...)
		}
	}
	return all
}

// percentiles are those of a sample, by one slower request in how many. Reports of old runs do not
// have all of them.
var percentiles = []struct {
	slower float64
	name   string
	of     func(measure.Sample) float64
}{
	{2, "p50", func(s measure.Sample) float64 { return s.P50 }},
	{10, "p90", func(s measure.Sample) float64 { return s.P90 }},
	{100, "p99", func(s measure.Sample) float64 { return s.P99 }},
	{1000, "p99.9", func(s measure.Sample) float64 { return s.P999 }},
	{10000, "p99.99", func(s measure.Sample) float64 { return s.P9999 }},
}

// latencies draws the percentiles of the loads with many connections over Unix sockets, on the axis
// of HdrHistogram.
func (p *plots) latencies(loads []measure.Load) (all []figure) {
	names := map[float64]string{}
	for _, l := range loads {
		if l.Transport != measure.Unix || l.Connections == 1 {
			continue
		}
		var dots []dot
		for _, of := range percentiles {
			names[of.slower] = of.name
			dots = append(dots, dot{of.slower, l, quantity{limit: true, parts: single(of.of)}})
		}
		common, _ := distinguish([]measure.Load{l})
		all = append(all, p.chart(lineChart{title: "Latency by percentile: " + common,
			x: "percentile of the requests", head: "latency", logX: true, logY: true,
			format: shortTime, xText: func(v float64) string { return names[v] }}, dots)...)
	}
	return all
}

// chart draws a line for each server that met some of the loads, the raw limit first.
func (p *plots) chart(chart lineChart, dots []dot) []figure {
	names := []string{measure.RawName}
	for _, d := range dots {
		for _, name := range p.report.Servers(d.load) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		s, failed := p.series(name, dots)
		var at []string
		for _, x := range failed {
			at = append(at, chart.xText(x))
		}
		if len(at) == len(dots) {
			chart.notes = append(chart.notes, name+" failed.")
		} else {
			chart.notes = append(chart.notes, sentence(name+" failed at ", at, ", ")...)
		}
		if len(s.points) > 0 {
			chart.series = append(chart.series, s)
		}
	}
	if len(chart.series) == 0 {
		return nil
	}
	chart.notes = append(markNotes(chart.series), chart.notes...)
	if chart.x == connectionsAxis.label && chart.head == cpuQuantity.unit {
		chart.notes = append(chart.notes, growthNotes(chart.series)...)
	}
	chart.id = p.id()
	return []figure{chart.draw()}
}

// series is the line of one server, and the values at which it failed.
func (p *plots) series(name string, dots []dot) (s series, failed []float64) {
	s = series{name: name, look: p.report.look(name)}
	if p.report.cached(dots[0].load, name) {
		s.name += " (page cache)"
	}
	for _, d := range dots {
		result := p.report.Result(d.load, name)
		if name == measure.RawName && d.limit {
			result = p.report.Raw(d.load)
		}
		if result == nil {
			continue
		}
		if len(result.Samples) == 0 {
			failed = append(failed, d.x)
			continue
		}
		at := point{x: d.x, y: d.value(d.load, result.Median),
			strained: isStrained(d.load, result.Median)}
		if at.low, at.high = d.spread(result); finite(at.y) && at.y > 0 && at.x > 0 {
			s.points = append(s.points, at)
		}
	}
	slices.SortStableFunc(s.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	return s, failed
}
