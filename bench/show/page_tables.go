// The page's tables and its headline.
//
// Invariant: every result of the report is a row of exactly one section's table, those that
// failed with what went wrong.

package show

import (
	"fmt"
	"html/template"
	"slices"
	"strconv"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

// htmlTable is a table of the page.
type htmlTable struct {
	Anchor, Class, Label string
	Heads                []cell
	Bodies               []tableBody
}

// tableBody is some rows below a title.
type tableBody struct {
	Title string
	Rows  []tableRow
}

// tableRow is a row; when it has errors they stand in place of its other cells.
type tableRow struct {
	Class  string
	Cells  []cell
	Failed []string
}

// cell is a text with a smaller one below it.
type cell struct {
	Text, Under string
	Class       string
	Head        bool // of its row
	Swatch      template.HTML
}

// Rest is how many cells of a row are empty.
func (t htmlTable) Rest(row tableRow) int { return len(t.Heads) - len(row.Cells) }

// number is a cell with a number.
func number(text string) cell { return cell{Text: text, Class: "figure"} }

// newTable begins a table of one body.
func newTable(class, label string, heads ...cell) htmlTable {
	return htmlTable{Class: class, Label: label, Heads: heads, Bodies: make([]tableBody, 1)}
}

func (t *htmlTable) add(cells ...cell) {
	body := &t.Bodies[len(t.Bodies)-1]
	body.Rows = append(body.Rows, tableRow{Cells: cells})
}

// targetCells are the targets, the verdict first.
func (r report) targetCells() htmlTable {
	t := newTable("targets table-wide", "Targets", cell{Text: "verdict"},
		cell{Text: "load and figure"}, cell{Text: "wanted"}, cell{Text: "measured"})
	for _, x := range judge.Targets(r.Report) {
		t.add(cell{Text: x.Verdict(), Class: "verdict " + verdictClass(x)},
			cell{Text: x.Name, Head: true}, cell{Text: x.Wants}, cell{Text: x.Got})
	}
	return t
}

// verdictClass is how a verdict is coloured.
func verdictClass(t judge.Target) string {
	switch t.Verdict() {
	case judge.Met:
		return "good"
	case judge.Missed:
		return "bad"
	}
	return "quiet"
}

func (r report) programCells() htmlTable {
	t := newTable("programs table-wide", "Programs", cell{Text: "program"},
		cell{Text: "how it reaches the file"}, cell{Text: "version"})
	for _, p := range r.programs() {
		t.add(cell{Text: p.name, Head: true}, cell{Text: orNone(p.storage)},
			cell{Text: orNone(p.version)})
	}
	return t
}

// profileCells are the stages of all profiles, a row each, and the functions of every profile.
func profileCells(profiles []measure.Profile) (all []htmlTable) {
	percent := func(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
	stages := newTable("stages table-wide", "Stages", cell{Text: "load"},
		cell{Text: "sampled", Under: "s of CPU time", Class: "figure"})
	for _, s := range profiles[0].Stages {
		stages.Heads = append(stages.Heads, cell{Text: s.Name, Under: "µs per request",
			Class: "figure", Swatch: sample("bar", stageColour(s.Name))})
	}
	all = append(all, stages)
	for _, p := range profiles {
		row := []cell{{Text: p.Load.String(), Head: true}, number(digits(p.Seconds))}
		functions := newTable("functions", "Functions",
			cell{Text: p.Server + ", " + p.Load.String()}, cell{Text: "share", Class: "figure"})
		for _, s := range p.Stages {
			row = append(row, cell{Text: percent(s.Share), Under: digits(s.MicrosPerRequest),
				Class: "figure"})
		}
		for _, f := range p.Top {
			functions.add(cell{Text: f.Name, Head: true}, number(percent(f.Share)))
		}
		all[0].add(row...)
		all = append(all, functions)
	}
	return all
}

// column is one figure of a section's table.
type column struct {
	head, unit string
	of         func(measure.Sample) float64
	when       byte // alwaysShown and so on; 0: unless it is 0 throughout the section
	server     bool // not a figure of the raw limit
}

// When a column is shown.
const (
	alwaysShown = 'a'
	withoutDisk = 'n' // elsewhere it is but another word for server CPU
	largeOnly   = 'l' // elsewhere it is but another word for requests
)

var columns = []column{
	{"requests", "per second", measure.RequestRate, alwaysShown, false},
	{"data", "MiB/s", func(s measure.Sample) float64 { return s.BytesPerSecond / (1 << 20) },
		largeOnly, false},
	{"p50", "µs", percentiles[0].of, alwaysShown, false},
	{"p90", "µs", percentiles[1].of, 0, false},
	{"p99", "µs", percentiles[2].of, alwaysShown, false},
	{"p99.9", "µs", percentiles[3].of, 0, false},
	{"p99.99", "µs", percentiles[4].of, 0, false},
	{"server CPU", "µs per request", measure.Sample.ServerCPU, alwaysShown, true},
	{"user", "µs per request", func(s measure.Sample) float64 { return s.ServerUser }, 0, true},
	{"system", "µs per request", func(s measure.Sample) float64 { return s.ServerSystem }, 0, true},
	{"per CPU", "requests per CPU second", measure.Sample.RequestsPerCPUSecond, withoutDisk, true},
	{"generator", "CPU µs per request",
		func(s measure.Sample) float64 { return s.ClientCPU }, 0, false},
	{"switches", "per request", func(s measure.Sample) float64 { return s.Switches }, 0, true},
	{"memory", "peak MiB",
		func(s measure.Sample) float64 { return float64(s.PeakRSS) / (1 << 20) }, 0, true},
	{"start", "ms", func(s measure.Sample) float64 { return 1e3 * s.StartSeconds }, 0, true},
	{"write-back", "s", func(s measure.Sample) float64 { return s.WriteBack }, 0, true},
	{"unstarted", "requests",
		func(s measure.Sample) float64 { return float64(s.Backlog) }, 0, false},
	{"steal", "% of CPU", func(s measure.Sample) float64 { return s.Steal }, alwaysShown, false},
	{"others", "% of CPU", func(s measure.Sample) float64 { return s.Others }, alwaysShown, false},
}

func (c column) text(v float64) string {
	if c.unit == "% of CPU" {
		return strconv.FormatFloat(100*v, 'f', 1, 64)
	}
	return digits(v)
}

// cell prints one figure of a result that was measured: its median, and the smallest and the
// largest of the rounds unless they print alike.
func (c column) cell(result measure.Result) cell {
	made := cell{Text: none, Class: "figure"}
	if c.server && result.Server == measure.RawName {
		return made
	}
	var v []float64
	for _, s := range result.Samples {
		v = append(v, c.of(s))
	}
	made.Text = c.text(c.of(result.Median))
	if a, b := c.text(slices.Min(v)), c.text(slices.Max(v)); a != b {
		made.Under = a + "–" + b
	}
	return made
}

// sectionCells makes the table of a section, a body per load in the order of the run.
func (r report) sectionCells(name, anchor string) htmlTable {
	used := r.usedColumns(name)
	t := htmlTable{Anchor: anchor, Class: "results", Label: "All figures of the section " + name,
		Heads: []cell{{Text: "server"}}}
	for _, c := range used {
		t.Heads = append(t.Heads, cell{Text: c.head, Under: c.unit, Class: "figure"})
	}
	for _, result := range r.Results {
		if result.Load.Section != name {
			continue
		}
		title := result.Load.String()
		i := slices.IndexFunc(t.Bodies, func(b tableBody) bool { return b.Title == title })
		if i < 0 {
			i = len(t.Bodies)
			t.Bodies = append(t.Bodies, tableBody{Title: title})
		}
		t.Bodies[i].Rows = append(t.Bodies[i].Rows, r.resultRows(result, used)...)
	}
	return t
}

// usedColumns leaves out what says nothing in a section.
func (r report) usedColumns(name string) []column {
	some := func(is func(measure.Result) bool) bool {
		return slices.ContainsFunc(r.Results, func(result measure.Result) bool {
			return result.Load.Section == name && is(result)
		})
	}
	return slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		switch c.when {
		case alwaysShown:
			return false
		case withoutDisk:
			return some(func(result measure.Result) bool { return result.Load.OnDisk() })
		case largeOnly:
			return !some(func(result measure.Result) bool {
				return result.Load.BlockSize >= measure.MediumBlock
			})
		}
		return !some(func(result measure.Result) bool {
			return slices.ContainsFunc(result.Samples, func(s measure.Sample) bool {
				return c.of(s) != 0
			})
		})
	})
}

