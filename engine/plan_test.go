// Planned devices on the real kernel: a small plan that has all that plans can have.

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/layer"
	"ringnbd/proto"
)

const twinBlock = 4096

// twin is a plan that writes to all its devices, and reads from the first that can. A journaled
// twin writes a label, from the memory of its own row, to the end of device 0 before it writes
// anything; all writes that wait share it.
type twin struct {
	size      uint64
	below     int
	journaled bool
	torn      bool // long reads go in as many segments as a wave has
	hollow    bool // reads ask no device
	lenient   bool // a write is done when one device has it
	reads     bool // it reads instead of writing its label, for that has no place

	// what the test's goroutine sets and reads
	held      atomic.Bool // reads wait
	forgets   atomic.Bool // and may be cancelled
	cancelled atomic.Int32
	waiting   atomic.Int32
	labels    atomic.Int32
	flushes   atomic.Int32
	flushing  atomic.Int32 // at a time
	crowded   atomic.Bool  // two flushes at a time

	own    []layer.Own
	queue  []uint32 // rows that wait for the next label, or to be let go
	saving []uint32 // rows that wait for the label that is being written
	ready  []uint32
	busy   bool
}

func (p *twin) Owns(rows uint32, own []layer.Own) {
	p.own = own
	p.queue, p.saving = make([]uint32, 0, rows), make([]uint32, 0, rows)
	p.ready = make([]uint32, 0, rows)
}

func (p *twin) needs() layer.Needs {
	n := layer.Needs{Block: twinBlock}
	if p.journaled {
		n.Own = []uint32{twinBlock}
	}
	return n
}

func (p *twin) Next() (uint32, bool) {
	if n := len(p.ready); n > 0 {
		id := p.ready[n-1]
		p.ready = p.ready[:n-1]
		return id, true
	}
	if p.journaled && !p.busy && len(p.queue) > 0 {
		p.busy = true
		p.saving, p.queue = p.queue, p.saving[:0]
		return p.own[0].ID, true
	}
	if !p.journaled && !p.held.Load() && len(p.queue) > 0 {
		id := p.queue[len(p.queue)-1]
		p.queue = p.queue[:len(p.queue)-1]
		return id, true
	}
	return 0, false
}

func (p *twin) Cancel(id uint32) bool {
	if !p.forgets.Load() {
		return false
	}
	for i, waits := range p.queue {
		if waits == id {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.cancelled.Add(1)
			p.waiting.Add(-1)
			return true
		}
	}
	return false
}

const (
	twinBegun uint8 = iota
	twinWaits
	twinOut
)

func (p *twin) Step(r *layer.Row, w *layer.Wave) layer.Then {
	w.N = 0
	if r.Own != 0 {
		return p.label(r, w)
	}
	switch {
	case r.Op == layer.Read:
		return p.read(r, w)
	case r.State == twinBegun && p.journaled && r.Op != layer.Flush:
		r.State = twinWaits
		p.queue = append(p.queue, r.ID)
		return layer.Wait
	case r.State != twinOut:
		if r.Op == layer.Flush {
			p.flushes.Add(1)
			p.crowded.Store(p.crowded.Load() || p.flushing.Add(1) > 1)
		}
		r.State = twinOut
		for dev := range p.below {
			w.Seg[w.N] = layer.Segment{Dev: uint8(dev), Op: r.Op, Flags: r.Flags, Len: r.Len,
				Off: r.Off, At: r.At, Range: r.Range}
			w.N++
		}
		return layer.Go
	}
	if r.Op == layer.Flush {
		p.flushing.Add(-1)
	}
	if r.Bad != 0 && !(p.lenient && r.Bad != 1<<p.below-1) {
		r.Errno = r.Cause
	}
	return layer.Done
}

