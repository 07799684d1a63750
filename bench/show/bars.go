// Plots with bars, which are HTML: loads below each other, in each a bar per server with its
// name at the left and its number at the right. Widths are shares of the longest bar of the
// plot.
//
// Invariant: every server that took part in a load has its row, also when nothing could be
// measured.

package show

import (
	"html/template"
	"slices"
	"strings"

	"ringnbd/bench/measure"
)

// bars is what to draw.
type bars struct {
	Unit   string
	Groups []barGroup
}

// barGroup is one load.
type barGroup struct {
	Label string
	Limit string // what the raw limit reached; empty when there is none
	Sets  []barSet
}

// barSet is the servers that reach the file the same way, or all of them without a file.
type barSet struct {
	Name string
	Rows []barRow
}

// barRow is one server. Positions and widths are in percent.
type barRow struct {
	Name, Number   string
	Strong, Cached bool
	Failed         bool // there is no bar
	Parts          []barPart
	Low, Spread    float64 // of the lowest round, and from there to the highest
	LimitAt        float64 // of the raw limit, 0 without one
}

// barPart is a piece of a bar.
type barPart struct {
	Width  float64
	Colour string
	Faded  bool
}

// barGroup makes the rows of one load.
func (p *plots) barGroup(l measure.Load, label string, q quantity, widest float64) barGroup {
	g := barGroup{Label: label}
	limit := 0.0
	if raw := p.report.Raw(l); raw != nil && q.limit && len(raw.Samples) > 0 {
		limit = q.value(raw.Load, raw.Median)
		g.Limit = q.format(limit)
	}
	direct, cached := barSet{}, barSet{}
	for _, server := range p.report.Servers(l) {
		row := p.barRow(p.report.Result(l, server), q, widest)
		row.LimitAt = 100 * limit / widest
		if row.Cached {
			cached.Rows = append(cached.Rows, row)
		} else {
			direct.Rows = append(direct.Rows, row)
		}
	}
	for _, set := range []barSet{direct, cached} {
		if len(set.Rows) > 0 {
			g.Sets = append(g.Sets, set)
		}
	}
	if len(g.Sets) == 2 {
		g.Sets[0].Name, g.Sets[1].Name = "O_DIRECT", "page cache"
	}
	return g
}

func (p *plots) barRow(r *measure.Result, q quantity, widest float64) barRow {
	row := barRow{Name: r.Server, Strong: r.Server == "ringnbd", Failed: len(r.Samples) == 0,
		Cached: p.report.cached(r.Load, r.Server)}
	if row.Failed {
		row.Number = "failed"
		return row
	}
	sum := 0.0
	for i, v := range q.parts(r.Load, r.Median) {
		if finite(v) && v > 0 {
			row.Parts = append(row.Parts, barPart{100 * v / widest, p.report.look(r.Server).colour,
				i > 0})
			sum += v
		}
	}
	row.Number = q.format(sum)
	if low, high := q.spread(r); high > low && finite(high) {
		row.Low, row.Spread = 100*max(low, 0)/widest, 100*(high-max(low, 0))/widest
		if noisy(sum, low, high) {
			row.Number = noisySign + row.Number
		}
	}
	return row
}

// cached reports whether a server answers a load on the page cache.
func (r report) cached(l measure.Load, server string) bool {
	return l.OnDisk() && server != measure.RawName && !slices.Contains(r.Direct, server)
}

// legend explains what in a plot is not explained by its own words.
func (b bars) legend(q quantity) []legendEntry {
	there := map[string]bool{"bar": q.split, "bar faded": q.split}
	for _, g := range b.Groups {
		there["limit"] = there["limit"] || g.Limit != ""
		for _, set := range g.Sets {
			for _, row := range set.Rows {
				there["spread"] = there["spread"] || row.Spread > 0
				there["bar cached"] = there["bar cached"] || row.Cached
				there["noisy"] = there["noisy"] || strings.HasPrefix(row.Number, noisySign)
			}
		}
	}
	all := []legendEntry{}
	for _, e := range []struct{ class, name string }{{"bar", "user"}, {"bar faded", "system"},
		{"bar cached", "page cache: answered from memory"}, {"limit", "raw limit"},
		{"spread", "lowest to highest round"},
		{"noisy", noisySign + " noisy: rounds differ by more than half"}} {
		if there[e.class] {
			all = append(all, legendEntry{Name: e.name, Swatch: sample(e.class, "quiet")})
		}
	}
	return all
}

// noisySign stands before a number that is noisy.
const noisySign = "~"

// sample is a piece of a bar for a legend.
func sample(class, colour string) template.HTML {
	return template.HTML(`<i class="sample ` + class + `" style="--ink:var(--` + colour +
		`)"></i>`)
}

// profile shows where the CPU time of each profiled load went, as shares: a request without storage
// costs a hundredth of a large one.
func (p *plots) profile(profiles []measure.Profile) figure {
	loads := make([]measure.Load, len(profiles))
	for i, f := range profiles {
		loads[i] = f.Load
	}
	common, own := distinguish(loads)
	f := figure{ID: p.id(), Title: "Server CPU per request, shares by stage: " + common,
		Bars: &bars{Unit: "share of CPU time, and µs per request"}}
	for i, profiled := range profiles {
		row := barRow{Name: profiled.Server, Strong: profiled.Server == "ringnbd"}
		sum := 0.0
		for _, s := range profiled.Stages {
			sum += s.MicrosPerRequest
			row.Parts = append(row.Parts,
				barPart{Width: 100 * s.Share, Colour: stageColour(s.Name)})
			entry := legendEntry{Name: s.Name, Swatch: sample("bar", stageColour(s.Name))}
			if !slices.Contains(f.Legend, entry) {
				f.Legend = append(f.Legend, entry)
			}
		}
		row.Number = digits(sum) + " µs"
		f.Bars.Groups = append(f.Bars.Groups,
			barGroup{Label: own[i], Sets: []barSet{{Rows: []barRow{row}}}})
	}
	return f
}
