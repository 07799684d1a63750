// The report as text.

package load

import (
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
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
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", k.Kind, group(float64(k.Requests)), group(k.RequestsPerSecond), k.BytesPerSecond/(1<<20),
			duration(l.Mean), duration(l.P50), duration(l.P90), duration(l.P99), duration(l.P999), duration(l.Max), group(float64(errors)))
	}
	if len(r.Kinds) > 1 {
		fmt.Fprintf(t, "all\t%s\t%s\t%.1f\t\t\t\t\t\t\t%s\t\n", group(float64(r.Requests)), group(r.RequestsPerSecond), r.BytesPerSecond/(1<<20), group(float64(r.Failures)))
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
	text += fmt.Sprintf(", %d × %d in flight, %s, %s", r.Connections, r.Depth, plural(r.Threads, "thread"), duration(r.Seconds*1e6))
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
			group(o.Rate), o.Arrivals, duration(o.Lag.P50), duration(o.Lag.P99), duration(o.Lag.Max)))
		line := fmt.Sprintf("backlog: at most %s requests due and not started", group(float64(o.BacklogMost)))
		if o.BacklogEnd > 0 {
			line += fmt.Sprintf("; %s of them never were, and are not in the table: the target does not keep up", group(float64(o.BacklogEnd)))
		}
		lines = append(lines, line)
	}
	if v := r.Verify; v != nil {
		lines = append(lines, fmt.Sprintf("verified: %s MiB read, %s bad blocks", group(float64(v.Judged>>20)), group(float64(v.Found))))
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
			lines = append(lines, fmt.Sprintf("errors: %s %s for %s", group(float64(k.Errors[name])), name, k.Kind))
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

// duration writes microseconds with three digits and a unit.
func duration(us float64) string {
	switch {
	case us <= 0:
		return "-"
	case us < 9.995:
		return fmt.Sprintf("%.2f µs", us)
	case us < 99.95:
		return fmt.Sprintf("%.1f µs", us)
	case us < 999.5:
		return fmt.Sprintf("%.0f µs", us)
	case us < 9995:
		return fmt.Sprintf("%.2f ms", us/1e3)
	case us < 99950:
		return fmt.Sprintf("%.1f ms", us/1e3)
	case us < 999500:
		return fmt.Sprintf("%.0f ms", us/1e3)
	case us < 9.995e6:
		return fmt.Sprintf("%.2f s", us/1e6)
	}
	return fmt.Sprintf("%.1f s", us/1e6)
}

// group writes a whole number with commas.
func group(f float64) string {
	digits := strconv.FormatInt(int64(math.Round(f)), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
