// bench/RESULTS.md: the tables of a report, short enough to be read. A row has the same load
// over both transports: its figures are "unix / tcp".

package show

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/bench/profile"
	"ringnbd/engine/units"
)

// resultsNote opens the file.
const resultsNote = "# Results\n\nWritten by bench/suite from bench/measured.json.gz " +
	"(`make results`): do not edit. What is counted, and how to read it, is in " +
	"[README.md](README.md).\n\n"

// WriteResults writes the report to path as Markdown.
func WriteResults(measured *measure.Report, path string) error {
	r := report{measured}
	if err := r.enough(path); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(r.results()), 0o644)
}

// enough refuses a report of one round: it does not show how figures vary.
func (r report) enough(path string) error {
	if r.Rounds < judge.Enough {
		return fmt.Errorf("%s is not written from %d round: measure at least %d", path, r.Rounds,
			judge.Enough)
	}
	return nil
}

// results is the whole file.
func (r report) results() string {
	var b strings.Builder
	b.WriteString(resultsNote)
	fmt.Fprintf(&b, "Measured %s with `%s`: %s; a file of %s. %s. Of two figures in a cell, the "+
		"first is over a Unix socket, the second over TCP. %s\n\n",
		r.Date.Format("2006-01-02"), r.Command, r.rounds(), units.Exact(uint64(r.Size)), r.Machine,
		r.verdicts())
	for _, part := range []struct{ title, text string }{
		{"Against the raw limit and the best peers", r.ratioTable()},
		{"Other loads", r.otherTable()},
		{"Targets", r.targetTable()},
		{"Where ringnbd's CPU time goes", r.profileTable()},
		{"How to read the tables", r.notes()},
	} {
		if part.text != "" {
			fmt.Fprintf(&b, "## %s\n\n%s\n", part.title, part.text)
		}
	}
	return b.String()
}

// row is one line of a table: loads that differ in their transport only.
type row struct {
	load  measure.Load // without transport
	loads []measure.Load
}

// rows groups loads over their transports.
func rows(loads []measure.Load) []row {
	var all []row
	for _, l := range loads {
		key := l
		key.Transport = ""
		i := slices.IndexFunc(all, func(r row) bool { return r.load == key })
		if i < 0 {
			i = len(all)
			all = append(all, row{load: key})
		}
		all[i].loads = append(all[i].loads, l)
	}
	return all
}

// cell prints one figure for each transport.
func (w row) cell(figure func(measure.Load) string) string {
	var texts []string
	for _, l := range w.loads {
		text := figure(l)
		if text == "" {
			text = none
		}
		texts = append(texts, text)
	}
	if !slices.ContainsFunc(texts, func(s string) bool { return s != none }) {
		return none
	}
	return strings.Join(sameTail(texts), " / ")
}

// sameTail leaves a remark that all texts end with, " (qemu-nbd)", to the last.
func sameTail(texts []string) []string {
	last := texts[len(texts)-1]
	begin := strings.LastIndex(last, " (")
	if begin < 0 || slices.ContainsFunc(texts, func(s string) bool {
		return !strings.HasSuffix(s, last[begin:])
	}) {
		return texts
	}
	for i := range texts[:len(texts)-1] {
		texts[i] = strings.TrimSuffix(texts[i], last[begin:])
	}
	return texts
}

// median prints a figure of ringnbd's for each transport.
func (r report) median(w row, text func(measure.Sample) string) string {
	return w.cell(func(l measure.Load) string {
		if result := r.Result(l, "ringnbd"); result != nil && len(result.Samples) > 0 {
			return text(result.Median)
		}
		return ""
	})
}

// The figures that the tables show of a sample.
func rateCell(s measure.Sample) string { return fmt.Sprintf("%.0f", s.RequestsPerSecond) }
func cpuCell(s measure.Sample) string  { return fmt.Sprintf("%.1f", s.ServerCPU()) }

// limitText is ringnbd's share of the raw limit's requests per second.
func (r report) limitText(l measure.Load) string { return r.ofLimit(l, "ringnbd") }

// ofLimit is a server's share of the raw limit's requests per second.
func (r report) ofLimit(l measure.Load, server string) string {
	if x, ok := judge.OfRaw(r.Report, l, server, measure.RequestRate); ok {
		return fmt.Sprintf("%.2f", x)
	}
	return ""
}

// ratioTable sets ringnbd against the raw limit, and on each of the two ways to a file against the
// peers that take the same: O_DIRECT, where a write is answered when the disk has it, and the page
// cache.
func (r report) ratioTable() string {
	t := newMarkdown("lrrrrrrrr", "file; connections × depth", "requests/s",
		"server CPU µs/request", "requests/s × raw limit", "O_DIRECT: requests/s × fastest peer",
		"CPU × cheapest peer", "CPU × cheapest of all peers",
		"page cache: requests/s × fastest peer", "CPU × cheapest peer")
	for _, w := range rows(r.Section("disk")) {
		against := func(our string, figure func(measure.Sample) float64, more bool) string {
			return w.cell(func(l measure.Load) string { return r.against(l, our, figure, more) })
		}
		t.row(w.load, r.median(w, rateCell), r.median(w, cpuCell), w.cell(r.limitText),
			against("ringnbd", measure.RequestRate, true),
			against("ringnbd", measure.Sample.ServerCPU, false),
			w.cell(func(l measure.Load) string { return r.againstAll(l, "ringnbd") }),
			against("ringnbd-cached", measure.RequestRate, true),
			against("ringnbd-cached", measure.Sample.ServerCPU, false))
	}
	return t.text()
}

