package bench

// Smoke test: the whole suite, tiny, once for each server that is installed, so
// that it cannot rot. It asserts that numbers come out, not which.

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ringnbdBinary is RINGNBD_BIN, or is built from the tree.
func ringnbdBinary(t *testing.T) string {
	if path := os.Getenv("RINGNBD_BIN"); path != "" {
		os.Stat(path) // go test then knows when a cached result is stale
		return path
	}
	path := filepath.Join(t.TempDir(), "ringnbd")
	// giouring links only with this flag on Go 1.23 and newer.
	out, err := exec.Command("go", "build", "-ldflags=-checklinkname=0", "-o", path, "ringnbd/cmd/ringnbd").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func TestSmokeEveryServerYieldsSamples(t *testing.T) {
	if _, err := exec.LookPath("fio"); err != nil {
		t.Skip("fio is not installed (Debian package fio)")
	}
	for _, p := range append(Peers(), Program{Name: "ringnbd"}, Program{Name: "ringnbd-cached"}) {
		t.Run(p.Name, func(t *testing.T) {
			switch p.Name {
			case "ringnbd":
				p = Ringnbd(ringnbdBinary(t))
			case "ringnbd-cached":
				p = RingnbdCached(ringnbdBinary(t))
			}
			if _, err := p.Find(); err != nil {
				t.Skip(err)
			}
			var progress bytes.Buffer
			s := &Suite{Dir: t.TempDir(), Size: 16 << 20, Seconds: 0.4, Rounds: 1, Programs: []Program{p}, Raw: true, Progress: &progress,
				Loads: []Load{
					{Pattern: "randread", BlockSize: 4096, Depth: 8, Jobs: 1, Transport: TCP},
					{Pattern: "randwrite", BlockSize: 4096, Depth: 8, Jobs: 2, Transport: Unix}}}
			report, err := s.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range report.Failures() {
				t.Error(line)
			}
			for _, r := range report.Results {
				m := r.Median
				if m.RequestsPerSecond <= 0 || m.P99 < m.P50 || m.P50 <= 0 {
					t.Errorf("%s, %s: %+v", r.Load, r.Server, m)
				}
				if r.Server != RawName && (m.ServerCPU() <= 0 || m.PeakRSS <= 0) {
					t.Errorf("%s, %s: no CPU time or memory: %+v", r.Load, r.Server, m)
				}
			}
			t.Log("\n" + progress.String())
			left, _ := os.ReadDir(s.Dir)
			if len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
