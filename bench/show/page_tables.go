// The page's headline, and the tables of its sections.
//
// Invariant: every result of the report is a row of exactly one section's table, those that
// failed with what went wrong.

package show

import (
	"fmt"
	"slices"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

// cell is a text with a smaller one below it.
type cell struct{ Text, Under, Class string }

// loadRows are the results of one load.
type loadRows struct {
	Title string
	Rows  []resultRow
}

// resultRow is a result and its cells: none without a sample.
type resultRow struct {
	measure.Result
	Cells []cell
}

// rowsOf makes the table of a section, in the order of the run.
func (r report) rowsOf(section string) (used []metric, loads []loadRows) {
	results := slices.DeleteFunc(slices.Clone(r.Results), func(result measure.Result) bool {
		return result.Load.Section != section
	})
	used = usedColumns(results)
	for _, result := range results {
		title := result.Load.String()
		i := slices.IndexFunc(loads, func(l loadRows) bool { return l.Title == title })
		if i < 0 {
			i = len(loads)
			loads = append(loads, loadRows{Title: title})
		}
		row := resultRow{Result: result}
		for _, m := range used {
			if len(result.Samples) > 0 {
				row.Cells = append(row.Cells, m.cell(&result))
			}
		}
		loads[i].Rows = append(loads[i].Rows, row)
	}
	return used, loads
}

// cell prints a metric of a result that was measured: its median, and the lowest and the highest
// of the rounds unless they print alike.
func (m metric) cell(result *measure.Result) cell {
	if m.server && result.Server == measure.RawName {
		return cell{Text: none}
	}
	v := m.measured(result)
	c := cell{Text: digits(v.Median)}
	if low, high := digits(v.Low), digits(v.High); low != high {
		c.Under = low + "–" + high
	}
	return c
}

// ahead is the headline: ringnbd against the raw limit and the best peer in the disk section.
type ahead struct {
	Tiles []tile
	Heads []*contest
	Rows  []aheadRow
}

// tile is one headline number with what it is over all loads.
type tile struct{ Median, Words, Range string }

// aheadRow is one load.
type aheadRow struct {
	Load  measure.Load
	Cells []cell
}

// contest is a column of the headline. Servers that write into the page cache answer before the
// disk has the data, so each way has peers of its own.
type contest struct {
	Head, Unit string
	words      string // of its tile; it has none for the page cache
	server     string
	figure     func(measure.Sample) float64
	more       bool // is better
	against    func(*measure.Report, measure.Load, string, func(measure.Sample) float64,
		bool) (float64, string, bool)
}

const cheaper = "server CPU, less is better"

var contests = []*contest{
	{"raw limit", "requests/s", "of the raw limit’s requests per second", "ringnbd",
		measure.RequestRate, true, func(r *measure.Report, l measure.Load, our string,
			figure func(measure.Sample) float64, _ bool) (float64, string, bool) {
			x, ok := judge.OfRaw(r, l, our, figure)
			return x, "", ok
		}},
	{"O_DIRECT, fastest", "requests/s", "× the requests per second of the fastest peer on O_DIRECT",
		"ringnbd", measure.RequestRate, true, judge.Best},
	{"O_DIRECT, cheapest", cheaper, "× the server CPU per request of the cheapest peer on " +
		"O_DIRECT (less is better)", "ringnbd", measure.Sample.ServerCPU, false, judge.Best},
	{"all peers, cheapest", cheaper, "× the server CPU per request of the cheapest of all peers, " +
		"page cache or not (less is better)", "ringnbd", measure.Sample.ServerCPU, false,
		judge.BestOfAll},
	{"page cache, fastest", "requests/s", "", "ringnbd-cached", measure.RequestRate, true,
		judge.Best},
	{"page cache, cheapest", cheaper, "", "ringnbd-cached", measure.Sample.ServerCPU, false,
		judge.Best},
}

// ahead makes the headline; it is nil without a ratio.
func (r report) ahead() *ahead {
	a := &ahead{Heads: contests}
	ratios := make([][]float64, len(contests))
	for _, l := range r.Section("disk") {
		row := aheadRow{Load: l}
		for i, c := range contests {
			x, peer, ok := c.against(r.Report, l, c.server, c.figure, c.more)
			if !ok || !finite(x) {
				row.Cells = append(row.Cells, cell{Text: none})
				continue
			}
			ratios[i] = append(ratios[i], x)
			class := ""
			if peer != "" {
				class = map[bool]string{true: "good", false: "bad"}[(x >= 1) == c.more]
			}
			row.Cells = append(row.Cells, cell{fmt.Sprintf("%.2f", x), peer, class})
		}
		a.Rows = append(a.Rows, row)
	}
	if len(slices.Concat(ratios...)) == 0 {
		return nil
	}
	for i, c := range contests {
		if v := ratios[i]; c.words != "" && len(v) > 0 {
			a.Tiles = append(a.Tiles, tile{fmt.Sprintf("%.2f", measure.Median(v)), c.words,
				fmt.Sprintf("median of %d loads; %.2f–%.2f", len(v), slices.Min(v),
					slices.Max(v))})
		}
	}
	return a
}
