// Requests in parts: what a client sees of a server that has not the memory to serve them at once.

package engine

import (
	"bytes"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// scantyEngine has the least memory there is.
func scantyEngine(t *testing.T, devices ...*Device) *Engine {
	c := Config{Loops: 1, MaxConnections: 8}
	c.Memory = MinMemory(c)
	return start(t, c, devices...)
}

// TestManyLongRequestsInParts pipelines long requests among short ones: every reply is whole and in
// its place.
func TestManyLongRequestsInParts(t *testing.T) {
	const size = 32 << 20
	c := connect(t, scantyEngine(t, fileDevice(t, size, unix.O_DIRECT)), 0)
	whole := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuv"), size/32)
	if errno := c.call(proto.CmdWrite, 0, 0, size, whole); errno != proto.Success {
		t.Fatal(errno)
	}
	lengths := []uint64{4096, 5<<20 + 77, 512, 1<<20 + 1, 8 << 20, 100, 3 << 20, 2<<20 - 1, 4096}
	for i, n := range lengths {
		c.send(proto.Request{Cookie: uint64(i), Command: proto.CmdRead, Offset: uint64(i) * 1111,
			Length: n}, nil)
	}
	for range lengths {
		var head [proto.SimpleReplySize]byte
		c.read(head[:])
		cookie, errno, err := proto.ParseSimpleReply(head[:])
		if err != nil || errno != proto.Success || cookie >= uint64(len(lengths)) {
			t.Fatal(cookie, errno, err)
		}
		data := make([]byte, lengths[cookie])
		c.read(data)
		if !bytes.Equal(data, whole[cookie*1111:][:len(data)]) {
			t.Fatalf("request %d brings other bytes", cookie)
		}
	}
}

// TestFailureWithinParts truncates the file: a WRITE has one reply, with the error, and keeps the
// connection; the simple reply of a READ has promised the data, so that the connection ends.
func TestFailureWithinParts(t *testing.T) {
	const size = 8 << 20
	d := fileDevice(t, size, unix.O_DIRECT)
	e := scantyEngine(t, d)
	c := connect(t, e, 0)
	if err := unix.Ftruncate(d.FD, 2<<20); err != nil {
		t.Fatal(err)
	}
	if errno := c.call(proto.CmdRead, 0, 2<<20, 4<<20, make([]byte, 4<<20)); errno != proto.EIO {
		t.Errorf("a READ whose first part fails: %v", errno)
	}
	c.send(proto.Request{Cookie: 1, Command: proto.CmdRead, Length: 4 << 20}, nil)
	data := make([]byte, proto.SimpleReplySize+2<<20)
	c.read(data)
	if n, err := c.fd.Read(data[:1]); n != 0 || err == nil {
		t.Errorf("after what could be read: %d bytes, %v", n, err)
	}
	if n := counted(t, e).Closed[CloseTorn]; n != 1 {
		t.Errorf("%d connections were torn", n)
	}

	d.ReadOnly = false
	w := connect(t, e, 0)
	var usual unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &usual); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE,
		&unix.Rlimit{Cur: 3 << 20, Max: usual.Max}); err != nil {
		t.Fatal(err)
	}
	errno := w.call(proto.CmdWrite, 0, 1<<20, 6<<20, make([]byte, 6<<20))
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &usual); err != nil {
		t.Fatal(err)
	}
	if errno == proto.Success {
		t.Error("a WRITE whose later parts fail succeeded")
	}
	if errno := w.call(proto.CmdRead, 0, 0, 4096, make([]byte, 4096)); errno != proto.Success {
		t.Errorf("the connection is not in step after a WRITE that failed: %v", errno)
	}
}

// failsNth is a kernel that does whole writes, but for the nth, which finds no space.
type failsNth struct {
	Kernel
	done, n int
}

func (k *failsNth) Reap(into []uring.CQE) int {
	n := k.Kernel.Reap(into)
	for i := range into[:n] {
		if token(into[i].UserData).kind() != onDisk || into[i].Res < 0 {
			continue
		}
		if k.done++; k.done == k.n {
			into[i].Res = -int32(unix.ENOSPC)
		}
	}
	return n
}

// TestFailureOfAnyPartIsTold: the reply of a WRITE in parts has the error of the part that failed,
// whichever that was, and nothing after it is written.
func TestFailureOfAnyPartIsTold(t *testing.T) {
	const parts = 4
	d := fileDevice(t, parts*pieceSize, unix.O_DIRECT)
	d.Waits = true // nothing is tried: a part is one write
	l := handTurned(t, d)
	l.layout.maxWhole = pieceSize
	k := &failsNth{Kernel: l.kernel}
	l.kernel = k
	f := asking(t, l, 0, 0, 0)
	for nth := 1; nth <= parts+1; nth++ {
		k.done, k.n = 0, nth
		want, writes := proto.ENOSPC, nth
		if nth > parts {
			want, writes = proto.Success, parts
		}
		replied := make(chan proto.Errno)
		go func() {
			askFor(t, f, proto.CmdWrite, parts*pieceSize, 1)
			replied <- simpleReply(t, f)
		}()
		for open := true; open; {
			select {
			case errno := <-replied:
				if open = false; errno != want || k.done != writes {
					t.Errorf("part %d of %d fails: %v after %d writes", nth, parts, errno, k.done)
				}
			default:
				l.more = true // it does not sleep
				l.turn()
			}
		}
	}
	if n := l.counters.Divided; n != parts+1 {
		t.Errorf("%d WRITEs were served in parts", n)
	}
}

// simpleReply is what the next reply says, which has no data.
func simpleReply(t *testing.T, f *os.File) proto.Errno {
	head := make([]byte, proto.SimpleReplySize)
	_, err := io.ReadFull(f, head)
	if err == nil {
		var errno proto.Errno
		if _, errno, err = proto.ParseSimpleReply(head); err == nil {
			return errno
		}
	}
	t.Error(err)
	return proto.EIO
}
