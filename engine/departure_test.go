// Removal when storage hangs, when a client is on its way in, and when places are used again.

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// hangingDevice is a device that answers no read until its other end is closed: a pipe.
func hangingDevice(t testing.TB) (d *Device, answer func()) {
	t.Helper()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(pipe[0]) })
	answer = sync.OnceFunc(func() { _ = unix.Close(pipe[1]) })
	t.Cleanup(answer)
	return &Device{Kind: File, FD: pipe[0], Size: 1 << 20, Block: 512, Direct: true,
		Waits: true}, answer
}

// TestADiskThatHangsDoesNotHoldUpChanges: Apply says what remains when its time is up, the place of
// the export and of its file are not used again meanwhile, other changes are made, and when the
// disk answers the export goes by itself.
func TestADiskThatHangsDoesNotHoldUpChanges(t *testing.T) {
	d, answer := hangingDevice(t)
	e := startEngine(t, 2, d)
	id := e.IDs()[0]
	c := reach(t, e, id)
	c.send(proto.Request{Cookie: 1, Command: proto.CmdRead, Length: 4096}, nil)
	until(t, "the read", func() bool { return counted(t, e).Requests[proto.CmdRead] == 1 })
	for _, force := range []bool{false, true} {
		ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := e.Apply(ctx, Change{Remove: []ID{id}, Force: force})
		stop()
		var remains *RemainsError
		if !errors.As(err, &remains) || remains.ID != id || remains.Connections != 1 {
			t.Fatalf("force %t: %v", force, err)
		}
	}
	if err := e.Adopt(-1, id, proto.Session{}); !IsGone(err) {
		t.Errorf("a client of an export that leaves: %v", err)
	}
	file := e.shared.table.devices[0].file
	for range 20 {
		other := applied(t, e, Change{Add: []Export{exportOf(fileDevice(t, 1<<20, 0))}})
		x := e.shared.table.find(other[0])
		if other[0].Place() == id.Place() || x.dev == 0 ||
			e.shared.table.devices[x.dev].file == file {
			t.Fatal("a place was used again while something of its last export was left")
		}
		o := reach(t, e, other[0])
		if errno := o.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
		applied(t, e, Change{Remove: other, Force: true})
	}
	gone := e.Gone(id)
	select {
	case <-gone:
		t.Fatal("it has gone, and its disk has not answered")
	default:
	}
	answer()
	within(t, gone, 10*time.Second)
	within(t, e.Gone(id), time.Second)
	again := applied(t, e, Change{Add: []Export{exportOf(fileDevice(t, 1<<20, 0))}})
	if again[0].Place() != id.Place() || again[0] == id {
		t.Errorf("the place is not used again: %x after %x", again[0], id)
	}
}

// TestAFlushThatHangsDoesNotHoldUpOthers: of two exports that leave, the one whose flush ends goes.
func TestAFlushThatHangsDoesNotHoldUpOthers(t *testing.T) {
	slow, quick := fileDevice(t, 1<<20, unix.O_DIRECT), fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 2, slow, quick)
	ids := e.IDs()
	for _, id := range ids {
		c := reach(t, e, id)
		if errno := c.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
	}
	slow.syncing.Store(true) // as if another loop's fsync did not end
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	_, err := e.Apply(ctx, Change{Remove: ids})
	var remains *RemainsError
	if !errors.As(err, &remains) || !remains.Flushing || remains.ID != ids[0] {
		t.Errorf("%v", err)
	}
	within(t, e.Gone(ids[1]), time.Second)
	if e.shared.table.devices[0].device != slow {
		t.Error("a device went without its flush")
	}
	// the same device is served again, before it has gone
	again := applied(t, e, Change{Add: []Export{exportOf(slow)}})
	slow.syncing.Store(false)
	e.shared.loops[0].wake()
	within(t, e.Gone(ids[0]), 10*time.Second)
	c := reach(t, e, again[0])
	if errno := c.call(proto.CmdWrite, proto.CmdFlagFUA, 0, 512, make([]byte, 512)); errno != 0 {
		t.Error(errno)
	}
}