// resultRows are the row of a result, and one for the rounds that failed.
func (r report) resultRows(result measure.Result, used []column) []tableRow {
	head := cell{Text: result.Server, Head: true, Swatch: r.look(result.Server).swatch()}
	if result.Server == "ringnbd" {
		head.Class = "strong"
	}
	row := tableRow{Class: "result", Cells: []cell{head}}
	if len(result.Samples) == 0 {
		row.Failed = append([]string{"failed"}, result.Errors...)
		return []tableRow{row}
	}
	for _, c := range used {
		row.Cells = append(row.Cells, c.cell(result))
	}
	if len(result.Errors) == 0 {
		return []tableRow{row}
	}
	return []tableRow{row,
		{Class: "errors", Failed: append([]string{fmt.Sprintf("of %s, %d rounds "+
			"were measured, and these failed:", result.Server, len(result.Samples))},
			result.Errors...)}}
}

// tile is one headline number with what it is over all loads.
type tile struct{ Median, Words, Range string }

// aheadHeads are the columns of the headline's table. Servers that write into the page cache answer
// before the disk has the data, so each way has peers of its own.
var aheadHeads = []struct {
	head, unit string
	tile       string // its words; none for the page cache
	server     string
	all        bool // peers, whatever their way to the file; without a figure: the raw limit
	figure     func(measure.Sample) float64
	more       bool // is better
}{
	{head: "raw limit", unit: "requests/s", tile: "of the raw limit’s requests per second",
		server: "ringnbd", more: true},
	{"O_DIRECT, fastest", "requests/s", "× the requests per second of the fastest peer on O_DIRECT",
		"ringnbd", false, measure.RequestRate, true},
	{"O_DIRECT, cheapest", "server CPU, less is better",
		"× the server CPU per request of the cheapest peer on O_DIRECT (less is better)",
		"ringnbd", false, measure.Sample.ServerCPU, false},
	{"all peers, cheapest", "server CPU, less is better", "× the server CPU per request of the " +
		"cheapest of all peers, page cache or not (less is better)",
		"ringnbd", true, measure.Sample.ServerCPU, false},
	{"page cache, fastest", "requests/s", "", "ringnbd-cached", false, measure.RequestRate, true},
	{"page cache, cheapest", "server CPU, less is better", "", "ringnbd-cached", false,
		measure.Sample.ServerCPU, false},
}

