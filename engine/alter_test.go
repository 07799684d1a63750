// Exports that change while clients use them: read-only on and off, other sizes; flushes and ends
// of connections that an administrator asks for; and what is counted meanwhile.

package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// readOnly is facts with which nothing may be changed.
func readOnly(f proto.Facts) proto.Facts {
	f.Flags |= proto.FlagReadOnly
	return f
}

// TestReadOnlyOnAndOff: when Apply has returned, no write of before is in flight, and every later
// one is refused; connections stay; and the other way round.
func TestReadOnlyOnAndOff(t *testing.T) {
	d := fileDevice(t, 8<<20, unix.O_DIRECT)
	e := startEngine(t, 2, d)
	id := e.IDs()[0]
	var b busy
	for i := range uint64(4) {
		b.work(reach(t, e, id), i, 16)
	}
	c := reach(t, e, id)
	for round := range 20 {
		before := b.answers[0].Load()
		until(t, "writes", func() bool { return b.answers[0].Load() > before+50 })
		applied(t, e, Change{Alter: []Alteration{{ID: id, Facts: readOnly(factsOf(d))}}})
		frozen := make([]byte, 4<<20)
		if _, err := unix.Pread(d.FD, frozen, 0); err != nil {
			t.Fatal(err)
		}
		for _, command := range []uint16{proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes} {
			if errno := c.call(command, 0, 0, 512, make([]byte, 512)); errno != proto.EPERM {
				t.Fatalf("command %d: %v", command, errno)
			}
		}
		if errno := c.call(proto.CmdRead, 0, 0, 512, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
		after := make([]byte, 4<<20)
		if _, err := unix.Pread(d.FD, after, 0); err != nil || !bytes.Equal(after, frozen) {
			t.Fatalf("round %d: a write came after the export was read-only: %v", round, err)
		}
		applied(t, e, Change{Alter: []Alteration{{ID: id, Facts: factsOf(d)}}})
		if errno := c.call(proto.CmdWrite, 0, 7<<20, 512, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
	}
	b.stop.Store(true)
	b.done.Wait()
	for errno := range b.answers {
		if n := b.answers[errno].Load(); n > 0 && errno != 0 && errno != int(proto.EPERM) {
			t.Errorf("%d answers of %v", n, proto.Errno(errno))
		}
	}
	if b.answers[proto.EPERM].Load() == 0 || counted(t, e).Opened != 5 {
		t.Error("no write of the load was refused, or connections were opened")
	}
}

// TestAnExportGrowsAndShrinks: the same connection is told at once.
func TestAnExportGrowsAndShrinks(t *testing.T) {
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 2, d)
	id := e.IDs()[0]
	c := reach(t, e, id)
	block := make([]byte, 4096)
	resize := func(n uint64) {
		t.Helper()
		f := factsOf(d)
		f.Size = n
		applied(t, e, Change{Alter: []Alteration{{ID: id, Facts: f, DeviceSize: n}}})
	}
	want := func(command uint16, off uint64, want proto.Errno) {
		t.Helper()
		if errno := c.call(command, 0, off, 4096, block); errno != want {
			t.Errorf("command %d at %d: %v, want %v", command, off, errno, want)
		}
	}
	want(proto.CmdWrite, 1<<20, proto.ENOSPC)
	if err := unix.Ftruncate(d.FD, 2<<20); err != nil {
		t.Fatal(err)
	}
	resize(2 << 20)
	want(proto.CmdWrite, 1<<20, proto.Success)
	want(proto.CmdRead, 1<<20, proto.Success)
	resize(512 << 10)
	want(proto.CmdRead, 512<<10-4096, proto.Success)
	want(proto.CmdRead, 512<<10, proto.EINVAL)
	want(proto.CmdWrite, 512<<10, proto.ENOSPC)
	f := factsOf(d)
	f.Size = 4 << 20
	var bounds *BoundsError
	_, err := e.Apply(soon(t), Change{Alter: []Alteration{{ID: id, Facts: f}}})
	if !errors.As(err, &bounds) || bounds.Device != 512<<10 {
		t.Errorf("larger than its device: %v", err)
	}
	want(proto.CmdRead, 512<<10, proto.EINVAL)
}

// TestFewerRightsWaitForWhatWasAllowed: a request that is with the disk when its export becomes so
// small that it would be refused is over before Apply returns, or Apply says that it is not.
func TestFewerRightsWaitForWhatWasAllowed(t *testing.T) {
	d, answer := hangingDevice(t)
	e := startEngine(t, 1, d)
	id := e.IDs()[0]
	c := reach(t, e, id)
	c.send(proto.Request{Cookie: 3, Command: proto.CmdRead, Offset: 768 << 10, Length: 4096}, nil)
	until(t, "the request", func() bool { return counted(t, e).Requests[proto.CmdRead] == 1 })
	half := factsOf(d)
	half.Size /= 2
	change := Change{Alter: []Alteration{{ID: id, Facts: half}}}
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	var remains *RemainsError
	if _, err := e.Apply(ctx, change); !errors.As(err, &remains) || !remains.Altered {
		t.Errorf("%v", err)
	}
	other := reach(t, e, id)
	if errno := other.call(proto.CmdRead, 0, 768<<10, 512, nil); errno != proto.EINVAL {
		t.Errorf("it is not in force: %v", errno)
	}
	answer()
	if cookie, errno := c.reply(nil); cookie != 3 || errno != proto.EIO { // the pipe has ended
		t.Errorf("%d: %v", cookie, errno)
	}
	applied(t, e, change)
}

// TestAClientThatStallsHoldsUpNoAlteration: nothing has been done of a write whose payload is
// arriving; it is refused when it is there, and changes nothing.
func TestAClientThatStallsHoldsUpNoAlteration(t *testing.T) {
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 1, d)
	id := e.IDs()[0]
	c := reach(t, e, id)
	payload := bytes.Repeat([]byte{1}, 4096)
	c.send(proto.Request{Cookie: 3, Command: proto.CmdWrite, Length: 4096}, payload[:100])
	until(t, "the request", func() bool { return counted(t, e).Requests[proto.CmdWrite] == 1 })
	applied(t, e, Change{Alter: []Alteration{{ID: id, Facts: readOnly(factsOf(d))}}})
	if _, err := c.fd.Write(payload[100:]); err != nil {
		t.Fatal(err)
	}
	if cookie, errno := c.reply(nil); cookie != 3 || errno != proto.EPERM {
		t.Errorf("%d: %v", cookie, errno)
	}
	got := make([]byte, 4096)
	if errno := c.call(proto.CmdRead, 0, 0, 4096, got); errno != 0 || got[0] != 0 {
		t.Errorf("%v, and %x is there", errno, got[0])
	}
}

