// Requests in parts: what a client sees of a server that has not the memory to serve them at once.

package engine

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

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
		c.send(proto.Request{Cookie: uint64(i), Command: proto.CmdRead, Offset: uint64(i) * 1111, Length: n}, nil)
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
		t.Errorf("behind what could be read: %d bytes, %v", n, err)
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
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 3 << 20, Max: usual.Max}); err != nil {
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
		t.Errorf("the connection is not in step behind a WRITE that failed: %v", errno)
	}
}
