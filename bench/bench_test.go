package bench

// Tests of what is computed: parsing, statistics, tables. No server runs here.

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedianIgnoresOrderAndOutliers(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{1000, 2, 1}, 2}} {
		before := slices.Clone(c.in)
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
		if !slices.Equal(before, c.in) {
			t.Errorf("median changed its argument to %v", c.in)
		}
	}
}

func TestRatioPairsSamplesOfTheSameRound(t *testing.T) {
	rate := func(s Sample) float64 { return s.RequestsPerSecond }
	a := []Sample{{Round: 1, RequestsPerSecond: 20}, {Round: 2, RequestsPerSecond: 2}, {Round: 3, RequestsPerSecond: 7}}
	b := []Sample{{Round: 2, RequestsPerSecond: 1}, {Round: 1, RequestsPerSecond: 10}}
	if x, ok := ratio(a, b, rate); !ok || x != 2 {
		t.Errorf("ratio = %v, %v, want 2", x, ok)
	}
	if _, ok := ratio(a, []Sample{{Round: 9, RequestsPerSecond: 1}}, rate); ok {
		t.Error("a ratio without a common round")
	}
}

func TestParseStatFindsFieldsBehindAnyName(t *testing.T) {
	line := "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 3 0 100 1 1"
	got, err := parseStat(line)
	want := processTimes{parent: 7, user: 110 * time.Millisecond, system: 220 * time.Millisecond,
		childrenUser: 330 * time.Millisecond, childrenSy: 440 * time.Millisecond}
	if err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 no name S 7", "42 (x) S 7 1", "42 (x) S 7 1 1 1 1 1 1 1 1 1 a b c d 1 1"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) found numbers", bad)
		}
	}
}