// read reads from one device after the other until one can.
func (p *twin) read(r *layer.Row, w *layer.Wave) layer.Then {
	if r.State == twinBegun && p.held.Load() {
		r.State = twinWaits
		p.waiting.Add(1)
		p.queue = append(p.queue, r.ID)
		return layer.Wait
	}
	if r.State != twinOut {
		r.State = twinOut
	} else if r.Bad == 0 {
		return layer.Done
	} else if r.Word[0]++; r.Word[0] == uint64(p.below) {
		r.Errno = r.Cause
		return layer.Done
	}
	n, each := 1, r.Len
	if p.torn && r.Len >= layer.WaveMost*twinBlock {
		n, each = layer.WaveMost, r.Len/layer.WaveMost&^(twinBlock-1)
	}
	for i := range n {
		from := uint32(i) * each
		s := layer.Segment{Dev: uint8(r.Word[0]), Op: layer.Read, Len: each,
			Off: r.Off + uint64(from), At: r.At + uint64(from)}
		if p.hollow {
			s.Dev = layer.Nowhere
		}
		if i == n-1 {
			s.Len = r.Len - from
		}
		w.Seg[i] = s
	}
	w.N = n
	return layer.Go
}

// label is the own row's work.
func (p *twin) label(r *layer.Row, w *layer.Wave) layer.Then {
	if r.State == twinBegun {
		r.State = twinOut
		p.own[0].Memory[0]++
		w.Seg[0] = layer.Segment{Op: layer.Write, Flags: layer.FUA, Len: twinBlock, Off: p.size,
			At: r.At}
		if p.reads {
			w.Seg[0] = layer.Segment{Op: layer.Read, Len: r.Len, At: r.At}
		}
		w.N = 1
		return layer.Go
	}
	p.labels.Add(1)
	p.busy = false
	p.ready, p.saving = append(p.ready, p.saving...), p.saving[:0]
	return layer.Done
}

// over makes a planned device of a twin and its devices.
func over(p *twin, below ...*Device) *Device {
	p.size, p.below = below[0].Size-twinBlock, len(below)
	return &Device{Kind: Planned, FD: -1, Size: p.size, Block: twinBlock, Plan: p, Below: below,
		Needs: p.needs()}
}

// SimPlanned puts a device of the simulation below a plan that has rows wait, if the device has
// blocks: with blocks of another length, other bytes would be read and written for a request than
// the simulation expects.
func SimPlanned(d *Device) *Device {
	block := d.Block
	if block < 512 || block > twinBlock || d.Size == 0 || d.Size%uint64(block) != 0 {
		return d
	}
	p := &twin{size: d.Size, below: 1, journaled: !d.ReadOnly, reads: true, torn: true}
	x := &Device{Kind: Planned, FD: -1, Size: d.Size, Block: block, Plan: p, Below: []*Device{d},
		ReadOnly: d.ReadOnly, Needs: layer.Needs{Block: block}}
	if p.journaled {
		x.Needs.Own = []uint32{block}
	}
	return x
}

// TestPlannedDevicesReadWhatWasWritten drives planned devices over every kind of device, nested
// ones too, against a model in memory.
func TestPlannedDevicesReadWhatWasWritten(t *testing.T) {
	const size = 80<<20 + twinBlock
	ample := Config{Loops: 1, MaxConnections: 8}
	scanty, plain := ample, ample
	ample.Memory, scanty.Memory = AmpleMemory(ample), MinMemory(ample)
	plain.Memory, plain.Register = ample.Memory, RegisterOff
	few := ample
	few.rows = 24
	direct := func() *Device { return fileDevice(t, size, unix.O_DIRECT) }
	bare := fileDevice(t, size, unix.O_DIRECT) // zeroes have to be written
	bare.Punch, bare.ZeroRange = false, false
	for _, run := range []struct {
		name   string
		config Config
		device *Device
	}{
		{"one file", ample, over(&twin{}, direct())},
		{"two files, journaled", ample, over(&twin{journaled: true}, direct(), direct())},
		{"a cached file", ample, over(&twin{torn: true}, fileDevice(t, size, 0))},
		{"memory", ample, over(&twin{journaled: true}, memoryDevice(t, size))},
		{"a file that cannot zero", ample, over(&twin{}, bare)},
		{"in parts", scanty, over(&twin{journaled: true}, direct())},
		{"not registered", plain, over(&twin{torn: true}, direct())},
		{"nested", ample, over(&twin{journaled: true}, over(&twin{torn: true}, direct()),
			over(&twin{journaled: true}, direct(), memoryDevice(t, size)))},
		{"few rows", few, over(&twin{torn: true}, over(&twin{torn: true, journaled: true},
			direct()))},
	} {
		t.Run(run.name, func(t *testing.T) {
			d := run.device
			readsWhatWasWritten(t, start(t, run.config, d), int(d.Size))
		})
	}
}

