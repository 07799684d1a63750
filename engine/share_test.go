// Who waits for a turn gets it, though others spend the budget of each: that is a bound on what
// one turn does, not a wall before the clients that come second.

package engine

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// asking adopts a connection that has sent n READs, and may hold as much as it likes.
func asking(t *testing.T, l *loop, i uint32, length uint64, n int) *os.File {
	t.Helper()
	f := adopted(t, l, proto.Session{})
	t.Cleanup(func() {
		_ = f.Close()
		for l.fail(i, CloseForced); l.conns[i].state != connFree; l.turn() {
			l.more = true // it does not sleep
		}
	})
	for l.conns[i].state == connFree {
		l.turn()
	}
	c := &l.conns[i]
	l.ledger.accept(&c.account, c.export)
	c.tagCredit, c.credit = tagsPerConn, [regions]uint64{1 << 40, 1 << 40}
	askFor(t, f, proto.CmdRead, length, n)
	return f
}

// halfTurn is a turn up to where connections are fed: others have spent its budget.
func halfTurn(t *testing.T, l *loop) {
	t.Helper()
	time.Sleep(time.Millisecond)
	if err := l.kernel.Enter(0, -1); err != nil {
		t.Fatal(err)
	}
	n := l.kernel.Reap(l.cqes[:])
	l.beginTurn()
	l.work += maxWork
	for i := range l.cqes[:n] {
		l.record(&l.cqes[i])
	}
	l.settleAll()
}

// TestPassedOverConnectionComesFirst: a client that asks for 40 MiB does not keep another from 1.
func TestPassedOverConnectionComesFirst(t *testing.T) {
	l := handTurned(t, fileDevice(t, 64<<20, unix.O_DIRECT))
	asking(t, l, 0, 1<<20, 40)
	asking(t, l, 1, 1<<20, 1)
	for begun := time.Now(); l.conns[1].traffic.Reads == 0; l.turn() {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("not taken in")
		}
	}
	if n := l.conns[0].traffic.Reads; n > 4 {
		t.Errorf("%d requests of another were taken in before the first", n)
	}
}

// TestNextTurnBelongsToThePostponed: it does though each turn begins with what spends it.
func TestNextTurnBelongsToThePostponed(t *testing.T) {
	l := handTurned(t, memoryDevice(t, 8<<20))
	asking(t, l, 0, 1<<20, 1)
	for range 10 {
		halfTurn(t, l)
	}
	if l.counters.Requests[proto.CmdRead] == 0 {
		t.Error("a long READ is postponed for ever")
	}
}

// TestStarvingConnectionIsFedInABusyTurn: freed memory is offered to one connection at least.
func TestStarvingConnectionIsFedInABusyTurn(t *testing.T) {
	l := handTurned(t, fileDevice(t, 64<<20, unix.O_DIRECT))
	l.tolerate() // no tag is left, and none is held
	free := l.ledger.free.inflight
	l.ledger.free.inflight = 0
	for i := range uint32(2) {
		asking(t, l, i, 4096, 1)
	}
	for l.queue.waiting < 2 {
		l.turn()
	}
	l.ledger.free.inflight = free
	l.queue.freed(small)
	for turns := 1; turns <= 2; turns++ {
		l.beginTurn()
		l.work += maxWork
		l.feed(small)
		if n := l.counters.Requests[proto.CmdRead]; n != uint64(turns) {
			t.Errorf("%d of two that starve were fed in %d busy turns", n, turns)
		}
	}
}

// TestFedConnectionIsFedOnce: that it has waited excuses what it is fed with, and not what comes
// behind it.
func TestFedConnectionIsFedOnce(t *testing.T) {
	l := handTurned(t, fileDevice(t, 64<<20, unix.O_DIRECT))
	l.tolerate() // no tag is left, and none is held
	free := l.ledger.free.inflight
	l.ledger.free.inflight = 0
	asking(t, l, 0, 1<<20, 2)
	w := &l.queue.waiters[0]
	for !w.waits {
		l.turn()
	}
	l.ledger.free.inflight = free
	l.queue.freed(w.region)
	l.beginTurn()
	l.work += maxWork
	l.feed(w.region)
	l.settleAll()
	if n := l.counters.Requests[proto.CmdRead]; n != 1 {
		t.Errorf("%d long READs of a connection that starved were taken in, in a turn that was "+
			"spent", n)
	}
}

// TestOvertakersKeepTheirPlaces: in a line for much memory, those that would fit when the turn is
// over stand where they stood, and one goes all the same.
func TestOvertakersKeepTheirPlaces(t *testing.T) {
	l := handTurned(t, fileDevice(t, 128<<20, unix.O_DIRECT))
	l.tolerate() // memory is on lease to no request, and no tag is left
	whole := l.leases.free(large) - 16*pieceSize
	hold, ok := l.leases.take(large, whole)
	if !ok {
		t.Fatal("no memory")
	}
	asking(t, l, 0, MaxRequest, 1)
	free := l.ledger.free.inflight
	l.ledger.free.inflight = 0
	for i := range uint32(3) {
		asking(t, l, i+1, 2<<20, 1)
	}
	for i := range uint32(4) {
		for !l.queue.waits(i) {
			l.turn()
		}
	}
	l.ledger.free.inflight = free
	for turns := 1; turns <= 3; turns++ {
		l.queue.freed(large)
		l.beginTurn()
		l.work += maxWork
		l.feed(large)
		waiting := 0
		for i := range uint32(4) {
			if l.queue.waits(i) {
				waiting++
			}
		}
		if n := l.counters.Requests[proto.CmdRead]; n != uint64(turns) || waiting != 4-turns {
			t.Errorf("in turn %d %d have gone beside the first, and %d wait", turns, n, waiting)
		}
	}
	l.leases.give(hold)
}

