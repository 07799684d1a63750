// Copies to servers that are not as one would like them: of few connections, with odd ends, that
// refuse or never answer.
//
// Invariant: a fake server's memory is what it was sent, whatever it answered.

package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

// fake is a server of one export, with structured replies and a map on which all is data.
type fake struct {
	flags    uint16
	block    uint32 // the smallest; 0: not told
	most     int    // connections; 0: any number
	patient  bool   // one that is too many is left waiting, not closed
	growing  bool   // every connection sees a larger export than the one before
	answer   func(command uint16) (errno proto.Errno, answered bool)
	mu       sync.Mutex
	memory   []byte
	opened   int
	commands map[uint16]int
	mapped   uint64 // how far the map was asked for
}

func (f *fake) serve(t *testing.T) string {
	t.Helper()
	f.commands = map[uint16]int{}
	return "nbd+unix:///?socket=" + testbed.Listen(t, f.connection)
}

// count is how many requests of a command have come.
func (f *fake) count(command uint16) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commands[command]
}

func be(values ...any) []byte {
	var b []byte
	for _, v := range values {
		if s, ok := v.(string); ok {
			v = []byte(s)
		}
		b, _ = binary.Append(b, binary.BigEndian, v)
	}
	return b
}

func (f *fake) connection(c net.Conn) {
	f.mu.Lock()
	f.opened++
	number := f.opened
	f.mu.Unlock()
	if f.most > 0 && number > f.most {
		if f.patient {
			_, _ = io.Copy(io.Discard, c)
		}
		return
	}
	_, _ = c.Write(be("NBDMAGICIHAVEOPT", uint16(3)))
	_, _ = io.CopyN(io.Discard, c, 4)
	size := uint64(len(f.memory))
	if f.growing {
		size -= uint64(f.most - number)
	}
	for {
		var head [16]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		option := binary.BigEndian.Uint32(head[8:])
		_, _ = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[12:])))
		rep := func(kind uint32, values ...any) []byte {
			data := be(values...)
			return be(uint64(0x3e889045565a9), option, kind, uint32(len(data)), data)
		}
		var b []byte
		switch option {
		case 7: // GO
			b = rep(3, uint16(0), size, f.flags)
			if f.block > 0 {
				b = append(b, rep(3, uint16(3), f.block, uint32(4096), uint32(32<<20))...)
			}
		case 8: // STRUCTURED_REPLY
		case 10: // SET_META_CONTEXT
			b = rep(4, uint32(7), proto.ContextAllocation)
		default:
			_, _ = c.Write(rep(1<<31 + 1))
			continue
		}
		_, _ = c.Write(append(b, rep(1)...))
		if option == 7 {
			f.transmit(c)
			return
		}
	}
}

