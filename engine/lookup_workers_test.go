// Lookups beside the loops: one at a time and in order for each device, a stuck one holds up no
// other device's, and nothing is left afterwards.

package engine

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// startWith makes an engine of null exports with a context each.
func startWith(t *testing.T, loops int, contexts ...Context) *Engine {
	t.Helper()
	return startOn(t, Config{Loops: loops, MaxConnections: 64 * loops}, contexts...)
}

// startOn is startWith for an engine of any shape.
func startOn(t *testing.T, c Config, contexts ...Context) *Engine {
	t.Helper()
	var exports []Export
	for _, c := range contexts {
		d := nullDevice(1 << 40)
		exports = append(exports, Export{Facts: factsOf(d), Device: d, Contexts: []Context{c}})
	}
	c.Memory = AmpleMemory(c)
	e, err := Start(c, exports)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// connectAs makes a connection with extended headers and the export's first context.
func connectAs(t *testing.T, e *Engine, export int) *client {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Adopt(pair[0], e.IDs()[export],
		proto.Session{Framing: proto.Extended, Contexts: 1}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(pair[1], true); err != nil { // so that reads can have a deadline
		t.Fatal(err)
	}
	c := &client{t, os.NewFile(uintptr(pair[1]), "client")}
	t.Cleanup(func() { _ = c.fd.Close() })
	return c
}

// ask sends a BLOCK_STATUS of 4 KiB at off, by which its source knows it.
func (c *client) ask(off uint64) {
	c.t.Helper()
	b := make([]byte, proto.ExtRequestSize)
	proto.PutExtRequest(b,
		&proto.Request{Cookie: off, Command: proto.CmdBlockStatus, Offset: off, Length: 4096})
	if _, err := c.fd.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// answered waits for the answer to one of them, and returns its offset.
func (c *client) answered(within time.Duration) (uint64, error) {
	c.t.Helper()
	if err := c.fd.SetReadDeadline(time.Now().Add(within)); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, proto.ExtReplySize+8+16)
	for at := 0; at < len(b); {
		n, err := c.fd.Read(b[at:])
		if err != nil {
			return 0, err
		}
		at += n
	}
	k, err := proto.ParseExtReplyChunk(b)
	if err != nil || k.Type != proto.ChunkBlockStatusExt || !k.Done() ||
		binary.BigEndian.Uint64(b[proto.ExtReplySize+8:]) != 4096 {
		c.t.Fatalf("%+v %v", k, err)
	}
	return k.Cookie, nil
}

func TestLookupsOfAnExportAreOneAtATimeAndInOrder(t *testing.T) {
	const asks = 200
	var running, highest atomic.Int32
	var mu sync.Mutex
	var order []uint64
	e := startWith(t, 1,
		contextFunc(func(off, length uint64, emit func(length, status uint64) bool) error {
			highest.Store(max(highest.Load(), running.Add(1)))
			mu.Lock()
			order = append(order, off)
			mu.Unlock()
			time.Sleep(50 * time.Microsecond)
			running.Add(-1)
			emit(length, 0)
			return nil
		}))
	c := connectAs(t, e, 0)
	for i := range uint64(asks) {
		c.ask(i * 4096)
	}
	seen := map[uint64]bool{}
	for range asks {
		off, err := c.answered(10 * time.Second)
		if err != nil || seen[off] {
			t.Fatalf("after %d answers: %d again: %v; %v", len(seen), off, seen[off], err)
		}
		seen[off] = true
	}
	if highest.Load() != 1 {
		t.Errorf("%d lookups ran at once", highest.Load())
	}
	mu.Lock() // the socket orders the two, which the race detector cannot know
	defer mu.Unlock()
	for i, off := range order {
		if off != uint64(i)*4096 {
			t.Fatalf("lookup %d was of offset %d", i, off)
		}
	}
}

func TestAStuckExportHoldsUpNoOther(t *testing.T) {
	stuck := make(chan struct{})
	hangs := contextFunc(func(_, length uint64, emit func(length, status uint64) bool) error {
		<-stuck
		emit(length, 0)
		return nil
	})
	quick := contextFunc(func(_, length uint64, emit func(length, status uint64) bool) error {
		emit(length, 0)
		return errors.New("and that was all")
	})
	e := startWith(t, 1, hangs, hangs, quick, quick)
	var all sync.WaitGroup
	clients := make([]*client, 4)
	for i := range clients {
		clients[i] = connectAs(t, e, i)
	}
	for _, c := range clients[:2] {
		for off := range uint64(3) {
			c.ask(off * 4096)
		}
	}
	for _, c := range clients[2:] {
		all.Go(func() {
			for i := range uint64(500) {
				c.ask(i * 4096)
				if off, err := c.answered(10 * time.Second); err != nil || off != i*4096 {
					t.Errorf("answer %d: %d %v", i, off, err)
					return
				}
			}
		})
	}
	all.Wait()
	_, err := clients[0].answered(20 * time.Millisecond)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a lookup that hangs was answered: %v", err)
	}
	close(stuck)
	for _, c := range clients[:2] {
		for range 3 {
			if _, err := c.answered(10 * time.Second); err != nil {
				t.Error(err)
			}
		}
	}
}

// threads returns how many threads the process has.
func threads(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestWorkersAreBoundedAndLeave checks that storage that hangs takes up maxLookupWorkers threads
// and no more, that requests which wait for a worker are looked up when workers come back, and that
// the workers leave afterwards.
func TestWorkersAreBoundedAndLeave(t *testing.T) {
	const exports = maxLookupWorkers + 40
	var running, highest atomic.Int32
	stuck := make(chan struct{})
	hangs := contextFunc(func(_, length uint64, emit func(length, status uint64) bool) error {
		highest.Store(max(highest.Load(), running.Add(1)))
		defer running.Add(-1)
		// a read of it occupies a thread, as a read of a disk does
		if fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
			go func() { <-stuck; _, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }()
			_, _ = unix.Read(fd, make([]byte, 8))
			_ = unix.Close(fd)
		}
		emit(length, 0)
		return nil
	})
	contexts := make([]Context, exports)
	for i := range contexts {
		contexts[i] = hangs
	}
	e := startOn(t, Config{Loops: 1, MaxConnections: exports}, contexts...)
	before := threads(t)
	clients := make([]*client, exports)
	for i := range clients {
		clients[i] = connectAs(t, e, i)
		clients[i].ask(0)
	}
	deadline := time.Now().Add(20 * time.Second)
	for ; running.Load() < maxLookupWorkers; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d lookups run", running.Load())
		}
	}
	time.Sleep(20 * time.Millisecond) // for more than may run
	hung := threads(t)
	close(stuck)
	for i, c := range clients {
		if _, err := c.answered(20 * time.Second); err != nil {
			t.Fatalf("export %d: %v", i, err)
		}
	}
	if highest.Load() != maxLookupWorkers {
		t.Errorf("%d lookups ran at once; %d may", highest.Load(), maxLookupWorkers)
	}
	o := e.lookups[0]
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		workers, idle := o.workers, o.idle
		o.mu.Unlock()
		if workers <= maxIdle && workers == idle && threads(t) < before+maxLookupWorkers/2 {
			t.Logf("threads: %d before, %d while storage hung, %d after", before, hung, threads(t))
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d workers are left, %d of them idle; %d threads, %d before, %d while "+
				"storage hung", workers, idle, threads(t), before, hung)
		}
	}
	clients[0].ask(4096)
	if _, err := clients[0].answered(20 * time.Second); err != nil {
		t.Errorf("those that are left: %v", err)
	}
}

