// The loop: one thread, one ring, and the tables of its connections and requests. A turn enters the
// kernel once, records what completed, and then settles every connection that something happened
// to.
//
// Invariant: only the loop's own thread touches its tables; the kernel holds addresses of arenas,
// never of Go memory; a turn does not allocate, lock, log or start a goroutine.

package engine

import (
	"sync/atomic"
	"time"

	"ringnbd/engine/uring"
)

const (
	reapBatch    = 256                    // completions looked at in one turn
	tickInterval = 100 * time.Millisecond // while anything is held that must not be held for ever
)

type loop struct {
	kernel  Kernel
	id      uint32
	shared  *shared
	table   *table
	control *uring.Arena // connection pages and stages: not registered, populated as it is touched
	pool    *uring.Arena // payloads
	layout  layout

	conns []conn
	tags  []tag
	// progress of each segment of a wave, in bytes; valid while wave.partial
	progress   [][maxSegments]uint32
	ranges     []rangeWork // by tag, of a TRIM or WRITE_ZEROES
	workers                // workers.go
	leases     *leasePool
	buffers    []bufferState // of the pool, see locked.go
	bufferBits uint          // a part is 1<<partBits bytes

	freeConn uint32 // stacks of free rows, linked through next
	freeTag  uint32
	live     atomic.Int32

	dirty  list     // connections that something happened to
	lru    list     // connections that hold a large stage, the least recently used first
	stages []uint32 // large stages that nobody holds
	scarce bool     // somebody found none
	owed   uint32   // the one whose turn this is, having had none in the last
	queue  queue    // connections that wait for memory
	ledger ledger

	devices []deviceRow // by device
	holds   []holdings  // by export, see table
	blocked []uint32    // devices that wait for another loop's fsync
	grants  uint32      // stack of this loop's claims granted by itself in this turn

	now    int64 // the kernel's clock, without
	missed int64 // what it jumped by while the loop did not run
	tickAt int64
	more   bool // the last reap filled its batch
	// What this turn has done, in bytes, and what it leaves to the next, see budget.go: connections
	// to settle, requests to go on with, starved ones to feed.
	work    uint64
	later   [2]list // see laterOf
	backlog backlog
	unfed   bool
	drain   drainPhase
	drainAt int64
	quit    bool
	inbox   atomic.Pointer[mail]
	// What the loop has to tell: see incident.go. tell wakes the control plane, and roused says
	// that it was woken and has not looked yet.
	incidents incidents
	ended     atomic.Pointer[Client]
	roused    atomic.Bool
	tell      func()
	granted   atomic.Uint32 // stack of claims granted by other loops: claim+1, 0 = empty
	lookups                 // lookup.go
	wakeFD    int32
	// pwrite is a write that may block; nil where there is none.
	pwrite   func(fd int, addr uint64, n uint32, off uint64) int32
	wake     func() // makes the eventfd readable; callable from any thread
	waiting  []*mail
	counters Counters
	tally    []exportTally // by export: of connections that have ended
	clients  []*Client     // by connection; nil: the control plane does not want to know
	trace    trace
	cqes     [reapBatch]uring.CQE
}

// turn is one round: enter the kernel, record facts, decide.
func (l *loop) turn() {
	wait, timeout := uint32(1), time.Duration(-1)
	if l.more || l.leftOver() {
		wait = 0
	} else if l.ticking() {
		timeout = tickInterval
	}
	if err := l.kernel.Enter(wait, timeout); err != nil {
		panic("ringnbd: io_uring_enter: " + err.Error())
	}
	l.tellTime(wait == 0 || timeout >= 0)
	l.counters.Turns++
	n := l.kernel.Reap(l.cqes[:])
	l.more = n == len(l.cqes)
	l.beginTurn()
	for i := range l.cqes[:n] {
		l.record(&l.cqes[i])
	}
	if len(l.blocked) > 0 {
		l.retryFlushes()
	}
	l.settleAll()
	if l.queue.returned != [regions]bool{} {
		l.feedAll()
	}
	if l.backlog.n > 0 {
		l.catchUp()
		l.settleAll()
	}
	if l.ticking() && l.now >= l.tickAt {
		l.tickAt = l.now + int64(tickInterval)
		l.tick()
	}
}

// record files one completion under its row. It decides nothing.
func (l *loop) record(c *uring.CQE) {
	t := token(c.UserData)
	l.trace.add(c)
	switch t.kind() {
	case onReceive:
		l.received(t, c.Res)
	case onSend:
		l.sent(t, c.Res)
	case onDisk:
		l.segmentDone(t, c.Res)
	case onFlush:
		l.flushed(t, c.Res)
	case onWake:
		l.woken()
	case onCancel: // the operation that was cancelled speaks for itself
	default:
		must(false, "a completion that nobody asked for")
	}
}

// settleAll settles until nothing is left to decide: a granted claim or a freed buffer can make
// work for another connection.
func (l *loop) settleAll() {
	for {
		l.takeGrants()
		l.takeAnswered()
		c := l.dirty.head
		if c == none {
			return
		}
		l.delist(&l.dirty, linkDirty, c)
		l.settle(c)
	}
}

// settle decides what one connection does next, in this order: take requests in, send replies, ask
// for more, leave.
func (l *loop) settle(c uint32) {
	l.parse(c)
	l.reply(c)
	l.listen(c)
	l.depart(c)
}

// sqe is a free submission; when the queue is full, what is in it goes to the kernel first.
func (l *loop) sqe() *uring.SQE {
	for range 1000 {
		if s := l.kernel.SQE(); s != nil {
			return s
		}
		if err := l.kernel.Enter(0, -1); err != nil {
			panic("ringnbd: io_uring_enter: " + err.Error())
		}
	}
	panic("ringnbd: the submission queue stays full")
}

// ticking: is anything held or awaited that time must look after?
func (l *loop) ticking() bool {
	return l.lru.head != none || l.queue.waiting > 0 || l.queue.squeezed > 0 ||
		l.drain != drainNot
}

// tick looks after what time alone changes: idle stages, stalled holders of memory, the phases of a
// shutdown.
func (l *loop) tick() {
	l.reclaimIdle()
	l.evictStalled()
	l.wakeSqueezed()
	l.queue.tagFreed() // a stake may have ended
	if l.drain != drainNot {
		l.drainTick()
	}
}
