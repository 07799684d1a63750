// The README's tables out of a report, short enough to be read. Invariant: every
// number printed is computed from the report; the README's block between the
// markers holds nothing else.

package show

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/bench/profile"
	"ringnbd/engine/units"
)

// The README's block starts and ends with these lines.
const (
	beginMarker = "<!-- bench: begin (written by bench/suite from its JSON, do not edit) -->"
	endMarker   = "<!-- bench: end -->"
)

// none stands where nothing was measured.
const none = "–"

// markdown renders the report for the README. A row has the same load over both
// transports: the figures are "unix / tcp".
func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b,
		"Measured %s with `%s`: %s; a file of %s. %s. Of two figures in a cell, the first is "+
			"over a Unix socket, the second over TCP.\n\n",
		r.Date.Format("2006-01-02"), r.Command, r.rounds(), units.Exact(uint64(r.Size)), r.Machine)
	r.writeRatios(&b)
	r.writeOthers(&b)
	r.writeTargets(&b)
	r.writeProfiles(&b)
	r.writeNotes(&b)
	return b.String()
}

// kernelParts is how many parts of the kernel's time a line of the README names.
const kernelParts = 4

// writeProfiles tells where ringnbd's CPU time goes, which is what bounds its CPU figures.
func (r report) writeProfiles(b *strings.Builder) {
	if len(r.Profiles) == 0 {
		return
	}
	b.WriteString("Where ringnbd's CPU time goes, from profiles taken apart from the " +
		"measurements (`-pprof`):\n\n| load | µs/request | its own code | kernel | most of it | " +
		"Go's runtime |\n|---|--:|--:|--:|---|--:|\n")
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
		fmt.Fprintf(b, "| %s | %.2f | %.0f %% | %.0f %% | %s | %.0f %% |\n", p.Load, all, 100*own,
			100*shares[profile.Kernel], strings.Join(parts, ", "), 100*shares[profile.Runtime])
	}
	b.WriteString("\n")
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

// limitText is the share of the raw limit's requests per second.
func (r report) limitText(l measure.Load) string {
	if x, ok := judge.OfRaw(r.Report, l, "ringnbd", measure.RequestRate); ok {
		return fmt.Sprintf("%.2f", x)
	}
	return ""
}

// writeRatios sets ringnbd against the raw limit, and on each of the two ways to a
// file against the peers that take the same: O_DIRECT, where a write is answered
// when the disk has it, and the page cache.
func (r report) writeRatios(b *strings.Builder) {
	all := rows(r.Section("disk"))
	if len(all) == 0 {
		return
	}
	b.WriteString("| file; connections × depth | requests/s | server CPU µs/request | " +
		"requests/s × raw limit | O_DIRECT: requests/s × fastest peer | CPU × cheapest peer | " +
		"CPU × cheapest of all peers " +
		"| page cache: requests/s × fastest peer | CPU × cheapest peer " +
		"|\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, w := range all {
		against := func(our string, figure func(measure.Sample) float64, more bool) string {
			return w.cell(func(l measure.Load) string { return r.against(l, our, figure, more) })
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", w.load,
			r.median(w, rateCell), r.median(w, cpuCell), w.cell(r.limitText),
			against("ringnbd", measure.RequestRate, true),
			against("ringnbd", measure.Sample.ServerCPU, false),
			w.cell(func(l measure.Load) string { return r.againstAll(l, "ringnbd") }),
			against("ringnbd-cached", measure.RequestRate, true),
			against("ringnbd-cached", measure.Sample.ServerCPU, false))
	}
	b.WriteString("\n")
}

// brief are the sections that the README shows ringnbd's figures of, besides the
// disk; the rest is in the report and among the targets.
var brief = []string{"depth", "large", "null", "memory", "loop", "unaligned"}

