//go:build invariants

// The checks after a turn must see what they are for: one thing at a time is spoilt in a loop with
// all kinds of work in flight, and the check has to find it.

package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// spoil sets one word, and gives back how to mend it.
func spoil[T any](p *T, v T) (mend func()) {
	old := *p
	*p = v
	return func() { *p = old }
}

// busyLoop is a loop in the middle of its work: connection 0 has READs and a FLUSH in flight
// and a WRITE whose payload is arriving, 1 waits for memory, 2 has a large stage, 3 waits for the
// next turn.
func busyLoop(t *testing.T) *loop {
	t.Helper()
	d, other := fileDevice(t, 64<<20, unix.O_DIRECT), nullDevice(1<<20)
	config := Config{Loops: 1, MaxConnections: 64}
	l := handTurnedWith(t, config, MinMemory(config)+512<<20,
		Export{Facts: factsOf(d), Device: d}, Export{Facts: factsOf(other), Device: other})
	f := adopted(t, l, proto.Session{})
	for range 3 {
		other := adopted(t, l, proto.Session{})
		t.Cleanup(func() { _ = other.Close() })
	}
	turn := func() {
		l.more = true // it does not sleep
		l.turn()
	}
	for l.conns[3].state != connOpen {
		turn()
	}
	for range 4 { // so that rows which were in use are free again
		askFor(t, f, proto.CmdRead, 4096, 10)
	}
	for l.conns[0].traffic.Reads < 40 || l.conns[0].inflight > 0 {
		turn()
	}
	askFor(t, f, proto.CmdRead, 4096, 2)
	askFor(t, f, proto.CmdFlush, 0, 1)
	head := make([]byte, proto.RequestSize)
	proto.PutRequest(head, &proto.Request{Command: proto.CmdWrite, Length: 8192})
	if _, err := f.Write(head); err != nil {
		t.Fatal(err)
	}
	for l.conns[0].body == none {
		turn()
	}
	q := &l.queue
	q.wait(1, lineOf(0, true), small, kib4, scarce, l.now)
	l.takeStage(2)
	l.postpone(3, false)
	t.Cleanup(func() {
		_ = f.Close()
		l.tolerate()
		for i := range uint32(4) {
			l.fail(i, CloseForced)
		}
		for l.live.Load() > 0 {
			turn()
		}
	})
	return l
}

// inStep finds a request in flight that is in a step.
func inStep(t *testing.T, l *loop, s step) uint32 {
	t.Helper()
	for i := range l.tags {
		if l.tags[i].step == s && l.tags[i].cost+uint32(l.tags[i].left) > 0 {
			return uint32(i)
		}
	}
	t.Fatalf("no request is in step %d", s)
	return none
}

// notices reports whether the check finds a fault.
func notices(l *loop) (found bool) {
	defer func() { found = recover() != nil }()
	l.checkTurn()
	return false
}

func TestCheckFindsWhatIsSpoilt(t *testing.T) {
	l := busyLoop(t)
	if l.checkTurn(); l.check.used == 0 {
		t.Fatal("nothing was in use")
	}
	for _, faults := range []map[string]func() func(){
		connFaults(l), queueFaults(l), tagFaults(t, l), ledgerFaults(l), deviceFaults(t, l),
		placeFaults(t, l),
	} {
		for name, fault := range faults {
			mend := fault()
			if !notices(l) {
				t.Errorf("not found: %s", name)
			}
			mend()
			l.checkTurn()
		}
	}
}

