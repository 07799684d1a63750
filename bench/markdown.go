package bench

// Tables out of a report. Invariant: every number printed is computed from the
// report; the README's block between the markers holds nothing else.

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// The README's block starts and ends with these lines.
const (
	beginMarker = "<!-- sidebyside: begin (written by bench/sidebyside from its JSON, do not edit) -->"
	endMarker   = "<!-- sidebyside: end -->"
)

// Markdown renders the whole report.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s with `%s`: %s file, %d rounds of %g s, medians. %s.\n\n",
		r.Date.Format("2006-01-02"), r.Command, sizeText(r.Size), r.Rounds, r.Seconds, r.Machine)
	r.writeComparison(&b)
	r.writeTable(&b)
	r.writeNotes(&b)
	return b.String()
}

// writeComparison sets ringnbd against the raw limit, and on each of the two ways to a file against the peers that take the same: O_DIRECT, where a write is
// answered when the disk has it, and the page cache.
func (r *Report) writeComparison(b *strings.Builder) {
	rate := func(s Sample) float64 { return s.RequestsPerSecond }
	direct, cached := r.paths()
	var rows strings.Builder
	for _, l := range r.loads() {
		limit := "–"
		if ours, raw := r.result(l, "ringnbd"), r.raw(l); ours != nil && raw != nil {
			if x, ok := ratio(ours.Samples, raw.Samples, rate); ok {
				limit = fmt.Sprintf("%.2f", x)
			}
		}
		cells := []string{limit,
			r.against(l, "ringnbd", direct, rate, true), r.against(l, "ringnbd", direct, Sample.ServerCPU, false),
			r.against(l, "ringnbd-cached", cached, rate, true), r.against(l, "ringnbd-cached", cached, Sample.ServerCPU, false)}
		if strings.Join(cells, "") != "–––––" {
			fmt.Fprintf(&rows, "| %s | %s |\n", l, strings.Join(cells, " | "))
		}
	}
	if rows.Len() == 0 {
		return
	}
	b.WriteString("| ringnbd's figure is so many times that of | raw limit: requests/s | O_DIRECT, fastest peer: requests/s | O_DIRECT, cheapest peer: server CPU per request " +
		"| page cache, fastest peer: requests/s | page cache, cheapest peer: server CPU per request |\n|---|--:|--:|--:|--:|--:|\n")
	b.WriteString(rows.String() + "\n")
}

// paths divides the peers by their way to the file.
func (r *Report) paths() (direct, cached []string) {
	for name := range r.Storage {
		switch {
		case strings.HasPrefix(name, "ringnbd"):
		case slices.Contains(r.Direct, name):
			direct = append(direct, name)
		default:
			cached = append(cached, name)
		}
	}
	return direct, cached
}

// against finds the peer that is hardest to beat in one figure, among those named, and prints the ratio of one of ours to it.
func (r *Report) against(l Load, our string, names []string, figure func(Sample) float64, more bool) string {
	ours := r.result(l, our)
	if ours == nil || len(ours.Samples) == 0 {
		return "–"
	}
	name, best := "", 0.0
	for _, peer := range r.Results {
		if peer.Load != l || !slices.Contains(names, peer.Server) {
			continue
		}
		x, ok := ratio(ours.Samples, peer.Samples, figure)
		if ok && (name == "" || (more && x < best) || (!more && x > best)) {
			name, best = peer.Server, x
		}
	}
	if name == "" {
		return "–"
	}
	return fmt.Sprintf("%.2f (%s)", best, name)
}

// writeTable prints one row per load and server.
func (r *Report) writeTable(b *strings.Builder) {
	b.WriteString("| load (connections × depth) | server | requests/s | p50 µs | p99 µs | server CPU µs/request (user + system) | switches/request | peak RSS MiB | write-back s | steal % |\n")
	b.WriteString("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, result := range r.Results {
		if len(result.Samples) == 0 {
			fmt.Fprintf(b, "| %s | %s | failed | | | | | | | |\n", result.Load, result.Server)
			continue
		}
		m := result.Median
		cpu, switches, rss, writeBack := "–", "–", "–", "–"
		if result.Server != RawName {
			cpu = fmt.Sprintf("%.1f (%.1f + %.1f)", m.ServerCPU(), m.ServerUser, m.ServerSystem)
			switches = fmt.Sprintf("%.2f", m.Switches)
			rss = fmt.Sprintf("%.0f", float64(m.PeakRSS)/(1<<20))
			if result.Load.Writes() {
				writeBack = fmt.Sprintf("%.1f", m.WriteBack)
			}
		}
		fmt.Fprintf(b, "| %s | %s | %.0f | %.0f | %.0f | %s | %s | %s | %s | %.1f |\n",
			result.Load, result.Server, m.RequestsPerSecond, m.P50, m.P99, cpu, switches, rss, writeBack, 100*m.Steal)
	}
	b.WriteString("\n")
}

// writeNotes says how to read the table.
func (r *Report) writeNotes(b *strings.Builder) {
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(r.Storage)) {
		paths = append(paths, fmt.Sprintf("%s: %s", name, r.Storage[name]))
	}
	fmt.Fprintf(b, "How each reaches the file: %s; raw: fio itself, O_DIRECT, io_uring, registered buffers and files. ", strings.Join(paths, "; "))
	b.WriteString("A server on the page cache answers writes before they reach the disk; write-back is how long the disk then needs. " +
		"What server CPU counts is in `bench/doc.go`.\n\n")
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(r.Machine.Versions)) {
		versions = append(versions, fmt.Sprintf("%s: %s", name, r.Machine.Versions[name]))
	}
	fmt.Fprintf(b, "Versions: %s.\n", strings.Join(versions, "; "))
	for _, line := range r.Failures() {
		fmt.Fprintf(b, "\nFailed: %s\n", line)
	}
}

// WriteREADME replaces the block between the markers of a file by the report.
func (r *Report) WriteREADME(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := replaceBlock(old, r.Markdown())
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
	return slices.Concat(head, []byte(beginMarker+"\n"), []byte(block), []byte(endMarker), tail), nil
}
