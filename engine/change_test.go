// Exports that come, go and change while others are served, on a real ring.

package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// soon is a context for changes that must not take long.
func soon(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(stop)
	return ctx
}

// applied makes a change, which must succeed.
func applied(t testing.TB, e *Engine, c Change) []ID {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	added, err := e.Apply(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return added
}

// exportOf is an export that shows a whole device.
func exportOf(d *Device) Export { return Export{Facts: factsOf(d), Device: d, Name: "x"} }

// reach connects a client to an export.
func reach(t testing.TB, e *Engine, id ID) *client {
	t.Helper()
	return reachAs(t, e, id, proto.Session{})
}

func reachAs(t testing.TB, e *Engine, id ID, s proto.Session) *client {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Adopt(pair[0], id, s); err != nil {
		t.Fatal(err)
	}
	c := &client{t, os.NewFile(uintptr(pair[1]), "client")}
	t.Cleanup(func() { _ = c.fd.Close() })
	return c
}

// TestAServerWithoutExportsGetsThem: a ring that was set up without files takes them later, and an
// export that has gone is not found again in its place.
func TestAServerWithoutExportsGetsThem(t *testing.T) {
	e := startEngine(t, 2)
	var last ID
	for round := range 50 {
		d := fileDevice(t, 1<<20, unix.O_DIRECT)
		added := applied(t, e, Change{Add: []Export{exportOf(d)}})
		if len(added) != 1 || added[0] == last || last != 0 && added[0].Place() != last.Place() {
			t.Fatalf("added %x after %x", added, last)
		}
		if last != 0 {
			if err := e.Adopt(-1, last, proto.Session{}); !IsGone(err) {
				t.Fatalf("a client of an export that has gone: %v", err)
			}
		}
		last = added[0]
		c := reach(t, e, last)
		mine := bytes.Repeat([]byte{byte(round)}, 4096)
		if errno := c.call(proto.CmdWrite, 0, 8192, 4096, mine); errno != proto.Success {
			t.Fatal(errno)
		}
		_ = c.fd.Close()
		applied(t, e, Change{Remove: added})
		got := make([]byte, 4096)
		if _, err := unix.Pread(d.FD, got, 8192); err != nil || !bytes.Equal(got, mine) {
			t.Fatalf("round %d: the file has %x..., %v", round, got[:4], err)
		}
	}
	if _, err := e.Apply(soon(t), Change{Remove: []ID{last}}); !errors.Is(err, ErrGone) {
		t.Errorf("an export was removed twice: %v", err)
	}
}

// busy is clients that send writes one after the other, many at a time, and count what they get.
type busy struct {
	answers [256]atomic.Int64 // by errno
	stop    atomic.Bool
	done    sync.WaitGroup
}

// work has a client write to its own MiB of an export, depth requests at a time, until the server
// ends the stream, or until stop.
func (b *busy) work(c *client, part uint64, depth int) {
	const n = 4096
	room, ended := make(chan struct{}, depth), make(chan struct{})
	b.done.Go(func() {
		payload := bytes.Repeat([]byte{byte(part + 1)}, n)
		wire := make([]byte, proto.RequestSize, proto.RequestSize+n)
		for i := uint64(0); !b.stop.Load(); i++ {
			select {
			case room <- struct{}{}:
			case <-ended:
				return
			}
			r := proto.Request{Cookie: i, Command: proto.CmdWrite, Length: n,
				Offset: part<<20 + i%200*n}
			proto.PutRequest(wire, &r)
			if _, err := c.fd.Write(append(wire, payload...)); err != nil {
				return
			}
		}
		_ = unix.Shutdown(int(c.fd.Fd()), unix.SHUT_WR)
	})
	b.done.Go(func() {
		defer close(ended)
		var reply [proto.SimpleReplySize]byte
		for {
			if _, err := io.ReadFull(c.fd, reply[:]); err != nil {
				return
			}
			_, errno, _ := proto.ParseSimpleReply(reply[:])
			b.answers[errno].Add(1)
			<-room
		}
	})
}

// until waits until a condition is true.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// lockedFile is a device whose file this descriptor has flock'ed.
func lockedFile(t testing.TB, path string, size int64) *Device {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_DIRECT, 0o600)
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = unix.Ftruncate(fd, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Device{Kind: File, FD: fd, Size: uint64(size), Block: 512, Direct: true, Punch: true,
		ZeroRange: true, FastZero: true}
}

// TestRemovalUnderLoadFreesTheFile: clients that keep 32 requests in flight each get answers, or
// ESHUTDOWN, and the end of their streams; and when Apply returns the file's lock is free as soon
// as its descriptor is closed, in every round, so that it can be added again at once.
func TestRemovalUnderLoadFreesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	e := startEngine(t, 2)
	for _, force := range []bool{false, true, false, true} {
		d := lockedFile(t, path, 8<<20)
		ids := applied(t, e, Change{Add: []Export{exportOf(d)}})
		var b busy
		for i := range uint64(6) {
			b.work(reach(t, e, ids[0]), i, 32)
		}
		until(t, "requests", func() bool { return b.answers[0].Load() > 2000 })
		began := time.Now()
		applied(t, e, Change{Remove: ids, Force: force})
		took := time.Since(began)
		b.done.Wait()
		_ = unix.Close(d.FD)
		again := lockedFile(t, path, 8<<20) // fails while a ring has the old one
		_ = unix.Close(again.FD)
		if refused := b.answers[proto.ESHUTDOWN].Load(); refused == 0 != force {
			t.Errorf("force %t: %d requests were refused", force, refused)
		}
		for errno := range b.answers {
			if n := b.answers[errno].Load(); n > 0 && errno != 0 &&
				proto.Errno(errno) != proto.ESHUTDOWN {
				t.Errorf("force %t: %d answers of %v", force, n, proto.Errno(errno))
			}
		}
		if force && took > time.Second || took > 8*time.Second {
			t.Errorf("force %t: it took %v", force, took)
		}
	}
	c := counted(t, e)
	if c.Closed[CloseRemoved] != 24 || c.BytesWrite == 0 || len(c.Exports) != 0 {
		t.Errorf("counted %+v", c)
	}
}