// TestWaitingDoesNotAllocate: nor do turns in which requests are postponed, parked, tried again,
// served in parts, or starve.
func TestWaitingDoesNotAllocate(t *testing.T) {
	for name, arrange := range map[string]func(l *loop){
		"postponed":     func(*loop) {},
		"parked":        func(l *loop) { l.kernel, l.quota = refusesAll{l.kernel, unix.EAGAIN}, 1 },
		"stopped early": func(l *loop) { l.kernel = stopsEarly{l.kernel} },
		"in parts":      func(l *loop) { l.layout.maxWhole = pieceSize },
		"starved":       func(l *loop) { l.tolerate(); l.ledger.free.leased[large] = 5 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			const each, length = 4, 4 << 20
			l := handTurned(t, fileDevice(t, 32<<20, unix.O_DIRECT))
			arrange(l)
			f := asking(t, l, 0, 0, 0)
			fd := int(f.Fd())
			if err := unix.SetNonblock(fd, true); err != nil {
				t.Fatal(err)
			}
			var wire []byte
			for _, command := range []uint16{proto.CmdRead, proto.CmdWrite} {
				for i := range uint64(each) {
					r := proto.Request{Command: command, Offset: i * length, Length: length}
					head := make([]byte, proto.RequestSize)
					proto.PutRequest(head, &r)
					wire = append(append(wire, head...), make([]byte, r.Payload())...)
				}
			}
			in := make([]byte, 1<<20)
			round := func() {
				out, left := wire, 2*each*proto.SimpleReplySize+each*length
				for left > 0 {
					if n, err := unix.Write(fd, out); err == nil {
						out = out[n:]
					}
					l.more = true // it does not sleep
					l.turn()
					if n, err := unix.Read(fd, in); err == nil {
						left -= n
					}
				}
			}
			round()
			if allocs := testing.AllocsPerRun(3, round); allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
			c := &l.counters
			t.Logf("%d starved, %d in parts, %d turns", c.Starved, c.Divided, c.Turns)
			if name == "starved" && c.Starved == 0 || name == "in parts" && c.Divided == 0 {
				t.Error("it was not put to the test")
			}
		})
	}
}

// starving is a loop with a connection that has taken nothing yet and waits for a tag, as the first
// of its line.
func starving(t *testing.T) *loop {
	t.Helper()
	l := handTurned(t, fileDevice(t, 1<<20, unix.O_DIRECT))
	l.tolerate() // no tag is left, and none is held
	free := l.ledger.free.inflight
	l.ledger.free.inflight = 0
	t.Cleanup(func() { l.ledger.free.inflight = free })
	f := adopted(t, l, proto.Session{})
	t.Cleanup(func() { _ = f.Close() })
	askFor(t, f, proto.CmdRead, 4096, 1)
	for !l.queue.waits(0) {
		l.turn()
	}
	t.Cleanup(func() {
		for l.fail(0, CloseForced); l.conns[0].state != connFree; l.turn() {
			l.more = true // it does not sleep
		}
	})
	return l
}

// TestConnectionThatChangesLinesHasWaitedAsLong: connections that stand still may be closed for it.
func TestConnectionThatChangesLinesHasWaitedAsLong(t *testing.T) {
	l := starving(t)
	c, q := &l.conns[0], &l.queue
	w := &q.waiters[0]
	since := w.since
	l.ledger.accept(&c.account, c.export)
	l.now += stallGraceNanos + 1
	l.parse(0)
	if w.line != 0 || q.lines[0].waiting[small].head != 0 ||
		q.lines[1].waiting[small].head != none {
		t.Error("a connection that has taken a reply is in the line of newcomers")
	}
	if w.since != since || !q.starving(l.now-stallGraceNanos) {
		t.Error("a connection from another line begins to wait anew")
	}
}

// TestConnectionThatLeavesALineLosesItsStake: nothing is kept for it.
func TestConnectionThatLeavesALineLosesItsStake(t *testing.T) {
	l := starving(t)
	if l.queue.stakes[small].conn != 0 {
		t.Fatal("freed memory is not kept for the first connection that found none")
	}
	l.fail(0, CloseForced)
	if l.queue.stakes[small].conn != none {
		t.Error("freed memory is kept for a connection that has left")
	}
}

// TestSqueezedConnectionTriesAgain: not only when replies of its own have gone, which may take
// long.
func TestSqueezedConnectionTriesAgain(t *testing.T) {
	l := starving(t)
	l.queue.withdraw(0)
	l.queue.squeeze(0)
	l.ledger.free.inflight = tagsPerLoop
	l.tick()
	if l.queue.waiters[0].squeezed || l.counters.Requests[proto.CmdRead] != 1 {
		t.Error("there is room, and a squeezed connection did not try again")
	}
	for l.conns[0].inflight > 0 {
		l.turn()
	}
}