// TestLookupOfAClientThatLeft checks that the connection is counted until its lookup is back, which
// learns that its answer has no reader.
func TestLookupOfAClientThatLeft(t *testing.T) {
	began, noticed := make(chan struct{}), make(chan bool, 1)
	e := startWith(t, 2,
		contextFunc(func(_, _ uint64, emit func(length, status uint64) bool) error {
			close(began)
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				if !emit(0, 0) {
					noticed <- true
					return nil
				}
				if time.Now().After(deadline) {
					noticed <- false
					return nil
				}
			}
		}))
	c := connectAs(t, e, 0)
	c.ask(0)
	<-began
	if n := e.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if err := c.fd.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Drain(50 * time.Millisecond); err == nil {
		t.Log("the connection had gone before the shutdown lost patience")
	}
	if !<-noticed {
		t.Error("the lookup did not learn that its answer has no reader")
	}
}

// TestLookupsOfOthersNeedNotWaitForAFlood checks that connections of an export take turns, however
// many requests a connection has sent before another one asks.
func TestLookupsOfOthersNeedNotWaitForAFlood(t *testing.T) {
	const flood = 60
	gate, order := make(chan struct{}), make(chan uint64, flood+2)
	e := startWith(t, 1,
		contextFunc(func(off, length uint64, emit func(length, status uint64) bool) error {
			<-gate
			order <- off
			emit(length, 0)
			return nil
		}))
	greedy, modest := connectAs(t, e, 0), connectAs(t, e, 0)
	for i := range uint64(flood) {
		greedy.ask(i * 4096)
	}
	counted(t, e) // all of it was taken in when the loop answers this
	const one, two = 1 << 30, 2 << 30
	modest.ask(one)
	modest.ask(two)
	for deadline := time.Now().Add(10 * time.Second); counted(t,
		e).Requests[proto.CmdBlockStatus] < flood+2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the loop did not take all requests in")
		}
	}
	close(gate)
	for place := range flood + 2 {
		switch off := <-order; {
		case off == one && place > 2, off == two && place > 4:
			// one has begun, and one may have been chosen
			t.Errorf("the request for %d came in place %d, behind those of a flood", off, place)
		}
	}
}

