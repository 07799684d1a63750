// Which runs say that the target does not keep up, and which that holes were measured.

package load

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBehind(t *testing.T) {
	for _, c := range []struct {
		rate    float64
		left    uint64
		seconds float64
		want    bool
	}{
		// a tenth of a second
		{1000, 0, 10, false}, {1000, 1, 10, false}, {1000, 100, 10, false}, {1000, 101, 10, true},
		{1000, 101, 1, true}, {1000, 50, 0.1, false},
		{1000, 500, 60, false}, {1000, 700, 60, true}, // a hundredth
		{1000, 999, 3600, false}, {1000, 1001, 3600, true}, // a second
		{1, 1, 10, true}, {0, 5, 10, false},
	} {
		if got := (&openReport{Rate: c.rate, BacklogEnd: c.left}).behind(c.seconds); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// One that reaches its count, and one that is ended early, say nothing
// about keeping up.
func TestRunsThatCannotBeJudged(t *testing.T) {
	slow := func() Options {
		o := options(t, serve(t, &peer{stall: func(int) time.Duration { return time.Millisecond }}),
			"randread", "4k")
		o.Rate = 50000
		return o
	}
	o := slow()
	o.Count, o.Duration = 50, 0
	counted := runs(t, o)
	o = slow()
	o.Count, o.Duration = 0, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	early, err := Run(ctx, o, func(p Progress) {
		if p.Elapsed > 300*time.Millisecond {
			cancel()
		}
	})
	if err != nil || !early.Interrupted {
		t.Fatal(err)
	}
	for _, r := range []*Report{counted, early} {
		var text strings.Builder
		err := r.Table(&text, 0)
		if err != nil || r.Open.Behind || strings.Contains(text.String(), "keep up") {
			t.Errorf("%v, %+v: %s", err, r.Open, text.String())
		}
	}
	if !early.Open.behind(early.Seconds) {
		t.Errorf("a backlog of %d: nothing was there to be judged", early.Open.BacklogEnd)
	}
}

func TestHolesAreTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 8 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if holes, looked := holesOf(int(f.Fd()), 0, size); holes != size || looked != size {
		t.Skipf("this file system does not tell holes: %d of %d", holes, looked)
	}
	data := []byte(strings.Repeat("x", size/4))
	if _, err := f.WriteAt(data, size/2); err != nil { // the third quarter
		t.Fatal(err)
	}
	for _, c := range []struct {
		pattern      string
		offset, size uint64
		fill         bool
		words        string
	}{
		{"randread", 0, 0, false, "75 % of the window, 6 MiB,"},
		{"randread", size / 4, size / 2, false, "50 % of the window, 2 MiB,"},
		{"randrw", size / 2, size / 2, false, "50 % of the window, 2 MiB,"},
		{"randread", size / 2, size / 4, false, ""},
		{"randwrite", 3 * size / 4, 64 << 10, false, ""}, // which makes data of it
		{"randread", 0, 64 << 10, true, ""},
	} {
		o := options(t, "file:"+path, c.pattern, "4k")
		o.Offset, o.Size, o.Fill, o.Count, o.Duration = c.offset, c.size, c.fill, 10, 0
		notes := strings.Join(runs(t, o).Notes, "; ")
		if told := strings.Contains(notes, "never reach the disk"); told != (c.words != "") ||
			!strings.Contains(notes, c.words) {
			t.Errorf("%+v: %q", c, notes)
		}
	}
}

// Looking ends after so many pieces, and their share counts.
func TestHolesOfManyPieces(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "d.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const step = 16 << 10
	for i := range int64(maxExtents + 100) {
		if _, err := f.WriteAt(make([]byte, 4096), i*step); err != nil {
			t.Fatal(err)
		}
	}
	end := uint64(maxExtents+100) * step
	holes, looked := holesOf(int(f.Fd()), 0, end)
	if holes == 0 {
		t.Skip("this file system does not tell holes of this size")
	}
	if looked >= end || holes*4 > looked*3 || holes*4 < looked*2 {
		t.Errorf("%d of %d bytes looked at, of %d", holes, looked, end)
	}
}
