// Tests of what is computed from a report: ratios, targets, tables. No server runs here.

package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/bench/profile"
)

// sampleReport has the disk section's random reads with 4 connections over TCP, two rounds and one
// failure.
func sampleReport() *measure.Report {
	l := measure.Load{Section: "disk", Pattern: "randread", BlockSize: 4096, Depth: 32,
		Connections: 4, Transport: measure.TCP, Backend: measure.File}
	s := func(round int, rps, cpu float64) measure.Sample {
		return measure.Sample{Round: round, Requests: 1000, RequestsPerSecond: rps,
			BytesPerSecond: 4096 * rps, P50: 10, P99: 99, ServerUser: cpu / 4,
			ServerSystem: cpu * 3 / 4, ClientCPU: 4, Switches: 0.5, PeakRSS: 64 << 20, Steal: 0.015}
	}
	r := &measure.Report{Command: "make bench", Date: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC),
		Size: 2 << 30, Seconds: 5, Rounds: 2,
		Machine: measure.Machine{CPU: "Abacus", Cores: 2, Hypervisor: true, Memory: 8 << 30,
			Kernel: "6.18",
			OS:     "Debian", Filesystem: "ext4 on /dev/vda",
			Congestion: "cubic", Loopback: map[string]float64{measure.TCP: 3e9},
			Versions: map[string]string{measure.GeneratorName: "ringnbd 1"}},
		Storage: map[string]string{"ringnbd": "O_DIRECT", "ringnbd-cached": "page cache",
			"nbdkit": "page cache", "qemu-nbd": "O_DIRECT"},
		Direct: []string{"ringnbd", "qemu-nbd"},
		Results: []measure.Result{
			{Load: l.Limit(), Server: measure.RawName,
				Samples: []measure.Sample{s(1, 40000, 0), s(2, 80000, 0)}},
			{Load: l, Server: "ringnbd", Samples: []measure.Sample{s(1, 36000, 8), s(2, 72000, 8)}},
			{Load: l, Server: "ringnbd-cached",
				Samples: []measure.Sample{s(1, 48000, 6), s(2, 96000, 6)}},
			{Load: l, Server: "nbdkit",
				Samples: []measure.Sample{s(1, 24000, 24), s(2, 48000, 24)}},
			{Load: l, Server: "qemu-nbd", Samples: []measure.Sample{s(1, 18000, 16)},
				Errors: []string{"round 2: stopped at once"}},
		}}
	medians(r)
	return r
}

func medians(r *measure.Report) {
	for i := range r.Results {
		r.Results[i].Median = measure.MedianSample(r.Results[i].Samples)
	}
}

func TestReportReadBackFromItsFileIsTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	before := sampleReport()
	before.Profiles = []measure.Profile{{Load: before.Results[1].Load, Server: "ringnbd",
		Seconds: 2,
		Stages:  []measure.Stage{{Name: "disk", Share: 0.5, MicrosPerRequest: 2.5}},
		Top:     []measure.Function{{Name: "read", Share: 0.25}}}}
	if err := judge.Save(before, path); err != nil {
		t.Fatal(err)
	}
	after, err := measure.ReadReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("saved %+v\n  read %+v", before, after)
	}
	text, _ := os.ReadFile(path)
	var file struct{ Targets []judge.Target }
	if err := json.Unmarshal(text, &file); err != nil ||
		!reflect.DeepEqual(file.Targets, judge.Targets(before)) {
		t.Errorf("the file has the targets %+v, %v", file.Targets, err)
	}
	os.WriteFile(path, []byte("no JSON"), 0o644)
	if _, err := measure.ReadReport(path); err == nil ||
		!strings.Contains(err.Error(), path+" is not a report") {
		t.Errorf("of no JSON: %v", err)
	}
}