// TestALookupThatHangsKeepsItsExport: a lookup reads the device outside of the loops, so its export
// is not home before it has ended.
func TestALookupThatHangsKeepsItsExport(t *testing.T) {
	stuck := make(chan struct{})
	x := exportOf(fileDevice(t, 1<<20, 0))
	x.Contexts = []Context{contextFunc(
		func(_, n uint64, emit func(length, status uint64) bool) error {
			<-stuck
			emit(n, 0)
			return nil
		})}
	e := startEngine(t, 2)
	id := applied(t, e, Change{Add: []Export{x}})[0]
	c := reachAs(t, e, id, proto.Session{Framing: proto.Extended, Contexts: 1})
	c.ask(0)
	until(t, "the lookup", func() bool {
		return counted(t, e).Requests[proto.CmdBlockStatus] == 1
	})
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	var remains *RemainsError
	if _, err := e.Apply(ctx, Change{Remove: []ID{id}, Force: true}); !errors.As(err, &remains) {
		t.Fatal(err)
	}
	close(stuck)
	within(t, e.Gone(id), 10*time.Second)
}

// TestAClientOnItsWayInIsSeenOff: its letter lies before that of the table in which its export
// leaves; the loop adopts it, and sees it off before it says that the export is home. A client
// after that is refused, although its place is there.
func TestAClientOnItsWayInIsSeenOff(t *testing.T) {
	c := Config{Loops: 1, MaxConnections: 4}
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	l := handTurnedWith(t, c, AmpleMemory(c), exportOf(d), exportOf(nullDevice(1<<20)))
	e := &Engine{config: c, shared: l.shared, ended: make(chan struct{})}
	id := e.IDs()[0]
	client := reach(t, e, id)
	w, err := e.publish(&Change{Remove: []ID{id}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Adopt(-1, id, proto.Session{}); !IsGone(err) {
		t.Errorf("a client of an export that leaves: %v", err)
	}
	l.turn()
	if l.exports[0].conns != 1 || !l.exports[0].leaving {
		t.Fatalf("%+v", l.exports[0])
	}
	client.send(proto.Request{Cookie: 7, Command: proto.CmdRead, Length: 512}, nil)
	for len(w.home) == 0 {
		l.turn()
	}
	if _, errno := client.reply(nil); errno != proto.ESHUTDOWN {
		t.Errorf("a request to an export that leaves: %v", errno)
	}
	gone := <-w.home
	if gone.conns.Load() != 0 || l.live.Load() != 0 {
		t.Errorf("%d connections, %d are there", gone.conns.Load(), l.live.Load())
	}
	letters := e.drop([]*departure{gone})
	for done := false; !done; {
		l.turn()
		select {
		case <-letters[0].done:
			done = true
		default:
		}
	}
	if l.devices[0].device != nil || l.exports[0].generation != 0 || len(l.releasing) != 0 {
		t.Error("something of the export is left")
	}
}

// TestTheSameDeviceTwiceIsOnePlace: an export may come and go on a device that another keeps.
func TestTheSameDeviceTwiceIsOnePlace(t *testing.T) {
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 2, d)
	c := connect(t, e, 0)
	for range 10 {
		ids := applied(t, e, Change{Add: []Export{window(d, 512, 1024), window(d, 4096, 1024)}})
		p := reach(t, e, ids[1])
		if errno := p.call(proto.CmdWrite, 0, 0, 700, make([]byte, 700)); errno != 0 {
			t.Fatal(errno)
		}
		applied(t, e, Change{Remove: ids, Force: true})
		errno := c.call(proto.CmdWrite, proto.CmdFlagFUA, 3, 700, make([]byte, 700))
		if errno != proto.Success {
			t.Fatal(errno)
		}
		if n := e.shared.table.filed; n != 1 {
			t.Fatalf("%d files are served", n)
		}
	}
}

// TestRoomForExportsEnds: what is too much is refused as a whole.
func TestRoomForExportsEnds(t *testing.T) {
	e := startEngine(t, 1)
	room := e.shared.register.exports.room
	all := make([]Export, room+1)
	d := nullDevice(1 << 20)
	for i := range all {
		all[i] = exportOf(d)
		all[i].Name = fmt.Sprint(i)
	}
	var full *RoomError
	if _, err := e.Apply(soon(t), Change{Add: all}); !errors.As(err, &full) || full.Room != room {
		t.Errorf("%v", err)
	}
	began := time.Now()
	ids := applied(t, e, Change{Add: all[:room]})
	applied(t, e, Change{Remove: ids})
	t.Logf("%d exports came and went in %v", room, time.Since(began))
	if ids := applied(t, e, Change{Add: all[:1]}); ids[0].generation() != 2 {
		t.Errorf("%x", ids[0])
	}
	beyond := window(d, 1<<20, 1)
	var bounds *BoundsError
	if _, err := e.Apply(soon(t), Change{Add: []Export{beyond}}); !errors.As(err, &bounds) {
		t.Errorf("an export beyond its device: %v", err)
	}
	gone := Change{Remove: ids[:1], Add: all[:1]}
	if _, err := e.Apply(soon(t), gone); !IsGone(err) || len(e.IDs()) != 1 {
		t.Errorf("%v, and %d exports are there", err, len(e.IDs()))
	}
}

// TestAFileThatTheKernelRefusesIsNotServed: additions and alterations are taken back; a removal
// cannot be, and is waited for.
func TestAFileThatTheKernelRefusesIsNotServed(t *testing.T) {
	d := fileDevice(t, 1<<20, 0)
	e := startEngine(t, 2, d, nullDevice(2<<20))
	before := e.IDs()
	resized, removed := before[0], before[1]
	other := fileDevice(t, 1<<20, 0)
	closed := &Device{Kind: File, FD: 1 << 20, Size: 1 << 20, Block: 1}
	facts := proto.Facts{Size: 1 << 19, Flags: proto.FlagReadOnly}
	_, err := e.Apply(soon(t), Change{Add: []Export{exportOf(other), exportOf(closed)},
		Alter: []Alteration{{ID: resized, Facts: facts, DeviceSize: 3 << 19},
			{ID: resized, Facts: facts}},
		Remove: []ID{removed}})
	if !errors.Is(err, unix.EBADF) {
		t.Errorf("%v", err)
	}
	if ids := e.IDs(); !slices.Equal(ids, before[:1]) || e.shared.table.filed != 1 {
		t.Errorf("%v are served, were %v", ids, before)
	}
	select {
	case <-e.Gone(removed):
	default:
		t.Error("the change did not wait for what it removed")
	}
	x := e.shared.table.find(resized)
	if x.Size != 1<<20 || x.Flags&proto.FlagReadOnly != 0 || d.Size != 1<<20 {
		t.Errorf("the export that was altered has %d bytes and flags %#x, its device %d bytes",
			x.Size, x.Flags, d.Size)
	}
	client := reach(t, e, resized)
	if errno := client.call(proto.CmdWrite, 0, 1<<20-4096, 4096, make([]byte, 4096)); errno != 0 {
		t.Error(errno)
	}
	applied(t, e, Change{Add: []Export{exportOf(other)}})
}

// TestCloseEndsChanges: a change that waits for a disk that hangs ends with the engine.
func TestCloseEndsChanges(t *testing.T) {
	d, answer := hangingDevice(t)
	c := Config{Loops: 1, MaxConnections: 4}
	c.Memory = AmpleMemory(c)
	e, err := Start(c, []Export{exportOf(d)})
	if err != nil {
		t.Fatal(err)
	}
	id := e.IDs()[0]
	client := reach(t, e, id)
	client.send(proto.Request{Command: proto.CmdRead, Length: 4096}, nil)
	until(t, "the read", func() bool { return counted(t, e).Requests[proto.CmdRead] == 1 })
	ended := make(chan error, 1)
	go func() {
		_, err := e.Apply(context.Background(), Change{Remove: []ID{id}})
		ended <- err
	}()
	until(t, "the change", func() bool { return len(e.IDs()) == 0 })
	time.AfterFunc(200*time.Millisecond, answer)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		t.Logf("the change ended with %v", err)
	case <-time.After(10 * time.Second):
		t.Error("the change did not end with the engine")
	}
	if _, err := e.Apply(context.Background(), Change{}); err == nil {
		t.Error("a change of an engine that is closed")
	}
}