func connFaults(l *loop) map[string]func() func() {
	return map[string]func() func(){
		"a connection was not settled": func() func() {
			l.touch(1)
			return func() { l.delist(&l.dirty, linkDirty, 1) }
		},
		"a free connection is lost": func() func() {
			return spoil(&l.freeConn, l.conns[l.freeConn].next)
		},
		"a connection is free and in use": func() func() { return spoil(&l.freeConn, 2) },
		"a large stage is lost": func() func() {
			return spoil(&l.freeStages, l.freeStages[1:])
		},
		"a large stage is free and in use": func() func() {
			return spoil(&l.freeStages[0], l.conns[2].stage)
		},
		"a stage is not in the list": func() func() { return spoil(&l.stageLRU, empty) },
		"a postponed connection is not in the list": func() func() {
			return spoil(&l.later, [2]list{empty, empty})
		},
		"a connection is not read": func() func() {
			return spoil(&l.conns[2].receiving, receiveNone)
		},
		"a request waits, and nothing calls its connection": func() func() {
			return spoil(&l.conns[2].end, l.conns[2].start+proto.RequestSize)
		},
		"a send without replies":       func() func() { return spoil(&l.conns[2].sending, true) },
		"a payload's request was lost": func() func() { return spoil(&l.conns[0].body, none) },
		"a claim was granted and not run": func() func() {
			return spoil(&l.grants, 0)
		},
	}
}

func queueFaults(l *loop) map[string]func() func() {
	q := &l.queue
	at := lineOf(0, true)
	return map[string]func() func(){
		"a wrong count":           func() func() { return spoil(&q.waiting, 2) },
		"a wrong count outside":   func() func() { return spoil(&q.squeezed, 1) },
		"a connection in no line": func() func() { return spoil(&q.waiters[2].waits, true) },
		"a line without a turn": func() func() {
			return spoil(&q.rings[small], ring{list: empty})
		},
		"a ring that counts two": func() func() { return spoil(&q.rings[small].n, 2) },
		"a line that forgot": func() func() {
			return spoil(&q.lines[at].ringed[small], false)
		},
		"a line without a tail": func() func() {
			return spoil(&q.lines[at].waiting[small].tail, none)
		},
		"a connection in another line": func() func() {
			return spoil(&q.waiters[1].line, lineOf(0, false))
		},
		"a stake of a connection that has left": func() func() {
			return spoil(&q.stakes[large].conn, 2)
		},
		"a connection that nothing is offered to": func() func() {
			return spoil(&q.waiters[1].lacks, crowded)
		},
		"a turn that did not end":   func() func() { return spoil(&q.turn, 1) },
		"bytes ahead of no request": func() func() { return spoil(&q.ahead, 4096) },
	}
}

func tagFaults(t *testing.T, l *loop) map[string]func() func() {
	reading, flushing := inStep(t, l, stepRead), inStep(t, l, stepFlush)
	paying := l.conns[0].body
	row := &l.tags[reading]
	return map[string]func() func(){
		"a free row is lost": func() func() {
			return spoil(&l.freeTag, l.tags[l.freeTag].next)
		},
		"a row is free and in use": func() func() { return spoil(&l.freeTag, flushing) },
		"a read that is answered":  func() func() { return spoil(&row.step, stepReply) },
		"a read without segments":  func() func() { return spoil(&row.left, 0) },
		"a read with two segments": func() func() { return spoil(&row.left, 2) },
		"a claim that is not held": func() func() { return spoil(&row.claimed, true) },
		"a payload of another":     func() func() { return spoil(&l.tags[paying].conn, 1) },
		"a lease that is not paid": func() func() { return spoil(&row.cost, 0) },
		"a lease that is not held": func() func() { return spoil(&row.memory, none) },
		"a lease that two hold": func() func() {
			return spoil(&row.scratch, l.tags[paying].memory)
		},
		"pages of the reserve":        func() func() { return spoil(&row.spared, 1) },
		"a segment parked nowhere":    func() func() { return spoil(&l.parked[flushing][0], 1) },
		"more to issue, no backlog":   func() func() { return spoil(&row.parts, 2) },
		"in the backlog without work": func() func() { return spoil(&l.backlog.n, 1) },
		"a claim of no request": func() func() {
			return spoil(&l.shared.guard.claims[l.claimIndex(reading)].held, true)
		},
		"a lease of no request": func() func() {
			x, _ := l.leases.take(small, 4096)
			return func() { l.leases.give(x) }
		},
		"a page of no block": func() func() {
			return spoil(&l.leases.state[len(l.leases.state)-1<<topOrder], inner)
		},
		"a free block in no list": func() func() {
			return spoil(&l.leases.heads[large][topOrder], none)
		},
	}
}