func TestParseStatusFieldKnowsKilobytes(t *testing.T) {
	text := "Name:\tx\nVmHWM:\t    2048 kB\nvoluntary_ctxt_switches:\t17\n"
	for name, want := range map[string]int64{"VmHWM": 2 << 20, "voluntary_ctxt_switches": 17, "VmRSS": 0, "Name": 0} {
		if got := parseStatusField(text, name); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
}

func TestStealIsAShareOfAllTime(t *testing.T) {
	a, err := parseMachineTicks("cpu  100 0 50 800 10 0 0 40 5 0\ncpu0 1 1\n")
	if err != nil || a != (machineTicks{total: 1000, steal: 40}) {
		t.Fatalf("parseMachineTicks = %+v, %v", a, err)
	}
	b := machineTicks{total: 1200, steal: 90}
	if got := b.stealSince(a); got != 0.25 {
		t.Errorf("steal = %v, want 0.25", got)
	}
	if got := a.stealSince(a); got != 0 {
		t.Errorf("steal of no time = %v", got)
	}
	if _, err := parseMachineTicks("intr 1 2 3"); err == nil {
		t.Error("no cpu line, no error")
	}
}

func TestParseFioReadsTheJobBehindTheEnginesLines(t *testing.T) {
	out, err := os.ReadFile("testdata/fio-nbd.txt")
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseFio(out)
	if err != nil {
		t.Fatal(err)
	}
	want := measure{requests: 466914, seconds: 0.201, rps: 2322955.223881, p50: 0.262, p99: 0.334, p999: 0.502}
	if m != want {
		t.Errorf("parseFio = %+v, want %+v", m, want)
	}
}

func TestParseFioRefusesFailedRuns(t *testing.T) {
	for text, want := range map[string]string{
		"fio: engine nbd not loadable":                             "no JSON",
		`{"jobs":[]}`:                                              "0 groups",
		`{"jobs":[{"error":5,"read":{"total_ios":9}}]}`:            "input/output error",
		`{"jobs":[{"error":0,"read":{},"write":{}}]}`:              "no request",
		`{"jobs":[{"error":0,"read":{"total_ios":1}`:               "JSON",
		`{"jobs":[{"error":0},{"error":0}], "fio version": "fio"}`: "2 groups",
	} {
		if _, err := parseFio([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseFio(%q) = %v, want %q in it", text, err, want)
		}
	}
}

func TestRoundsRotateServersWithinALoad(t *testing.T) {
	s := &Suite{Raw: true, Programs: []Program{{Name: "a"}, {Name: "b"}},
		Loads: []Load{{Pattern: "randread", Transport: Unix}, {Pattern: "randread", Transport: TCP}}}
	all := s.meetings()
	order := func(round int) string {
		var names []string
		for i := range all {
			m := all[s.turn(round, i, all)]
			names = append(names, m.name()+m.load.Transport)
		}
		return strings.Join(names, " ")
	}
	for round, want := range []string{"raw aunix bunix atcp btcp", "raw bunix aunix btcp atcp", "raw aunix bunix atcp btcp"} {
		if got := order(round); got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
}

// sampleReport has two servers, two rounds and one failure.
func sampleReport() *Report {
	l := Load{Pattern: "randread", BlockSize: 4096, Depth: 32, Jobs: 4, Transport: TCP}
	raw := l
	raw.Transport = ""
	s := func(round int, rps, cpu float64) Sample {
		return Sample{Round: round, Requests: 1000, RequestsPerSecond: rps, P50: 10, P99: 99, ServerUser: cpu / 4,
			ServerSystem: cpu * 3 / 4, Switches: 0.5, PeakRSS: 64 << 20, Steal: 0.015}
	}
	r := &Report{Command: "make sidebyside", Date: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), Size: 2 << 30, Seconds: 5, Rounds: 2,
		Machine: Machine{CPU: "Abacus", Cores: 2, Hypervisor: true, Memory: 8 << 30, Kernel: "6.18", OS: "Debian", Filesystem: "ext4 on /dev/vda",
			Congestion: "cubic", Versions: map[string]string{"fio": "fio-3.33"}},
		Storage: map[string]string{"ringnbd": "O_DIRECT", "ringnbd-cached": "page cache", "nbdkit": "page cache", "qemu-nbd": "O_DIRECT"}, Direct: []string{"ringnbd", "qemu-nbd"},
		Results: []Result{
			{Load: raw, Server: RawName, Samples: []Sample{s(1, 40000, 0), s(2, 80000, 0)}},
			{Load: l, Server: "ringnbd", Samples: []Sample{s(1, 36000, 8), s(2, 72000, 8)}},
			{Load: l, Server: "ringnbd-cached", Samples: []Sample{s(1, 48000, 6), s(2, 96000, 6)}},
			{Load: l, Server: "nbdkit", Samples: []Sample{s(1, 24000, 24), s(2, 48000, 24)}},
			{Load: l, Server: "qemu-nbd", Samples: []Sample{s(1, 18000, 16)}, Errors: []string{"round 2: stopped at once"}},
		}}
	for i := range r.Results {
		r.Results[i].Median = medianSample(r.Results[i].Samples)
	}
	return r
}

func TestMarkdownOfAReportReadBackFromItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if err := sampleReport().Save(path); err != nil {
		t.Fatal(err)
	}
	r, err := LoadReport(path)
	if err != nil {
		t.Fatal(err)
	}
	text := r.Markdown()
	for _, want := range []string{
		"Measured 2026-11-21 with `make sidebyside`: 2 GiB file, 2 rounds of 5 s",
		"Abacus, 2 cores (virtual machine), 8 GiB, Linux 6.18",
		"| randread 4 KiB, 4 × 32, tcp | 0.90 | 2.00 (qemu-nbd) | 0.50 (qemu-nbd) | 2.00 (nbdkit) | 0.25 (nbdkit) |",
		"| randread 4 KiB, 4 × 32, tcp | ringnbd | 54000 | 10 | 99 | 8.0 (2.0 + 6.0) | 0.50 | 64 | – | 1.5 |",
		"| randread 4 KiB, 4 × 32 | raw | 60000 | 10 | 99 | – | – | – | – | 1.5 |",
		"Failed: randread 4 KiB, 4 × 32, tcp, qemu-nbd: round 2: stopped at once",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not in the table: %s\n%s", want, text)
		}
	}
}

func TestREADMEBlockIsReplacedAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	before, after := "# ringnbd\n\nfast\n\n", "\n\n## License\n"
	if err := os.WriteFile(path, []byte(before+beginMarker+"\nold\n"+endMarker+after), 0o644); err != nil {
		t.Fatal(err)
	}
	r := sampleReport()
	for range 2 { // the second time changes nothing
		if err := r.WriteREADME(path); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		if want := before + beginMarker + "\n" + r.Markdown() + endMarker + after; string(got) != want {
			t.Fatalf("README is now:\n%s", got)
		}
	}
	os.WriteFile(path, []byte("no markers"), 0o644)
	if err := r.WriteREADME(path); err == nil || !strings.Contains(err.Error(), "no line") {
		t.Errorf("without markers: %v", err)
	}
}

func TestFilesystemOfPicksTheInnermostMount(t *testing.T) {
	mountinfo := `21 1 254:0 / / rw - ext4 /dev/vda rw
30 21 0:25 / /dev/shm rw shared:1 - tmpfs tmpfs rw
31 21 0:26 / /dev rw - devtmpfs none rw
`
	for path, want := range map[string]string{"/tmp/x": "ext4 on /dev/vda", "/dev/shm/a": "tmpfs on tmpfs", "/dev/shmx": "devtmpfs on none"} {
		if got := filesystemOf(mountinfo, path); got != want {
			t.Errorf("%s lies on %q, want %q", path, got, want)
		}
	}
}
