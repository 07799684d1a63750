// Progress lines on terminals of all widths: what is shown, and what is left when it is cleared.

package progress

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
)

func TestLineFitsTheTerminal(t *testing.T) {
	const long = "measuring 1,234,567 requests/s, 4,822.6 MiB/s, 2 min 10 s left"
	for _, columns := range []int{2, 12, 20, 40, 80, 200} {
		for _, share := range []float64{NoBar, 0, 0.5, 1} {
			var screen bytes.Buffer
			l := New(&screen, columns)
			for _, line := range []string{long, "検査中 " + long, ""} {
				l.Show(line, share)
			}
			l.Clear()
			for part := range strings.SplitSeq(screen.String(), "\r") {
				if n := text.StringWidth(part); n > columns {
					t.Errorf("%d columns at %v: %d: %q", columns, share, n, part)
				}
			}
		}
	}
}

// last is what was written last, without the blanks that cover what was there.
func last(screen *bytes.Buffer) string {
	parts := strings.Split(screen.String(), "\r")
	return strings.TrimRight(parts[len(parts)-1], " ")
}

func TestLineShowsTextAndShare(t *testing.T) {
	var screen bytes.Buffer
	l := New(&screen, 0)
	l.Show("copying", 0.2)
	if s := last(&screen); s != "copying   20% |"+"████"+strings.Repeat(" ", 20)+"|" {
		t.Errorf("%q", s)
	}
	l.Show("no end in sight", NoBar)
	if s := last(&screen); s != "no end in sight" {
		t.Errorf("%q", s)
	}
	l.Show("short", NoBar)
	if s := last(&screen); s != "short" {
		t.Errorf("%q", s)
	}
}

// TestClearLeavesNothing replays what was written: after Clear every column is blank, and the
// cursor is at the first.
func TestClearLeavesNothing(t *testing.T) {
	var screen bytes.Buffer
	l := New(&screen, 80)
	l.Show("with a bar", 0.3)
	l.Show("without", NoBar)
	l.Show("with one again", 0.9)
	l.Show("a longer text without", NoBar)
	l.Clear()
	var line []rune
	at := 0
	for _, r := range screen.String() {
		if r == '\r' {
			at = 0
			continue
		}
		for len(line) <= at {
			line = append(line, ' ')
		}
		line[at] = r
		at++
	}
	if strings.TrimSpace(string(line)) != "" || at != 0 {
		t.Errorf("column %d of %q", at, string(line))
	}
}

type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, errors.New("the terminal is gone") }

func TestATerminalThatIsGone(t *testing.T) {
	l := New(gone{}, 80)
	l.Show("x", 0.5)
	l.Show("y", NoBar)
	l.Clear()
	new(Line).Show("the zero value shows nothing", 0.5)
	new(Line).Clear()
}