func ledgerFaults(l *loop) map[string]func() func() {
	b := &l.ledger
	return map[string]func() func(){
		"a tag too few":        func() func() { return spoil(&b.free.inflight, b.free.inflight-1) },
		"memory too much":      func() func() { return spoil(&b.free.leased[large], 0) },
		"an export's tags":     func() func() { return spoil(&b.exports[0].inflight, 0) },
		"a connection's tags":  func() func() { return spoil(&l.conns[0].inflight, 100) },
		"newcomers' memory":    func() func() { return spoil(&b.newcomers.leased[small], 4096) },
		"its newcomers' tags":  func() func() { return spoil(&b.newcomersOf[0].inflight, 99) },
		"a line's reserve":     func() func() { return spoil(&b.spared[0], 1) },
		"the reserve":          func() func() { return spoil(&b.reserved, 1) },
		"a newcomer that took": func() func() { return spoil(&l.conns[0].taken, false) },
	}
}

func deviceFaults(t *testing.T, l *loop) map[string]func() func() {
	q := &l.devices[0]
	return map[string]func() func(){
		"segments in flight":    func() func() { return spoil(&q.flying, q.flying+1) },
		"workers of a device":   func() func() { return spoil(&q.staff.working, 1) },
		"workers of the loop":   func() func() { return spoil(&l.workers.working, 1) },
		"slices":                func() func() { return spoil(&q.slices, 1) },
		"a CACHE":               func() func() { return spoil(&q.caching, true) },
		"an fsync in flight":    func() func() { return spoil(&q.fsyncing, !q.fsyncing) },
		"a flush in no list":    func() func() { return spoil(&q.flushing, empty) },
		"blocked and not known": func() func() { return spoil(&q.blocked, true) },
		"a slice in no list": func() func() {
			return spoil(&l.tags[inStep(t, l, stepFlush)].step, stepSlice)
		},
	}
}

// placeFaults are those of requests whose counts agree: only their place is wrong.
func placeFaults(t *testing.T, l *loop) map[string]func() func() {
	reading, flushing := inStep(t, l, stepRead), inStep(t, l, stepFlush)
	q, row := &l.devices[0], &l.tags[reading]
	both := func(a, b func()) func() {
		return func() { a(); b() }
	}
	parked := func() (mend func()) { // the segment is not with the kernel
		return both(spoil(&q.flying, q.flying-1), spoil(&l.parked[reading][0], 1))
	}
	return map[string]func() func(){
		"a parked request in no list": parked,
		"parked, and no worker is busy": func() func() {
			return both(parked(), spoil(&q.parked, list{reading, reading}))
		},
		"a slice that is not issued": func() func() {
			mend := both(spoil(&q.flying, q.flying-1), spoil(&row.step, stepSlice))
			return both(mend, spoil(&q.slicing, list{reading, reading}))
		},
		"a request about another device": func() func() {
			return spoil(&l.tags[flushing].dev, 1)
		},
		"a claim on another device": func() func() {
			grants := uint32(none)
			l.shared.guard.enter(l.claimIndex(reading), 1, row.lo, row.hi)
			mend := spoil(&row.claimed, true)
			return both(mend, func() { l.shared.guard.leave(l.claimIndex(reading), &grants) })
		},
		"a claim on other bytes": func() func() {
			grants := uint32(none)
			l.shared.guard.enter(l.claimIndex(reading), 0, row.lo, row.hi+4096)
			mend := spoil(&row.claimed, true)
			return both(mend, func() { l.shared.guard.leave(l.claimIndex(reading), &grants) })
		},
	}
}
