// Package progress shows how far a program is: one line of a terminal, written over and over, for
// every command and tool of ringnbd.
//
// Invariant: a line writes to the writer that it was given and to nothing else, never more columns
// than the terminal has, and Clear leaves the terminal as it was. An error of the writer is not an
// error of the work that is shown.
package progress

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/schollz/progressbar/v3"
)

const (
	// steps is how finely a bar divides the work.
	steps = 1000
	// maxBar is the largest width of a bar, in columns.
	maxBar = 24
	// barFrame is how many columns progressbar puts around a bar.
	barFrame = len("  100% |") + len("|  ")
)

// NoBar is the share of work whose end is not known.
const NoBar = -1

// Line is a progress line. The zero value shows nothing.
type Line struct {
	w       io.Writer
	columns int // of the terminal; 0: not known
	bar     *progressbar.ProgressBar
	written int // columns of a text without a bar
}

// New makes a line on a terminal of a number of columns; 0 means that the width is not known.
func New(w io.Writer, columns int) *Line {
	if columns == 1 { // some terminals do not know their size
		columns = 0
	}
	return &Line{w: w, columns: columns}
}

// Show replaces the line by a text, and a bar after it for the share of the work that is done, from
// 0 to 1, or NoBar. What has no room is cut off; the bar becomes narrower before the text does.
func (l *Line) Show(line string, share float64) {
	if l.w == nil {
		return
	}
	if share < 0 || l.columns > 0 && l.columns <= barFrame {
		l.plain(line)
		return
	}
	if l.written > 0 {
		l.Clear()
	}
	if l.bar == nil {
		l.bar = progressbar.NewOptions64(steps,
			progressbar.OptionSetWriter(l.w),
			progressbar.OptionSetWidth(maxBar),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(0),
		)
	}
	if l.columns > 0 { // a line that is too long begins a new one each time
		room := l.columns - barFrame
		line = text.Snip(line, room, "")
		progressbar.OptionSetWidth(max(min(room-text.StringWidth(line), maxBar), 0))(l.bar)
	}
	l.bar.Describe(line)
	_ = l.bar.Set64(int64(min(share, 1) * steps))
}

// plain shows a text without a bar. The last column stays free: a terminal may wrap there.
func (l *Line) plain(line string) {
	if l.bar != nil {
		l.Clear()
	}
	if l.columns > 0 {
		line = text.Snip(line, max(l.columns-1, 1), "")
	}
	width := text.StringWidth(line)
	fmt.Fprintf(l.w, "\r%s%*s", line, max(l.written-width, 0), "")
	l.written = max(l.written, width)
}

// Clear takes the line away.
func (l *Line) Clear() {
	if l.bar != nil {
		_ = l.bar.Clear()
		l.bar = nil
	}
	if l.written > 0 {
		fmt.Fprintf(l.w, "\r%*s\r", l.written, "")
		l.written = 0
	}
}
