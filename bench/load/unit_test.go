// The parts without a server: options, targets, sizes, the schedule, stamps, the report.

package load

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	ansi "github.com/jedib0t/go-pretty/v6/text"

	"ringnbd/engine/client"
)

func TestOptionsThatMakeNoSense(t *testing.T) {
	for _, c := range []struct {
		pattern, bs string
		change      func(o *Options)
		words       string
	}{
		{"randread", "4k", func(o *Options) { o.Connections = 0 }, "--connections 0"},
		{"randread", "4k", func(o *Options) { o.Depth = 0 }, "--depth 0"},
		{"randread", "4k", func(o *Options) { o.Connections, o.Depth = 60000, 10000 }, "in flight"},
		{"randread", "4k", func(o *Options) { o.Threads = 0 }, "--threads 0"},
		{"randread", "4k", func(o *Options) { o.Threads = 3 }, "connection of its own"},
		{"randrw", "4k", func(o *Options) { o.ReadPercent = 101 }, "--read-percent 101"},
		{"randread", "4k", func(o *Options) { o.Rate = math.NaN() }, "--rate NaN"},
		{"randread", "4k", func(o *Options) { o.Poisson = true }, "needs a --rate"},
		{"randread", "4k", func(o *Options) { o.Warmup = -1 }, "negative"},
		{"randread", "4k", func(o *Options) { o.Count, o.Duration = 0, 0 }, "never end"},
		{"randread", "4k", func(o *Options) { o.Timeout = 0 }, "--timeout"},
		{"randwrite", "4k", func(o *Options) { o.FlushEvery = -1 }, "--flush-every -1"},
		{"randread", "4k", func(o *Options) { o.FUA = true }, "--fua"},
		{"flush", "4k", func(o *Options) { o.Fill = true }, "--fill"},
		{"randrw", "4k", func(o *Options) { o.ZeroPercent = 101 }, "--zero-percent 101"},
		{"trim", "4k", func(o *Options) {
			o.ZeroPercent = 1
		}, "--zero-percent needs a pattern that writes"},
		{"randrw", "4k", func(o *Options) { o.NoHole = true }, "--no-hole and --fast-zero"},
		{"read", "4k", func(o *Options) { o.FastZero = true }, "--no-hole and --fast-zero"},
		{"flush", "4k", func(o *Options) { o.Verify = true }, "no data to verify"},
		{"randwrite", "4k", func(o *Options) { o.Verify = true }, "nothing would be read back"},
		{"randread", "4k", func(o *Options) { o.Verify = true }, "add --fill"},
		{"randrw", "1000", func(o *Options) { o.Verify = true }, "multiples of 512"},
	} {
		o := options(t, "nbd://localhost", c.pattern, c.bs)
		if err := o.Check(); err != nil {
			t.Fatal(err)
		}
		c.change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v; want %q", c.pattern, err, c.words)
		}
	}
}

