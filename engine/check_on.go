//go:build invariants

// With the build tag invariants a loop checks itself: after every turn all its lists, counts and
// leases must agree, and memory that is given back is filled with a pattern, so that its use
// afterwards is found out. The simulation and the race detector run with the tag.
//
// Invariant: what is checked is read from the tables, never kept beside them, but for the marks of
// one check. Rows and words that other threads write are left alone.

package engine

import (
	"bytes"
	"strconv"
)

// checker is the marks of a check.
type checker struct {
	tolerant bool
	tags     []place // by tag
	used     uint32  // rows of tags that were ever in use: the first ones
	stages   []bool  // by large stage: a connection has it, or it is free
	// held is what requests hold, by connection, by export and of its newcomers; spared, by line,
	// the pages of the reserve.
	conns     []holdings
	exports   []holdings
	newcomers []holdings
	spared    []uint32
	ahead     uint64
	devices   []deviceCount
	children  []int // by tag: rows that are segments of its wave
	pieces    int   // of leases
	lines     []uint32
}

// place is where a tag was found.
type place uint8

const (
	placeUnknown  place = iota
	placeFree           // in the stack of free rows
	placeBody           // its payload is arriving
	placeReady          // answered
	placeSent           // its reply is in a send
	placeSlicing        // waits for the next slice
	placeFlushing       // the fsync in flight is for it
	placeFlush          // waits for the next
	placeParked         // has segments that wait for a worker or a row, and maybe others
	placeRunnable       // a row whose plan is to be asked
	placeDue            // a row whose next segment waits for a row
)

// deviceCount is what requests have in flight on one device.
type deviceCount struct {
	segments int // with the kernel, or the plan
	held     int // rows
	slices   int
	caches   int
}

func newChecker(y layout) checker {
	return checker{tags: make([]place, tagsPerLoop+rowsPerLoop), stages: make([]bool, y.stages),
		conns: make([]holdings, y.conns)}
}

// tolerate is for tests that make a loop's tables disagree.
func (l *loop) tolerate() { l.check.tolerant = true }

// agree panics when two tables of a loop disagree about a row.
func (l *loop) agree(ok bool, row uint32, what string) {
	if !ok {
		panic("ringnbd: loop " + strconv.Itoa(int(l.id)) + ", row " + strconv.Itoa(int(row)) +
			": " + what)
	}
}

// checkTurn checks all tables of a loop, at the end of a turn.
func (l *loop) checkTurn() {
	k := &l.check
	if k.tolerant || k.tags == nil {
		return
	}
	if len(k.devices) != len(l.devices) || len(k.exports) != len(l.exports) {
		k.devices = make([]deviceCount, len(l.devices))
		k.exports = make([]holdings, len(l.exports))
		k.newcomers = make([]holdings, len(l.exports))
		k.spared, k.lines = make([]uint32, len(l.queue.lines)), make([]uint32, len(l.queue.lines))
	}
	clear(k.tags)
	clear(k.conns)
	clear(k.exports)
	clear(k.devices)
	clear(k.spared)
	clear(k.newcomers)
	k.ahead, k.pieces = 0, 0
	l.checkConnLists()
	for i := range l.conns {
		l.checkConn(uint32(i))
	}
	l.checkDeviceLists()
	l.checkTags()
	l.checkLedger()
	l.checkDevices()
	l.checkLeases()
	l.checkQueue()
	l.agree(l.grants == none, none, "claims were granted and not run")
	l.agree(l.incidents.head.Load()-l.incidents.tail.Load() <= incidentSlots, none,
		"more incidents than slots")
}

// checkConnLists checks the lists of connections, and the large stages.
func (l *loop) checkConnLists() {
	l.agree(l.dirty == empty, l.dirty.head, "a connection was not settled")
	free := 0
	for i := l.freeConn; i != none; i = l.conns[i].next {
		l.agree(l.conns[i].state == connFree, i, "a free connection is in use")
		free++
	}
	later, held := 0, 0
	for i := range l.conns {
		c := &l.conns[i]
		if c.state != connFree {
			free++
		}
		if c.links[linkLater].in {
			later++
		}
		l.agree(c.links[linkStage].in == (c.stage != none && c.state != connFree), uint32(i),
			"a connection has a large stage or is among those that have, not both")
		if c.links[linkStage].in {
			held++
		}
	}
	l.agree(free == len(l.conns), none, "connections are neither free nor in use")
	for q := range l.later {
		later -= l.checkList(&l.later[q], linkLater)
	}
	l.agree(later == 0, none, "a connection waits for the next turn and is not in its list")
	l.agree(held == l.checkList(&l.stageLRU, linkStage), none, "a large stage is not in the list")
	clear(l.check.stages)
	for _, s := range l.freeStages {
		l.agree(!l.check.stages[s], s, "a large stage is free twice")
		l.check.stages[s] = true
	}
	for i := l.stageLRU.head; i != none; i = l.conns[i].links[linkStage].next {
		s := l.conns[i].stage
		l.agree(!l.check.stages[s], s, "a large stage has two owners")
		l.check.stages[s] = true
	}
	l.agree(held+len(l.freeStages) == l.layout.stages, none, "a large stage is lost")
}

