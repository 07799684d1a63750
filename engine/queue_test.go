// The memory queue by itself, without a loop: order, turns, overtaking, stakes and withdrawals, and
// random operations against a model that is too slow for a loop but easy to believe.

package engine

import (
	"slices"
	"testing"
)

// kib4 and mib2 are what requests of 4 KiB and 2 MiB cost.
const (
	kib4 = uint64(4 << 10)
	mib2 = uint64(2 << 20)
)

// scarceAll has connections wait for memory in the line of an export that has taken replies.
func scarceAll(q *queue, export uint32, r region, cost uint64, now int64, conns ...uint32) {
	for _, i := range conns {
		q.wait(i, lineOf(export, false), r, cost, scarce, now)
	}
}

// servedInOrder offers a region to every line until none has a connection, each of which is served
// at its turn, and is the connections in that order.
func servedInOrder(q *queue, r region) (order []uint32) {
	q.freed(r)
	for q.offers(r) {
		_, i := q.next(r)
		if i == none {
			continue
		}
		order = append(order, i)
		q.withdraw(i)
		q.turn = none
		q.tried(r, true)
	}
	return order
}

func expectOrder(t *testing.T, got []uint32, want ...uint32) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("served in the order %d, want %d", got, want)
	}
}

func TestQueueKeepsTheOrderOfArrivalInALine(t *testing.T) {
	q := newQueue(8, 1, 64<<20)
	scarceAll(&q, 0, small, kib4, 0, 5, 2, 7, 0, 3)
	q.withdraw(7)
	scarceAll(&q, 0, small, kib4, 1, 7, 2) // 2 has its place already
	expectOrder(t, servedInOrder(&q, small), 5, 2, 0, 3, 7)
	if q.waiting != 0 || q.rings[small].n != 0 {
		t.Errorf("%d wait, %d lines in the ring, after all were served", q.waiting,
			q.rings[small].n)
	}
}

func TestQueueLetsLinesTakeTurns(t *testing.T) {
	q := newQueue(8, 3, 64<<20)
	scarceAll(&q, 1, small, kib4, 0, 0, 1, 2)
	scarceAll(&q, 0, small, kib4, 1, 3, 4)
	q.wait(5, lineOf(0, true), small, kib4, scarce, 2)
	scarceAll(&q, 2, large, mib2, 3, 6)
	expectOrder(t, servedInOrder(&q, small), 0, 3, 5, 1, 4, 2)
	expectOrder(t, servedInOrder(&q, large), 6)
}

// TestQueueOffersOnceRound: when no line has a use for what was freed, each was asked once.
func TestQueueOffersOnceRound(t *testing.T) {
	q := newQueue(4, 3, 64<<20)
	for export := range uint32(3) {
		scarceAll(&q, export, small, kib4, 0, export)
	}
	q.freed(small)
	asked := 0
	for ; q.offers(small); asked++ {
		if asked == 2 {
			q.freed(small) // those asked before are asked again
		}
		if at, i := q.next(small); !q.stands(i, at, small) {
			t.Fatalf("connection %d does not stand in its line while it tries", i)
		}
		q.turn = none
		q.tried(small, false)
	}
	if asked != 2+3 {
		t.Errorf("%d tries for three lines, of which two were asked too early", asked)
	}
	q.freed(small)
	if !q.offers(small) {
		t.Error("what was freed since is not offered")
	}
}

// TestQueueTurnIsForMoreThanOneRequest: a connection takes what it may at its turn, and stands at
// the end of the line then.
func TestQueueTurnIsForMoreThanOneRequest(t *testing.T) {
	q := newQueue(4, 1, 64<<20)
	at := lineOf(0, false)
	scarceAll(&q, 0, small, kib4, 0, 0, 1)
	q.freed(small)
	if _, i := q.next(small); i != 0 {
		t.Fatalf("the turn goes to %d", i)
	}
	q.withdraw(0)
	if _, ok := q.mayGo(0, at, small, kib4, 0); !ok {
		t.Error("the second request of the connection whose turn it is does not go")
	}
	scarceAll(&q, 0, small, kib4, 0, 0)
	q.turn = none
	if _, ok := q.mayGo(0, at, small, kib4, 0); ok {
		t.Error("it goes before its line after its turn")
	}
	q.wait(0, at, large, mib2, scarce, 0) // a longer request
	expectOrder(t, servedInOrder(&q, small), 1)
	expectOrder(t, servedInOrder(&q, large), 0)
}

