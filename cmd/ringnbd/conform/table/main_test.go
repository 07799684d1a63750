// The program's own work: a server is run, its results are written and judged.
//
// Invariant: a test is skipped by name without the server that it needs.

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/conform"
)

func TestTable(t *testing.T) {
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("nbdkit is not installed (Debian package nbdkit)")
	}
	out := filepath.Join(t.TempDir(), "TABLE.md")
	if err := run("none", out, "H-01,G-12", "nbdkit", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| rule | level | what | nbdkit |", "| H-01 | MUST | ",
		"- G-12 differs: Block sizes come from the plugin", "- **nbdkit**: nbdkit "} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the table does not have %q:\n%s", want, text)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct{ only, servers, want string }{
		{"H-99", "nbdkit", "--only H-99 selects no check"},
		{"H-01", "another", "none of another is installed"},
		{"H-01", "ringnbd", "no such file"},
	} {
		if err := run(filepath.Join(t.TempDir(), "none"), "", test.only, test.servers,
			time.Second); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// TestJudge: ringnbd must not fail, and no server may fail without a reason.
func TestJudge(t *testing.T) {
	peer := func(name, id string, v conform.Verdict) conform.Peer {
		return conform.Peer{Name: name,
			Report: &conform.Report{Counts: map[conform.Verdict]int{v: 1},
				Results: []conform.Result{{ID: id, Verdict: v}}}}
	}
	for _, test := range []struct {
		peers []conform.Peer
		want  string
	}{
		{[]conform.Peer{peer("ringnbd", "H-01", conform.Pass),
			peer("nbd-server", "H-03a", conform.Fail)}, ""},
		{[]conform.Peer{peer("ringnbd", "H-01", conform.Fail)}, "ringnbd fails 1 checks"},
		{[]conform.Peer{peer("nbdkit", "H-01", conform.Differs)}, "unexplained: nbdkit H-01"},
	} {
		err := judge(test.peers)
		if test.want == "" && err != nil ||
			test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}