// TestAThousandExportsComeAndGoBesideALoad adds and removes exports in random order, many at a
// time, while clients write to one. None of its requests fails, no client is cut, and descriptors
// and memory are as before.
func TestAThousandExportsComeAndGoBesideALoad(t *testing.T) {
	const many = 1000
	e := startEngine(t, 2, fileDevice(t, 8<<20, unix.O_DIRECT))
	steady := e.IDs()[0]
	var b busy
	for i := range uint64(4) {
		b.work(reach(t, e, steady), i, 16)
	}
	r := rand.New(rand.NewPCG(3, 3))
	dir := t.TempDir()
	round := func() {
		var there []ID
		files := map[ID]*Device{}
		for added := 0; added < many || len(there) > 0; {
			n := 1 + r.IntN(20)
			if added < many && (r.IntN(2) == 0 || len(there) == 0) {
				var more []Export
				for range min(n, many-added) {
					path := filepath.Join(dir, strconv.Itoa(added%50))
					d := lockedFile(t, path+"-"+strconv.Itoa(added), 1<<20)
					more = append(more, exportOf(d))
					added++
				}
				for i, id := range applied(t, e, Change{Add: more}) {
					files[id] = more[i].Device
					there = append(there, id)
				}
				continue
			}
			var gone []ID
			for range min(n, len(there)) {
				i := r.IntN(len(there))
				gone = append(gone, there[i])
				there[i] = there[len(there)-1]
				there = there[:len(there)-1]
			}
			c := reach(t, e, gone[0])
			if errno := c.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != 0 {
				t.Fatal(errno)
			}
			_ = c.fd.Close()
			applied(t, e, Change{Remove: gone})
			for _, id := range gone {
				_ = unix.Close(files[id].FD)
			}
		}
	}
	round() // the tables have grown
	descriptors, memory := len(openDescriptors(t)), liveHeap()
	round()
	if n := len(openDescriptors(t)); n != descriptors {
		t.Errorf("%d descriptors are open, and were %d", n, descriptors)
	}
	if n := liveHeap(); n > memory+256<<10 {
		t.Errorf("%d bytes are in use, and were %d", n, memory)
	}
	b.stop.Store(true)
	b.done.Wait()
	for errno := range b.answers {
		if n := b.answers[errno].Load(); n > 0 != (errno == 0) {
			t.Errorf("%d answers of %v", n, proto.Errno(errno))
		}
	}
	c := counted(t, e)
	if len(c.Exports) != 1 || c.Exports[0].ID != steady ||
		c.Exports[0].Writes != uint64(b.answers[0].Load()) || c.Closed[CloseHangup] < 4 {
		t.Errorf("counted %+v", c)
	}
}

// liveHeap is how many bytes of Go memory are reachable.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