func TestRatiosComparePeersOnTheSamePath(t *testing.T) {
	r := sampleReport()
	l := r.Loads()[0]
	for _, c := range []struct{ what, got, want string }{
		{"rate", report{r}.against(l, "ringnbd", measure.RequestRate, true), "2.00 (qemu-nbd)"},
		{"CPU", report{r}.against(l, "ringnbd", measure.Sample.ServerCPU, false),
			"0.50 (qemu-nbd)"},
		{"CPU of all", report{r}.againstAll(l, "ringnbd-cached"), "0.38 (qemu-nbd)"},
		{"rate on the page cache",
			report{r}.against(l, "ringnbd-cached", measure.RequestRate, true),
			"2.00 (nbdkit)"},
		{"CPU on the page cache",
			report{r}.against(l, "ringnbd-cached", measure.Sample.ServerCPU, false),
			"0.25 (nbdkit)"},
		{"rate of a server that was not there",
			report{r}.against(l, "ringnbd-poll", measure.RequestRate, true),
			""},
		{"share of the limit", report{r}.limitText(l), "0.90"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
	for i := range r.Results { // without storage, all others are peers
		r.Results[i].Load.Backend = measure.Null
	}
	l.Backend = measure.Null
	if got := (report{r}).against(l, "ringnbd", measure.RequestRate, true); got != "1.50 (nbdkit)" {
		t.Errorf("rate of a null export: %q", got)
	}
}

func TestMarkdownHasTheFigures(t *testing.T) {
	r := sampleReport()
	other := measure.Result{Load: r.Results[1].Load, Server: "ringnbd",
		Samples: r.Results[1].Samples,
		Median:  r.Results[1].Median}
	other.Load.Section, other.Load.Backend = "null", measure.Null
	r.Results = append(r.Results, other)
	text := report{r}.results()
	for _, want := range []string{
		"| null: randread 4 KiB, 4 × 32 | 54000 | 10.0 | 99.0 | 8.0 | – | – | – |",
		"Measured 2026-11-21 with `make bench`: 2 rounds of 5 s, medians; a file of 2 GiB. " +
			"Abacus, 2 cores (virtual machine), 8 GiB, Linux 6.18",
		"| randread 4 KiB, 4 × 32 | 54000 | 8.0 | 0.90 | 2.00 (qemu-nbd) | 0.50 (qemu-nbd) | " +
			"0.50 (qemu-nbd) | 2.00 (nbdkit) | 0.25 (nbdkit) |",
		"| 4 KiB random read, depth 32, file O_DIRECT, 1 connection: requests/s | ≥ 0.80 of the " +
			"raw limit, unless CPU is the bound | not measured | not judged |",
		"| load generator |  | ringnbd 1 |",
		"Failed: randread 4 KiB, 4 × 32, tcp, qemu-nbd: round 2: stopped at once",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not in the tables: %s\n%s", want, text)
		}
	}
}

func TestMarkdownPutsBothTransportsIntoOneCell(t *testing.T) {
	r := sampleReport()
	for _, result := range r.Results[1:3] {
		result.Load.Transport = measure.Unix
		r.Results = append(r.Results, result)
	}
	text := report{r}.results()
	want := "| randread 4 KiB, 4 × 32 | 54000 / 54000 | 8.0 / 8.0 | 0.90 / 0.90 | 2.00 " +
		"(qemu-nbd) / – | 0.50 (qemu-nbd) / – | 0.50 (qemu-nbd) / – | 2.00 (nbdkit) / – |"
	if !strings.Contains(text, want) {
		t.Errorf("no %s in\n%s", want, text)
	}
	if got := strings.Join(sameTail([]string{"1 (x)", "2 (x)"}), " / "); got != "1 / 2 (x)" {
		t.Errorf("the same peer twice: %s", got)
	}
}

func TestTablesHaveEverySectionAndServer(t *testing.T) {
	var b bytes.Buffer
	if err := Tables(&b, sampleReport()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"disk: How near", "│ raw ", "│ ringnbd-cached ", " 54,000 │",
		"2.00 (qemu-nbd)", "not judged", "failed: randread 4 KiB, 4 × 32, tcp, qemu-nbd"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "write-back") {
		t.Errorf("a column without a figure:\n%s", b.String())
	}
}

func TestTablesFitInto100Columns(t *testing.T) {
	var b bytes.Buffer
	if err := Tables(&b, plausibleReport()); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "│") {
			continue
		}
		rows++
		if n := utf8.RuneCountInString(line) - 1; n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"write-back", "unstarted", "data", "memory", "start"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no column %s", want)
		}
	}
	if rows < 300 {
		t.Errorf("only %d rows", rows)
	}
}

func TestREADMEBlockIsReplacedAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	before, after := "# ringnbd\n\nfast\n\n", "\n\n## License\n"
	if err := os.WriteFile(path, []byte(before+beginMarker+"\nold\n"+endMarker+after),
		0o644); err != nil {
		t.Fatal(err)
	}
	r := sampleReport()
	r.Results[1].Load.Transport, r.Results[4].Load.Transport = measure.Unix, measure.Unix
	for range 2 { // the second time changes nothing
		if err := WriteREADME(r, path); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		want := before + beginMarker + "\n" + (report{r}).summaryBlock() + endMarker + after
		if string(got) != want {
			t.Fatalf("README is now:\n%s", got)
		}
		if row := "| 4 KiB random read, 4 × 32 | 54,000/s | 0.90 | 2.00 (qemu-nbd) | 8.0 | " +
			"0.50 (qemu-nbd) |"; !strings.Contains(want, row) {
			t.Errorf("no %s in\n%s", row, want)
		}
	}
	os.WriteFile(path, []byte("no markers"), 0o644)
	if err := WriteREADME(r, path); err == nil || !strings.Contains(err.Error(), "no line") {
		t.Errorf("without markers: %v", err)
	}
}

