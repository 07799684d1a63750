// The report as text.

package load

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"ringnbd/engine/units"
)

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", r.Target, r.Title())
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\trequests\trequests/s\tMiB/s\tmean\tp50\tp90\tp99\tp99.9\tmax\terrors\t")
	for i := range r.Kinds {
		k := &r.Kinds[i]
		var errors uint64
		for _, n := range k.Errors {
			errors += n
		}
		l := &k.Latency
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", k.Kind, units.Count(k.Requests), units.Count(k.RequestsPerSecond), k.BytesPerSecond/(1<<20),
			microseconds(l.Mean), microseconds(l.P50), microseconds(l.P90), microseconds(l.P99), microseconds(l.P999), microseconds(l.Max), units.Count(errors))
	}
	if len(r.Kinds) > 1 {
		fmt.Fprintf(t, "all\t%s\t%s\t%.1f\t\t\t\t\t\t\t%s\t\n", units.Count(r.Requests), units.Count(r.RequestsPerSecond), r.BytesPerSecond/(1<<20), units.Count(r.Failures))
	}
	_ = t.Flush() // into memory
	b.WriteByte('\n')
	for _, line := range r.lines() {
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Title is the load in one line.
func (r *Report) Title() string {
	text := r.Pattern
	if r.ReadPercent != nil {
		text += fmt.Sprintf(" %d:%d", *r.ReadPercent, 100-*r.ReadPercent)
	}
	if r.BlockSizes != "" && r.Pattern != "flush" {
		text += ", " + r.BlockSizes
	}
	text += fmt.Sprintf(", %d × %d in flight, %s, %s", r.Connections, r.Depth, units.Plural(r.Threads, "thread"), microseconds(r.Seconds*1e6))
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

// lines is everything below the table.
func (r *Report) lines() []string {
	var lines []string
	if r.Replay != nil {
		lines = append(lines, r.Replay.text())
	}
	if o := r.Open; o != nil {
		lines = append(lines, fmt.Sprintf("open loop: %s requests/s asked for, %s arrivals; latency counts from the time a request was due; started late by p50 %s, p99 %s, max %s",
			units.Count(o.Rate), o.Arrivals, microseconds(o.Lag.P50), microseconds(o.Lag.P99), microseconds(o.Lag.Max)))
		line := fmt.Sprintf("backlog: at most %s requests due and not started", units.Count(o.BacklogMost))
		if o.Behind {
			line += fmt.Sprintf("; %s of them never were, and are not in the table: the target does not keep up", units.Count(o.BacklogEnd))
		}
		lines = append(lines, line)
	}
	if v := r.Verify; v != nil {
		lines = append(lines, fmt.Sprintf("verified: %s MiB read, %s bad blocks", units.Count(v.Judged>>20), units.Count(v.Found)))
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
			lines = append(lines, fmt.Sprintf("errors: %s %s for %s", units.Count(k.Errors[name]), name, k.Kind))
		}
	}
	if r.Idle > 0 {
		lines = append(lines, r.idleText())
	}
	g := &r.Generator
	lines = append(lines, fmt.Sprintf("generator: %.2f µs of processor time per request, %.1f requests per turn, seed %d", g.CPUPerRequest, g.RequestsPerTurn, r.Seed))
	for _, note := range r.Notes {
		lines = append(lines, "note: "+note)
	}
	return lines
}

// microseconds prints a time of the report.
func microseconds(us float64) string { return units.Duration(time.Duration(us * 1e3)) }