// TestNoRowsNoDeadlock checks that requests that need many more rows than there are all end.
func TestNoRowsNoDeadlock(t *testing.T) {
	const size = 64<<20 + twinBlock
	c := Config{Loops: 1, MaxConnections: 16, rows: 64}
	c.Memory = AmpleMemory(c) + 128<<20
	inner := &twin{journaled: true, torn: true}
	e := start(t, c, over(&twin{journaled: true, torn: true},
		over(inner, fileDevice(t, size, unix.O_DIRECT), fileDevice(t, size, unix.O_DIRECT))))
	for i := range 8 {
		client := connect(t, e, 0)
		data := bytes.Repeat([]byte{byte(i + 1)}, 4<<20)
		for j := range 8 {
			client.send(proto.Request{Cookie: uint64(j), Command: proto.CmdWrite,
				Offset: uint64(i) * 4 << 20, Length: 4 << 20}, data)
			client.send(proto.Request{Cookie: 100, Command: proto.CmdFlush}, nil)
		}
		defer func() {
			for range 16 {
				if _, errno := client.reply(nil); errno != proto.Success {
					t.Error(errno)
				}
			}
			got := make([]byte, len(data))
			if errno := client.call(proto.CmdRead, 0, uint64(i)*4<<20, 4<<20, got); errno != 0 ||
				!bytes.Equal(got, data) {
				t.Errorf("client %d does not read what it wrote (%v)", i, errno)
			}
			if i == 0 && counted(t, e).RowsShort == 0 {
				t.Error("rows were never short: the test is too tame")
			}
		}()
	}
}

// TestPlansLeaveWorkToTheNextTurn checks that a turn does not clear more memory for plans than is
// its part, that the rest is done all the same, and that such turns are counted.
func TestPlansLeaveWorkToTheNextTurn(t *testing.T) {
	const size = 32<<20 + twinBlock
	c := Config{Loops: 1, MaxConnections: 4}
	c.Memory = AmpleMemory(c)
	e := start(t, c, over(&twin{hollow: true}, memoryDevice(t, size)))
	client := connect(t, e, 0)
	got := bytes.Repeat([]byte{1}, 16<<20)
	if errno := client.call(proto.CmdRead, 0, 0, uint64(len(got)), got); errno != proto.Success ||
		!bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("16 MiB of no device are not read as zeroes (%v)", errno)
	}
	if left := counted(t, e).RowsLeft; left < 8 {
		t.Errorf("%d turns left work of plans to the next: clearing 16 MiB takes 16", left)
	}
}

// TestPlanDecidesWhatAnErrorMeans checks that the failure of a device below is the plan's to judge,
// and that the report names the device.
func TestPlanDecidesWhatAnErrorMeans(t *testing.T) {
	const size = 1<<20 + twinBlock
	broken := func() *Device { // opened for writing only: reads fail
		d := fileDevice(t, size, unix.O_DIRECT)
		path := fmt.Sprintf("/proc/self/fd/%d", d.FD)
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		d.FD = fd
		return d
	}
	h := &heard{}
	alone, first := broken(), broken()
	e := listening(t, h, over(&twin{}, alone),
		over(&twin{}, first, fileDevice(t, size, unix.O_DIRECT)))
	data := bytes.Repeat([]byte{7}, twinBlock)
	c := visit(t, e, 0, 1)
	if errno := c.call(proto.CmdRead, 0, 0, twinBlock, data); errno != proto.EIO {
		t.Errorf("a read that no device can do: %v", errno)
	}
	h.until(t, func() bool { return len(h.incidents) == 1 })
	if i := h.incidents[0]; i.Leaf != alone || i.Export != e.IDs()[0] || i.Kind != DiskFailed ||
		i.Length != twinBlock || i.Client == nil || i.Own {
		t.Errorf("the report is %+v", i)
	}
	c = visit(t, e, 1, 2)
	if errno := c.call(proto.CmdWrite, 0, 4096, twinBlock, data); errno != proto.Success {
		t.Error(errno)
	}
	got := make([]byte, twinBlock)
	if errno := c.call(proto.CmdRead, 0, 4096, twinBlock, got); errno != proto.Success ||
		!bytes.Equal(got, data) {
		t.Errorf("a read that the second device can do: %v", errno)
	}
	h.until(t, func() bool { return len(h.incidents) == 2 })
	if i := h.incidents[1]; i.Leaf != first || i.Export != e.IDs()[1] {
		t.Errorf("the report is %+v", i)
	}
}