// brief are the sections that are shown besides that of the disk; the rest is in the report and
// among the targets.
var brief = []string{"depth", "large", "null", "memory", "loop", "unaligned"}

// otherTable has ringnbd's figures in the other sections.
func (r report) otherTable() string {
	t := newMarkdown("lrrrrrrr", "load; connections × depth", "requests/s", "p50 µs", "p99 µs",
		"server CPU µs/request", "requests/s × raw limit", "requests/s × fastest peer",
		"CPU × cheapest peer")
	for _, section := range brief {
		for _, w := range rows(r.Section(section)) {
			against := func(figure func(measure.Sample) float64, more bool) string {
				return w.cell(func(l measure.Load) string {
					return r.against(l, "ringnbd", figure, more)
				})
			}
			t.row(section+": "+w.load.Shape(), r.median(w, rateCell),
				r.median(w, func(s measure.Sample) string { return measure.Micros(s.P50) }),
				r.median(w, func(s measure.Sample) string { return measure.Micros(s.P99) }),
				r.median(w, cpuCell), w.cell(r.limitText), against(measure.RequestRate, true),
				against(measure.Sample.ServerCPU, false))
		}
	}
	return t.text()
}

func (r report) targetTable() string {
	t := newMarkdown("llll", "target", "wanted", "measured", "")
	for _, x := range judge.Targets(r.Report) {
		t.row(x.Name, x.Wants, x.Got, x.Verdict())
	}
	return t.text()
}

// kernelParts is how many parts of the kernel's time a line names.
const kernelParts = 4

// profileTable says where ringnbd's CPU time goes, which is what bounds its CPU figures.
func (r report) profileTable() string {
	t := newMarkdown("lrrrlr", "load", "µs/request", "its own code", "kernel", "most of it",
		"Go's runtime")
	for _, p := range r.Profiles {
		var own, all float64
		shares := map[string]float64{}
		for _, s := range p.Stages {
			shares[s.Name] = s.Share
			all += s.MicrosPerRequest
			if s.Name != profile.Kernel && s.Name != profile.Runtime {
				own += s.Share
			}
		}
		var parts []string
		for _, f := range p.Top {
			if name, kernel := strings.CutPrefix(f.Name, profile.KernelPrefix); kernel &&
				len(parts) < kernelParts {
				parts = append(parts, fmt.Sprintf("%s %.0f %%", name, 100*f.Share))
			}
		}
		t.row(p.Load, fmt.Sprintf("%.2f", all), fmt.Sprintf("%.0f %%", 100*own),
			fmt.Sprintf("%.0f %%", 100*shares[profile.Kernel]), strings.Join(parts, ", "),
			fmt.Sprintf("%.0f %%", 100*shares[profile.Runtime]))
	}
	if text := t.text(); text != "" {
		return "From profiles taken apart from the measurements (`--pprof`).\n\n" + text
	}
	return ""
}

// notes says how to read the tables, and what was measured.
func (r report) notes() string {
	var b strings.Builder
	b.WriteString("A server on the page cache answers writes before they reach the disk, and " +
		"what the kernel's threads spend on bringing them there is not in its CPU time. A target " +
		"is close when some rounds meet it and others do not: [lowest..highest].\n\n")
	t := newMarkdown("lll", "program", "how it reaches the file", "version")
	for _, p := range r.programs() {
		t.row(p.Name, p.Storage, p.Version)
	}
	t.row(measure.RawName, "the load generator itself: O_DIRECT, io_uring, registered buffers", "")
	b.WriteString(t.text())
	if line := judge.Warning(r.Report); line != "" {
		fmt.Fprintf(&b, "\nWarning: %s\n", line)
	}
	for _, line := range r.Failures() {
		fmt.Fprintf(&b, "\nFailed: %s\n", line)
	}
	return b.String()
}

// verdicts counts the targets: "Of 21 targets, 8 are met, 6 are close and 7 are missed."
func (r report) verdicts() string {
	counts := map[string]int{}
	targets := judge.Targets(r.Report)
	for _, t := range targets {
		counts[t.Verdict()]++
	}
	text := fmt.Sprintf("Of %d targets, %d are met, %d are close and %d are missed", len(targets),
		counts[judge.Met], counts[judge.Close], counts[judge.Missed])
	if n := counts[judge.NotJudged]; n > 0 {
		text += fmt.Sprintf("; %d are not judged", n)
	}
	return text + "."
}
