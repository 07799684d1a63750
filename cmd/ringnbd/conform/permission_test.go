// Without --writable the data is safe, whatever the server does with the requests. Interrupted
// runs, and two real servers of an odd kind.
//
// Invariant: the server keeps the list of requests, so that no part of the suite can be wrong about
// what it sends.

package conform

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

// TestUnpermitted runs all checks without permission, against right servers and servers that
// believe their clients.
func TestUnpermitted(t *testing.T) {
	for _, flaw := range []string{"", "blocks", "poor", "read-only", "read-only without",
		"writes all the same", "any range", "wraps", "any command", "any flag",
		"lengths of 32 bits", "payloads undrained", "drains nothing"} {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
			f, target := newFlawed(t, flaw)
			report, err := Run(context.Background(),
				Config{Target: target, Checks: Checks(), Timeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			f.lock.Lock()
			defer f.lock.Unlock()
			if len(f.changes) > 0 {
				t.Errorf("without permission %d requests came that would change data, the first %s",
					len(f.changes), f.changes[0])
			}
			if !zero(f.disk) {
				t.Error("the data has changed")
			}
			for _, r := range report.Results {
				if strings.Contains(r.Detail, unpermitted) {
					t.Errorf("%s takes a permission for granted that it did not ask for: %s",
						r.ID, r.Detail)
				}
			}
			if n := report.Counts[Pass]; n < 60 && (flaw == "" || flaw == "read-only") {
				t.Errorf("only %s", report.Summary())
			}
		})
	}
}

// TestPermitted: with permission the same list is not empty, on a read-only export as well.
func TestPermitted(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"", "read-only"} {
		f, target := newFlawed(t, kind)
		checks, _ := Only(Checks(), []string{"CW-01c", "CW-03", "CW-04", "CT-02b", "CZ-06b"})
		if _, err := Run(context.Background(),
			Config{Target: target, Writable: true, Checks: checks,
				Timeout: 5 * time.Second}); err != nil {
			t.Fatal(err)
		}
		f.lock.Lock()
		if len(f.changes) == 0 {
			t.Errorf("%q: nothing was tried", kind)
		}
		f.lock.Unlock()
	}
}

// TestChanges: the requests that conn.encode holds back without permission.
func TestChanges(t *testing.T) {
	t.Parallel()
	for command, want := range map[uint16]bool{proto.CmdRead: false, proto.CmdWrite: true,
		proto.CmdTrim: true, proto.CmdWriteZeroes: true, proto.CmdResize: true,
		proto.CmdFlush: false, proto.CmdCache: false, proto.CmdBlockStatus: false, 0x7ff0: false,
		9: false, 0x0101: true, 0x8004: true} {
		if got := newCommand(command, 0, 0).changes(); got != want {
			t.Errorf("command %#x changes data: %v", command, got)
		}
	}
	suite := &trial{profile: &Profile{}}
	c := &conn{t: suite}
	if problem := suite.try(func() {
		c.encode(newWrite(0, []byte{1}))
	}); !strings.HasPrefix(problem, unpermitted) {
		t.Errorf("a WRITE without permission: %q", problem)
	}
	if b := c.encode(newRead(0, 1)); binary.BigEndian.Uint32(b) != proto.RequestMagic {
		t.Errorf("a READ becomes % x", b)
	}
}

// TestInterrupted: a server that sends nothing but its banner does not hold up an interrupted run.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := Run(ctx, Config{Target: silentTarget(t), Checks: Checks(), Timeout: 20 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "interrupted") ||
		time.Since(begin) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

// TestInterruptedAtOnce: a run that is interrupted before the server has sent a byte does not
// report that there is no server.
func TestInterruptedAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	path := testbed.Listen(t, func(c net.Conn) {
		cancel()
		_, _ = io.Copy(io.Discard, c) // until the suite has closed
	})
	_, err := Run(ctx,
		Config{Target: Target{Network: "unix", Address: path}, Checks: Checks(),
			Timeout: 20 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "interrupted before the first check") {
		t.Errorf("the error is %v", err)
	}
}

// TestInterruptedWhileTheServerStarts: a run that is interrupted while its server starts does not
// report that the server did not listen in time.
func TestInterruptedWhileTheServerStarts(t *testing.T) {
	t.Parallel()
	s, err := newServer("sleep 60 # {socket}", "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err = s.start(ctx); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("the error is %v", err)
	}
}

// TestLargeBlocks: a server that refuses everything but multiples of 64 KiB fails no check.
func TestLargeBlocks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes long")
	}
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("nbdkit is not installed (Debian package nbdkit)")
	}
	checks, idle := Only(Checks(),
		[]string{"SR-01", "SR-03", "MC-11", "MC-13b", "CB-08c", "CR-03", "CR-06", "CZ-01", "CZ-04",
			"S", "T-05", "CF-03b", "CD-02", "TF-08", "K-02", "K-03"})
	if idle != "" {
		t.Fatalf("there is no check %s", idle)
	}
	spawn := "nbdkit -f -U {socket} --filter=blocksize-policy file {img} " +
		"blocksize-minimum=65536 blocksize-preferred=65536 blocksize-maximum=32M " +
		"blocksize-error-policy=error"
	report, err := Run(context.Background(),
		Config{Spawn: spawn, Size: 64 << 20, Checks: checks, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if r.Verdict == Fail {
			t.Errorf("%s %s: %s", r.ID, r.Title, r.Detail)
		}
	}
	if report.Profile.minBlock() != 64<<10 || report.Counts[Pass] < len(checks)/2 {
		t.Errorf("with a minimum of %d bytes: %s", report.Profile.minBlock(), report.Summary())
	}
}

// TestGoFails: on a server that refuses GO the suite uses EXPORT_NAME, as on a server without GO.
func TestGoFails(t *testing.T) {
	t.Parallel()
	report := runFake(t, "GO fails", nil, patience)
	if f := report.Profile; f.Go || f.Size != minSize || !f.Writable || len(f.Problems) == 0 {
		t.Errorf("the profile is %+v", f)
	}
}