func TestQueueLetsRequestsOvertake(t *testing.T) {
	q := newQueue(8, 1, 64<<20)
	at := lineOf(0, false)
	scarceAll(&q, 0, small, kib4, 0, 0)
	if _, ok := q.mayGo(1, at, small, kib4, 0); ok {
		t.Error("a small request overtakes")
	}
	if _, ok := q.mayGo(1, at, large, mib2, 0); !ok {
		t.Error("a large request waits for a small one")
	}
	scarceAll(&q, 0, large, 50<<20, 0, 2) // with what it leaves of a piece: 51 of 64
	for n := uint64(1); ; n++ {
		ahead, ok := q.mayGo(3, at, large, mib2, 0)
		if q.ahead+3<<20 > 13<<20 { // the piece that is left of each included
			if ok {
				t.Errorf("%d requests overtake one that would have to wait for them", n)
			}
			break
		}
		if !ok || ahead != 3<<20 {
			t.Fatalf("request %d beside 50 MiB of 64: %t, ahead %d", n, ok, ahead)
		}
		q.ahead += ahead
	}
	q.ahead = 0
	q.waiters[2].needs = mib2
	for q.ahead <= maxAhead {
		ahead, ok := q.mayGo(3, at, large, mib2, 0)
		if !ok {
			break
		}
		q.ahead += ahead
	}
	if q.ahead > maxAhead || q.ahead <= maxAhead-3<<20 {
		t.Errorf("%d bytes went ahead of a request, of %d at most", q.ahead, maxAhead)
	}
}

// TestQueueKeepsFreedMemoryForAStake: for stakeNanos no connection of another line goes before the
// first that found too little; then no stake is given for stakeRestNanos.
func TestQueueKeepsFreedMemoryForAStake(t *testing.T) {
	q := newQueue(8, 3, 64<<20)
	other := lineOf(1, false)
	goes := func(i uint32, now int64) bool {
		_, ok := q.mayGo(i, other, small, kib4, now)
		return ok
	}
	q.wait(5, lineOf(2, false), small, kib4, outshared, 0)
	if !goes(1, 0) {
		t.Error("a request waits for another export's share")
	}
	scarceAll(&q, 0, small, 1<<20, 0, 0, 4)
	if goes(1, stakeNanos) {
		t.Error("a request of another line takes what the stake is for")
	}
	if _, ok := q.mayGo(0, lineOf(0, false), small, 1<<20, stakeNanos); !ok {
		t.Error("the connection with the stake does not go")
	}
	if !goes(1, stakeNanos+1) {
		t.Error("the stake does not end")
	}
	scarceAll(&q, 1, small, 1<<20, stakeNanos+2, 1)
	if q.stakeholder(small, stakeNanos+2) != none {
		t.Error("a stake follows the other at once")
	}
	rested := stakeNanos + 1 + stakeRestNanos
	scarceAll(&q, 0, small, 1<<20, rested, 4)
	if q.stakeholder(small, rested) != none {
		t.Error("the second of a line gets a stake")
	}
	scarceAll(&q, 1, small, 1<<20, rested, 1)
	if q.stakeholder(small, rested) != 1 {
		t.Error("after the rest the first of a line gets no stake")
	}
}

// TestQueueWithdrawalFreesTheNext: its stake is gone, and what is there is offered to those after
// it.
func TestQueueWithdrawalFreesTheNext(t *testing.T) {
	q := newQueue(8, 2, 64<<20)
	scarceAll(&q, 0, small, 1<<20, 0, 0, 1)
	scarceAll(&q, 1, small, kib4, 0, 2)
	q.withdraw(0)
	if q.stakeholder(small, 0) != none {
		t.Error("freed memory is kept for a connection that has left")
	}
	if !q.offers(small) {
		t.Error("those after a connection that has left are not asked")
	}
	if _, ok := q.mayGo(1, lineOf(0, false), small, kib4, 0); !ok {
		t.Error("the next of the line does not go")
	}
	q.withdraw(0) // it does not wait: nothing happens
	expectOrder(t, servedInOrder(&q, small), 1, 2)
}