// TestRetireEndsOneConnection: what was taken in is answered, then the stream ends; others stay; a
// client that takes nothing is cut; a client that has gone has ended already.
func TestRetireEndsOneConnection(t *testing.T) {
	h := &heard{}
	e := listening(t, h, fileDevice(t, 64<<20, unix.O_DIRECT))
	other := visit(t, e, 0, 1)
	mine, its := &Client{Number: 2}, make([]byte, 4096)
	c := guest(t, e, mine)
	for i := range uint64(8) {
		c.send(proto.Request{Cookie: i, Command: proto.CmdRead, Length: 4096}, nil)
	}
	until(t, "requests", func() bool { return counted(t, e).Requests[proto.CmdRead] == 8 })
	ended := e.Retire(mine)
	for i := range 8 {
		if _, errno := c.reply(its); errno != proto.Success {
			t.Fatalf("answer %d: %v", i, errno)
		}
	}
	if n, err := c.fd.Read(its); n != 0 || err != io.EOF {
		t.Errorf("%d bytes after the last reply, %v", n, err)
	}
	within(t, ended, 5*time.Second)
	within(t, e.Retire(mine), 5*time.Second)
	if errno := other.call(proto.CmdRead, 0, 0, 4096, its); errno != proto.Success {
		t.Error(errno)
	}
	deaf := &Client{Number: 3}
	d := guest(t, e, deaf)
	d.send(proto.Request{Command: proto.CmdRead, Length: 16 << 20}, nil)
	until(t, "a send", func() bool { return counted(t, e).Requests[proto.CmdRead] == 10 })
	first, second := e.Retire(deaf), e.Retire(deaf)
	within(t, first, 15*time.Second)
	within(t, second, time.Second)
	h.until(t, func() bool { return len(h.ended) == 2 })
	if mine.Why != CloseRetired || deaf.Why != CloseRetired {
		t.Errorf("ended for %v and %v", mine.Why, deaf.Why)
	}
}

// guest connects a client of which the caller keeps the row.
func guest(t *testing.T, e *Engine, row *Client) *client {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.AdoptClient(pair[0], e.IDs()[0], proto.Session{}, row); err != nil {
		t.Fatal(err)
	}
	c := &client{t, os.NewFile(uintptr(pair[1]), "client")}
	t.Cleanup(func() { _ = c.fd.Close() })
	return c
}

// within waits until a channel is closed.
func within(t testing.TB, done <-chan struct{}, most time.Duration) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(most):
		t.Fatalf("not within %v", most)
	}
}

