// Package progress shows how far a program is: one line of a terminal, written over and over, for
// every command and tool of ringnbd.
//
// Invariant: a line writes to the writer that it was given and to nothing else, never more columns
// than the terminal has, and Clear leaves the terminal as it was. An error of the writer is not an
// error of the work that is shown.
//
// The bar is drawn here: the field's library for bars (progressbar) brings two more modules and
// some 100 KB of program for these ten lines.
package progress

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
)

const (
	// maxBar is the largest width of a bar, in columns.
	maxBar = 24
	// barFrame is how many columns the percentage and the ends of a bar take.
	barFrame = len("  100% ||")
)

// NoBar is the share of work whose end is not known.
const NoBar = -1

// Line is a progress line. The zero value shows nothing.
type Line struct {
	w       io.Writer
	columns int // of the terminal; 0: not known
	written int // columns of the line that is on the terminal
}

// New makes a line on a terminal of a number of columns; 0 means that the width is not known.
func New(w io.Writer, columns int) *Line {
	if columns == 1 { // some terminals do not know their size
		columns = 0
	}
	return &Line{w: w, columns: columns}
}

// Show replaces the line by a text, and a bar after it for the share of the work that is done, from
// 0 to 1, or NoBar. What has no room is cut off; the bar becomes narrower before the text does. The
// last column stays free, because a terminal may wrap there.
func (l *Line) Show(line string, share float64) {
	if l.w == nil {
		return
	}
	room := maxBar + barFrame + text.StringWidth(line)
	if l.columns > 0 {
		room = l.columns - 1
	}
	if share >= 0 && room > barFrame {
		line = text.Snip(line, room-barFrame, "")
		width := min(room-barFrame-text.StringWidth(line), maxBar)
		share = min(share, 1)
		full := int(share * float64(width))
		line += fmt.Sprintf("  %3.0f%% |%s%s|", 100*share, strings.Repeat("█", full),
			strings.Repeat(" ", width-full))
	} else {
		line = text.Snip(line, max(room, 1), "")
	}
	width := text.StringWidth(line)
	fmt.Fprintf(l.w, "\r%s%*s", line, max(l.written-width, 0), "")
	l.written = max(l.written, width)
}

// Clear takes the line away.
func (l *Line) Clear() {
	if l.written > 0 {
		fmt.Fprintf(l.w, "\r%*s\r", l.written, "")
		l.written = 0
	}
}
