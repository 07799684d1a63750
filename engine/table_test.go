// Two exports of one device: what is by device is shared, what is by export is not.

package engine

import (
	"bytes"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

func TestTableListsEachDeviceOnce(t *testing.T) {
	shared, other := fileDevice(t, 1<<20, 0), nullDevice(1<<20)
	third := fileDevice(t, 1<<20, 0)
	s := newShared([]Export{{Device: shared}, {Device: other}, {Device: shared}, {Device: third}},
		1, 2)
	x := s.table
	if len(x.devices) != 3 || x.exports[0].dev != 0 || x.exports[1].dev != 1 ||
		x.exports[2].dev != 0 || x.exports[3].dev != 2 {
		t.Errorf("devices %v of exports %v", x.devices, x.exports)
	}
	if fds := x.files(6); !slices.Equal(fds, []int32{int32(shared.FD), int32(third.FD), -1, -1, -1,
		-1}) {
		t.Errorf("descriptors %v", fds)
	}
	if d := x.devices; d[0].file != 0 || d[1].file != none || d[2].file != 1 {
		t.Errorf("files %d, %d, %d", d[0].file, d[1].file, d[2].file)
	}
}

// TestTwoExportsOfADeviceShareItsGuard: connections to two exports, on two loops, write their own
// bytes of the same blocks; no byte is lost, although every write reads and writes whole blocks.
func TestTwoExportsOfADeviceShareItsGuard(t *testing.T) {
	const writers, rounds, span = 8, 100, 1000
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	e := startEngine(t, 2, d, d)
	var done sync.WaitGroup
	for w := range writers {
		c := connect(t, e, w/2%2) // loops take turns, and so each has both exports
		done.Go(func() {
			got, off := make([]byte, span), uint64(w*span+100)
			for i := range rounds {
				mine := bytes.Repeat([]byte{byte(w*31 + i)}, span)
				wrote := c.call(proto.CmdWrite, 0, off, span, mine)
				read := c.call(proto.CmdRead, 0, off, span, got)
				if wrote != proto.Success || read != proto.Success || !bytes.Equal(got, mine) {
					t.Errorf("writer %d, round %d: %v, %v", w, i, wrote, read)
					return
				}
			}
		})
	}
	done.Wait()
	if n := counted(t, e); n.Overlaps == 0 {
		t.Error("no write waited for another: the test is too tame")
	}
}

// TestTwoExportsOfADeviceShareItsFlushes: while an fsync is in flight, the flushes of both exports
// wait for one and the same next fsync.
func TestTwoExportsOfADeviceShareItsFlushes(t *testing.T) {
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	e := Export{Facts: factsOf(d), Device: d}
	c := Config{Loops: 1, MaxConnections: 4}
	l := handTurnedWith(t, c, AmpleMemory(c), e, e)
	var flushes [3]uint32
	for i := range flushes {
		conn := l.freeConn
		l.adopt(-1, uint32(i%2), proto.Session{}, nil)
		r := proto.Request{Command: proto.CmdFlush}
		flushes[i] = l.freeTag
		if !l.takeIn(conn, &r, proto.Success, portionWhole) {
			t.Fatal("a flush was not taken in")
		}
	}
	q := &l.devices[0]
	if len(l.devices) != 1 || q.flushing != (list{flushes[0], flushes[0]}) ||
		q.waiting != (list{flushes[1], flushes[2]}) || d.busy.Load() != 1 {
		t.Errorf("%d devices, %d operations; %v are flushed, %v wait", len(l.devices),
			d.busy.Load(), q.flushing, q.waiting)
	}
}

// TestSparePlacesStayWithinTheLimit: an engine with more exports than half of the descriptors that
// it may have open still starts, with fewer places to spare.
func TestSparePlacesStayWithinTheLimit(t *testing.T) {
	for _, c := range []struct {
		limit         uint64
		exports, want int
	}{{1024, 0, 512}, {1024, 600, 424}, {1024, 1024, 0}, {1024, 5000, 0}, {1 << 20, 1, maxSpare}} {
		if n := spareWithin(c.limit, c.exports); n != c.want {
			t.Errorf("%d exports of %d descriptors: %d to spare, not %d", c.exports, c.limit, n,
				c.want)
		}
	}
}
