// Tables for a terminal, one for each section.
//
// Invariant: every number printed is computed from the report.

package show

import (
	"fmt"
	"io"
	"slices"

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
		out.printf("\n%s\n", r.sectionTable(name))
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
	for _, l := range r.Loads() {
		if !slices.Contains(names, l.Section) {
			names = append(names, l.Section)
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

// sectionTable has one row per load and server.
func (r report) sectionTable(name string) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.SuppressEmptyColumns()
	t.AppendHeader(table.Row{"load", "server", "requests/s", "MiB/s", "p50 µs", "p99 µs",
		"p99.9 µs", "CPU µs/request", "user", "switches", "RSS MiB",
		"start s", "write-back s", "unstarted", "steal %", "others %", "of raw", "rate × best peer",
		"CPU × best peer"})
	right := []table.ColumnConfig{{Number: 1, AutoMerge: true}}
	for n := 3; n <= 19; n++ {
		right = append(right, table.ColumnConfig{Number: n, Align: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	for _, l := range r.Section(name) {
		if raw := r.Raw(l); raw != nil {
			t.AppendRow(r.row(l, raw))
		}
		for _, server := range r.Servers(l) {
			t.AppendRow(r.row(l, r.Result(l, server)))
		}
		t.AppendSeparator()
	}
	return t.Render()
}

// row is one result among the loads of servers; the raw limit is repeated for each transport.
func (r report) row(l measure.Load, result *measure.Result) table.Row {
	if len(result.Samples) == 0 {
		return table.Row{l, result.Server, "failed"}
	}
	m := result.Median
	row := table.Row{l, result.Server, fmt.Sprintf("%.0f", m.RequestsPerSecond),
		fmt.Sprintf("%.0f", m.BytesPerSecond/(1<<20)),
		measure.Micros(m.P50), measure.Micros(m.P99), measure.Micros(m.P999)}
	raw := result.Server == measure.RawName
	unless := func(empty bool, format string, value float64) string {
		if empty {
			return ""
		}
		return fmt.Sprintf(format, value)
	}
	row = append(row, unless(raw, "%.1f", m.ServerCPU()), unless(raw, "%.1f", m.ServerUser),
		unless(raw, "%.2f", m.Switches),
		unless(raw, "%.0f", float64(m.PeakRSS)/(1<<20)),
		unless(l.Section != "exports", "%.2f", m.StartSeconds),
		unless(raw || !l.Writes() || !l.OnDisk(), "%.1f", m.WriteBack),
		unless(l.Rate == 0, "%.0f", float64(m.Backlog)), fmt.Sprintf("%.1f", 100*m.Steal),
		fmt.Sprintf("%.1f", 100*m.Others))
	if raw {
		return row
	}
	limit := ""
	if x, ok := judge.OfRaw(r.Report, l, result.Server, measure.RequestRate); ok && l.Rate == 0 {
		limit = fmt.Sprintf("%.2f", x)
	}
	row = append(row, limit)
	if judge.Ours(result.Server) {
		rate := r.against(l, result.Server, measure.RequestRate, true)
		if l.Rate > 0 {
			rate = ""
		}
		row = append(row, rate, r.against(l, result.Server, measure.Sample.ServerCPU, false))
	}
	return row
}

func terminalTargets(targets []judge.Target) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"target", "wanted", "measured", ""})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 1, WidthMax: 60,
		WidthMaxEnforcer: text.WrapSoft},
		{Number: 3, WidthMax: 70, WidthMaxEnforcer: text.WrapSoft}})
	for _, x := range targets {
		t.AppendRow(table.Row{x.Name, x.Wants, x.Got, x.Verdict()})
	}
	return t.Render()
}
