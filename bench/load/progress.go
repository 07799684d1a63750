// The progress line: what a person at a terminal sees while a run lasts.
//
// Invariant: it writes to its terminal and nowhere else, and clears the line at the end.

package load

import (
	"fmt"
	"io"
	"time"

	"ringnbd/engine/progress"
	"ringnbd/engine/units"
)

// Line shows progress on a terminal. The zero value shows nothing.
type Line struct {
	line   *progress.Line
	last   Progress
	lastAt time.Time
	rate   string
}

// NewLine makes a line on w, which the caller knows to be a terminal of this width in columns; 0
// means that the width is not known.
func NewLine(w io.Writer, width int) *Line { return &Line{line: progress.New(w, width)} }

// Show brings the line up to date.
func (l *Line) Show(p Progress) {
	if l.line == nil {
		return
	}
	share, left := l.parts(p)
	if d := time.Since(l.lastAt).Seconds(); d >= 1 || l.lastAt.IsZero() {
		if !l.lastAt.IsZero() && p.Requests >= l.last.Requests {
			l.rate = fmt.Sprintf(" %s requests/s, %.1f MiB/s",
				units.Count(float64(p.Requests-l.last.Requests)/d),
				float64(p.Bytes-l.last.Bytes)/d/(1<<20))
		}
		l.last, l.lastAt = p, time.Now()
	}
	text := p.Phase + l.rate
	if left > 0 {
		text += ", " + units.Seconds(left) + " left"
	}
	l.line.Show(text, share)
}

// parts returns the share of the run that is done, by time or by requests, whichever is further;
// left is the estimated time to the end, 0 if it is not known.
func (l *Line) parts(p Progress) (share float64, left time.Duration) {
	share = p.Share
	if share > 0 {
		left = max(time.Duration(float64(p.Elapsed)*(1-share)/share), 0)
	}
	if p.Total > 0 {
		share = float64(p.Elapsed) / float64(p.Total)
		left = max(p.Total-p.Elapsed, 0)
	}
	if p.Count > 0 && p.Requests > 0 {
		if done := float64(p.Requests) / float64(p.Count); done > share {
			share = done
			left = max(time.Duration(float64(p.Elapsed)*(1-done)/done), 0)
		}
	}
	return min(share, 1), left
}

// Clear erases the line.
func (l *Line) Clear() {
	if l.line != nil {
		l.line.Clear()
	}
}