// TestFlushExport: it reports a failure, and what failed before; it waits its turn; and a flush by
// clients goes on beside it.
func TestFlushExport(t *testing.T) {
	good, bad := fileDevice(t, 1<<20, unix.O_DIRECT), fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 2, good, bad, nullDevice(1<<20))
	ids := e.IDs()
	c := reach(t, e, ids[0])
	for range 50 {
		if errno := c.call(proto.CmdFlush, 0, 0, 0, nil); errno != proto.Success {
			t.Fatal(errno)
		}
		for _, id := range []ID{ids[0], ids[2]} {
			if err := e.FlushExport(soon(t), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	good.syncing.Store(true) // as if another loop's fsync did not end
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	var late *NotFlushedError
	if err := e.FlushExport(ctx, ids[0]); !errors.As(err, &late) || !errors.Is(err, errLate) {
		t.Errorf("a flush that hangs: %v", err)
	}
	good.syncing.Store(false)
	e.shared.loops[0].wake()
	if err := e.FlushExport(soon(t), ids[0]); err != nil {
		t.Error(err)
	}
	bad.fail()
	if err := e.FlushExport(soon(t), ids[1]); !errors.Is(err, errFlushFailed) {
		t.Errorf("after a failure: %v", err)
	}
	if _, err := e.Apply(soon(t), Change{Remove: ids[1:2]}); !errors.Is(err, errFlushFailed) {
		t.Errorf("removal after a failure: %v", err)
	}
	if err := e.FlushExport(soon(t), ids[1]); !IsGone(err) {
		t.Errorf("of an export that has gone: %v", err)
	}
}

// TestCountersSurviveAddAndRemove: an export's own begin at nothing, also in a place that another
// had; what is counted of all never becomes less.
func TestCountersSurviveAddAndRemove(t *testing.T) {
	e := startEngine(t, 2)
	for round := range uint64(5) {
		x := exportOf(memoryDevice(t, 1<<20))
		x.Name = string(rune('a' + round))
		ids := applied(t, e, Change{Add: []Export{x, exportOf(nullDevice(1 << 20))}})
		for range 4 {
			c := reach(t, e, ids[0])
			if errno := c.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != 0 {
				t.Fatal(errno)
			}
			if errno := c.call(proto.CmdWrite, 0, 1<<20, 512, make([]byte, 512)); errno == 0 {
				t.Fatal("a write beyond the end")
			}
		}
		n := counted(t, e)
		if len(n.Exports) != 2 || n.Exports[0].ID != ids[0] || n.Exports[0].Name != x.Name ||
			n.Exports[0].Writes != 8 || n.Exports[0].Connections != 4 ||
			n.Exports[0].Errors != 4 || n.Exports[1].Writes != 0 ||
			n.BytesWrite != (round+1)*8*512 || n.Errors != (round+1)*4 {
			t.Fatalf("round %d: %+v", round, n)
		}
		applied(t, e, Change{Remove: ids, Force: true})
		if n := counted(t, e); len(n.Exports) != 0 || n.BytesWrite != (round+1)*8*512 ||
			n.Errors != (round+1)*4 {
			t.Fatalf("round %d, afterwards: %+v", round, n)
		}
	}
}

// TestWhatFollowsFromAllDevicesFollows: whether writes into a page cache that can be frozen may be
// made by the loop, how many workers a ring may have, and whether exports have shares.
func TestWhatFollowsFromAllDevicesFollows(t *testing.T) {
	e := startEngine(t, 1)
	l := e.shared.loops[0]
	frozen := func(on uint64) *Device {
		d := fileDevice(t, 1<<20, 0)
		d.Freezes = on
		return d
	}
	state := func() (together, several bool, workers uint32) {
		counted(t, e) // the loop is between two letters, and sleeps
		return l.together, l.ledger.several, l.limited
	}
	one := applied(t, e, Change{Add: []Export{exportOf(frozen(7)), exportOf(frozen(7))}})
	if together, several, n := state(); !together || !several || n != workersOf(2, l.quota) {
		t.Errorf("two on one file system: %t, %t, %d", together, several, n)
	}
	two := applied(t, e, Change{Add: []Export{exportOf(frozen(8))}})
	if together, several, n := state(); together || !several || n != workersOf(3, l.quota) {
		t.Errorf("another file system: %t, %t, %d", together, several, n)
	}
	applied(t, e, Change{Remove: append(one[1:], two...)})
	if together, several, n := state(); !together || several || n != workersOf(1, l.quota) {
		t.Errorf("one is left: %t, %t, %d", together, several, n)
	}
}
