// Planned devices that come while there is little, and changes that a loop refuses.

package engine

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// TestRequestsKeepNoPlanOut: what requests have of a loop's rows is not counted against a planned
// device that comes.
func TestRequestsKeepNoPlanOut(t *testing.T) {
	c := Config{Loops: 1, MaxConnections: 8, rows: 64}
	c.Memory = AmpleMemory(c)
	p := &twin{}
	p.held.Store(true)
	e := start(t, c, over(p, memoryDevice(t, 1<<20)))
	for range 2 {
		busy := connect(t, e, 0)
		for range 40 {
			busy.send(proto.Request{Command: proto.CmdRead, Length: twinBlock}, nil)
		}
	}
	until(t, "rows that are short", func() bool { return counted(t, e).RowsShort > 0 })
	d := over(&twin{}, memoryDevice(t, 1<<20))
	id := applied(t, e, Change{Add: []Export{exportOf(d)}})[0]
	other := reach(t, e, id)
	if errno := other.call(proto.CmdRead, 0, 0, twinBlock, make([]byte, twinBlock)); errno != 0 {
		t.Error(errno)
	}
	p.held.Store(false)
	var full *HomeError
	for i := 0; full == nil; i++ {
		d := over(&twin{}, memoryDevice(t, 1<<20))
		if _, err := e.Apply(soon(t), Change{Add: []Export{exportOf(d)}}); err != nil &&
			!errors.As(err, &full) || i > 64 {
			t.Fatalf("%d planned devices, %v", i, err)
		}
	}
	if n := len(e.IDs()); n < 4 {
		t.Errorf("%d planned devices are all that 64 rows are for", n)
	}
}

// TestAPlanThatIsRemovedBeforeItHasItsMemory: nothing is kept for it any more.
func TestAPlanThatIsRemovedBeforeItHasItsMemory(t *testing.T) {
	c := Config{Loops: 1, MaxConnections: 4, Homed: true}
	l := handTurnedWith(t, c, AmpleMemory(c), nullExport())
	e := &Engine{config: c, shared: l.shared, ended: make(chan struct{})}
	free := l.ledger.free.leased[small]
	l.tolerate()
	l.ledger.free.leased[small] = 0 // all of it is on lease
	p := &twin{journaled: true}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	ids, err := e.Apply(ctx, Change{Add: []Export{exportOf(over(p, memoryDevice(t, 1<<20)))}})
	var remains *RemainsError
	if len(ids) != 1 || !errors.As(err, &remains) || !remains.Added || remains.ID != ids[0] {
		t.Fatalf("%x, %v", ids, err)
	}
	l.turn()
	if len(l.planting) != 1 || l.ledger.wanted == 0 {
		t.Fatal("it does not wait")
	}
	w, err := e.publish(&Change{Remove: ids, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	l.turn()
	letters := e.drop([]*departure{<-w.home})
	l.turn()
	select {
	case <-letters[0].done:
	default:
		t.Fatal("it has not gone")
	}
	if len(l.planting) != 0 || l.ledger.wanted != 0 || len(p.own) != 0 {
		t.Errorf("%d wait, %d bytes are kept", len(l.planting), l.ledger.wanted)
	}
	l.ledger.free.leased[small] = free
}

// TestOnlyFilesTakePlacesOfFiles: an engine starts with more devices than descriptors are allowed,
// if they need none.
func TestOnlyFilesTakePlacesOfFiles(t *testing.T) {
	var usual unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
		t.Fatal(err)
	}
	var devices []*Device
	for range 150 {
		devices = append(devices, over(&twin{}, memoryDevice(t, 1<<20)))
	}
	few := unix.Rlimit{Cur: 250, Max: usual.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &usual) }()
	e := startEngine(t, 1, devices...)
	var full *RoomError
	for files := 0; full == nil; files++ {
		d := &Device{Kind: File, FD: 0, Size: 1 << 20, Block: 1}
		_, err := e.Apply(soon(t), Change{Add: []Export{exportOf(d)}})
		if err != nil && (!errors.As(err, &full) || files != 125) {
			t.Fatalf("%d files were added: %v", files, err)
		}
	}
}

// TestWhatALoopRefusesIsTakenBack: alterations too, which were made with it.
func TestWhatALoopRefusesIsTakenBack(t *testing.T) {
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	x := exportOf(d)
	x.Flags |= proto.FlagReadOnly
	e := startEngine(t, 2)
	id := applied(t, e, Change{Add: []Export{x}})[0]
	before := x.Facts
	after := before
	after.Flags &^= proto.FlagReadOnly
	after.Size = 2 << 20
	closed := &Device{Kind: File, FD: 1 << 20, Size: 1 << 20, Block: 1}
	_, err := e.Apply(soon(t), Change{Alter: []Alteration{{ID: id, Facts: after,
		DeviceSize: 2 << 20}}, Add: []Export{exportOf(closed)}})
	if !errors.Is(err, unix.EBADF) {
		t.Fatal(err)
	}
	if now := e.shared.table.find(id).Facts; now != before || d.Size != 1<<20 {
		t.Errorf("%+v on a device of %d bytes, before it was %+v", now, d.Size, before)
	}
	for range 2 { // in each loop
		c := reach(t, e, id)
		if errno := c.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != proto.EPERM {
			t.Errorf("a write to a read-only export: %v", errno)
		}
	}
}
