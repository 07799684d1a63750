// The progress line: every field has its place, rates are of data, and it fits a terminal.

package transfer

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// shown is what a line says of reports that come a second apart.
func shown(t *testing.T, reports ...Progress) []string {
	t.Helper()
	l, now := NewLine(new(bytes.Buffer), 0), time.Unix(1e9, 0)
	l.began = now
	var list []string
	for _, p := range reports {
		list = append(list, l.text(&p, now))
		now = now.Add(time.Second)
	}
	return list
}

func TestProgressDoesNotJump(t *testing.T) {
	var reports []Progress
	total := uint64(100 << 30)
	for done := uint64(1); done <= total; done *= 7 {
		reports = append(reports, Progress{Phase: copying, Done: done, Total: total, Data: done})
	}
	reports = append(reports, Progress{Phase: verifying, Done: total, Total: total, Data: total})
	width := 0
	for i, text := range shown(t, reports...) {
		if i == 0 {
			width = len(text)
		}
		if len(text) != width || width > 80-len("  100% |      |  ") {
			t.Errorf("%d columns after %d: %q", len(text), width, text)
		}
		if strings.Index(text, " of ") != 19 {
			t.Errorf("the total has moved: %q", text)
		}
	}
}

func TestProgressSaysBytesOfTotal(t *testing.T) {
	texts := shown(t, Progress{Phase: copying, Total: 10 << 30},
		Progress{Phase: copying, Done: 1 << 30, Total: 10 << 30, Data: 1 << 29})
	if want := "copying       1 GiB of 10 GiB      512 MiB/s         9 s left"; texts[1] != want {
		t.Errorf("%q, want %q", texts[1], want)
	}
}

func TestProgressFitsANarrowTerminal(t *testing.T) {
	total := uint64(10 << 30)
	for _, columns := range []int{2, 20, 40, 60, 79, 80, 200} {
		var out bytes.Buffer
		l := NewLine(&out, columns)
		for done := uint64(0); done <= total; done += total / 4 {
			l.Show(Progress{Phase: copying, Done: done, Total: total, Data: done})
			l.began = l.began.Add(-time.Second)
		}
		for text := range strings.SplitSeq(out.String(), "\r") {
			if n := utf8.RuneCountInString(text); n > max(columns-1, 1) || n > 80 {
				t.Errorf("%d columns on a terminal of %d: %q", n, columns, text)
			}
		}
		if columns >= 40 && !strings.Contains(out.String(), "copying       5 GiB of 10 GiB") {
			t.Errorf("%d columns: %q", columns, out.String())
		}
	}
}

func TestNoRateOverZeroes(t *testing.T) {
	texts := shown(t, Progress{Phase: copying, Total: 10 << 30},
		Progress{Phase: copying, Done: 9 << 30, Total: 10 << 30})
	if strings.Contains(texts[1], "/s") {
		t.Errorf("%q", texts[1])
	}
	for text, r := range map[string]Report{
		"copied 64 MiB of zeroes in 35.0 ms": {Zeroed: 64 << 20,
			Time: 35 * time.Millisecond},
		"copied 64 MiB of data (64 MiB/s) and 1 GiB of zeroes in 1.00 s": {Copied: 64 << 20,
			Zeroed: 1 << 30, Time: time.Second},
		"copied nothing, after 256 MiB done before, in 2.00 ms; verified: both are the same, " +
			"256 MiB compared": {Skipped: 256 << 20, Time: 2 * time.Millisecond, Verified: true},
	} {
		if got := r.String(); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
}
