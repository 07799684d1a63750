// Tables for a terminal, one for each section.
//
// Invariant: every number printed is computed from the report; a table fits into 100 columns.

package show

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// Tables prints the whole report: each section with its question, then the targets and what failed.
func Tables(w io.Writer, measured *measure.Report) error {
	r := report{measured}
	var out printer
	out.w = w
	out.printf("%s\n%s\n", r.headline(), r.Machine)
	for _, name := range r.sections() {
		out.printf("\n%s", name)
		if s, ok := measure.SectionNamed(name); ok {
			out.printf(": %s", s.Question)
		}
		out.printf("\n%s\n%s", r.sectionTable(name), r.terminalRatios(name))
	}
	// Of sections that were not run, nothing is said here; JSON and README have them all.
	if targets := slices.DeleteFunc(judge.Targets(r.Report), func(t judge.Target) bool {
		return t.Got == judge.Unmeasured
	}); len(targets) > 0 {
		out.printf("\n%s\n", terminalTargets(targets))
	}
	if line := judge.Warning(r.Report); line != "" {
		out.printf("\nwarning: %s\n", line)
	}
	for _, line := range r.Failures() {
		out.printf("failed: %s\n", line)
	}
	return out.err
}

// headline says what was run and when.
func (r report) headline() string {
	return fmt.Sprintf("%s, %s: %s; a file of %s", r.Date.Format("2006-01-02"), r.Command,
		r.rounds(), units.Exact(uint64(r.Size)))
}

// rounds says how much was measured.
func (r report) rounds() string {
	if r.Rounds == 1 {
		return fmt.Sprintf("1 round of %g s", r.Seconds)
	}
	return fmt.Sprintf("%d rounds of %g s, medians", r.Rounds, r.Seconds)
}

// sections lists the names of the sections in the order of the run.
func (r report) sections() []string {
	var names []string
	for _, result := range r.Results {
		if name := result.Load.Section; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, a ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, a...)
	}
}

// newTerminal begins a table.
func newTerminal(heads table.Row) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(heads)
	return t
}

// newNumbers begins a table of which all columns but the first hold numbers.
func newNumbers(heads table.Row) table.Writer {
	t := newTerminal(heads)
	var right []table.ColumnConfig
	for n := 2; n <= len(heads); n++ {
		right = append(right, table.ColumnConfig{Number: n, Align: text.AlignRight,
			AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	return t
}

// appendLoad begins the rows of a load with its name over all columns.
func appendLoad(t table.Writer, name string, columns int) {
	t.AppendSeparator()
	t.AppendRow(slices.Repeat(table.Row{name}, columns),
		table.RowConfig{AutoMerge: true, AutoMergeAlign: text.AlignLeft})
}

// terminalHeads are the columns of a terminal's tables, beside those that the section plots; the
// page has all columns.
var terminalHeads = []string{"requests", "p50", "p99", "server CPU", "write-back", "unstarted",
	"steal", "others"}

// sectionTable has one row per load and server.
func (r report) sectionTable(section string) string {
	used, loads := r.rowsOf(section)
	heads := table.Row{"server"}
	var shown []int
	for i, m := range used {
		if slices.Contains(terminalHeads, m.Head) ||
			slices.ContainsFunc(plans[section].metrics, func(p metric) bool {
				return p.Head == m.Head
			}) {
			shown = append(shown, i)
			unit := strings.NewReplacer(" per ", "\nper ", " of ", "\nof ").Replace(m.Unit)
			heads = append(heads, m.Head+"\n"+unit)
		}
	}
	t := newNumbers(heads)
	for _, l := range loads {
		appendLoad(t, l.Title, len(heads))
		for _, result := range l.Rows {
			row := table.Row{result.Server}
			for _, i := range shown {
				if len(result.Cells) == 0 {
					row = append(row, "failed")
					break
				}
				row = append(row, result.Cells[i].Text)
			}
			t.AppendRow(row)
		}
	}
	return t.Render()
}

// terminalRatios has one row per load and server of ours: how it stands to the raw limit and to the
// best peer. At a fixed rate every server does what is asked for.
func (r report) terminalRatios(section string) string {
	heads := table.Row{"server", "of raw", "requests/s × best peer", "CPU × best peer"}
	t := newNumbers(heads)
	for _, l := range r.Section(section) {
		ours := slices.DeleteFunc(r.Servers(l), func(s string) bool { return !judge.Ours(s) })
		if len(ours) > 0 {
			appendLoad(t, l.String(), len(heads))
		}
		for _, server := range ours {
			limit, rate := "", ""
			if l.Rate == 0 {
				limit = r.ofLimit(l, server)
				rate = r.against(l, server, measure.RequestRate, true)
			}
			t.AppendRow(table.Row{server, limit, rate,
				r.against(l, server, measure.Sample.ServerCPU, false)})
		}
	}
	if t.Length() == 0 {
		return ""
	}
	return t.Render() + "\n"
}

func terminalTargets(targets []judge.Target) string {
	var wrapped []table.ColumnConfig
	for i, width := range []int{30, 18, 29} {
		wrapped = append(wrapped, table.ColumnConfig{Number: i + 1, WidthMax: width,
			WidthMaxEnforcer: text.WrapSoft})
	}
	t := newTerminal(table.Row{"target", "wanted", "measured", ""})
	t.SetColumnConfigs(wrapped)
	for _, x := range targets {
		t.AppendRow(table.Row{x.Name, x.Wants, x.Got, x.Verdict()})
		t.AppendSeparator()
	}
	return t.Render()
}