// TestRowsThatWaitAreCancelled checks that a client which goes takes along its rows that wait, if
// the plan forgets them, and that it is waited for otherwise.
func TestRowsThatWaitAreCancelled(t *testing.T) {
	p := &twin{}
	p.held.Store(true)
	p.forgets.Store(true)
	e := startEngine(t, 2, over(p, fileDevice(t, 1<<20, unix.O_DIRECT)))
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	leave := func(n int) {
		c := connect(t, e, 0)
		for i := range n {
			c.send(proto.Request{Cookie: uint64(i), Command: proto.CmdRead, Length: 4096}, nil)
		}
		wait("the rows do not wait", func() bool { return p.waiting.Load() == int32(n) })
		// without NBD's magic: it is cut, where one that hangs up would still be answered
		if _, err := c.fd.Write(make([]byte, proto.RequestSize)); err != nil {
			t.Fatal(err)
		}
	}
	leave(3)
	wait("the rows were not cancelled", func() bool { return p.cancelled.Load() == 3 })
	wait("the connection did not end", func() bool { return e.Connections() == 0 })
	p.forgets.Store(false)
	leave(2)
	time.Sleep(50 * time.Millisecond)
	if n := e.Connections(); n != 1 {
		t.Errorf("%d connections, although a row of one waits", n)
	}
	p.held.Store(false)
	c := connect(t, e, 0) // its request has the plan asked, and so for the rows that wait
	if errno := c.call(proto.CmdRead, 0, 0, 4096, make([]byte, 4096)); errno != proto.Success {
		t.Error(errno)
	}
	wait("the connection did not end", func() bool { return e.Connections() == 1 })
}

// TestPlannedDevicesAreFlushedByTheirPlans checks that flushes come one at a time, that the last
// comes with the end of the server, before the loops end, and that FUA reaches the plan as it is.
func TestPlannedDevicesAreFlushedByTheirPlans(t *testing.T) {
	p := &twin{journaled: true}
	e := startEngine(t, 2, over(p, fileDevice(t, 1<<20, unix.O_DIRECT), fileDevice(t, 1<<20, 0)))
	c := connect(t, e, 0)
	data := make([]byte, twinBlock)
	if errno := c.call(proto.CmdWrite, proto.CmdFlagFUA, 0, twinBlock, data); errno != 0 ||
		p.flushes.Load() != 0 || p.labels.Load() != 1 {
		t.Errorf("%v, %d flushes, %d labels", errno, p.flushes.Load(), p.labels.Load())
	}
	for i := range 50 {
		c.send(proto.Request{Cookie: uint64(i), Command: proto.CmdFlush}, nil)
	}
	for range 50 {
		if _, errno := c.reply(nil); errno != proto.Success {
			t.Error(errno)
		}
	}
	if p.flushes.Load() == 0 || p.crowded.Load() {
		t.Errorf("%d flushes, two at a time: %v", p.flushes.Load(), p.crowded.Load())
	}
	before := p.flushes.Load()
	if err := e.Drain(5 * time.Second); err != nil {
		t.Error(err)
	}
	if p.flushes.Load() != before+1 {
		t.Errorf("%d flushes when the server ended", p.flushes.Load()-before)
	}
}