// TestLookupOfAClientThatHasFinished checks that a client that has ended its side, in good order,
// does not make others wait for what it had asked, and still gets an answer that is true.
func TestLookupOfAClientThatHasFinished(t *testing.T) {
	const asked = 20
	var looked atomic.Int32
	began, gate := make(chan struct{}, asked), make(chan struct{})
	e := startWith(t, 1,
		contextFunc(func(_, length uint64, emit func(length, status uint64) bool) error {
			looked.Add(1)
			began <- struct{}{}
			<-gate
			emit(length, 3)
			return nil
		}))
	c := connectAs(t, e, 0)
	for i := range uint64(asked) {
		c.ask(i * 4096)
	}
	<-began
	if err := unix.Shutdown(int(c.fd.Fd()), unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	for range asked - 1 { // all but the one that is being looked up
		off, err := c.answered(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		seen[off] = true
	}
	close(gate)
	if off, err := c.answered(10 * time.Second); err != nil || seen[off] {
		t.Errorf("the last answer: %d %v", off, err)
	}
	if n := looked.Load(); n != 1 {
		t.Errorf("%d lookups were made for a client that had left", n)
	}
}

// TestLookupsLeaveNoGoroutines checks that workers end with the engine, however many exports were
// busy at once.
func TestLookupsLeaveNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 2 {
		var contexts []Context
		for range 8 {
			contexts = append(contexts,
				contextFunc(func(_, length uint64, emit func(length, status uint64) bool) error {
					time.Sleep(time.Millisecond)
					emit(length, 0)
					return nil
				}))
		}
		e := startWith(t, 2, contexts...)
		for i := range contexts {
			c := connectAs(t, e, i)
			for off := range uint64(4) {
				c.ask(off * 4096)
			}
			if i%2 == 0 {
				_ = c.fd.Close()
				continue
			}
			for range 4 {
				if _, err := c.answered(10 * time.Second); err != nil {
					t.Fatal(err)
				}
			}
			_ = c.fd.Close()
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for ; runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
