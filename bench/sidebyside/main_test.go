package main

// Tests of the command: what it refuses before it starts anything, and that a
// saved report makes a README.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ringnbd/bench"
)

func TestBadFlagsAreRefusedBeforeAnythingRuns(t *testing.T) {
	for flag, want := range map[string]string{
		"-size=12":         "multiple of 4 KiB",
		"-bs=64MiB":        "-bs 64MiB",
		"-jobs=1,x":        `"x" is no number`,
		"-transports=rdma": `"rdma" is neither`,
		"-servers=apache":  `"apache" is none of`,
		"-rounds=0":        "at least",
	} {
		_, err := newSuite(parseFlags([]string{flag}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", flag, err, want)
		}
	}
}

func TestLoadsAreEveryCombination(t *testing.T) {
	all, err := loads(parseFlags([]string{"-jobs=1,4,16"}))
	if err != nil || len(all) != 2*3*2 {
		t.Fatalf("%d loads, %v", len(all), err)
	}
	if got := all[3].String(); got != "randread 4 KiB, 4 × 32, tcp" {
		t.Errorf("fourth load: %s", got)
	}
}

func TestREADMEIsMadeFromAnEarlierRun(t *testing.T) {
	dir := t.TempDir()
	json, readme := filepath.Join(dir, "r.json"), filepath.Join(dir, "README.md")
	l := bench.Load{Pattern: "randread", BlockSize: 4096, Depth: 32, Jobs: 1, Transport: bench.Unix}
	s := []bench.Sample{{Round: 1, RequestsPerSecond: 12345}}
	r := &bench.Report{Command: "make sidebyside", Date: time.Unix(0, 0).UTC(),
		Results: []bench.Result{{Load: l, Server: "nbdkit", Samples: s, Median: s[0]}}}
	if err := r.Save(json); err != nil {
		t.Fatal(err)
	}
	text := "<!-- sidebyside: begin (written by bench/sidebyside from its JSON, do not edit) -->\n<!-- sidebyside: end -->\n"
	if err := os.WriteFile(readme, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), parseFlags([]string{"-from", json, "-readme", readme})); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(readme)
	if !strings.Contains(string(got), "| 12345 |") {
		t.Errorf("README: %s", got)
	}
}
