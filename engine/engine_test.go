// The engine on the real kernel: sockets are socketpairs, devices are a null export, memory, and
// files in a temporary directory.

package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

const allFlags = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA |
	proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagSendFastZero | proto.FlagCanMultiConn

func factsOf(d *Device) proto.Facts {
	return proto.Facts{Size: d.Size, MinBlock: 1, MaxPayload: MaxRequest, Flags: allFlags}
}

func nullDevice(size uint64) *Device { return &Device{Kind: Null, FD: -1, Size: size, Block: 1} }

func memoryDevice(t testing.TB, size uint64) *Device {
	t.Helper()
	a, err := uring.NewArena(int(size), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return &Device{Kind: Memory, FD: -1, Size: size, Block: 1, Memory: a}
}

// fileDevice is a file in the test's directory, opened O_DIRECT or, with flags 0, through the page
// cache.
func fileDevice(t testing.TB, size int64, flags int) *Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	d := &Device{Kind: File, FD: fd, Size: uint64(size), Block: 512, Direct: true, Punch: true,
		ZeroRange: true, FastZero: true}
	if flags == 0 {
		d.Direct, d.Cached, d.Block = false, true, 1
	}
	return d
}

func startEngine(t testing.TB, loops int, devices ...*Device) *Engine {
	t.Helper()
	c := Config{Loops: loops, MaxConnections: 64 * loops}
	c.Memory = AmpleMemory(c) + uint64(loops)*(32<<20)
	return start(t, c, devices...)
}

