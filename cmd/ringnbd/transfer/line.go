// The progress line: what a person sees while a copy runs.
//
// Invariant: it writes to what it was given and to nothing else, and leaves a terminal clean, with one line of what was done.

package transfer

import (
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	"github.com/schollz/progressbar/v3"
)

// Line shows progress.
type Line struct {
	w      io.Writer
	bar    *progressbar.ProgressBar
	phase  string
	began  time.Time
	from   uint64
	marks  [rateMarks]mark // of the last seconds
	next   int
	filled bool
}

// mark is how far it was at a time.
type mark struct {
	at   time.Time
	done uint64
}

// rateMarks is over how many reports the rate is taken: with one every 200 ms, three seconds.
const rateMarks = 15

// NewLine is a line on w, which is for the caller to look at: a terminal, or whatever the user wants it on.
func NewLine(w io.Writer) *Line { return &Line{w: w} }

// Show brings the line up to date.
func (l *Line) Show(p Progress) {
	if p.Total == 0 {
		return
	}
	now := time.Now()
	if p.Phase != l.phase {
		l.clear()
		l.phase, l.began, l.from, l.next, l.filled = p.Phase, now, p.Done, 0, false
		l.bar = progressbar.NewOptions64(int64(p.Total),
			progressbar.OptionSetWriter(l.w),
			progressbar.OptionSetWidth(24),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(0),
		)
	}
	first := mark{l.began, l.from}
	if l.filled {
		first = l.marks[l.next]
	}
	l.marks[l.next] = mark{now, p.Done}
	if l.next++; l.next == rateMarks {
		l.next, l.filled = 0, true
	}
	text := p.Phase
	if d := now.Sub(first.at).Seconds(); d > 0 && p.Done > first.done {
		rate := float64(p.Done-first.done) / d
		text += fmt.Sprintf(" %s/s", units.BytesSize(rate))
		// The estimate is by the whole run: holes pass in leaps.
		if all := now.Sub(l.began).Seconds(); p.Done < p.Total && p.Done > l.from && all >= 1 {
			left := time.Duration(all * float64(p.Total-p.Done) / float64(p.Done-l.from) * float64(time.Second))
			text += fmt.Sprintf(", %v left", left.Round(time.Second))
		}
	}
	l.bar.Describe(text)
	_ = l.bar.Set64(int64(min(p.Done, p.Total))) // a terminal that is gone is no reason to stop
}

func (l *Line) clear() {
	if l.bar != nil {
		_ = l.bar.Clear()
		l.bar = nil
	}
}

// Finish takes the bar away, and says what was done.
func (l *Line) Finish(r Report, ok bool) {
	l.clear()
	if !ok {
		return
	}
	size := func(n uint64) string { return units.BytesSize(float64(n)) }
	text := fmt.Sprintf("copied %s of data and %s of zeroes", size(r.Copied), size(r.Zeroed))
	if r.Skipped > 0 {
		text += fmt.Sprintf(", beside %s done before,", size(r.Skipped))
	}
	fmt.Fprintf(l.w, "%s in %v (%s/s)\n", text, r.Time.Round(time.Millisecond), size(uint64(float64(r.Copied+r.Zeroed)/max(r.Time.Seconds(), 1e-6))))
}