// checkList checks the links of a list of connections, and counts them.
func (l *loop) checkList(q *list, kind int) (n int) {
	before := uint32(none)
	for i := q.head; i != none; i = l.conns[i].links[kind].next {
		x := &l.conns[i].links[kind]
		l.agree(x.in && x.prev == before, i, "the links of a list of connections do not agree")
		n, before = n+1, i
		l.agree(n <= len(l.conns), i, "a list of connections goes round")
	}
	l.agree(q.tail == before, before, "a list of connections does not end with its tail")
	return n
}

// checkConn checks one connection: what it waits for must come.
func (l *loop) checkConn(i uint32) {
	c := &l.conns[i]
	if c.state == connFree {
		return
	}
	if c.body != none {
		l.found(c.body, placeBody, stepPayload, i)
		l.agree(c.bodyLeft > 0, i, "a payload is complete and was not taken in")
	}
	l.checkTagList(&c.ready, placeReady, stepReply, i)
	sent := l.checkTagList(&c.sent, placeSent, stepReply, i)
	l.agree(c.sending == (sent > 0), i, "a send is in flight without replies, or the other way")
	l.agree(c.start <= c.end, i, "more of a stage was parsed than received")
	later, waits := c.links[linkLater].in, l.queue.waits(i)
	l.agree(!waits || c.state == connOpen, i, "a connection that has left waits for memory")
	if c.state != connOpen {
		return
	}
	if c.waits() {
		l.agree(waits || later || l.queue.waiters[i].squeezed || c.inflight > 0, i,
			"a request waits, and nothing will call its connection")
	} else if !waits && !later {
		l.agree(c.receiving != receiveNone, i, "a connection is not read and waits for nothing")
	}
	l.agree(c.ready.head == none || c.sending || later, i, "replies are ready and are not sent")
}

// checkQueue checks the memory queue.
func (l *loop) checkQueue() {
	q := &l.queue
	waits, squeezed := 0, 0
	for i := range q.waiters {
		w := &q.waiters[i]
		if w.waits {
			waits++
		}
		if w.squeezed {
			squeezed++
		}
	}
	l.agree(waits == q.waiting && squeezed == q.squeezed, none,
		"the memory queue counts what does not wait")
	l.agree(q.turn == none && q.trying == none, q.turn, "a turn of the memory queue did not end")
	for r := range q.rings {
		clear(l.check.lines)
		n := 0
		for at := q.rings[r].head; at != none; at = q.lines[at].next[r] {
			l.check.lines[at]++
			n++
			l.agree(l.check.lines[at] == 1, at, "a line is in the ring twice")
			l.agree(q.lines[at].next[r] != none || q.rings[r].tail == at, at,
				"a ring does not end with its tail")
		}
		l.agree(n == q.rings[r].n, none, "a ring counts lines that it has not")
		for at := range q.lines {
			x := &q.lines[at]
			l.agree(x.ringed[r] == (l.check.lines[at] == 1), uint32(at),
				"a line does not know whether it is in the ring")
			in := l.checkLine(uint32(at), region(r))
			l.agree(in == 0 || x.ringed[r], uint32(at), "a line with a connection has no turn")
			waits -= in
			if i := x.waiting[r].head; i != none && !q.returned[r] {
				l.agree(!l.overlooked(i), i, "a connection waits for what is there")
			}
		}
		if i := q.stakes[r].conn; i != none {
			l.agree(q.waiters[i].waits && q.waiters[i].region == region(r), i,
				"a connection has a stake and does not wait")
		}
	}
	l.agree(waits == 0, none, "a connection waits in no line")
}

// overlooked reports whether the request of the first connection of a line could be taken in,
// although nothing is to be offered to it.
func (l *loop) overlooked(i uint32) bool {
	c, w := &l.conns[i], &l.queue.waiters[i]
	if l.ledger.admits(&c.account, c.export, w.region, w.needs) != granted {
		return false
	}
	// What it lacked before may be what others have a stake in, or be in pieces.
	return w.lacks != scarce ||
		l.queue.stakes[w.region].conn == none && l.leases.used[w.region] == 0
}

// checkLine checks the links of a line, and counts its connections.
func (l *loop) checkLine(at uint32, r region) (n int) {
	q := &l.queue
	before := uint32(none)
	for i := q.lines[at].waiting[r].head; i != none; i = q.waiters[i].next {
		w := &q.waiters[i]
		l.agree(w.waits && w.prev == before && w.line == at && w.region == r, i,
			"a connection is in a line where it does not wait")
		n, before = n+1, i
	}
	l.agree(q.lines[at].waiting[r].tail == before, before, "a line does not end with its tail")
	return n
}

const poisonByte = 0xdb

func poison(p *leasePool, page uint32, order int) {
	if p.arena != nil { // a pool in a test of its own may have none
		fill(p.arena.Bytes(p.offset(page), pageSize<<order))
	}
}

func poisonStage(l *loop, stage uint32) {
	fill(l.control.Bytes(l.layout.stageAt(stage), stageSize))
}

// pattern is copied, not written byte by byte: under the race detector that is a thousand times as
// fast.
var pattern = bytes.Repeat([]byte{poisonByte}, 64<<10)

func fill(b []byte) {
	for len(b) > 0 {
		b = b[copy(b, pattern):]
	}
}
