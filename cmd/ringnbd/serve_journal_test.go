// The log of a running server: what it has, and what is left out.

package main

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

// page is a log that can be read while it is written.
type page struct{ testbed.LogBuffer }

// lines are those that match.
func (p *page) lines(pattern string) (found []string) {
	for line := range strings.Lines(p.String()) {
		if regexp.MustCompile(pattern).MatchString(line) {
			found = append(found, line)
		}
	}
	return found
}

func newPage() (*journal, *page) {
	p := &page{}
	j := newJournal(slog.New(slog.NewTextHandler(p, nil)), nil)
	j.know(0, exportName{name: "a", path: "/a.img"})
	j.know(1, exportName{name: "b", path: "/b.img"})
	return j, p
}

func TestTroubleIsLoggedOnceForExportAndErrno(t *testing.T) {
	j, p := newPage()
	for n := range 1000 {
		j.Incident(engine.Incident{Kind: engine.DiskFailed, Export: engine.ID(n % 2),
			Errno: int32(unix.EIO), Offset: uint64(n), Length: 4096, Command: proto.CmdRead,
			Client: &engine.Client{Number: 3, Peer: "1.2.3.4:5"}})
	}
	j.Incident(engine.Incident{Kind: engine.DiskFailed, Export: 1, Errno: int32(unix.ENOSPC),
		Command: proto.CmdWrite})
	if got := p.lines("the disk failed"); len(got) != 3 {
		t.Fatalf("%d lines: %q", len(got), got)
	}
	want := `level=WARN.*export=a path=/a.img command=read offset=0 length=4096 errno=EIO ` +
		`error="input/output error" peer=1.2.3.4:5 session=3\n`
	if len(p.lines(want)) != 1 {
		t.Errorf("%s", p)
	}
	j.Incident(engine.Incident{Kind: engine.DiskEnded, Own: true,
		Leaf: &engine.Device{Name: "/top.cow"}})
	if n := len(p.lines(`export=a path=/a.img disk=/top.cow\n`)); n != 1 {
		t.Errorf("an overlay's own trouble: %s", p)
	}
	j.mu.Lock()
	var waiting []trouble
	for kind := range j.troubles {
		waiting = append(waiting, kind)
	}
	j.mu.Unlock()
	// as if the time ended twice; the second time there is nothing more to log
	for _, kind := range waiting {
		j.expire(kind)
		j.expire(kind)
	}
	if got := p.lines("offset=99[89] .*left_out=498"); len(got) != 2 ||
		len(p.lines("the disk failed")) != 5 {
		t.Errorf("%q of %s", got, p)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.troubles) != 0 {
		t.Errorf("%d troubles are remembered", len(j.troubles))
	}
}

func TestCloseLogsWhatWasHeldBack(t *testing.T) {
	j, p := newPage()
	for range 10 {
		j.Incident(engine.Incident{Kind: engine.FlushRefused})
	}
	j.Lost(5)
	j.Lost(6)
	j.close()
	if len(p.lines("refused.*left_out=8")) != 1 || len(p.lines("requests_so_far=11")) != 1 {
		t.Errorf("%s", p)
	}
	j.Incident(engine.Incident{Kind: engine.FlushRefused}) // of the last disk operation
	if len(p.lines("refused")) != 3 {
		t.Errorf("%s", p)
	}
}

func TestAFailedFlushIsAnError(t *testing.T) {
	j, p := newPage()
	j.Incident(engine.Incident{Kind: engine.FlushFailed, Errno: int32(unix.EIO),
		Command: proto.CmdFlush})
	want := "level=ERROR.*every further flush of this export fails.*command=flush.*errno=EIO"
	if len(p.lines(want)) != 1 {
		t.Errorf("%s", p)
	}
	j.close()
}

// TestRefusedMemoryBelongsToNoExport checks that there is one line for all loops, without an
// export.
func TestRefusedMemoryBelongsToNoExport(t *testing.T) {
	j, p := newPage()
	for range 2 {
		j.Incident(engine.Incident{Kind: engine.MemoryRefused})
	}
	if len(p.lines("level=WARN.*registers no more memory.*ulimit -l")) != 1 ||
		len(p.lines("export=")) != 0 {
		t.Errorf("%s", p)
	}
	j.close()
}

func TestKindsOfTroubleAreBounded(t *testing.T) {
	j, p := newPage()
	for n := range 10 * maxTroubles {
		j.Incident(engine.Incident{Kind: engine.DiskFailed, Errno: int32(n + 1)})
	}
	j.mu.Lock()
	kinds := len(j.troubles)
	j.mu.Unlock()
	if kinds > maxTroubles+1 || len(p.lines(".")) > maxTroubles+1 ||
		len(p.lines("more kinds of trouble")) != 1 {
		t.Errorf("%d kinds, %d lines", kinds, len(p.lines(".")))
	}
	j.close()
	// all kinds but those with a line of their own, the first of the others and the last
	if want := fmt.Sprintf("more kinds of trouble.*left_out=%d\n",
		9*maxTroubles-2); len(p.lines(want)) != 1 {
		t.Errorf("no %q", want)
	}
}

func TestSessionsAreLoggedFromBeginningToEnd(t *testing.T) {
	j, p := newPage()
	c := j.sessionBegins(1, proto.Session{Framing: proto.Structured}, "pid 7 uid 8")
	c.Traffic = engine.Traffic{Reads: 2, Writes: 3, Others: 4, Errors: 1, BytesRead: 8192,
		BytesWrite: 512}
	c.Why = engine.CloseHangup
	j.Ended(c)
	begins := `level=INFO msg="session begins" session=1 peer="pid 7 uid 8" export=b ` +
		`replies=structured\n`
	ends := `level=INFO msg="session ends" session=1 peer="pid 7 uid 8" export=b ` +
		`reason=hangup requests=9 bytes_read=8192 bytes_written=512 errors=1 duration=`
	if len(p.lines(begins)) != 1 || len(p.lines(ends)) != 1 {
		t.Errorf("%s", p)
	}
	c = j.sessionBegins(0, proto.Session{}, "x")
	c.Why = engine.CloseStalled
	j.Ended(c)
	cut := `level=WARN.*held memory.*session=2 peer=x export=a reason=stalled requests=0`
	if len(p.lines(cut)) != 1 {
		t.Errorf("%s", p)
	}
	j.sessionRefused(j.sessionBegins(0, proto.Session{}, "y"), fmt.Errorf("full"))
	if len(p.lines(`session ends" session=3 .*reason=full`)) != 1 {
		t.Errorf("%s", p)
	}
}

func TestSessionsCannotFillTheLog(t *testing.T) {
	j, p := newPage()
	const all = 100 * maxSessionsAtOnce
	began := time.Now()
	for range all {
		c := j.sessionBegins(0, proto.Session{}, "x")
		c.Why = engine.CloseDisconnect
		j.Ended(c)
	}
	logged := len(p.lines("session begins"))
	if limit := maxSessionsAtOnce + int(time.Since(began)/sessionEvery) + 1; logged > limit ||
		logged < maxSessionsAtOnce {
		t.Errorf("%d logged, want at most %d", logged, limit)
	}
	if ends := len(p.lines("session ends")); ends != logged {
		t.Errorf("%d begin, %d end", logged, ends)
	}
	j.mu.Lock()
	j.credit, j.unlogged = 1, 17
	j.mu.Unlock()
	j.sessionBegins(0, proto.Session{}, "y")
	if len(p.lines("peer=y.*left_out=17")) != 1 {
		t.Error("what was left out is not counted")
	}
}