func (f *fake) transmit(c net.Conn) {
	for {
		var head [28]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		command, cookie := binary.BigEndian.Uint16(head[6:]), binary.BigEndian.Uint64(head[8:])
		offset, length := binary.BigEndian.Uint64(head[16:]),
			uint64(binary.BigEndian.Uint32(head[24:]))
		var data []byte
		if command == proto.CmdWrite {
			data = make([]byte, length)
			_, _ = io.ReadFull(c, data)
		}
		chunk := func(kind uint16, values ...any) []byte {
			data := be(values...)
			return be(uint32(0x668e33ef), uint16(1), kind, cookie, uint32(len(data)), data)
		}
		errno, answered := proto.Success, true
		if f.answer != nil {
			errno, answered = f.answer(command)
		}
		f.mu.Lock()
		f.commands[command]++
		b := chunk(0)
		switch {
		case errno != proto.Success:
			b = chunk(0x8001, uint32(errno), uint16(0))
		case command == proto.CmdRead:
			b = chunk(1, offset, f.memory[offset:offset+length])
		case command == proto.CmdWrite:
			copy(f.memory[offset:], data)
		case command == proto.CmdWriteZeroes:
			clear(f.memory[offset : offset+length])
		case command == proto.CmdBlockStatus:
			f.mapped = max(f.mapped, offset+length)
			b = chunk(5, uint32(7), uint32(length), uint32(0))
		}
		f.mu.Unlock()
		if command == proto.CmdDisc {
			return
		}
		if !answered {
			continue
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// sparse is a file of a MiB whose second half is a hole.
func sparse(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source")
	b := make([]byte, 512<<10)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	if err := errors.Join(os.WriteFile(path, b, 0o666), os.Truncate(path, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return path
}

// has compares a file with the front of the server's memory.
func (f *fake) has(t *testing.T, path string) {
	t.Helper()
	want, err := os.ReadFile(path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || !bytes.Equal(f.memory[:len(want)], want) {
		t.Errorf("the server has something else than %s (%v)", path, err)
	}
}

// junk is what was on a disk before.
func junk(size int) []byte { return bytes.Repeat([]byte{'j'}, size) }

const writable = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendWriteZeroes

func TestFewerConnectionsThanWanted(t *testing.T) {
	source := sparse(t)
	for _, patient := range []bool{false, true} {
		f := &fake{flags: writable | proto.FlagCanMultiConn, memory: junk(1 << 20), most: 2,
			patient: patient}
		o := options(t, source, f.serve(t))
		o.Connections, o.Verify, o.Timeout = 4, true, 2*time.Second
		began := time.Now()
		if _, err := Run(context.Background(), o); err != nil {
			t.Errorf("patient %v: %v", patient, err)
		}
		f.has(t, source)
		took := time.Since(began)
		f.mu.Lock()
		if f.opened != 4 || took > 20*time.Second {
			t.Errorf("patient %v: %d connections, in %v", patient, f.opened, took)
		}
		f.mu.Unlock()
	}
}

func TestConnectionsAreOfOneExport(t *testing.T) {
	f := &fake{flags: writable | proto.FlagCanMultiConn, memory: junk(2 << 20), most: 2,
		growing: true}
	if _, err := Run(context.Background(), options(t, sparse(t), f.serve(t))); err == nil ||
		!strings.Contains(err.Error(),
			"connection 2 sees another export than the first: 2097152 bytes, not 2097151") {
		t.Errorf("%v", err)
	}
	f.has(t, writeJunk(t)) // nothing was written
}

func writeJunk(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(path, junk(2<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConnectingCanBeInterrupted(t *testing.T) {
	f := &fake{flags: writable | proto.FlagCanMultiConn, memory: junk(1 << 20), most: 1,
		patient: true}
	o := options(t, sparse(t), f.serve(t))
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, o); err == nil ||
		!strings.HasSuffix(err.Error(), "interrupted while connecting") {
		t.Errorf("%v", err)
	}
}

// A destination may be larger than the source, and have an end that no request can reach.
func TestADestinationWithAnOddEnd(t *testing.T) {
	source := sparse(t)
	f := &fake{flags: writable, memory: junk(2_000_003), block: 512}
	o := options(t, source, f.serve(t))
	o.Verify = true
	if _, err := Run(context.Background(), o); err != nil {
		t.Error(err)
	}
	f.has(t, source)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mapped != 1<<20 {
		t.Errorf("the map was asked for up to %d", f.mapped)
	}
}

func TestZeroesThatAreRefusedAreWritten(t *testing.T) {
	source := sparse(t)
	for errno, written := range map[proto.Errno]bool{proto.ENOTSUP: true, proto.EINVAL: true,
		proto.EIO: false, proto.ENOSPC: false} {
		f := &fake{flags: writable, memory: junk(1 << 20),
			answer: func(command uint16) (proto.Errno, bool) {
				if command == proto.CmdWriteZeroes {
					return errno, true
				}
				return proto.Success, true
			}}
		_, err := Run(context.Background(), options(t, source, f.serve(t)))
		if (err == nil) != written ||
			err != nil && !strings.Contains(err.Error(), "to WRITE_ZEROES") {
			t.Errorf("%v: %v", errno, err)
		}
		if written {
			f.has(t, source)
		}
	}
}

func TestAnInterruptedCopyWaitsAtMostTimeout(t *testing.T) {
	source := sparse(t)
	for _, silent := range []uint16{proto.CmdWriteZeroes, proto.CmdFlush} {
		ctx, cancel := context.WithCancel(context.Background())
		f := &fake{flags: writable, memory: junk(1 << 20),
			answer: func(command uint16) (proto.Errno, bool) {
				if command == silent {
					cancel()
				}
				return proto.Success, command != silent
			}}
		o := options(t, source, f.serve(t))
		o.Timeout = time.Second
		began := time.Now()
		gone := make(chan error, 1)
		go func() {
			_, err := Run(ctx, o)
			gone <- err
		}()
		select {
		case err := <-gone:
			if d := time.Since(began); !errors.Is(err, ErrUnanswered) ||
				!errors.Is(err, ErrInterrupted) || d < o.Timeout {
				t.Errorf("%d: %v, after %v", silent, err, d)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%d: goes on", silent)
		}
		cancel()
	}
}

// What is answered within the time ends an interrupted copy in order, state and all.
func TestAnInterruptedCopyWaitsForAnswers(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source") // zeroes, and then data
	if err := os.WriteFile(source, append(make([]byte, 512<<10), junk(512<<10)...),
		0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f := &fake{flags: writable, memory: junk(1 << 20),
		answer: func(command uint16) (proto.Errno, bool) {
			if command == proto.CmdWriteZeroes {
				cancel()
				time.Sleep(300 * time.Millisecond)
			}
			return proto.Success, true
		}}
	o := options(t, source, f.serve(t))
	o.Resume, o.Requests, o.Connections = filepath.Join(t.TempDir(), "state"), 1, 1
	_, err := Run(ctx, o)
	s, bad := loadState(o.Resume)
	if !errors.Is(err, ErrInterrupted) || errors.Is(err, ErrUnanswered) || bad != nil || s == nil ||
		len(s.Done) != 1 || s.Done[0].End < o.RequestSize {
		t.Errorf("%v; %+v, %v", err, s, bad)
	}
	if f.count(proto.CmdFlush) != 1 {
		t.Errorf("%d FLUSH", f.count(proto.CmdFlush))
	}
}
