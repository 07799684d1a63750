// How operations reach the kernel: trials that learn, and quotas that leave workers for the next
// device.

package engine

import (
	"io"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// TestTrialsAreLeftOutWhereTheyAreInVain checks that storage which refuses each trial is tried
// rarely, and always again after a trial that it did not refuse.
func TestTrialsAreLeftOutWhereTheyAreInVain(t *testing.T) {
	var x trial
	tried := 0
	for range 10_000 {
		if x.due() {
			tried++
			x.failed()
		}
	}
	if tried > 10_000/maxRest+20 {
		t.Errorf("%d of 10000 operations were tried, and refused", tried)
	}
	for x.due(); !x.due(); {
	}
	x.passed()
	for range 100 {
		if !x.due() {
			t.Fatal("an operation was not tried although the last that was had passed")
		}
	}
	for range 100 { // one in two: an ordinary sparse image
		x.failed()
		x.passed()
	}
	if !x.due() {
		t.Error("single refusals are taken for a rule")
	}
}

// TestQuotasLeaveWorkersForTheNext checks that beside 140 devices that hang with all the workers
// that they may have, there are some for another device; and that a device always gets one, if only
// from the kernel's queue, because a parked segment is issued only when a worker of its device
// comes back.
func TestQuotasLeaveWorkersForTheNext(t *testing.T) {
	l := &loop{workers: workers{quota: 8}} // on two cores
	for device := range 500 {
		var working uint32
		for working < l.quotaOf() {
			working++
			l.working++
		}
		if working == 0 || device < 141 && l.working > maxWorkers {
			t.Fatalf("device %d gets %d workers, with %d of %d taken", device, working, l.working,
				maxWorkers)
		}
	}
	quota := deviceQuota()
	if most := workersOf(1, quota); most < quota+ownWorkers ||
		workersOf(100_000, quota) != maxWorkers {
		t.Errorf("a ring with one device may have %d workers", most)
	}
}

// TestWayToTheKernel checks that an operation that may put the loop to sleep is never tried.
func TestWayToTheKernel(t *testing.T) {
	l := &loop{clock: clock{now: 10 * hangsNanos}}
	late := staff{flying: 1, moved: 10*hangsNanos - hangsNanos - 1}
	slow := staff{flying: 1, moved: 10*hangsNanos - hangsNanos}
	for _, c := range []struct {
		name   string
		staff  staff
		device *Device
		reads  bool
		flags  uint32
		worker bool
	}{
		{"a disk", staff{}, &Device{Direct: true}, true, unix.RWF_NOWAIT, false},
		{"the page cache, read", staff{}, &Device{}, true, 0, false},
		{"the page cache, written", staff{}, &Device{}, false, unix.RWF_NOWAIT, false},
		{"FUSE", staff{}, &Device{Waits: true, Direct: true}, true, 0, true},
		{"FUSE, through the page cache", staff{}, &Device{Waits: true}, true, 0, true},
		{"a disk that has answered nothing for long", late, &Device{Direct: true}, true, 0, true},
		{"a disk that is slow", slow, &Device{Direct: true}, true, unix.RWF_NOWAIT, false},
	} {
		row := deviceRow{device: c.device, staff: c.staff}
		if flags, worker := l.wayOf(&row, c.reads); flags != c.flags || worker != c.worker {
			t.Errorf("%s: flags %#x, worker %t", c.name, flags, worker)
		}
	}
}

// stopsEarly is a kernel that does a page of each operation, unless a worker has it, as if it had
// to wait for dirty pages after each.
type stopsEarly struct{ Kernel }

func (k stopsEarly) Reap(into []uring.CQE) int {
	n := k.Kernel.Reap(into)
	for i := range into[:n] {
		tok := token(into[i].UserData)
		if tok.kind() == onDisk && tok.part()&viaWorker == 0 {
			into[i].Res = min(into[i].Res, pageSize)
		}
	}
	return n
}

// TestWhatStopsEarlyGoesToAWorker checks that a request is not given up because each page of it is
// a try.
func TestWhatStopsEarlyGoesToAWorker(t *testing.T) {
	const length = 16 << 20
	l := handTurned(t, fileDevice(t, length, 0))
	l.kernel = stopsEarly{l.kernel}
	f := adopted(t, l, proto.Session{})
	for _, command := range []uint16{proto.CmdWrite, proto.CmdRead} {
		go askFor(t, f, command, length, 1)
		var replied atomic.Bool
		go func() {
			defer replied.Store(true)
			head := make([]byte, proto.SimpleReplySize)
			_, err := io.ReadFull(f, head)
			_, errno, _ := proto.ParseSimpleReply(head)
			if err == nil && errno == proto.Success && command == proto.CmdRead {
				_, err = io.CopyN(io.Discard, f, length)
			}
			if err != nil || errno != proto.Success {
				t.Errorf("command %d: %v, %v", command, errno, err)
			}
		}()
		for !replied.Load() {
			l.more = true // it does not sleep
			l.turn()
		}
	}
	_ = f.Close()
	for l.live.Load() > 0 {
		l.turn()
	}
}

// refusesAll is a kernel that does nothing at once, and says so with an error.
type refusesAll struct {
	Kernel
	with unix.Errno
}

func (k refusesAll) Reap(into []uring.CQE) int {
	n := k.Kernel.Reap(into)
	for i := range into[:n] {
		if tok := token(into[i].UserData); tok.kind() == onDisk && tok.part()&viaWorker == 0 {
			into[i].Res = -int32(k.with)
		}
	}
	return n
}

// TestWhatIsRefusedAfterTheCutIsDropped checks that an operation that was refused after its
// connection was cut does not wait for a worker of storage that hangs, and the connection with it.
func TestWhatIsRefusedAfterTheCutIsDropped(t *testing.T) {
	l := handTurned(t, fileDevice(t, 1<<20, unix.O_DIRECT))
	l.kernel = refusesAll{l.kernel, unix.EAGAIN}
	asking(t, l, 0, 4096, 1)
	for l.devices[0].flying == 0 {
		l.turn()
	}
	hang := l.quotaOf()
	l.tolerate() // workers are taken, and by no request
	l.devices[0].working, l.working = hang, hang
	l.fail(0, CloseForced)
	for range 10 {
		l.more = true // it does not sleep
		l.turn()
	}
	if l.conns[0].state != connFree {
		t.Error("a connection that was cut waits for a worker")
	}
	l.devices[0].working, l.working = 0, 0
	l.issueParked(0)
}

// TestWhatIsRefusedGoesToAWorker checks both refusals: the kernel would have to wait, or the file
// system does not know the flag of a trial, which is not an error of the request.
func TestWhatIsRefusedGoesToAWorker(t *testing.T) {
	for name, refusal := range map[string]unix.Errno{
		"it would wait":         unix.EAGAIN,
		"the flag is not known": unix.EOPNOTSUPP,
	} {
		t.Run(name, func(t *testing.T) {
			l := handTurned(t, fileDevice(t, 1<<20, unix.O_DIRECT))
			l.kernel = refusesAll{l.kernel, refusal}
			f := asking(t, l, 0, 0, 0)
			for _, command := range []uint16{proto.CmdWrite, proto.CmdRead} {
				askFor(t, f, command, 4096, 1)
				for n := l.counters.Sends; l.counters.Sends == n || l.conns[0].sending; {
					l.turn()
				}
				if errno := simpleReply(t, f); errno != proto.Success {
					t.Errorf("command %d: %v", command, errno)
				}
				if x := l.devices[0].trials[way(command == proto.CmdRead)]; x.refused != 1 {
					t.Errorf("command %d: %d trials were refused", command, x.refused)
				}
			}
		})
	}
}

// TestWhatIsParkedLeavesWithItsConnection checks that where storage that hangs has all its workers,
// a connection that is cut gives its row, tags and memory back at once. Segments of other
// connections stay where they were.
func TestWhatIsParkedLeavesWithItsConnection(t *testing.T) {
	d := fileDevice(t, 16<<20, unix.O_DIRECT)
	d.Waits = true // nothing is tried
	l := handTurned(t, d)
	q, hang := &l.devices[0], l.quotaOf()
	l.tolerate() // workers are taken, and by no request
	q.working, l.working = hang, hang
	settled := func(requests uint64) {
		for l.counters.Requests[proto.CmdRead] < requests || l.backlog.n > 0 {
			l.more = true // it does not sleep
			l.turn()
		}
	}
	f := asking(t, l, 0, 4096, 1)
	settled(1)
	first := q.parked.head
	asking(t, l, 1, 4*pieceSize, 2)
	settled(3)
	askFor(t, f, proto.CmdRead, 4096, 1)
	settled(4)
	if n := l.conns[1].inflight; n != 2 || l.leases.used[large] == 0 || first == none {
		t.Fatalf("%d requests of the connection are parked", n)
	}
	l.fail(1, CloseForced)
	for range 10 {
		l.more = true // it does not sleep
		l.turn()
	}
	c := &l.conns[1]
	if c.state != connFree || c.inflight != 0 || l.leases.used[large] != 0 {
		t.Errorf("a connection that was cut waits for a worker, with %d tags and %d bytes",
			c.inflight, l.leases.used[large])
	}
	last := l.tags[first].next
	if q.parked != (list{first, last}) || last == none || l.tags[last].conn != 0 {
		t.Error("what another waits for is not where it was")
	}
	q.working, l.working = 0, 0
	for l.issueParked(0); l.conns[0].inflight > 0; {
		l.turn()
	}
}
