// The page's tables and its headline. Invariant: every result of the report is a row
// of exactly one section's table, those that failed with what went wrong.

package show

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// column is one figure of a table.
type column struct {
	Head, Unit string
	Server     bool // not a figure of the raw limit
	Always     bool // also when it is 0 throughout the section
	// only where no load reaches the disk: elsewhere it is but another word for server CPU
	NoDisk bool
	Data   bool // only where requests are large: elsewhere it is but another word for requests
	of     func(measure.Sample) float64
	text   func(float64) string // digits, when there is none
}

var columns = []column{
	{Head: "requests", Unit: "per second", Always: true, of: measure.RequestRate},
	{Head: "data", Unit: "MiB/s", Data: true, of: func(s measure.Sample) float64 {
		return s.BytesPerSecond / (1 << 20)
	}},
	{Head: "p50", Unit: "µs", Always: true, of: func(s measure.Sample) float64 { return s.P50 }},
	{Head: "p99", Unit: "µs", Always: true, of: func(s measure.Sample) float64 { return s.P99 }},
	{Head: "p99.9", Unit: "µs", of: func(s measure.Sample) float64 { return s.P999 }},
	{Head: "server CPU", Unit: "µs per request", Server: true, Always: true,
		of: measure.Sample.ServerCPU},
	{Head: "user", Unit: "µs per request", Server: true, of: func(s measure.Sample) float64 {
		return s.ServerUser
	}},
	{Head: "system", Unit: "µs per request", Server: true, of: func(s measure.Sample) float64 {
		return s.ServerSystem
	}},
	{Head: "per CPU", Unit: "requests per CPU second", Server: true, NoDisk: true,
		of: measure.Sample.RequestsPerCPUSecond},
	{Head: "generator", Unit: "CPU µs per request", of: func(s measure.Sample) float64 {
		return s.ClientCPU
	}},
	{Head: "switches", Unit: "per request", Server: true, of: func(s measure.Sample) float64 {
		return s.Switches
	}},
	{Head: "memory", Unit: "peak MiB", Server: true, of: func(s measure.Sample) float64 {
		return float64(s.PeakRSS) / (1 << 20)
	}},
	{Head: "start", Unit: "ms", Server: true, of: func(s measure.Sample) float64 {
		return 1e3 * s.StartSeconds
	}},
	{Head: "write-back", Unit: "s", Server: true, of: func(s measure.Sample) float64 {
		return s.WriteBack
	}},
	{Head: "unstarted", Unit: "requests", of: func(s measure.Sample) float64 {
		return float64(s.Backlog)
	}},
	{Head: "steal", Unit: "% of CPU", Always: true, of: func(s measure.Sample) float64 {
		return 100 * s.Steal
	},
		text: func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }},
	{Head: "others", Unit: "% of CPU", Always: true, of: func(s measure.Sample) float64 {
		return 100 * s.Others
	},
		text: func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }},
}

// sectionTable is one section in numbers.
type sectionTable struct {
	Anchor, Name, Question string
	Columns                []column
	Groups                 []loadGroup
}

// Span is how many cells stand behind a server's name.
func (t sectionTable) Span() int { return len(t.Columns) }

// Width is how many cells a row has.
func (t sectionTable) Width() int { return len(t.Columns) + 1 }

// loadGroup is one load with everybody who met it.
type loadGroup struct {
	Load string
	Rows []resultRow
}

// resultRow is one result.
type resultRow struct {
	Server  string
	Swatch  template.HTML
	Strong  bool
	Rounds  int
	Missing bool // no round was measured
	Cells   []cell
	Errors  []string
}

// cell is a median and its spread over the rounds.
type cell struct{ Median, Spread string }

// htmlTable makes the table of a section, a body per load in the order of the run.
func (r report) htmlTable(name, anchor string, l looks) sectionTable {
	t := sectionTable{Anchor: anchor, Name: name, Question: question(name),
		Columns: r.usedColumns(name)}
	index := map[measure.Load]int{}
	for _, result := range r.Results {
		if result.Load.Section != name {
			continue
		}
		i, ok := index[result.Load]
		if !ok {
			i = len(t.Groups)
			index[result.Load] = i
			t.Groups = append(t.Groups, loadGroup{Load: result.Load.String()})
		}
		t.Groups[i].Rows = append(t.Groups[i].Rows, makeRow(result, t.Columns, l))
	}
	return t
}

// usedColumns leaves out what is 0 in all of a section.
func (r report) usedColumns(name string) []column {
	some := func(is func(measure.Result) bool) bool {
		return slices.ContainsFunc(r.Results, func(result measure.Result) bool {
			return result.Load.Section == name && is(result)
		})
	}
	disk := some(func(result measure.Result) bool { return result.Load.OnDisk() })
	data := some(func(result measure.Result) bool {
		return result.Load.BlockSize >= measure.MediumBlock
	})
	return slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		measured := some(func(result measure.Result) bool {
			return slices.ContainsFunc(result.Samples, func(s measure.Sample) bool {
				return c.of(s) != 0
			})
		})
		return c.NoDisk && disk || c.Data && !data || !c.Always && !measured
	})
}

