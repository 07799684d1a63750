// Smoke test: one tiny load on the real program, to a profile that go build takes.

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ringnbd/bench/measure"
	"ringnbd/cmd/ringnbd/testbed"
)

func TestSmokeWritesAProfile(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "default.pgo")
	testbed.DependOnSources()
	binary, err := testbed.Ringnbd(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), binary, dir, out, 1, loads()[:1]); err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command("go", "tool", "preprofile", "-i", out, "-o",
		filepath.Join(dir, "edges")).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, text)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("beside the profile and what was made of it: %v, %v", left, err)
	}
}

func TestOldProfileStaysWhenTheRunFails(t *testing.T) {
	out := filepath.Join(t.TempDir(), "default.pgo")
	if err := os.WriteFile(out, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), "/bin/false", t.TempDir(), out, 1, loads()); err == nil {
		t.Error("a program that is no server was profiled")
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "old" {
		t.Errorf("the old profile is %q, %v", text, err)
	}
}

func TestLoadsCanBeServed(t *testing.T) {
	seen := map[measure.Load]bool{}
	for _, l := range loads() {
		if seen[l] || !measure.Ringnbd("").Serves(l) {
			t.Errorf("%s: twice, or nothing that ringnbd serves", l)
		}
		seen[l] = true
	}
}
