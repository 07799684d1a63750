// Smoke test: the whole suite, tiny, for each server that is installed and each back end that it
// serves, so that it cannot rot. It asserts that sane numbers come out, not which, and that
// nothing is left behind.

package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/testbed"
)

// ringnbdBinary is the program under test.
func ringnbdBinary(t *testing.T) string {
	t.Helper()
	testbed.DependOnSources()
	path, err := testbed.Ringnbd(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// tiny is a suite in a place of its own, which must be empty at the end. Its path is short, for
// sockets are made in it.
func tiny(t *testing.T, generator string, loads ...Load) (s *Suite, progress *bytes.Buffer) {
	dir, err := os.MkdirTemp("", "smoke-")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() { nothingIsLeft(t, dir) })
	progress = new(bytes.Buffer)
	return &Suite{Generator: generator, Dir: dir, Size: 16 << 20, Null: 1 << 30, Memory: 8 << 20,
		Seconds: 0.2, Warmup: 0.05, Rounds: 1,
		Loads: loads, Raw: true, Progress: progress}, progress
}

// nothingIsLeft looks for files, child processes and loop devices.
func nothingIsLeft(t *testing.T, dir string) {
	for pid := range tree(os.Getpid()) {
		if pid != os.Getpid() {
			t.Errorf("process %d is left: %q", pid, readText(fmt.Sprintf("/proc/%d/cmdline", pid)))
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	attached := func() []string {
		var devices []string
		files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, file := range files {
			if strings.HasPrefix(readText(file), dir) {
				devices = append(devices, file)
			}
		}
		return devices
	}
	// The kernel detaches a device when its last user is gone: udev looks at new ones too.
	end := time.Now().Add(5 * time.Second)
	for ; len(attached()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("loop devices are left: %v", attached())
			return
		}
	}
	os.RemoveAll(dir)
}

// sane asserts what must be true of every sample.
func sane(t *testing.T, r *Report) {
	t.Helper()
	for _, line := range r.Failures() {
		t.Error(line)
	}
	for _, result := range r.Results {
		m := result.Median
		if len(result.Samples) == 0 || m.Requests <= 0 || m.RequestsPerSecond <= 0 ||
			m.BytesPerSecond < 512 || m.P50 <= 0 || m.P99 < m.P50 || m.P999 < m.P99 ||
			m.Steal < 0 || m.Steal > 1 || m.ClientCPU <= 0 {
			t.Errorf("%s, %s: %+v", result.Load, result.Server, m)
		}
		// A millisecond of CPU time for one request would be that of another process.
		if cpu := m.ServerCPU(); result.Server != RawName &&
			(cpu <= 0 || cpu > 1000 || m.PeakRSS <= 0 || m.StartSeconds <= 0 || m.Switches < 0) {
			t.Errorf("%s, %s: no CPU time, memory or start: %+v", result.Load, result.Server, m)
		}
	}
}

// smokeLoads are few, but of every kind.
func smokeLoads() []Load {
	base := Load{BlockSize: SmallBlock, Depth: 8, Connections: 1, Transport: Unix, Backend: File}
	load := func(pattern string, vary func(*Load)) Load {
		l := combine(base, patterns(pattern))[0]
		vary(&l)
		return l
	}
	return []Load{
		load("randread", func(l *Load) { l.Transport = TCP }),
		load("randrw", func(l *Load) { l.Connections = 2 }),
		load("randwrite", func(l *Load) { l.BlockSize, l.Exports = 512, 3 }),
		load("write", func(l *Load) { l.Backend, l.BlockSize = Loop, MediumBlock }),
		load("randread", func(l *Load) { l.Backend, l.Rate, l.Idle = Null, 500, 5 }),
		load("randread", func(l *Load) { l.Backend = Memory }),
		load("randwrite", func(l *Load) { l.Backend = Overlay }),
		load("randread", func(l *Load) { l.Backend = Mapped }),
	}
}

func TestSmokeEveryServerYieldsSamples(t *testing.T) {
	generator := ringnbdBinary(t)
	own := []Program{Ringnbd(generator), RingnbdCached(generator), RingnbdPoll(generator)}
	for _, p := range append(own, Peers()...) {
		t.Run(p.Name, func(t *testing.T) {
			if _, err := p.Find(); err != nil {
				t.Skip(err)
			}
			s, progress := tiny(t, generator)
			for _, l := range smokeLoads() {
				if l.Backend == Loop && os.Geteuid() != 0 {
					t.Log("without root there is no loop device")
				} else if p.Serves(l) {
					s.Loads = append(s.Loads, l)
				}
			}
			s.Programs, s.Raw = []Program{p}, p.Name == "ringnbd"
			report, err := s.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Log("\n" + progress.String())
			sane(t, report)
			throughJSON(t, report)
		})
	}
}

// throughJSON writes a report of a real run as JSON and reads it back.
func throughJSON(t *testing.T, before *Report) {
	t.Helper()
	text, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	after := new(Report)
	if err := json.Unmarshal(text, after); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("written %+v\n  read %+v", before, after)
	}
}

func TestSmokeInterruptedRunLeavesNothing(t *testing.T) {
	generator := ringnbdBinary(t)
	load := Load{Pattern: "randread", BlockSize: SmallBlock, Depth: 1, Connections: 1,
		Transport: Unix, Backend: File}
	if os.Geteuid() == 0 {
		load.Backend = Loop
	}
	s, _ := tiny(t, generator, load)
	s.Seconds, s.Programs = 30, []Program{Ringnbd(generator)}
	s.Raw = false
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		defer interrupt()
		end := time.Now().Add(20 * time.Second)
		for ; time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if len(tree(os.Getpid())) >= 3 { // us, the server, the generator
				time.Sleep(300 * time.Millisecond)
				return
			}
		}
	}()
	begun := time.Now()
	if report, err := s.Run(ctx); !errors.Is(err, context.Canceled) || report != nil {
		t.Errorf("interrupted: %v, %v", report, err)
	}
	if took := time.Since(begun); took > 25*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

func TestSmokeFailureOfAServerIsInTheReport(t *testing.T) {
	load := Load{Pattern: "randread", BlockSize: SmallBlock, Depth: 1, Connections: 1,
		Transport: Unix, Backend: Null}
	s, progress := tiny(t, ringnbdBinary(t), load)
	s.Programs = []Program{{Name: "false", Path: "false", Backends: []string{Null},
		Arguments: func(Stand) ([]string, error) {
			return nil, nil
		}}}
	report, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if lines := report.Failures(); len(lines) != 1 ||
		!strings.Contains(lines[0], "stopped at once") {
		t.Errorf("failures: %q", lines)
	}
	if !strings.Contains(progress.String(), "FAILED") {
		t.Errorf("progress: %s", progress)
	}
}
