// Tests of the command: what it refuses before it starts anything, what it chooses, and that a
// saved report makes a README.

package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

// parsed is a command line that is right.
func parsed(t *testing.T, arguments ...string) options {
	t.Helper()
	o, err := parseFlags(arguments, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestBadFlagsAreRefusedBeforeAnythingRuns(t *testing.T) {
	for flag, want := range map[string]string{
		"--size=12":                "--size 12: give a multiple of 4 KiB",
		"--null-size=much":         "--null-size much: give",
		"--sections=disk,tape":     `-sections: there is no section "tape"; there are disk,`,
		"--servers=apache":         `"apache" is none of raw, ringnbd,`,
		"--rounds=0":               "--rounds at least 1",
		"--seconds=0.1":            "--seconds must be at least 0.2",
		"--generator=/nowhere/bin": "no such file or directory: build it first (make)",
		"--ringnbd=/nowhere/bin":   "no such file or directory: build it first (make)",
	} {
		arguments := []string{"--generator", os.Args[0], flag}
		if strings.HasPrefix(flag, "--ringnbd") {
			arguments = arguments[2:]
		}
		_, err := newSuite(parsed(t, arguments...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", flag, err, want)
		}
	}
	if _, err := newSuite(parsed(t, "--full", "--sections", "null")); err == nil ||
		!strings.Contains(err.Error(), "without --sections") {
		t.Errorf("--full with -sections: %v", err)
	}
	if _, err := newSuite(parsed(t, "--generator", os.Args[0], "--quick", "--readme",
		"README.md")); err == nil ||
		!strings.Contains(err.Error(), "--results and --readme need at least 2 rounds") {
		t.Errorf("--readme of one round: %v", err)
	}
	missing := parsed(t, "--generator", os.Args[0], "--ringnbd", "/nowhere/bin", "--servers",
		"ringnbd")
	if _, err := newSuite(missing); err == nil || !strings.Contains(err.Error(), "/nowhere/bin") {
		t.Errorf("a server that was asked for and is missing: %v", err)
	}
}

func TestChoicesReachTheSuite(t *testing.T) {
	o := parsed(t, "--ringnbd", os.Args[0], "--sections", "null,depth", "--quick",
		"--seconds", "0.7", "--servers", "raw,ringnbd", "--size", "64MiB")
	s, err := newSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Rounds != 1 || s.Seconds != 0.7 || s.Warmup != 0.1 || s.Size != 64<<20 ||
		s.Null != 1<<40 || !s.Raw || s.Generator != os.Args[0] {
		t.Errorf("the suite is %+v", s)
	}
	if len(s.Programs) != 1 || s.Programs[0].Name != "ringnbd" || s.Programs[0].Path != os.Args[0] {
		t.Errorf("programs: %+v", s.Programs)
	}
	sections := map[string]bool{}
	for _, l := range s.Loads {
		sections[l.Section] = true
	}
	if len(sections) != 2 || !sections["null"] || !sections["depth"] {
		t.Errorf("sections: %v", sections)
	}
	if all, err := loads(parsed(t, "--full")); err != nil || len(all) < 300 {
		t.Errorf("--full: %d loads, %v", len(all), err)
	}
}

// A usual run is promised to take about 25 minutes, a quick one about five. These are estimates;
// the promise is kept by keeping the sections short.
func TestUsualRunsAreShort(t *testing.T) {
	minutes := func(arguments ...string) float64 {
		o := parsed(t, append(arguments, "--ringnbd", os.Args[0])...)
		s, err := newSuite(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Programs, s.Raw = programs(os.Args[0]), true // as if all were installed
		meetings, time := s.Estimate()
		t.Logf("%v: %d measurements, %v", arguments, meetings, time)
		return time.Minutes()
	}
	if m := minutes(); m > 26 {
		t.Errorf("a usual run takes %.0f minutes", m)
	}
	if m := minutes("--quick"); m > 6 {
		t.Errorf("a quick run takes %.0f minutes", m)
	}
	minutes("--full")
}

func TestListHasEverySection(t *testing.T) {
	var b bytes.Buffer
	list(&b)
	for _, name := range []string{"disk ", "depth ", "large ", "null ", "memory ", "loop ",
		"connections ", "idle ", "exports ", "overlay ", "unaligned ", "curve ", "poll "} {
		if !strings.Contains(b.String(), name) {
			t.Errorf("no %s in\n%s", name, b.String())
		}
	}
}

func TestREADMEAndPageAreMadeFromAnEarlierRun(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	json, readme, results, html := file("r.json"), file("README.md"), file("RESULTS.md"),
		file("r.html")
	l := measure.Load{Section: "null", Pattern: "randread", BlockSize: 4096, Depth: 32,
		Connections: 4, Transport: measure.Unix, Backend: measure.Null}
	s := []measure.Sample{{Round: 1, RequestsPerSecond: 12345}}
	r := &measure.Report{Command: "make bench", Date: time.Unix(0, 0).UTC(), Rounds: 2,
		Results: []measure.Result{{Load: l, Server: "ringnbd", Samples: s, Median: s[0]}}}
	if err := judge.Save(r, json); err != nil {
		t.Fatal(err)
	}
	text := "<!-- bench: begin (written by bench/suite from its JSON, do not edit) -->\n<!-- " +
		"bench: end -->\n"
	if err := os.WriteFile(readme, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(),
		parsed(t, "--from", json, "--readme", readme, "--results", results,
			"--html", html)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{readme: "| 12,345/s |", results: "| 12345 |",
		html: "<html"} {
		if got, _ := os.ReadFile(path); !strings.Contains(string(got), want) {
			t.Errorf("%s has no %q: %.300s", path, want, got)
		}
	}
}
