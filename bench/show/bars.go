// Plots with bars, which are HTML: loads below each other, in each a bar per server with its
// name at the left and its number at the right. The style sheet makes the widths, shares of the
// longest bar of the plot.
//
// Invariant: every server that took part in a load has its row, also when nothing could be
// measured.

package show

import (
	"slices"

	"ringnbd/bench/measure"
)

// bars is what to draw.
type bars struct {
	Widest float64
	Groups []barGroup
}

// barGroup is one load; servers that reach the file in another way stand apart.
type barGroup struct {
	Label          string
	Limit          string // what the raw limit reached; empty when there is none
	Direct, Cached []barRow
}

// barRow is one server.
type barRow struct {
	measured
	Name, Number   string
	Cached, Failed bool
	Parts          []barPart
	LimitAt        float64 // the raw limit, 0 without one
}

// barPart is a piece of a bar.
type barPart struct {
	Value  float64
	Colour string
	Faded  bool
}

// barFigure is the plot of a metric of some loads.
func (r report) barFigure(loads []measure.Load, m metric) figure {
	common, own := distinguish(loads)
	b := &bars{}
	for i, l := range loads {
		g := barGroup{Label: own[i]}
		limit := 0.0
		if raw := r.Raw(l); raw != nil && !m.server && len(raw.Samples) > 0 {
			limit = m.of(raw.Median)
			g.Limit = m.Short(limit)
		}
		b.Widest = max(b.Widest, limit)
		for _, server := range r.Servers(l) {
			row := r.barRow(r.Result(l, server), m)
			row.LimitAt = limit
			b.Widest = max(b.Widest, row.Median, row.High)
			if row.Cached {
				g.Cached = append(g.Cached, row)
			} else {
				g.Direct = append(g.Direct, row)
			}
		}
		b.Groups = append(b.Groups, g)
	}
	return figure{Title: m.title + ": " + common, Bars: b}
}

// barRow is the row of one result; CPU time has a part of user and a part of system time.
func (r report) barRow(result *measure.Result, m metric) barRow {
	row := barRow{Name: result.Server, Number: "failed", Failed: len(result.Samples) == 0,
		Cached: r.cached(result.Load, result.Server)}
	if row.Failed {
		return row
	}
	row.measured = m.measured(result)
	row.Number = m.Short(row.Median)
	if row.Noisy {
		row.Number = "~" + row.Number
	}
	colour := lookOf(result.Server).Colour
	row.Low = max(row.Low, 0)
	switch {
	case !finite(row.High) || row.Median <= 0:
		row.measured = measured{}
	case m.Head == cpu.Head:
		row.Parts = []barPart{{result.Median.ServerUser, colour, false},
			{result.Median.ServerSystem, colour, true}}
	default:
		row.Parts = []barPart{{row.Median, colour, false}}
	}
	return row
}

// profileFigure shows where the CPU time of each profiled load went, as shares: a request without
// storage costs a hundredth of a large one.
func profileFigure(profiles []measure.Profile) *figure {
	var loads []measure.Load
	for _, p := range profiles {
		loads = append(loads, p.Load)
	}
	common, own := distinguish(loads)
	f := &figure{ID: "stages", Bars: &bars{Widest: 1},
		Title: "Server CPU by stage, shares and µs per request: " + common}
	for i, p := range profiles {
		row := barRow{Name: p.Server}
		sum := 0.0
		for _, s := range p.Stages {
			sum += s.MicrosPerRequest
			colour := stageColour(s.Name)
			row.Parts = append(row.Parts, barPart{s.Share, colour, false})
			if entry := (key{s.Name, look{Colour: colour}}); !slices.Contains(f.Legend, entry) {
				f.Legend = append(f.Legend, entry)
			}
		}
		row.Number = digits(sum) + " µs"
		f.Bars.Groups = append(f.Bars.Groups, barGroup{Label: own[i], Direct: []barRow{row}})
	}
	return f
}