// TestPlannedExportsComeAndGo checks that Apply plants and uproots, over and over, and that nothing
// of the memory of own rows stays out.
func TestPlannedExportsComeAndGo(t *testing.T) {
	const size = 1<<20 + twinBlock
	c := Config{Loops: 2, MaxConnections: 16, Homed: true}
	c.Memory = MinMemory(c) + 16<<20
	e := start(t, c, fileDevice(t, size, unix.O_DIRECT))
	data := bytes.Repeat([]byte{3}, 10000)
	shared := fileDevice(t, size, unix.O_DIRECT)
	for i := range 40 {
		p := &twin{journaled: true}
		d := over(&twin{journaled: true}, over(p, shared, memoryDevice(t, size)))
		added, err := e.Apply(context.Background(), Change{Add: []Export{
			{Facts: factsOf(d), Device: d}, {Facts: factsOf(shared), Device: shared}}})
		if err != nil {
			t.Fatal(i, err)
		}
		client := connect(t, e, slices.Index(e.IDs(), added[0]))
		if errno := client.call(proto.CmdWrite, 0, 77, 10000, data); errno != proto.Success {
			t.Fatal(errno)
		}
		got := make([]byte, len(data))
		flat := connect(t, e, slices.Index(e.IDs(), added[1]))
		if errno := flat.call(proto.CmdRead, 0, 77, 10000, got); errno != proto.Success ||
			!bytes.Equal(got, data) {
			t.Fatal("the file below does not have what was written", errno)
		}
		if i%2 == 0 {
			_ = client.fd.Close()
		}
		if _, err := e.Apply(context.Background(), Change{Remove: added,
			Force: i%4 == 1}); err != nil {
			t.Fatal(i, err)
		}
		if p.flushes.Load() != 1 {
			t.Fatalf("%d: %d flushes when the export left", i, p.flushes.Load())
		}
	}
}

// TestHomes checks that planned devices are spread over loops, and that what a plan connects is
// together.
func TestHomes(t *testing.T) {
	const size = 1<<20 + twinBlock
	file := func() *Device { return fileDevice(t, size, unix.O_DIRECT) }
	base := over(&twin{}, file())
	e := startEngine(t, 3, over(&twin{}, file()), base, over(&twin{}, file()), file(),
		over(&twin{}, over(&twin{}, file()), base))
	e.mu.Lock()
	home := map[*Device]uint32{}
	for _, p := range e.shared.table.devices {
		home[p.device] = p.home
	}
	e.mu.Unlock()
	top := e.shared.table.exports[4].Device
	if home[top] != home[base] || home[top.Below[0]] != home[base] {
		t.Error("devices that a plan connects have different homes")
	}
	spread := map[uint32]bool{}
	for i := range 3 {
		spread[home[e.shared.table.exports[i].Device]] = true
	}
	if len(spread) != 3 || home[e.shared.table.exports[3].Device] != none {
		t.Errorf("three planned devices are at home in %d loops", len(spread))
	}
	for range 4 {
		c := connect(t, e, 4)
		if errno := c.call(proto.CmdRead, 0, 0, 4096, make([]byte, 4096)); errno != proto.Success {
			t.Error(errno)
		}
	}
	if n := e.shared.loops[home[top]].live.Load(); n != 4 {
		t.Errorf("the home has %d connections", n)
	}
}

// TestReadsOfNowhereAreZeroes checks that what no device answers is cleared, be it on a device that
// has nothing but zeroes.
func TestReadsOfNowhereAreZeroes(t *testing.T) {
	hollow := over(&twin{hollow: true, torn: true}, fileDevice(t, 16<<20, unix.O_DIRECT))
	null := nullDevice(16 << 20)
	null.Block = 512
	e := startEngine(t, 1, hollow, over(&twin{}, null))
	for export := range 2 {
		c := connect(t, e, export)
		dirty := bytes.Repeat([]byte{0xaa}, 4<<20)
		if errno := c.call(proto.CmdWrite, 0, 0, 4<<20, dirty); errno != proto.Success {
			t.Fatal(errno)
		}
		got := bytes.Repeat([]byte{0xbb}, 3<<20)
		if errno := c.call(proto.CmdRead, 0, 100, 3<<20, got); errno != proto.Success ||
			bytes.Count(got, []byte{0}) != len(got) {
			t.Errorf("export %d: not all zeroes (%v)", export, errno)
		}
	}
}

