// The report as text, for people at a terminal of any width.

package load

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	ansi "github.com/jedib0t/go-pretty/v6/text"

	"ringnbd/engine/units"
)

// Table writes the report for people; width is that of their terminal in columns, or 0.
func (r *Report) Table(w io.Writer, width int) error {
	table := aligned(r.cells())
	if width > 0 && widest(table) > width {
		table = aligned(transposed(r.cells()))
	}
	var b strings.Builder
	b.WriteString(folded(r.Target+": "+r.Title(), width) + "\n\n" + table + "\n")
	for _, line := range r.lines() {
		b.WriteString(folded(line, width) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cells returns the head of the table and a row for each kind of request.
func (r *Report) cells() [][]string {
	rows := [][]string{{"", "requests", "requests/s", "MiB/s", "mean", "p50", "p90", "p99", "p99.9",
		"max", "errors"}}
	mebibytes := func(rate float64) string { return fmt.Sprintf("%.1f", rate/(1<<20)) }
	for i := range r.Kinds {
		k := &r.Kinds[i]
		var errors uint64
		for _, n := range k.Errors {
			errors += n
		}
		l := &k.Latency
		rows = append(rows, []string{k.Kind, units.Count(k.Requests),
			units.Count(k.RequestsPerSecond), mebibytes(k.BytesPerSecond), microseconds(l.Mean),
			microseconds(l.P50), microseconds(l.P90), microseconds(l.P99), microseconds(l.P999),
			microseconds(l.Max), units.Count(errors)})
	}
	if len(r.Kinds) > 1 {
		rows = append(rows, []string{"all", units.Count(r.Requests),
			units.Count(r.RequestsPerSecond), mebibytes(r.BytesPerSecond),
			"", "", "", "", "", "", units.Count(r.Failures)})
	}
	return rows
}

// transposed turns rows into columns, for terminals that are narrower than the table.
func transposed(rows [][]string) [][]string {
	columns := make([][]string, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			columns[i] = append(columns[i], cell)
		}
	}
	return columns
}

// aligned prints rows as a table.
func aligned(rows [][]string) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	}
	_ = t.Flush() // into memory
	return b.String()
}

// widest returns the width of the longest line.
func widest(all string) int {
	width := 0
	for line := range strings.SplitSeq(all, "\n") {
		width = max(width, ansi.StringWidth(line))
	}
	return width
}

// folded breaks a line at spaces and indents the lines after the first. Without a width the line is
// left whole.
func folded(line string, width int) string {
	const indent = "  "
	if width < 20 || ansi.StringWidth(line) <= width {
		return line
	}
	lines := strings.Split(ansi.WrapSoft(line, width-len(indent)), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n"+indent)
}

// Title describes the load in one line.
func (r *Report) Title() string {
	text := r.Pattern
	if r.ReadPercent != nil {
		text += fmt.Sprintf(" %d:%d", *r.ReadPercent, 100-*r.ReadPercent)
	}
	if r.BlockSizes != "" && r.Pattern != "flush" {
		text += ", " + r.BlockSizes
	}
	text += fmt.Sprintf(", %d × %d in flight, %s, %s", r.Connections, r.Depth,
		units.Plural(r.Threads, "thread"), microseconds(r.Seconds*1e6))
	switch {
	case r.Congestion != "":
		text += ", tcp " + r.Congestion
	case r.Direct != nil && *r.Direct:
		text += ", O_DIRECT"
	case r.Direct != nil:
		text += ", through the page cache"
	default:
		text += ", " + r.Transport
	}
	if r.Interrupted {
		text += ", ended early"
	}
	return text
}

// lines returns everything below the table.
func (r *Report) lines() []string {
	var lines []string
	if r.Replay != nil {
		lines = append(lines, r.Replay.text())
	}
	if o := r.Open; o != nil {
		lines = append(lines,
			fmt.Sprintf("open loop: %s requests/s asked for, %s arrivals; latency counts from "+
				"the time a request was due; started late by p50 %s, p99 %s, max %s",
				units.Count(o.Rate), o.Arrivals, microseconds(o.Lag.P50), microseconds(o.Lag.P99),
				microseconds(o.Lag.Max)))
		line := fmt.Sprintf("backlog: at most %s requests due and not started",
			units.Count(o.MaxBacklog))
		if o.Behind {
			line += fmt.Sprintf("; %s of them never were, and are not in the table: the target "+
				"does not keep up", units.Count(o.BacklogEnd))
		}
		lines = append(lines, line)
	}
	if v := r.Verify; v != nil {
		lines = append(lines, fmt.Sprintf("verified: %s MiB read, %s bad blocks",
			units.Count(v.Judged>>20), units.Count(v.Found)))
		for _, f := range v.Findings {
			lines = append(lines, "  "+f.String())
		}
	}
	for i := range r.Kinds {
		k := &r.Kinds[i]
		names := make([]string, 0, len(k.Errors))
		for name := range k.Errors {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			lines = append(lines, fmt.Sprintf("errors: %s %s for %s", units.Count(k.Errors[name]),
				name, k.Kind))
		}
	}
	if r.Idle > 0 {
		lines = append(lines, r.idleText())
	}
	g := &r.Generator
	lines = append(lines,
		fmt.Sprintf("generator: %.2f µs of processor time per request, %.1f requests per turn, "+
			"seed %d", g.CPUPerRequest, g.RequestsPerTurn, r.Seed))
	for _, note := range r.Notes {
		lines = append(lines, "note: "+note)
	}
	return lines
}

// microseconds prints a time of the report.
func microseconds(us float64) string { return units.Duration(time.Duration(us * 1e3)) }
