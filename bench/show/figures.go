// What is plotted, by section.
//
// Invariant: a plot shows medians out of the report, as the tables do, and says what was not
// measured.

package show

import (
	"fmt"
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
	Legend []key
	Bars   *bars // or
	Lines  *lines
}

// key names a line or a colour.
type key struct {
	Name string
	Look look
}

// plan is what the plots of a section show: bars, or lines over what grows from load to load.
type plan struct {
	grows   string
	label   func(measure.Load) string
	metrics []metric
}

// plans of the sections; the others have bars of what a request costs and how many there are.
var plans = map[string]plan{
	"large":   {metrics: []metric{data, cpu}},
	"idle":    {metrics: []metric{cpu, memory}},
	"exports": {metrics: []metric{cpu, start}},
	"poll":    {metrics: []metric{p50, cpu}},
	"depth": {"requests in flight",
		func(l measure.Load) string { return fmt.Sprint(l.Depth) }, []metric{requests, p50}},
	"connections": {"connections",
		func(l measure.Load) string { return fmt.Sprint(l.Connections) }, []metric{cpu, p99}},
	"curve": {"offered requests/s",
		func(l measure.Load) string { return measure.RateText(l.Rate) }, []metric{p50, p99}},
}

// maxGroups is how many loads one plot with bars shows; more go into further plots.
const maxGroups = 4

// figures makes those of a section.
func (r report) figures(section string) (all []figure) {
	loads := r.Section(section)
	p, ok := plans[section]
	if !ok {
		p.metrics = []metric{requests, cpu}
	}
	for rest := loads; len(rest) > 0; {
		n := min(maxGroups, len(rest))
		if p.label != nil {
			for n = 1; n < len(rest) && rest[n].Pattern == rest[0].Pattern &&
				rest[n].Backend == rest[0].Backend; n++ {
			}
		}
		for _, m := range p.metrics {
			if p.label == nil {
				all = append(all, r.barFigure(rest[:n], m))
				continue
			}
			var dots []dot
			for _, l := range rest[:n] {
				dots = append(dots, dot{Label: p.label(l), load: l, metric: m})
			}
			all = append(all, r.lineFigure(m.title, p.grows, dots)...)
		}
		rest = rest[n:]
	}
	for _, l := range loads {
		if section == "disk" && l.Transport == measure.Unix && l.Connections > 1 {
			var dots []dot
			for _, m := range usedColumns(r.Results) {
				if m.time() {
					dots = append(dots, dot{Label: m.Head, load: l, metric: m})
				}
			}
			all = append(all, r.lineFigure("Latency by percentile", "percentile", dots)...)
		}
	}
	return all
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

// attributes are a load's parts in words; an empty attribute is not worth a word.
func attributes(l measure.Load) []string {
	pattern, rate, idle, exports := l.Pattern, "", "", ""
	if l.ReadPercent > 0 {
		pattern += fmt.Sprintf(" %d:%d", l.ReadPercent, 100-l.ReadPercent)
	}
	if l.Rate > 0 {
		rate = "at " + measure.RateText(l.Rate) + "/s"
	}
	switch l.Section {
	case "idle":
		idle = units.Plural(l.Idle, "idle connection")
	case "exports":
		exports = units.Plural(l.Exports+1, "export")
	}
	return []string{pattern, units.Exact(uint64(l.BlockSize)),
		fmt.Sprintf("%d × %d", l.Connections, l.Depth), l.Backend, l.Transport, rate, idle, exports}
}

// cached reports whether a server answers a load on the page cache.
func (r report) cached(l measure.Load, server string) bool {
	return l.OnDisk() && server != measure.RawName && !slices.Contains(r.Direct, server)
}