// writeOthers prints ringnbd's figures in the other sections.
func (r report) writeOthers(b *strings.Builder) {
	var lines strings.Builder
	for _, section := range brief {
		for _, w := range rows(r.Section(section)) {
			against := func(figure func(measure.Sample) float64, more bool) string {
				return w.cell(func(l measure.Load) string {
					return r.against(l, "ringnbd", figure, more)
				})
			}
			fmt.Fprintf(&lines, "| %s: %s | %s | %s | %s | %s | %s | %s | %s |\n", section,
				w.load.Shape(),
				r.median(w, rateCell), r.median(w, func(s measure.Sample) string {
					return measure.Micros(s.P50)
				}), r.median(w, func(s measure.Sample) string { return measure.Micros(s.P99) }),
				r.median(w, cpuCell), w.cell(r.limitText), against(measure.RequestRate, true),
				against(measure.Sample.ServerCPU, false))
		}
	}
	if lines.Len() == 0 {
		return
	}
	b.WriteString("| load; connections × depth | requests/s | p50 µs | p99 µs | server CPU " +
		"µs/request | requests/s × raw limit | requests/s × fastest peer | CPU × cheapest peer |\n" +
		"|---|--:|--:|--:|--:|--:|--:|--:|\n")
	b.WriteString(lines.String() + "\n")
}

func (r report) writeTargets(b *strings.Builder) {
	b.WriteString("| target | wanted | measured | |\n|---|---|---|---|\n")
	for _, t := range judge.Targets(r.Report) {
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", t.Name, t.Wants, t.Got, t.Verdict())
	}
	b.WriteString("\n")
}

// writeNotes says how to read the tables.
func (r report) writeNotes(b *strings.Builder) {
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(r.Storage)) {
		paths = append(paths, fmt.Sprintf("%s: %s", name, r.Storage[name]))
	}
	fmt.Fprintf(b,
		"How each reaches the file: %s; raw: the load generator itself, O_DIRECT, io_uring, "+
			"registered buffers. "+
			"A server on the page cache answers writes before they reach the disk, and what the "+
			"kernel's threads spend on bringing them there is not in its CPU time. "+
			"A target is close when some rounds meet it and others do not: [lowest..highest]. What "+
			"is counted is in `bench/doc.go`.\n\n", strings.Join(paths, "; "))
	names := map[string][]string{} // by version
	for _, name := range slices.Sorted(maps.Keys(r.Machine.Versions)) {
		names[r.Machine.Versions[name]] = append(names[r.Machine.Versions[name]], name)
	}
	var versions []string
	for version, who := range names {
		versions = append(versions, strings.Join(who, ", ")+": "+version)
	}
	slices.Sort(versions)
	fmt.Fprintf(b, "Versions: %s.\n", strings.Join(versions, "; "))
	if line := judge.Warning(r.Report); line != "" {
		fmt.Fprintf(b, "\nWarning: %s\n", line)
	}
	for _, line := range r.Failures() {
		fmt.Fprintf(b, "\nFailed: %s\n", line)
	}
}

// WriteREADME replaces the block between the markers of a file by the report. One
// round alone is refused: it shows nothing of how figures vary.
func WriteREADME(measured *measure.Report, path string) error {
	r := report{measured}
	if r.Rounds < judge.Enough {
		return fmt.Errorf("%s is not written from %d round: measure at least %d", path, r.Rounds,
			judge.Enough)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := replaceBlock(old, r.markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if bytes.Equal(old, text) {
		return nil
	}
	return os.WriteFile(path, text, 0o644)
}

// replaceBlock puts block between the marker lines of text.
func replaceBlock(text []byte, block string) ([]byte, error) {
	head, rest, ok := bytes.Cut(text, []byte(beginMarker))
	if !ok {
		return nil, fmt.Errorf("no line %q", beginMarker)
	}
	_, tail, ok := bytes.Cut(rest, []byte(endMarker))
	if !ok {
		return nil, fmt.Errorf("no line %q after the first marker", endMarker)
	}
	return slices.Concat(head, []byte(beginMarker+"\n"), []byte(block), []byte(endMarker),
		tail), nil
}
