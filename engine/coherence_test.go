// Two loops, several connections, one block: on the real kernel, with threads that really run at
// once.

package engine

import (
	"bytes"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// TestUnalignedWritersShareABlock checks that no byte is lost where eight connections on two loops
// write their own bytes of the same blocks, over and over, although every write reads and writes
// the whole block.
func TestUnalignedWritersShareABlock(t *testing.T) {
	const writers, rounds, span = 8, 150, 1000
	e := startEngine(t, 2, fileDevice(t, 1<<20, unix.O_DIRECT))
	var done sync.WaitGroup
	for w := range writers {
		c := connect(t, e, 0)
		done.Add(1)
		go func() {
			defer done.Done()
			mine := make([]byte, span)
			got := make([]byte, span)
			off := uint64(w*span + 100) // lanes of 1000 bytes: every block belongs to two writers
			for i := range rounds {
				for j := range mine {
					mine[j] = byte(w*31 + i + j)
				}
				half := uint64(span / 2)
				if e1, e2 := c.call(proto.CmdWrite, 0, off, half,
					mine[:half]),
					c.call(proto.CmdWrite, 0, off+half, half, mine[half:]); e1 != proto.Success ||
					e2 != proto.Success {
					t.Errorf("writer %d: %v %v", w, e1, e2)
					return
				}
				if errno := c.call(proto.CmdRead, 0, off, span, got); errno != proto.Success ||
					!bytes.Equal(got, mine) {
					t.Errorf("writer %d, round %d: its bytes are not what it wrote (%v)", w, i,
						errno)
					return
				}
			}
		}()
	}
	done.Wait()
	if n := counted(t, e); n.Overlaps == 0 || n.Unaligned == 0 {
		t.Errorf("%d writes overlapped and %d were unaligned: the test is too tame", n.Overlaps,
			n.Unaligned)
	}
}

// TestOverlappingWritesStayInOrder checks that of many writes to the same bytes that one connection
// has in flight, the last is what stays.
func TestOverlappingWritesStayInOrder(t *testing.T) {
	const depth, rounds = 64, 40
	e := startEngine(t, 2, fileDevice(t, 1<<20, unix.O_DIRECT))
	c := connect(t, e, 0)
	data := make([]byte, 5000)
	for round := range rounds {
		for i := range depth {
			for j := range data {
				data[j] = byte(round + i)
			}
			c.send(proto.Request{Cookie: uint64(i), Command: proto.CmdWrite, Offset: 700,
				Length: uint64(len(data))}, data)
		}
		for range depth {
			if _, errno := c.reply(nil); errno != proto.Success {
				t.Fatal(errno)
			}
		}
		got := make([]byte, len(data))
		if errno := c.call(proto.CmdRead, 0, 700, uint64(len(got)), got); errno != proto.Success ||
			!bytes.Equal(got, data) {
			t.Fatalf("round %d: the last write is not what stayed (%v): %d, want %d", round, errno,
				got[0], data[0])
		}
	}
}

// TestZeroesDoNotOvertakeTheirFollowers checks that a long WRITE_ZEROES that does not begin on a
// block, and gives up its range slice by slice, does not zero a write to its first bytes that
// arrived after it.
func TestZeroesDoNotOvertakeTheirFollowers(t *testing.T) {
	const length = 100 << 20
	for name, d := range map[string]*Device{"file": fileDevice(t, 128<<20, unix.O_DIRECT),
		"memory": memoryDevice(t, 128<<20)} {
		for _, flags := range []uint16{0, proto.CmdFlagFastZero} {
			e := startEngine(t, 2, d)
			c := connect(t, e, 0)
			for round := range 5 {
				data := bytes.Repeat([]byte{byte('A' + round)}, 100)
				c.send(proto.Request{Cookie: 1, Command: proto.CmdWriteZeroes, Flags: flags,
					Offset: 100, Length: length}, nil)
				c.send(proto.Request{Cookie: 2, Command: proto.CmdWrite, Offset: 100, Length: 100},
					data)
				for range 2 {
					if _, errno := c.reply(nil); errno != proto.Success {
						t.Fatal(errno)
					}
				}
				got := make([]byte, 100)
				if errno := c.call(proto.CmdRead, 0, 100, 100, got); errno != proto.Success ||
					!bytes.Equal(got, data) {
					t.Fatalf("%s, flags %#x, round %d: earlier zeroes stand where a later write "+
						"should (%v): %q", name, flags, round, errno, got[:10])
				}
			}
		}
	}
}

// TestFlushesOfTwoLoopsTakeTurns checks that only one fsync of a device is in flight: otherwise the
// kernel could report an error to one loop and success to another. Many flushes on two loops are
// all answered, and never two at once.
func TestFlushesOfTwoLoopsTakeTurns(t *testing.T) {
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 2, d)
	var done sync.WaitGroup
	for range 6 {
		c := connect(t, e, 0)
		done.Add(1)
		go func() {
			defer done.Done()
			for i := range 100 {
				if e1, e2 := c.call(proto.CmdWrite, 0, uint64(i)*512, 512,
					make([]byte, 512)), c.call(proto.CmdFlush, 0, 0, 0, nil); e1 != proto.Success ||
					e2 != proto.Success {
					t.Errorf("%v %v", e1, e2)
				}
			}
		}()
	}
	overlap := make(chan int32)
	stop := make(chan struct{})
	go func() {
		var highest int32
		for {
			select {
			case <-stop:
				overlap <- highest
				return
			default:
				highest = max(highest, d.busy.Load())
			}
		}
	}()
	done.Wait()
	close(stop)
	if highest := <-overlap; highest != 1 {
		t.Errorf("%d fsyncs were in flight at once, want 1", highest)
	}
}
