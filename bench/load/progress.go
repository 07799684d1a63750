// The progress line: what a person at a terminal sees while a run lasts.
//
// Invariant: it writes to the terminal it was given and to nothing else, and leaves it clean.

package load

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"ringnbd/engine/units"
)

// steps is how finely the bar divides a run.
const steps = 1000

// Line shows progress on a terminal. The zero value shows nothing.
type Line struct {
	bar    *progressbar.ProgressBar
	last   Progress
	lastAt time.Time
	rate   string
}

// NewLine is a line on w, which is for the caller to know as a terminal.
func NewLine(w io.Writer) *Line {
	return &Line{bar: progressbar.NewOptions64(steps,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetWidth(24),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(0),
	)}
}

// Show brings the line up to date.
func (l *Line) Show(p Progress) {
	if l.bar == nil {
		return
	}
	at, left := l.parts(p)
	if d := time.Since(l.lastAt).Seconds(); d >= 1 || l.lastAt.IsZero() {
		if !l.lastAt.IsZero() && p.Requests >= l.last.Requests {
			l.rate = fmt.Sprintf(" %s requests/s, %.1f MiB/s", units.Count(float64(p.Requests-l.last.Requests)/d), float64(p.Bytes-l.last.Bytes)/d/(1<<20))
		}
		l.last, l.lastAt = p, time.Now()
	}
	text := p.Phase + l.rate
	if left > 0 {
		text += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	l.bar.Describe(text)
	_ = l.bar.Set64(at) // a terminal that is gone is no reason to stop measuring
}

// parts is where the bar stands: by time or by requests, whichever is further; left is the estimated time to the end, 0 when nothing can be said.
func (l *Line) parts(p Progress) (at int64, left time.Duration) {
	share := p.Share
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
	return int64(min(share, 1) * steps), left
}

// Clear takes the line away.
func (l *Line) Clear() {
	if l.bar != nil {
		_ = l.bar.Clear()
	}
}
