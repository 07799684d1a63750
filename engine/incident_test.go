// What the control plane is told: every end, each failed request once, and how many were too many
// to tell.

package engine

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// heard is what an engine has reported.
type heard struct {
	mu        sync.Mutex
	incidents []Incident
	lost      uint64
	ended     []*Client
}

func (h *heard) Incident(i Incident) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.incidents = append(h.incidents, i)
}

func (h *heard) Lost(n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost += n
}

func (h *heard) Ended(c *Client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = append(h.ended, c)
}

// until waits until something is true of what was heard.
func (h *heard) until(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		ok := what()
		h.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("heard %+v, %d lost, %d ended", h.incidents, h.lost, len(h.ended))
		}
	}
}

// visit connects a client that the engine is to tell about.
func visit(t *testing.T, e *Engine, export int, number uint64) *client {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.AdoptClient(pair[0], e.IDs()[export], proto.Session{},
		&Client{Number: number}); err != nil {
		t.Fatal(err)
	}
	c := &client{t, os.NewFile(uintptr(pair[1]), "client")}
	t.Cleanup(func() { _ = c.fd.Close() })
	return c
}

func listening(t *testing.T, h *heard, devices ...*Device) *Engine {
	t.Helper()
	c := Config{Loops: 2, MaxConnections: 64, Reports: h}
	c.Memory = MinMemory(c) + 64<<20
	return start(t, c, devices...)
}

func TestEndsAreToldWithWhatWas(t *testing.T) {
	h := &heard{}
	e := listening(t, h, nullDevice(1<<20), nullDevice(1<<20))
	const clients = 40
	for i := range clients {
		c := visit(t, e, i%2, uint64(i))
		for range i {
			c.call(proto.CmdRead, 0, 0, 512, make([]byte, 512))
		}
		c.call(proto.CmdWrite, 0, 0, 1024, make([]byte, 1024))
		c.call(proto.CmdRead, 0, 1<<21, 512, nil) // beyond the end
		if i == 7 {
			if got := counted(t, e); got.Exports[1].Connections < 1 || got.Exports[1].Writes < 1 {
				t.Errorf("of a connection that is there: %+v", got.Exports)
			}
		}
		_ = c.fd.Close()
	}
	h.until(t, func() bool { return len(h.ended) == clients })
	var sum Traffic
	for _, c := range h.ended {
		n := c.Number
		want := Traffic{Reads: n + 1, Writes: 1, Errors: 1, BytesRead: n*512 + 512,
			BytesWrite: 1024}
		if c.Traffic != want || c.Why != CloseHangup || c.Export.Place() != int(n%2) {
			t.Errorf("client %d: %+v, %v", n, c.Traffic, c.Why)
		}
		sum.add(&c.Traffic)
	}
	got := counted(t, e)
	each := got.Exports[0].Traffic
	each.add(&got.Exports[1].Traffic)
	if each != sum || got.Errors != sum.Errors || got.BytesRead != sum.BytesRead ||
		got.BytesWrite != sum.BytesWrite || got.Exports[0].Connections != 0 {
		t.Errorf("exports %+v, totals %+v, clients %+v", each, got, sum)
	}
}

// A client that was cut by Close, which is not there to say it, is told as well: by the time that
// Close returns.
func TestEndsOfTheLastAreTold(t *testing.T) {
	h := &heard{}
	e := listening(t, h, nullDevice(1<<20))
	visit(t, e, 0, 1).call(proto.CmdRead, 0, 0, 512, make([]byte, 512))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if len(h.ended) != 1 || h.ended[0].Why != CloseForced || h.ended[0].Traffic.Reads != 1 {
		t.Errorf("heard %+v", h.ended)
	}
}

func TestATruncatedFileIsToldOnceARequest(t *testing.T) {
	h := &heard{}
	d := fileDevice(t, 8<<20, syscall.O_RDWR)
	e := listening(t, h, nullDevice(1<<20), d)
	if err := unix.Ftruncate(d.FD, 1<<20); err != nil {
		t.Fatal(err)
	}
	c := visit(t, e, 1, 7)
	// four segments
	if errno := c.call(proto.CmdRead, 0, 2<<20, 4<<20, make([]byte, 4<<20)); errno != proto.EIO {
		t.Errorf("%v", errno)
	}
	h.until(t, func() bool { return len(h.incidents) > 0 })
	_ = c.fd.Close()
	h.until(t, func() bool { return len(h.ended) == 1 })
	i := h.incidents[0]
	if len(h.incidents) != 1 || i.Kind != DiskEnded || i.Export.Place() != 1 || i.Offset != 2<<20 ||
		i.Length != 4<<20 || i.Client.Number != 7 ||
		i.Command != proto.CmdRead {
		t.Errorf("%+v", h.incidents)
	}
	if n := counted(t, e).Exports[1].DiskErrors; n != 1 {
		t.Errorf("%d disk errors", n)
	}
}

// A pipe cannot be flushed, which is all that this device is asked for.
func TestFlushesThatFailAreTold(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pipe[0]); unix.Close(pipe[1]) })
	h := &heard{}
	e := listening(t, h, &Device{Kind: File, FD: pipe[1], Size: 1 << 20, Block: 1})
	c := visit(t, e, 0, 1)
	for range 3 {
		if errno := c.call(proto.CmdFlush, 0, 0, 0, nil); errno != proto.EIO {
			t.Errorf("%v", errno)
		}
	}
	h.until(t, func() bool { return len(h.incidents) == 3 })
	for n, i := range h.incidents {
		if want := [...]IncidentKind{FlushFailed, FlushRefused, FlushRefused}[n]; i.Kind != want ||
			i.Errno != int32(unix.EINVAL) {
			t.Errorf("%d: %+v", n, i)
		}
	}
	if x := counted(t, e).Exports[0]; !x.FlushFailed || x.DiskErrors != 3 || x.Errors != 3 {
		t.Errorf("%+v", x)
	}
}

func TestIncidentsThatFindNoSlotAreCounted(t *testing.T) {
	r, h := &incidents{}, &heard{}
	for n := range 3 * incidentSlots {
		r.put(Incident{Offset: uint64(n)})
	}
	r.take(h)
	if len(h.incidents) != incidentSlots || h.lost != 2*incidentSlots {
		t.Fatalf("%d and %d lost", len(h.incidents), h.lost)
	}
	for n, i := range h.incidents {
		if i.Offset != uint64(n) {
			t.Fatalf("%d: %+v", n, i)
		}
	}
	r.put(Incident{Offset: 5})
	r.take(h)
	if len(h.incidents) != incidentSlots+1 || h.lost != 2*incidentSlots {
		t.Errorf("%d and %d lost", len(h.incidents), h.lost)
	}
}

// refusing is a kernel that registers nothing.
type refusing struct{ Kernel }

func (refusing) RegisterBuffer(uint32) bool { return false }

// TestRefusedMemoryIsToldOnce: however much of it is refused, and that it is.
func TestRefusedMemoryIsToldOnce(t *testing.T) {
	told := 0
	l := &loop{kernel: refusing{}, buffers: buffers{states: make([]bufferState, 3)},
		reporter: reporter{ring: func() { told++ }}}
	l.allowRegistering()
	for i := range l.buffers.states {
		if _, ok := l.bufferOf(uint64(i)); ok {
			t.Error("registered")
		}
	}
	h := new(heard)
	l.incidents.take(h)
	if len(h.incidents) != 1 || h.incidents[0].Kind != MemoryRefused || told != 1 || h.lost != 0 {
		t.Errorf("%+v, told %d times", h.incidents, told)
	}
}