// TestAFlushInFlightKeepsItsDevice: an administrator's flush has no client; a device that leaves
// meanwhile stays in the loop, with its file, until that flush has ended.
func TestAFlushInFlightKeepsItsDevice(t *testing.T) {
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 1, d, fileDevice(t, 1<<20, unix.O_DIRECT))
	id, other := e.IDs()[0], e.IDs()[1]
	d.syncing.Store(true) // as if another loop's fsync did not end
	flushed := make(chan error, 1)
	go func() { flushed <- e.FlushExport(context.Background(), id) }()
	l := e.shared.loops[0]
	until(t, "the flush", func() bool { return d.queued.Load() == 1 })
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	var remains *RemainsError
	if _, err := e.Apply(ctx, Change{Remove: []ID{id, other}}); !errors.As(err, &remains) {
		t.Errorf("%v", err)
	}
	within(t, e.Gone(other), time.Second)
	d.syncing.Store(false)
	l.wake()
	select {
	case err := <-flushed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the flush was lost")
	}
	within(t, e.Gone(id), 10*time.Second)
}

// TestAStaleFlushIsNotTakenForAnothers: the completion of a flush names the generation of its
// device's place; one of a generation that has gone is our bug, and not the flush of the device
// that has the place now.
func TestAStaleFlushIsNotTakenForAnothers(t *testing.T) {
	l := still(t, exportOf(fileDevice(t, 1<<20, unix.O_DIRECT)))
	q := &l.devices[0]
	q.fsyncing = true
	defer func() {
		if recover() == nil {
			t.Error("it was taken for the flush of the device that is there")
		}
	}()
	l.flushed(tokenOf(onFlush, 0, q.generation-1, 0), 0)
}

