// The progress line: what a person at a terminal sees while a run lasts.
//
// Invariant: it writes to the terminal it was given and to nothing else, and leaves it clean.

package load

import (
	"fmt"
	"io"
	"time"

	ansi "github.com/jedib0t/go-pretty/v6/text"
	"github.com/schollz/progressbar/v3"

	"ringnbd/engine/units"
)

// steps is how finely the bar divides a run.
const steps = 1000

// Line shows progress on a terminal. The zero value shows nothing.
type Line struct {
	width  int // of the terminal, in columns; 0: not known
	bar    *progressbar.ProgressBar
	last   Progress
	lastAt time.Time
	rate   string
}

// Widths in columns: of the bar at most, and of what the library puts around it.
const (
	barWidth = 24
	barFrame = len("  100% |") + len("|  ")
)

// NewLine is a line on w, which is for the caller to know as a terminal of this width.
func NewLine(w io.Writer, width int) *Line {
	return &Line{width: width, bar: progressbar.NewOptions64(steps,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetWidth(barWidth),
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
	if l.width > 0 { // a line that is too long begins a new one with every report
		room := l.width - barFrame
		text = ansi.Snip(text, room, "")
		progressbar.OptionSetWidth(max(min(room-ansi.StringWidth(text), barWidth), 0))(l.bar)
	}
	l.bar.Describe(text)
	_ = l.bar.Set64(at) // a terminal that is gone is no reason to stop measuring
}

// parts is where the bar stands: by time or by requests, whichever is further; left is the
// estimated time to the end, 0 when nothing can be said.
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
