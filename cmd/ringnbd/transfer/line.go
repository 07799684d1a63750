// The progress line of a copy, and its report.
//
// Invariant: the line writes to the writer that it was given and to nothing else, and leaves a
// terminal clean, with one line about what was done. Every field has a fixed place, so nothing
// jumps. The line fits 80 columns; on a narrower terminal it has fewer fields. A rate counts data
// alone: zeroes are not moved.

package transfer

import (
	"fmt"
	"io"
	"strings"
	"time"

	"ringnbd/engine/progress"
	"ringnbd/engine/units"
)

// Line shows progress.
type Line struct {
	w       io.Writer
	columns int // of the terminal
	line    *progress.Line
	phase   string
	began   time.Time
	from    uint64
	marks   [rateMarks]mark // of the last seconds
	next    int
	filled  bool
}

// mark is how much data was moved at a time.
type mark struct {
	at   time.Time
	data uint64
}

// rateMarks is over how many reports a rate is taken: with a report every 200 ms, three seconds.
const rateMarks = 15

// maxEstimate is the longest estimate that is shown; the field has room for it.
const maxEstimate = 99 * 24 * time.Hour

// maxLine is how many columns a line with all fields and a bar takes.
const maxLine = 80

// NewLine makes a line on w, a terminal of a number of columns, or any other writer that the user
// wants progress on, which has 0.
func NewLine(w io.Writer, columns int) *Line {
	if columns <= 1 || columns > maxLine { // some terminals do not know their size
		columns = maxLine
	}
	return &Line{w: w, columns: columns, line: progress.New(w, columns)}
}

// Show brings the line up to date.
func (l *Line) Show(p Progress) {
	if p.Total == 0 && !p.Stream {
		return
	}
	now := time.Now()
	if p.Phase != l.phase {
		l.line.Clear()
		l.phase, l.began, l.from, l.next, l.filled = p.Phase, now, p.Done, 0, false
	}
	share := float64(progress.NoBar) // the end of a stream is not known
	if p.Total > 0 && l.columns == maxLine {
		share = float64(p.Done) / float64(p.Total)
	}
	l.line.Show(l.text(&p, now), share)
}

// text is the text before the bar.
func (l *Line) text(p *Progress, now time.Time) string {
	first := mark{at: l.began}
	if l.filled || l.next > 0 {
		first = l.marks[0]
	}
	if l.filled {
		first = l.marks[l.next]
	}
	l.marks[l.next] = mark{now, p.Data}
	if l.next++; l.next == rateMarks {
		l.next, l.filled = 0, true
	}
	var of, rate, left string
	if p.Total > 0 {
		of = fmt.Sprintf(" of %-9s", units.Size(p.Total))
	}
	if p.Data > first.data && now.After(first.at) {
		rate = units.Rate(p.Data-first.data, now.Sub(first.at))
	}
	// The estimate is over the whole run, because holes pass in leaps.
	if all := now.Sub(l.began); p.Done < p.Total && p.Done > l.from && all >= time.Second {
		if rest := all.Seconds() * float64(p.Total-p.Done) / float64(p.Done-
			l.from); rest < maxEstimate.Seconds() {
			left = units.Seconds(time.Duration(rest*float64(time.Second))) + " left"
		}
	}
	text := fmt.Sprintf("%-9s %9s%s", p.Phase, units.Size(p.Done), of)
	for _, field := range []string{fmt.Sprintf(" %11s", rate), fmt.Sprintf("  %15s", left)} {
		if len(text)+len(field) < l.columns {
			text += field
		}
	}
	return text[:min(len(text), l.columns-1)]
}

// Finish takes the line away, and prints what was done if the copy succeeded.
func (l *Line) Finish(r Report, ok bool) {
	l.line.Clear()
	if ok {
		fmt.Fprintln(l.w, r.String())
	}
}

// String is the report in one line.
func (r Report) String() string {
	var done []string
	if r.Copied > 0 {
		text := units.Size(r.Copied) + " of data"
		if r.Time >= time.Millisecond {
			text += " (" + units.Rate(r.Copied, r.Time) + ")"
		}
		done = append(done, text)
	}
	if r.Zeroed > 0 {
		done = append(done, units.Size(r.Zeroed)+" of zeroes")
	}
	text := "copied " + strings.Join(done, " and ")
	if len(done) == 0 {
		text = "copied nothing"
	}
	if r.Skipped > 0 {
		text += ", after " + units.Size(r.Skipped) + " done before,"
	}
	text += " in " + units.Duration(r.Time)
	if r.Verified {
		text += "; verified: both are the same, " + units.Size(r.Copied+r.Zeroed+r.Skipped) +
			" compared"
	}
	return text
}