// ahead makes the headline out of the disk section: ringnbd against the raw limit and the best
// peer. The table is nil without that section.
func (r report) ahead() (tiles []tile, table *htmlTable) {
	t := newTable("ahead table-wide", "Ratios by load", cell{Text: "load (connections × depth)"})
	values := make([][]float64, len(aheadHeads))
	for _, h := range aheadHeads {
		t.Heads = append(t.Heads, cell{Text: h.head, Under: h.unit, Class: "figure"})
	}
	for _, l := range r.Section("disk") {
		row := []cell{{Text: l.String(), Head: true}}
		for i, h := range aheadHeads {
			c := cell{Text: none, Class: "figure"}
			x, peer, ok := r.ratioTo(l, h.server, h.all, h.figure, h.more)
			if ok && finite(x) {
				values[i] = append(values[i], x)
				c.Text, c.Under = fmt.Sprintf("%.2f", x), peer
				if peer != "" {
					c.Class += map[bool]string{true: " good", false: " bad"}[(x >= 1) == h.more]
				}
			}
			row = append(row, c)
		}
		if slices.ContainsFunc(row[1:], func(c cell) bool { return c.Text != none }) {
			t.add(row...)
		}
	}
	for i, h := range aheadHeads {
		if v := values[i]; h.tile != "" && len(v) > 0 {
			tiles = append(tiles, tile{fmt.Sprintf("%.2f", measure.Median(v)), h.tile,
				fmt.Sprintf("median of %d loads; %.2f – %.2f", len(v), slices.Min(v),
					slices.Max(v))})
		}
	}
	if len(t.Bodies[0].Rows) == 0 {
		return nil, nil
	}
	return tiles, &t
}

// ratioTo is one cell of the headline's table: to the raw limit, or to the peer that is hardest to
// beat.
func (r report) ratioTo(l measure.Load, server string, all bool,
	figure func(measure.Sample) float64, more bool) (x float64, peer string, ok bool) {
	switch {
	case figure == nil:
		x, ok = judge.OfRaw(r.Report, l, server, measure.RequestRate)
		return x, "", ok
	case all:
		v, peer := judge.Hardest(r.Report, l, server, judge.Rivals(r.Report, l), figure, more)
		return measure.Median(v), peer, len(v) > 0
	}
	return judge.Best(r.Report, l, server, figure, more)
}
