// The budget of a turn: whatever clients ask for, a turn does so much and no more, and all of it is
// answered in the end.

package engine

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// handTurned is a loop on the real kernel that is turned by this goroutine.
func handTurned(t testing.TB, d *Device) *loop {
	t.Helper()
	c := Config{Loops: 1, MaxConnections: 64}
	return handTurnedWith(t, c, MinMemory(c)+512<<20, Export{Facts: factsOf(d), Device: d})
}

// handTurnedWith makes a loop that the test turns, with memory bytes.
func handTurnedWith(t testing.TB, c Config, memory uint64, exports ...Export) *loop {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	s := newShared(exports, 1, fewSpare)
	y, _ := layoutOf(memory, connsPerLoop(c))
	l, err := newLoop(s, 0, y)
	if err != nil {
		t.Fatal(err)
	}
	s.loops[0] = l
	if _, err := c.Settle(); err != nil {
		t.Fatal(err)
	}
	ring, wakeFD, err := (&Engine{config: c}).openRing(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ring.Close()
		_ = unix.Close(wakeFD)
		_ = l.pool.Close()
		_ = l.control.Close()
	})
	l.now = l.kernel.Now()
	l.listenForMail()
	return l
}

// adopted is the client's end of a connection to it.
func adopted(t testing.TB, l *loop, s proto.Session) *os.File {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.live.Add(1)
	l.post(&mail{kind: mailAdopt, fd: int32(pair[0]), session: s})
	return os.NewFile(uintptr(pair[1]), "client")
}

func TestATurnStaysInItsBudget(t *testing.T) {
	structured := proto.Session{Framing: proto.Structured}
	file := fileDevice(t, 256<<20, unix.O_DIRECT)
	buffered := fileDevice(t, 256<<20, 0)
	buffered.Punch, buffered.ZeroRange = false, false // zeroes have to be written
	for name, c := range map[string]struct {
		device        *Device
		session       proto.Session
		clients, each int
		command       uint16
		length        uint64
	}{
		"holes, long":    {file, structured, 1, 20, proto.CmdRead, 4 << 20},
		"holes, longest": {file, structured, 2, 2, proto.CmdRead, 64 << 20},
		"holes, many":    {file, structured, 16, 60, proto.CmdRead, 64 << 10},
		"data, long":     {file, proto.Session{}, 2, 8, proto.CmdRead, 4 << 20},
		"memory, read":   {memoryDevice(t, 64<<20), structured, 2, 4, proto.CmdRead, 16 << 20},
		"memory, written": {memoryDevice(t, 64<<20), proto.Session{}, 2, 4, proto.CmdWrite,
			16 << 20},
		"memory, many": {memoryDevice(t, 64<<20), proto.Session{}, 8, 30, proto.CmdWrite,
			128 << 10},
		"zeroes to a file": {buffered, proto.Session{}, 2, 2, proto.CmdWriteZeroes, 32 << 20},
		"written through":  {buffered, proto.Session{}, 4, 20, proto.CmdWrite, 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			l := handTurned(t, c.device)
			var all sync.WaitGroup
			for range c.clients {
				f := adopted(t, l, c.session)
				all.Go(func() { askFor(t, f, c.command, c.length, c.each) })
				all.Go(func() {
					defer f.Close()
					for left := c.each; left > 0; {
						done, err := takeReply(f, c.session, c.command, c.length)
						if err != nil {
							t.Error(err)
							return
						}
						if done {
							left--
						}
					}
				})
			}
			most, turns := uint64(0), 0
			for begun := time.Now(); l.live.Load() > 0 || turns < 3; turns++ {
				l.turn()
				most = max(most, l.work)
				if time.Since(begun) > time.Minute {
					t.Fatal("not answered in a minute")
				}
			}
			all.Wait()
			// The budget, what went beyond it by one part, a part of the backlog, and a short
			// request of each.
			if may := uint64(maxWork + 2*pieceSize + c.clients*2*smallWork); most > may {
				t.Errorf("a turn did %d KiB of work; %d may be", most>>10, may>>10)
			}
			t.Logf("%d turns, at most %d KiB in one", turns, most>>10)
		})
	}
}

// askFor sends that many requests, one after the other.
func askFor(t *testing.T, f *os.File, command uint16, length uint64, requests int) {
	var wire []byte
	for i := range uint64(requests) {
		head := make([]byte, proto.RequestSize)
		proto.PutRequest(head,
			&proto.Request{Command: command, Cookie: i, Offset: i * length % (64 << 20),
				Length: length})
		wire = append(wire, head...)
		if command == proto.CmdWrite {
			wire = append(wire, bytes.Repeat([]byte{byte(i + 1)}, int(length))...)
		}
	}
	if _, err := f.Write(wire); err != nil {
		t.Error(err)
	}
}

// takeReply takes a reply, or a chunk of one: done says that it is the last.
func takeReply(f *os.File, s proto.Session, command uint16, length uint64) (done bool, err error) {
	head := make([]byte, proto.SimpleReplySize, proto.ChunkSize)
	if s.Framing == proto.Structured && command == proto.CmdRead {
		head = head[:proto.ChunkSize]
	}
	if _, err := io.ReadFull(f, head); err != nil {
		return false, err
	}
	n, done := int64(0), true
	if len(head) == proto.ChunkSize {
		k, err := proto.ParseReplyChunk(head)
		if err != nil {
			return false, err
		}
		n, done = int64(k.Length), k.Done()
	} else if command == proto.CmdRead {
		n = int64(length)
	}
	_, err = io.CopyN(io.Discard, f, n)
	return done, err
}

// TestMemoryThatCannotBeGivenBack is zeroed by writing: it is locked, and madvise refuses.
func TestMemoryThatCannotBeGivenBack(t *testing.T) {
	const size = 8 << 20
	d := memoryDevice(t, size)
	b := d.Memory.Bytes(0, size)
	if err := unix.Mlock(b); err != nil {
		t.Skipf("no right to lock %d bytes of memory: %v", size, err)
	}
	for i := range b {
		b[i] = 7
	}
	c := connect(t, startEngine(t, 1, d), 0)
	if e := c.call(proto.CmdTrim, 0, 0, 4096, nil); e != proto.Success {
		t.Errorf("TRIM: %v", e)
	}
	if e := c.call(proto.CmdWriteZeroes, proto.CmdFlagFastZero, 4096, 1<<20,
		nil); e != proto.ENOTSUP {
		t.Errorf("FAST_ZERO: %v", e)
	}
	if e := c.call(proto.CmdWriteZeroes, 0, 5000, size-10000, nil); e != proto.Success {
		t.Errorf("WRITE_ZEROES: %v", e)
	}
	got := make([]byte, size)
	if e := c.call(proto.CmdRead, 0, 0, size, got); e != proto.Success {
		t.Fatal(e)
	}
	want := bytes.Repeat([]byte{7}, size)
	clear(want[5000 : size-5000])
	if !bytes.Equal(got, want) {
		t.Error("what was to be zero is not, or more is")
	}
}