func makeRow(result measure.Result, used []column, l looks) resultRow {
	row := resultRow{Server: result.Server, Swatch: lineSwatch(l[result.Server]),
		Strong: result.Server == "ringnbd",
		Rounds: len(result.Samples), Missing: len(result.Samples) == 0, Errors: result.Errors}
	if row.Missing {
		return row
	}
	for _, c := range used {
		if c.Server && result.Server == measure.RawName {
			row.Cells = append(row.Cells, cell{Median: "–"})
			continue
		}
		row.Cells = append(row.Cells, c.cell(result))
	}
	return row
}

// cell prints one figure of a result that was measured: its median, and the smallest
// and the largest of the rounds unless they print alike.
func (c column) cell(result measure.Result) cell {
	text := c.text
	if text == nil {
		text = digits
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range result.Samples {
		low, high = min(low, c.of(s)), max(high, c.of(s))
	}
	made := cell{Median: text(c.of(result.Median))}
	if a, b := text(low), text(high); a != b {
		made.Spread = a + "–" + b
	}
	return made
}

// digits prints three significant digits at least, and all of those before the
// decimal point, in groups.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case !finite(v):
		return "–"
	case v == 0:
		return "0"
	case a >= 99.95:
		return units.Count(v)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.0995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'f', 4, 64)
	}
}

// ahead is the headline: ringnbd against the raw limit and the best peer.
type ahead struct {
	Tiles []tile
	Rows  []aheadRow
}

// tile is one headline number with what it is over all loads.
type tile struct {
	Median, Range, Of, Words string
}

// aheadRow is one load of the disk section.
type aheadRow struct {
	Load  string
	Cells []aheadCell
}

// aheadCell is a ratio and whose figure it is to.
type aheadCell struct {
	Ratio, Peer, Class string
	value              float64
}

// opponent is whom a ratio is to.
type opponent int

const (
	rawLimit  opponent = iota
	samePath           // the peer that is hardest to beat of those that reach the file the same way
	everyPath          // of all peers
)

// aheadHeads are the columns of the headline's table. Whoever writes into the page
// cache answers before the disk has it, so each way has peers of its own.
var aheadHeads = []struct {
	words  string // of a tile; none for the page cache
	server string
	of     opponent
	figure func(measure.Sample) float64
	more   bool
}{
	{"of the raw limit’s requests per second", "ringnbd", rawLimit, measure.RequestRate, true},
	{"× the requests per second of the fastest peer on O_DIRECT", "ringnbd", samePath,
		measure.RequestRate,
		true},
	{"× the server CPU per request of the cheapest peer on O_DIRECT (less is better)", "ringnbd",
		samePath, measure.Sample.ServerCPU, false},
	{"× the server CPU per request of the cheapest of all peers, page cache or not (less is " +
		"better)", "ringnbd", everyPath, measure.Sample.ServerCPU, false},
	{"", "ringnbd-cached", samePath, measure.RequestRate, true},
	{"", "ringnbd-cached", samePath, measure.Sample.ServerCPU, false},
}

// ahead makes the headline out of the disk section; it is empty without one.
func (r report) ahead() ahead {
	var a ahead
	byHead := make([][]aheadCell, len(aheadHeads))
	for _, l := range r.Section("disk") {
		row := aheadRow{Load: l.String()}
		found := false
		for i, h := range aheadHeads {
			c := r.aheadCell(l, h.server, h.of, h.figure, h.more)
			if c.Ratio != "" {
				byHead[i] = append(byHead[i], c)
				found = true
			}
			row.Cells = append(row.Cells, c)
		}
		if found {
			a.Rows = append(a.Rows, row)
		}
	}
	for i, h := range aheadHeads {
		if h.words != "" && len(byHead[i]) > 0 {
			a.Tiles = append(a.Tiles, makeTile(h.words, byHead[i]))
		}
	}
	return a
}

func (r report) aheadCell(l measure.Load, server string, of opponent,
	figure func(measure.Sample) float64,
	more bool) aheadCell {
	var x float64
	var ok bool
	peer := ""
	switch of {
	case rawLimit:
		x, ok = judge.OfRaw(r.Report, l, server, figure)
	case samePath:
		x, peer, ok = judge.Best(r.Report, l, server, figure, more)
	case everyPath:
		var v []float64
		v, peer = judge.Hardest(r.Report, l, server, judge.Rivals(r.Report, l), figure, more)
		x, ok = measure.Median(v), len(v) > 0
	}
	if !ok || !finite(x) {
		return aheadCell{}
	}
	c := aheadCell{Ratio: fmt.Sprintf("%.2f", x), Peer: peer, value: x}
	switch {
	case of == rawLimit:
	case (x >= 1) == more:
		c.Class = "good"
	default:
		c.Class = "bad"
	}
	return c
}

// makeTile is the median of a ratio over all loads, with its range.
func makeTile(words string, cells []aheadCell) tile {
	var v []float64
	for _, c := range cells {
		v = append(v, c.value)
	}
	loads := "1 load"
	if len(v) > 1 {
		loads = fmt.Sprintf("%d loads", len(v))
	}
	return tile{Median: fmt.Sprintf("%.2f", measure.Median(v)),
		Range: fmt.Sprintf("%.2f – %.2f", slices.Min(v), slices.Max(v)), Of: loads, Words: words}
}
