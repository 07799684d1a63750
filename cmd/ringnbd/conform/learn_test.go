// Servers that do not let the suite in, or that answer the questions before the first check
// wrongly.
//
// Invariant: no server is accused of failures in an export that it does not have.

package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClosed: an export that cannot be opened stops the run before the first check, with the
// server's error and its list of exports.
func TestClosed(t *testing.T) {
	t.Parallel()
	target := fakeTarget(t, "")
	target.Export = "nobody"
	report, err := Run(context.Background(),
		Config{Target: target, Checks: Checks(), Timeout: patience})
	if report != nil || err == nil {
		t.Fatalf("the report is %+v, the error %v", report, err)
	}
	for _, want := range []string{`the export "nobody" cannot be opened`, `ERR_UNKNOWN ("no")`,
		`it lists ["disk" "other"]: name one of them, as in nbd://`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s: %v", want, err)
		}
	}
}

// TestDenied: if GO is refused and EXPORT_NAME works, the refusal is reported and the checks judge
// it.
func TestDenied(t *testing.T) {
	t.Parallel()
	checks, _ := Only(Checks(), []string{"E-01a", "G-02"})
	report, err := Run(context.Background(),
		Config{Target: fakeTarget(t, "GO by policy"), Checks: checks, Timeout: patience})
	if err != nil || report.Results[0].Verdict != Pass || len(report.Profile.Problems) == 0 {
		t.Errorf("%v, %+v", err, report)
	}
}

// TestProblems: what went wrong before the first check is in every form of the report, and in the
// exit status.
func TestProblems(t *testing.T) {
	r := &Report{Server: "s", Profile: &Profile{}, Counts: map[Verdict]int{Pass: 1},
		Results: []Result{{ID: "A-01", Level: must, Title: "one", Verdict: Pass}}}
	if err := r.Err(); err != nil {
		t.Errorf("without problems: %v", err)
	}
	r.Profile.Problems = []string{"LIST: a lie"}
	var text, ju bytes.Buffer
	if err := errors.Join(r.Table(&text, false, Screen{}), r.JUnit(&ju)); err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "LIST: a lie") {
		t.Errorf("the error is %v", err)
	}
	if !strings.Contains(text.String(),
		"1 pass, 0 fail, 0 differs, 0 skip\n\nWhat went wrong before the first check") ||
		!strings.Contains(text.String(), "\n  LIST: a lie\n") {
		t.Errorf("the table is\n%s", text.String())
	}
	if !strings.Contains(ju.String(), `tests="2" failures="1"`) ||
		!strings.Contains(ju.String(), "LIST: a lie") {
		t.Errorf("JUnit is\n%s", ju.String())
	}
}

// TestNagle: a slow disk is not taken for Nagle's algorithm, and the algorithm is found on a quick
// disk.
func TestNagle(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		flaw    string
		verdict Verdict
	}{{"", Pass}, {"slow disk", Pass}, {"Nagle", Differs}} {
		l, err := net.Listen("tcp", "localhost:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		f := &fake{flaw: test.flaw, disk: make([]byte, minSize)}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				// a refused connection shows as the wrong verdict
				_ = c.(*net.TCPConn).SetNoDelay(test.flaw != "Nagle")
				go func() {
					defer c.Close()
					defer func() { _ = recover() }() // a panic of gone ends a connection
					(&fakeConn{fake: f, Conn: c}).serve()
				}()
			}
		}()
		checks, _ := Only(Checks(), []string{"T-01"})
		target := Target{Text: "a server of TCP", Network: "tcp", Address: l.Addr().String(),
			Export: fakeName}
		report, err := Run(context.Background(),
			Config{Target: target, Checks: checks, Timeout: 30 * time.Second})
		if err != nil || report.Results[0].Verdict != test.verdict {
			t.Errorf("%q: %v, %+v, not %s", test.flaw, err, report, test.verdict)
		}
	}
}

// TestBackground: a command that puts its server into the background is an error of the command
// line.
func TestBackground(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("nbdkit is not installed (Debian package nbdkit)")
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	t.Cleanup(func() {
		text, _ := os.ReadFile(pidFile)
		if pid, _ := strconv.Atoi(strings.TrimSpace(string(text))); pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	checks, _ := Only(Checks(), []string{"H"})
	spawn := fmt.Sprintf("nbdkit -P %s -U {socket} file {img}", pidFile)
	_, err := Run(context.Background(),
		Config{Spawn: spawn, Size: 32 << 20, Checks: checks, Timeout: 5 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "the command must stay in the foreground") {
		t.Errorf("the error is %v", err)
	}
}

// TestLeak: descriptors that a server does not close are counted.
func TestLeak(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed (Debian package python3)")
	}
	// This server keeps every connection, and answers nothing: only the count is tested.
	spawn := `exec python3 -c 'import socket, sys
l = socket.socket(socket.AF_UNIX); l.bind(sys.argv[1]); l.listen(100); kept = []
while True: kept.append(l.accept()[0])' {socket}`
	s, err := newServer(spawn, "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	target, err := s.start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c := &trial{profile: &Profile{group: s.keeper.group()}, target: target, patience: time.Second,
		deadline: time.Now().Add(time.Minute)}
	before := c.holdings()
	c.released(before, 0)
	if len(c.differs) > 0 || before.descriptors < 4 || before.memory < 1<<20 {
		t.Errorf("at first %+v, %q", before, c.differs)
	}
	for range 100 {
		c.dial().close()
	}
	until := time.Now().Add(30 * time.Second)
	for c.holdings().descriptors < before.descriptors+100 && time.Now().Before(until) {
		time.Sleep(10 * time.Millisecond)
	}
	c.deadline = time.Now().Add(time.Second)
	if c.released(before, 100); len(c.differs) != 1 ||
		!strings.Contains(c.differs[0],
			"after 100 connections that were dropped the server has 1") {
		t.Errorf("a server that keeps 100 connections: %q", c.differs)
	}
}