// TestOwnRowsWaitForTheirMemory checks that a planned device which comes while all memory is on
// lease gets what it needs before new requests do, and that the change is answered then.
func TestOwnRowsWaitForTheirMemory(t *testing.T) {
	const size = 1<<20 + twinBlock
	c := Config{Loops: 1, MaxConnections: 4, Homed: true}
	l := handTurnedWith(t, c, AmpleMemory(c), Export{Device: nullDevice(1 << 20)})
	total := l.ledger.total
	var all []lease
	for {
		piece, ok := l.leases.take(small, pieceSize)
		if !ok {
			break
		}
		all = append(all, piece)
	}
	l.tolerate()
	l.ledger.free.leased[small] = 0
	d := over(&twin{journaled: true}, memoryDevice(t, size))
	table := l.table.Load().copy()
	r := &l.shared.register
	x := Export{Facts: factsOf(d), Device: d}
	place, devices := r.add(table, l.shared.guard, &x)
	table.settle()
	m := &mail{kind: mailTable, done: make(chan struct{}),
		update: &update{table: table, exports: []uint32{place}, devices: devices}}
	l.post(m)
	l.turn()
	answered := func() bool {
		select {
		case <-m.done:
			return true
		default:
			return false
		}
	}
	if answered() || l.ledger.wanted == 0 {
		t.Fatal("a planned device was there without its memory")
	}
	l.ledger.free.leased[small] = pieceSize
	l.leases.give(all[len(all)-1])
	newcomer := account{tagCredit: 1, credit: [regions]uint64{small: pieceSize}}
	if s := l.ledger.admits(&newcomer, 0, small, pieceSize); s != scarce {
		t.Errorf("a request gets what a planned device waits for: %d", s)
	}
	l.turn()
	if !answered() || m.err != nil || l.ledger.wanted != 0 || l.ownBytes != twinBlock {
		t.Fatalf("a planned device does not take its memory: %v", m.err)
	}
	for _, piece := range all[:len(all)-1] {
		l.leases.give(piece)
	}
	total.leased[small] -= twinBlock
	if l.ledger.total != total || l.leases.used[small] != twinBlock {
		t.Error("the ledger does not know of the memory")
	}
}

// TestPlansThatDoNotFitAreRefused checks what is said of planned devices that cannot be served.
func TestPlansThatDoNotFitAreRefused(t *testing.T) {
	const size = 1<<20 + twinBlock
	e := startEngine(t, 2, over(&twin{}, memoryDevice(t, size)),
		over(&twin{}, memoryDevice(t, size)))
	coarse := memoryDevice(t, size)
	coarse.Block = 8192
	greedy := over(&twin{}, memoryDevice(t, size))
	for range 64 {
		greedy.Needs.Own = append(greedy.Needs.Own, layer.Most)
	}
	apart := over(&twin{}, e.shared.table.exports[0].Device, e.shared.table.exports[1].Device)
	for _, test := range []struct {
		name   string
		device *Device
		is     func(error) bool
	}{
		{"blocks that are too small", over(&twin{}, coarse),
			func(err error) bool { return errors.Is(err, errPlan) }},
		{"own rows for which there is no memory", greedy, func(err error) bool {
			var home *HomeError
			return errors.As(err, &home) && home.Need == 64<<20 && home.Room > 0
		}},
		{"devices with different homes", apart,
			func(err error) bool { return errors.Is(err, errHomes) }},
	} {
		_, err := e.Apply(context.Background(), Change{Add: []Export{
			{Facts: factsOf(test.device), Device: test.device}}})
		if err == nil || !test.is(err) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if n := len(e.IDs()); n != 2 {
		t.Errorf("%d exports are served", n)
	}
}