// TestWhatHasGoneIsNotFlushedAtTheEnd: its descriptor may be another file's by then.
func TestWhatHasGoneIsNotFlushedAtTheEnd(t *testing.T) {
	d := lockedFile(t, t.TempDir()+"/f", 1<<20)
	e := startEngine(t, 1, d)
	c := connect(t, e, 0)
	if errno := c.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != proto.Success {
		t.Fatal(errno)
	}
	applied(t, e, Change{Remove: e.IDs(), Force: true})
	_ = unix.Close(d.FD)
	if err := e.Drain(5 * time.Second); err != nil {
		t.Error(err)
	}
}

// TestSilentClientsHoldUpNoRemoval: who has said nothing for a moment is closed at once.
func TestSilentClientsHoldUpNoRemoval(t *testing.T) {
	e := startEngine(t, 2)
	all := make([]Export, 20)
	for i := range all {
		all[i] = exportOf(fileDevice(t, 1<<20, unix.O_DIRECT))
	}
	ids := applied(t, e, Change{Add: all})
	var clients []*client
	for _, id := range ids {
		c := reach(t, e, id)
		if errno := c.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
		clients = append(clients, c)
	}
	time.Sleep(2 * time.Duration(drainSilenceNanos))
	began := time.Now()
	for _, id := range ids { // one by one
		applied(t, e, Change{Remove: []ID{id}})
	}
	if took := time.Since(began); took > time.Duration(len(ids))*100*time.Millisecond/2 {
		t.Errorf("%d removals took %v: they wait for the tick", len(ids), took)
	}
	for _, c := range clients {
		if n, err := c.fd.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

// TestTheEndLeavesRemovedExportsToTheirRemoval: their descriptors may be closed while the others
// are flushed; what their removal could not flush is told.
func TestTheEndLeavesRemovedExportsToTheirRemoval(t *testing.T) {
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 1, d)
	id := e.IDs()[0]
	c := reach(t, e, id)
	if errno := c.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != proto.Success {
		t.Fatal(errno)
	}
	_ = c.fd.Close()
	w, err := e.publish(&Change{Remove: []ID{id}})
	if err != nil {
		t.Fatal(err)
	}
	usual := d.FD
	d.FD = 1 << 20 // as if it had been closed
	var remains *RemainsError
	err = e.flushAll(50 * time.Millisecond)
	if !errors.As(err, &remains) || remains.ID != id ||
		strings.Contains(err.Error(), "descriptor") {
		t.Errorf("a removal that does not end: %v", err)
	}
	d.FD = usual
	go e.seeOff(w.home, w.leaving)
	if err := e.Drain(10 * time.Second); err != nil {
		t.Errorf("a removal that ends meanwhile: %v", err)
	}
	within(t, e.Gone(id), 10*time.Second)
}