// TestQueueNewcomersHaveALineOfTheirOwn: a connection that has taken its first reply meanwhile
// changes over, and has waited as long.
func TestQueueNewcomersHaveALineOfTheirOwn(t *testing.T) {
	q := newQueue(8, 1, 64<<20)
	q.wait(0, lineOf(0, true), small, kib4, crowded, 10)
	q.wait(1, lineOf(0, true), small, kib4, crowded, 11)
	if _, ok := q.mayGo(2, lineOf(0, false), small, kib4, 12); !ok {
		t.Error("a connection that has taken replies waits for newcomers")
	}
	if !q.wait(0, lineOf(0, false), small, kib4, scarce, 20) || q.waiters[0].since != 10 {
		t.Errorf("a connection that changed lines waits since %d", q.waiters[0].since)
	}
	if !q.starving(11) || q.starving(10) {
		t.Error("a connection that changed lines has begun to wait anew")
	}
	expectOrder(t, servedInOrder(&q, small), 1, 0)
}

func TestQueueTellsWhatStarves(t *testing.T) {
	q := newQueue(8, 2, 64<<20)
	q.wait(0, lineOf(1, false), small, kib4, outshared, 10)
	if q.starving(20) || !q.starves(lineOf(1, false), true, 20) ||
		q.starves(lineOf(1, false), true, 10) {
		t.Error("a wait for an export's share counts as one for all, or not at all")
	}
	q.wait(1, lineOf(1, true), small, kib4, crowded, 15)
	if !q.starving(20) || q.starving(15) {
		t.Error("a newcomer that waits for other newcomers does not starve")
	}
}

// TestQueueIsUntouchedWhileNoneWaits: what is freed is not noted, and all may go.
func TestQueueIsUntouchedWhileNoneWaits(t *testing.T) {
	q := newQueue(4, 2, 64<<20)
	q.tagFreed()
	if q.returned != [regions]bool{} {
		t.Error("something is to be offered, and no connection waits")
	}
	if _, ok := q.mayGo(0, 0, small, kib4, 0); !ok || q.waits(0) {
		t.Error("a request waits in an empty queue")
	}
}

// TestQueueSqueezedStandOutside: a connection in a line that tries again and holds too much itself
// leaves the line, and is counted once.
func TestQueueSqueezedStandOutside(t *testing.T) {
	q := newQueue(4, 1, 64<<20)
	scarceAll(&q, 0, small, kib4, 0, 0, 1)
	q.trying = 0
	q.squeeze(0)
	q.trying = none
	if q.waits(0) || q.squeezed != 1 {
		t.Errorf("waits %t, squeezed %d", q.waits(0), q.squeezed)
	}
	q.squeeze(2)
	for _, i := range []uint32{1, 0, 0} {
		q.unsqueeze(i)
	}
	if q.squeezed != 1 {
		t.Errorf("%d are squeezed after one of two tried again", q.squeezed)
	}
	expectOrder(t, servedInOrder(&q, small), 1)
}

// TestALoopDoesNotSleepOverFreedMemory frees memory after the feeding of a turn, as a part of a
// long write to a memory device does: the next turn offers it at once, not with the next tick.
func TestALoopDoesNotSleepOverFreedMemory(t *testing.T) {
	d := memoryDevice(t, 1<<20)
	l := still(t, Export{Facts: factsOf(d), Device: d})
	l.tolerate()
	l.queue.wait(0, 0, small, pageSize, scarce, l.now)
	if l.leftOver() {
		t.Error("nothing was freed, and the next turn would not sleep")
	}
	l.queue.tagFreed()
	if !l.leftOver() {
		t.Error("a tag was freed, a connection waits, and the loop would sleep until the tick")
	}
	l.queue.withdraw(0)
	if l.leftOver() {
		t.Error("no connection waits, and the next turn would not sleep")
	}
}