func TestNothingIsWrittenFromOneRound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	text := []byte(beginMarker + "\n" + endMarker + "\n")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	r := sampleReport()
	r.Rounds = 1
	for _, write := range []func(*measure.Report, string) error{WriteREADME, WriteResults} {
		if err := write(r, path); err == nil ||
			!strings.Contains(err.Error(), "measure at least 2") {
			t.Errorf("from one round: %v", err)
		}
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, text) {
		t.Errorf("README is now %q", after)
	}
}

func TestOthersOnTheMachineAreWarnedOf(t *testing.T) {
	r := sampleReport()
	said := func() (terminal, readme, page string) {
		var b bytes.Buffer
		if err := Tables(&b, r); err != nil {
			t.Fatal(err)
		}
		return b.String(), report{r}.results(), takeApart(t, r).all("body", "")[0].text()
	}
	const warning = "used 8 % of the CPU time (median of all measurements)"
	for _, share := range []float64{0.04, 0.08} {
		for i := range r.Results {
			for k := range r.Results[i].Samples {
				r.Results[i].Samples[k].Others = share
			}
		}
		medians(r)
		terminal, readme, page := said()
		for what, text := range map[string]string{"terminal": terminal, "README": readme,
			"page": page} {
			if got := strings.Contains(text, warning); got != (share > 0.05) {
				t.Errorf("%s, at %g: warned %v\n%s", what, share, got, text)
			}
		}
		if figure := fmt.Sprintf("%.1f", 100*share); !strings.Contains(terminal, figure) ||
			!strings.Contains(page, figure) {
			t.Errorf("others' %s %% is in no table", figure)
		}
	}
}

// What README.md and RESULTS.md claim comes from a file that the suite wrote, and from nothing
// else: the file is kept beside them, and makes the same text.
func TestREADMEAndResultsComeFromTheirFile(t *testing.T) {
	r, err := measure.ReadReport("../measured.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	const remake = "is not what bench/measured.json.gz says; make it anew: make results"
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := replaceBlock(readme, report{r}.summaryBlock())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readme, want) {
		t.Error("the block of README.md " + remake)
	}
	results, err := os.ReadFile("../RESULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(results) != (report{r}).results() {
		t.Error("RESULTS.md " + remake)
	}
	if r.Command == "" || len(r.Results) == 0 {
		t.Error("the file names no command or has no results")
	}
}

func TestAReportKeptCompressedReadsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json.gz")
	r := &measure.Report{Command: "make bench", Rounds: 3}
	if err := judge.Save(r, path); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); len(b) < 2 || b[0] != 0x1f || b[1] != 0x8b {
		t.Error("the file is not compressed")
	}
	got, err := measure.ReadReport(path)
	if err != nil || got.Command != r.Command || got.Rounds != 3 {
		t.Errorf("read back: %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := measure.ReadReport(path); err == nil {
		t.Error("a file that is not compressed was read as if it were")
	}
}

func TestResultsTellWhereTheTimeGoes(t *testing.T) {
	r := &measure.Report{Profiles: []measure.Profile{{Load: measure.Load{Pattern: "randread",
		BlockSize: 4096, Depth: 32,
		Connections: 4, Transport: measure.Unix, Backend: measure.Null},
		Stages: []measure.Stage{{Name: profile.Reply, Share: 0.1, MicrosPerRequest: 0.05},
			{Name: profile.Kernel, Share: 0.85, MicrosPerRequest: 0.425},
			{Name: profile.Runtime, Share: 0.05, MicrosPerRequest: 0.025}},
		Top: []measure.Function{{Name: profile.KernelPrefix + "send", Share: 0.5},
			{Name: "ringnbd/engine.(*loop).parse", Share: 0.2},
			{Name: profile.KernelPrefix + "sleep", Share: 0.1}}}}}
	text := report{r}.profileTable()
	want := "| 0.50 | 10 % | 85 % | send 50 %, sleep 10 % | 5 % |"
	if !strings.Contains(text, want) {
		t.Errorf("no %q in:\n%s", want, text)
	}
}

func TestVerdictsHaveTheirColours(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		target  judge.Target
		verdict string
		colour  string // quiet without a rule of its own
	}{
		{judge.Target{Met: &yes}, "met", ".verdict.met { color: var(--good); }"},
		{judge.Target{Met: &no}, "missed", ".verdict.missed { color: var(--bad); }"},
		{judge.Target{Met: &yes, Close: true}, "close", ".verdict { color: var(--quiet);"},
		{judge.Target{}, "not judged", ".verdict { color: var(--quiet);"},
	} {
		if got := c.target.Verdict(); got != c.verdict || !strings.Contains(pageStyle, c.colour) {
			t.Errorf("%+v: %s, and no %s", c.target, got, c.colour)
		}
	}
	for _, row := range takeApart(t, sampleReport()).all("table", "targets")[0].all("tr", "")[1:] {
		verdict := row.all("td", "verdict")[0]
		if got := verdict.attributes["class"]; got != "verdict "+verdict.text() {
			t.Errorf("the verdict %s has the class %s", verdict.text(), got)
		}
	}
}