// Errors name options as the program does that runs the load.
func TestErrorsSpellOptions(t *testing.T) {
	for prefix, want := range map[string]string{
		"":   "fill with pattern flush: there is nothing in it that data would matter to",
		"--": "--fill with --pattern flush: there is nothing in it that data would matter to",
	} {
		o := options(t, "nbd://localhost", "flush", "4k")
		o.Prefix, o.Fill = prefix, true
		if err := o.Check(); err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTargets(t *testing.T) {
	for text, want := range map[string]client.Target{
		"nbd://host":            {Network: "tcp", Address: "host:10809"},
		"NBD://host/":           {Network: "tcp", Address: "host:10809"},
		"nbd://":                {Network: "tcp", Address: "localhost:10809"},
		"nbd://host:99/a%20b+c": {Network: "tcp", Address: "host:99", Export: "a b+c"},
		"nbd://host//slash": {Network: "tcp", Address: "host:10809",
			Export: "/slash"},
		"nbd://host/a/b%2Fc": {Network: "tcp", Address: "host:10809", Export: "a/b/c"},
		"nbd://[::1]/x":      {Network: "tcp", Address: "[::1]:10809", Export: "x"},
		"nbd://[fe80::1%25eth0]:1/%C3%A4": {Network: "tcp", Address: "[fe80::1%eth0]:1",
			Export: "ä"},
		"nbd+unix:///?socket=/a+b%20c": {Network: "unix", Address: "/a+b c"},
		"nbd+unix:///x?socket=rel%26":  {Network: "unix", Address: "rel&", Export: "x"},
		"nbd+unix://?socket=/s":        {Network: "unix", Address: "/s"},
		"file:/a%20b":                  {Network: "file", Address: "/a%20b"},
		"file:null:1G":                 {Network: "file", Address: "null:1G"},
	} {
		got, err := client.ParseTarget(text)
		want.Text = text
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, words := range map[string]string{
		"disk.img":                       "file:disk.img",
		"":                               "neither",
		"file:":                          "needs the path",
		"nbds://host":                    "TLS is not spoken",
		"nbds+unix:///?socket=s":         "(nbd+unix:...)",
		"nbd+vsock://1":                  "not supported",
		"http://host":                    "not a scheme of NBD",
		"nbd+unix:host:1":                "two slashes",
		"nbd://host:0":                   "port 0",
		"nbd://host:":                    "port after the colon",
		"nbd://host:x":                   "not a URI",
		"nbd://host:70000":               "port 70000",
		"nbd://me@host":                  "user name",
		"nbd://host/a#b":                 "%23",
		"nbd://host/a%00":                "NUL",
		"nbd://host/a%zz":                "not a URI",
		"nbd://host/?socket=s":           "belongs to nbd+unix",
		"nbd+unix:///x":                  "?socket=PATH",
		"nbd+unix://host/?socket=s":      "on no host (host)",
		"nbd+unix:///?socket=":           "needs a path",
		"nbd+unix:///?socket=a&socket=b": "twice",
		"nbd+unix:///?socket=a&sokcet=b": `unknown parameter "sokcet"`,
		"nbd://host/?tls-certificates=x": "TLS is not spoken",
		"nbd+unix:///?socket=%zz":        "invalid URL escape",
		"nbd://host/" + strings.Repeat("x", 5000): "at most 4096",
	} {
		got, err := client.ParseTarget(text)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%.40s: %+v, %v; want %q", text, got, err, words)
		}
	}
}

func TestMixes(t *testing.T) {
	m, err := ParseMix("4k:70, 64k:30%")
	if err != nil || m.String() != "4k:70,64k:30" || m.unit() != 4096 || m.largest() != 65536 {
		t.Fatalf("%+v %v", m, err)
	}
	r, small := random(1), 0
	for range 100000 {
		if m.draw(&r) == 4096 {
			small++
		}
	}
	if small < 69000 || small > 71000 {
		t.Errorf("%d of 100000 are small, want 70 %%", small)
	}
	if m, err = ParseMix("1.5k,4k"); err != nil || m.unit() != 512 || m.String() != "1536:1,4k:1" {
		t.Errorf("%+v %v", m, err)
	}
	for _, text := range []string{"", "0", "4k:", "4k:0", "4k:-1", "4k:x", "4k,", "1G", "x"} {
		if m, err := ParseMix(text); err == nil {
			t.Errorf("%q is %+v", text, m)
		}
	}
}

func TestScheduleIsFixedBeforehand(t *testing.T) {
	s := newSchedule(1000, 1e6, false, 1, 0.5)
	for i := range int64(1000) {
		if want := 1000 + 500 + i*1000; s.next() != want {
			t.Fatalf("arrival %d is due at %d, want %d", i, s.next(), want)
		}
		s.step()
	}
	// An hour at a rate that does not divide a second: no drift.
	s = newSchedule(0, 30000.7, false, 1, 0)
	s.advance(int64(time.Hour), math.MaxInt64)
	if want := 30000.7 * 3600; math.Abs(float64(s.n)-want) > 2 {
		t.Errorf("%d arrivals in an hour, want %.0f", s.n, want)
	}
	s = newSchedule(0, 1e4, true, 7, 0)
	again := newSchedule(0, 1e4, true, 7, 0)
	var sum, squares float64
	const n = 200000
	for last := int64(0); s.n < n; {
		gap := float64(s.next() - last)
		sum, squares = sum+gap, squares+gap*gap
		last = s.next()
		s.step()
	}
	mean := sum / n
	deviation := math.Sqrt(squares/n - mean*mean)
	if math.Abs(mean-1e5) > 1e3 || math.Abs(deviation-1e5) > 2e3 {
		t.Errorf("gaps of %v ± %v ns, want 100000 ± 100000", mean, deviation)
	}
	if again.advance(s.next()-1, math.MaxInt64); again.n != n {
		t.Errorf("the same seed has %d arrivals, not %d", again.n, n)
	}
	if again.advance(math.MaxInt64, s.next()); again.n != n+1 {
		t.Error("advance goes beyond the end")
	}
}

func TestStampFaults(t *testing.T) {
	const base, unit, run = 4096, 2048, 77
	fresh := func() (*table, []byte) {
		tab := newTable(base, unit, 4, run)
		b := make([]byte, 4*unit)
		for range 3 { // generations 1, 2, 3
			if !tab.takeWrite(base, uint64(len(b))) {
				t.Fatal("taken")
			}
			tab.stamp(b, base)
			tab.doneWrite(base, uint64(len(b)), stamped)
		}
		return tab, b
	}
	at := func(sectors int) int { return unit + sectors*sector } // in the second block
	old := func(b []byte, sectors int, generation uint64) {
		putStamp(b[at(sectors):], base+uint64(at(sectors)), generation, run)
	}
	for name, c := range map[string]struct {
		spoil func(tab *table, b []byte)
		fault faultKind
		found uint64
	}{
		"nothing":       {func(*table, []byte) {}, faultNone, 0},
		"no stamp":      {func(_ *table, b []byte) { clear(b[at(0):at(4)]) }, faultWrong, 0},
		"a flipped bit": {func(_ *table, b []byte) { b[at(0)+505] ^= 1 }, faultCorrupt, 3},
		"inside a sector": {func(_ *table, b []byte) {
			half := bytes.Clone(b[at(0)+256 : at(1)])
			old(b, 0, 2)
			copy(b[at(0)+256:], half)
		}, faultCorrupt, 2},
		"stale block": {func(_ *table, b []byte) {
			for i := range 4 {
				old(b, i, 2)
			}
		}, faultStale, 2},
		"torn, old end":   {func(_ *table, b []byte) { old(b, 0, 3); old(b, 3, 2) }, faultTorn, 2},
		"torn, old start": {func(_ *table, b []byte) { old(b, 0, 1) }, faultTorn, 1},
		"another offset": {func(_ *table, b []byte) {
			copy(b[at(0):at(4)], b[at(4):])
		}, faultMisdirected, 3},
		"another run": {func(_ *table, b []byte) {
			putStamp(b[at(0):], base+uint64(at(0)), 3, 78)
		}, faultTorn, 3},
		"from the future": {func(_ *table, b []byte) { old(b, 0, 4) }, faultAhead, 4},
		"not judged": {func(tab *table, b []byte) {
			tab.entries[1] &^= entryStamped
			clear(b[at(0):at(4)])
		}, faultNone, 0},
	} {
		tab, b := fresh()
		c.spoil(tab, b)
		j := judge{table: tab, connection: 5}
		j.begin(base, uint64(len(b)))
		var all []finding
		for i := 0; i < len(b); i += sector {
			if f, bad := j.look(b[i:]); bad {
				all = append(all, f)
			}
		}
		switch {
		case c.fault == faultNone && len(all) == 0:
		case len(all) != 1 || all[0].Fault != c.fault || all[0].Expected != 3 ||
			all[0].Found != c.found || all[0].Offset < base+unit || all[0].Offset >= base+2*unit:
			t.Errorf("%s: %v", name, all)
		}
	}
}

func TestTableKeepsWritersApart(t *testing.T) {
	tab := newTable(0, 512, 8, 1)
	if !tab.takeRead(0, 1024) || !tab.takeRead(512, 1024) {
		t.Fatal("readers exclude each other")
	}
	if tab.takeWrite(1024, 512) || tab.takeWrite(0, 4096) {
		t.Error("a writer beside a reader")
	}
	tab.doneRead(512, 1024)
	if !tab.takeWrite(1024, 512) || tab.takeRead(1024, 512) || tab.takeWrite(512, 1024) {
		t.Error("a writer does not exclude others, or a reader that is gone excludes it")
	}
	tab.doneWrite(1024, 512, unknown)
	if g, holds := tab.expect(1024); g != 1 || holds != unknown {
		t.Errorf("after a failed write: generation %d, holds %v", g, holds)
	}
	tab.doneRead(0, 1024)
	for i, e := range tab.entries {
		if e&(entryReaders|entryWriting) != 0 {
			t.Errorf("block %d is still taken", i)
		}
	}
}

func TestReportSaysEverything(t *testing.T) {
	o := options(t, serve(t, &peer{}), "randrw", "4k:1,8k:1")
	o.Verify, o.Rate, o.Count, o.Poisson, o.Threads = true, 1e5, 3000, true, 2
	r := runs(t, o)
	var table strings.Builder
	if err := r.Table(&table, 0); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"randrw 50:50, 4k:1,8k:1, 2 × 8 in flight, 2 threads", "p99.9",
		"\n   read", "\n  write", "3,000", "100,000 requests/s asked for, poisson",
		"backlog: at most",
		"verified: ", "0 bad blocks", "µs of processor time per request"} {
		if !strings.Contains(table.String(), words) {
			t.Errorf("the table does not say %q:\n%s", words, table.String())
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil ||
		back.Kinds[0].Latency != r.Kinds[0].Latency || back.Open.Arrivals != "poisson" {
		t.Errorf("%v: %s", err, text)
	}
	l := r.Kinds[0].Latency
	if l.Min <= 0 || l.Min > l.P50 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.P999 ||
		l.P999 > l.Max {
		t.Errorf("latencies out of order: %+v", l)
	}
}

// No line is wider than the terminal, and nothing is left out for that.
func TestNarrowTerminals(t *testing.T) {
	o := options(t, serve(t, &peer{}), "randrw", "4k:1,8k:1")
	o.Rate, o.Count = 1e5, 3000
	r := runs(t, o)
	r.Notes = append(r.Notes, strings.Repeat("a long note ", 30))
	for i := range r.Kinds {
		r.Kinds[i].RequestsPerSecond, r.Kinds[i].Requests = 1234567, 123456789
	}
	for _, width := range []int{50, 60, 80, 120, 1000} {
		var table, screen strings.Builder
		if err := r.Table(&table, width); err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(table.String(), "\n") {
			if n := ansi.StringWidth(line); n > width {
				t.Errorf("%d columns: %d: %s", width, n, line)
			}
		}
		for _, word := range []string{"1,234,567", "p99.9", "errors", "read", "write"} {
			if !strings.Contains(table.String(), word) {
				t.Errorf("%d columns: no %s in\n%s", width, word, table.String())
			}
		}
		l := NewLine(&screen, width)
		l.rate, l.lastAt = " 1,234,567 requests/s, 4,822.6 MiB/s", time.Now()
		l.Show(Progress{Phase: "measuring", Elapsed: 2 * time.Second, Total: 200 * time.Second})
		for line := range strings.SplitSeq(screen.String(), "\r") {
			if n := ansi.StringWidth(line); n > width {
				t.Errorf("%d columns: %d: %q", width, n, line)
			}
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for us, want := range map[float64]string{0: "-", 1.234: "1.23 µs", 99.94: "99.9 µs",
		999.6: "1.00 ms", 12345: "12.3 ms", 2.5e6: "2.50 s"} {
		if got := microseconds(us); got != want {
			t.Errorf("%v µs is %q, want %q", us, got, want)
		}
	}
}

func TestProgressLine(t *testing.T) {
	var screen bytes.Buffer
	l := NewLine(&screen, 0)
	l.Show(Progress{Phase: "connecting"})
	l.Show(Progress{Phase: "measuring", Elapsed: 2 * time.Second, Total: 10 * time.Second,
		Requests: 5})
	l.Clear()
	if text := screen.String(); !strings.Contains(text, "measuring") || !strings.Contains(text,
		"8 s left") || !strings.Contains(text, "20%") {
		t.Errorf("%q", text)
	}
	by := Progress{Elapsed: 3 * time.Second, Requests: 750, Count: 1000}
	if share, left := l.parts(by); share != 0.75 || left != time.Second {
		t.Errorf("by count: at %v, %v left", share, left)
	}
	silent := new(Line)
	silent.Show(Progress{Phase: "measuring"})
	silent.Clear()
}