// start makes an engine of any shape, closed with the test.
func start(t testing.TB, c Config, devices ...*Device) *Engine {
	t.Helper()
	var exports []Export
	for _, d := range devices {
		exports = append(exports, Export{Facts: factsOf(d), Device: d})
	}
	e, err := Start(c, exports)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// counted returns the engine's counters.
func counted(t testing.TB, e *Engine) Counters {
	t.Helper()
	c, ok := e.Counters()
	if !ok {
		t.Fatal("a loop does not answer")
	}
	return c
}

// client is the other end of a socketpair.
type client struct {
	t  testing.TB
	fd *os.File
}

func connect(t testing.TB, e *Engine, export int) *client {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Adopt(pair[0], e.IDs()[export], proto.Session{}); err != nil {
		t.Fatal(err)
	}
	c := &client{t, os.NewFile(uintptr(pair[1]), "client")}
	t.Cleanup(func() { _ = c.fd.Close() })
	return c
}

func (c *client) send(r proto.Request, payload []byte) {
	c.t.Helper()
	b := make([]byte, proto.RequestSize, proto.RequestSize+len(payload))
	proto.PutRequest(b, &r)
	if _, err := c.fd.Write(append(b, payload...)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) reply(data []byte) (uint64, proto.Errno) {
	c.t.Helper()
	var b [proto.SimpleReplySize]byte
	c.read(b[:])
	cookie, errno, err := proto.ParseSimpleReply(b[:])
	if err != nil {
		c.t.Fatal(err)
	}
	if errno == proto.Success {
		c.read(data)
	}
	return cookie, errno
}

func (c *client) read(b []byte) {
	c.t.Helper()
	for len(b) > 0 {
		n, err := c.fd.Read(b)
		if err != nil {
			c.t.Fatalf("reading a reply: %v", err)
		}
		b = b[n:]
	}
}

// call sends one request and waits for its reply.
func (c *client) call(command, flags uint16, off, n uint64, data []byte) proto.Errno {
	c.t.Helper()
	r := proto.Request{Cookie: rand.Uint64(), Offset: off, Length: n, Command: command,
		Flags: flags}
	var payload, answer []byte
	if command == proto.CmdWrite {
		payload = data
	} else {
		answer = data
	}
	c.send(r, payload)
	cookie, errno := c.reply(answer)
	if cookie != r.Cookie {
		c.t.Fatalf("reply carries cookie %x, want %x", cookie, r.Cookie)
	}
	return errno
}

// TestReadsWhatWasWritten drives every kind of device with unaligned and long requests against a
// model in memory.
func TestReadsWhatWasWritten(t *testing.T) {
	const size = 80 << 20
	ample := Config{Loops: 1, MaxConnections: 8}
	scanty, plain := ample, ample
	ample.Memory, scanty.Memory = AmpleMemory(ample), MinMemory(ample)
	plain.Memory, plain.Register = ample.Memory, RegisterOff
	for _, run := range []struct {
		name   string
		config Config
		device *Device
	}{
		{"memory", ample, memoryDevice(t, size)},
		{"file", ample, fileDevice(t, size, unix.O_DIRECT)},
		{"cached file", ample, fileDevice(t, size, 0)},
		{"memory, in parts", scanty, memoryDevice(t, size)},
		{"file, in parts", scanty, fileDevice(t, size, unix.O_DIRECT)},
		{"file, not registered", plain, fileDevice(t, size, unix.O_DIRECT)},
	} {
		t.Run(run.name, func(t *testing.T) {
			readsWhatWasWritten(t, start(t, run.config, run.device), size)
		})
	}
}

func readsWhatWasWritten(t *testing.T, e *Engine, size int) {
	c := connect(t, e, 0)
	model := make([]byte, size)
	random := rand.New(rand.NewPCG(1, 2))
	lengths := []int{1, 511, 512, 513, 4096, 5000, 65536, 131072 + 28, 1 << 20, 1<<20 + 1, 3 << 20,
		32 << 20}
	for i := range 150 {
		n := lengths[random.IntN(len(lengths))]
		if n >= 3<<20 && i%10 != 0 {
			n = 1 + random.IntN(1<<16)
		}
		off := random.IntN(size - n)
		region := model[off : off+n]
		var errno proto.Errno
		switch i % 5 {
		case 0, 1:
			for j := 0; j < len(region); j += 8 {
				var b [8]byte
				binary.BigEndian.PutUint64(b[:], random.Uint64())
				copy(region[j:], b[:])
			}
			errno = c.call(proto.CmdWrite, uint16(i%2)*proto.CmdFlagFUA, uint64(off), uint64(n),
				region)
		case 2:
			clear(region)
			errno = c.call(proto.CmdWriteZeroes, uint16(random.IntN(2))*proto.CmdFlagNoHole,
				uint64(off), uint64(n), nil)
		default:
			got := make([]byte, n)
			errno = c.call(proto.CmdRead, 0, uint64(off), uint64(n), got)
			if !bytes.Equal(got, region) {
				t.Fatalf("request %d: %d bytes at %d differ from what was written", i, n, off)
			}
		}
		if errno != proto.Success {
			t.Fatalf("request %d: %v", i, errno)
		}
	}
	if errno := c.call(proto.CmdFlush, 0, 0, 0, nil); errno != proto.Success {
		t.Fatal(errno)
	}
	whole := make([]byte, 32<<20)
	for off := 0; off < size; off += len(whole) {
		n := min(len(whole), size-off)
		if errno := c.call(proto.CmdRead, 0, uint64(off), uint64(n),
			whole[:n]); errno != proto.Success || !bytes.Equal(whole[:n], model[off:off+n]) {
			t.Fatalf("the image differs from the model behind %d (%v)", off, errno)
		}
	}
}

// TestNullExport checks that reads are zeroes of any length, and that writes are taken in full and
// dropped.
func TestNullExport(t *testing.T) {
	e := startEngine(t, 1, nullDevice(1<<40))
	c := connect(t, e, 0)
	data := bytes.Repeat([]byte{0xaa}, 32<<20)
	for _, n := range []uint64{1, 4096, 1<<20 + 7, 32 << 20} {
		if errno := c.call(proto.CmdWrite, proto.CmdFlagFUA, 1<<39, n,
			data[:n]); errno != proto.Success {
			t.Fatal(errno)
		}
		got := bytes.Repeat([]byte{0xbb}, int(n))
		if errno := c.call(proto.CmdRead, 0, 1<<39, n, got); errno != proto.Success ||
			bytes.Count(got, []byte{0}) != int(n) {
			t.Fatalf("a read of %d bytes is not all zeroes (%v)", n, errno)
		}
	}
	for _, command := range []uint16{proto.CmdFlush, proto.CmdTrim, proto.CmdWriteZeroes} {
		n := uint64(1 << 31)
		if command == proto.CmdFlush {
			n = 0
		}
		if errno := c.call(command, 0, 0, n, nil); errno != proto.Success {
			t.Fatalf("command %d: %v", command, errno)
		}
	}
}

// TestDrain checks that a shutdown answers, refuses, closes and flushes.
func TestDrain(t *testing.T) {
	e := startEngine(t, 2, fileDevice(t, 1<<20, unix.O_DIRECT))
	c := connect(t, e, 0)
	if errno := c.call(proto.CmdWrite, 0, 0, 512, make([]byte, 512)); errno != proto.Success {
		t.Fatal(errno)
	}
	idle := connect(t, e, 0)
	_ = idle
	if err := e.Drain(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if n := e.Connections(); n != 0 {
		t.Fatalf("%d connections are left after a drain", n)
	}
	if err := e.Adopt(0, e.IDs()[0], proto.Session{}); err == nil {
		t.Fatal("a draining engine took another connection")
	}
}

// TestDrainEndsWhatNeverEnds checks that a payload that drips in, and a client that asks on and on,
// have their grace and no more, and that this is an orderly end. Requests that were taken in before
// are answered.
func TestDrainEndsWhatNeverEnds(t *testing.T) {
	for name, insist := range map[string]func(*client) error{
		"a payload into its lease": func(c *client) error { return c.drip(8 << 20) },
		"a payload into a stage":   func(c *client) error { return c.drip(64 << 10) },
		"requests":                 (*client).insist,
	} {
		t.Run(name, func(t *testing.T) {
			e := startEngine(t, 1, memoryDevice(t, 16<<20))
			c := connect(t, e, 0)
			c.send(proto.Request{Cookie: 5, Command: proto.CmdFlush}, nil)
			ended := make(chan error, 1)
			go func() { ended <- insist(c) }()
			for deadline := time.Now().Add(5 * time.Second); counted(t,
				e).Requests[proto.CmdFlush] == 0; {
				if time.Now().After(deadline) {
					t.Fatal("the request was not taken in")
				}
			}
			if err := e.Drain(time.Minute); err != nil {
				t.Fatal(err)
			}
			if n := e.Connections(); n != 0 {
				t.Fatalf("%d connections are left after a drain", n)
			}
			if err := <-ended; !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the client was stopped by %v", err)
			}
			if name == "requests" {
				return // whose replies have been read
			}
			if cookie, errno := c.reply(nil); cookie != 5 || errno != proto.Success {
				t.Errorf("cookie %d: %v", cookie, errno)
			}
		})
	}
}

// drip begins a WRITE and sends its payload byte by byte, until that fails.
func (c *client) drip(n int) error {
	c.send(proto.Request{Cookie: 6, Command: proto.CmdWrite, Length: uint64(n)}, nil)
	for {
		if _, err := c.fd.Write([]byte{7}); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// insist sends one request after the other, whatever is answered, until that fails.
func (c *client) insist() error {
	go func() { _, _ = io.Copy(io.Discard, c.fd) }() // to take no replies is another matter
	q := make([]byte, proto.RequestSize)
	proto.PutRequest(q, &proto.Request{Cookie: 6, Command: proto.CmdFlush})
	for {
		if _, err := c.fd.Write(q); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}
