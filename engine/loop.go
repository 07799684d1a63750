// The loop: one thread, one ring, and the tables of its connections and requests. A turn enters the
// kernel once, records what completed, and then settles every connection that a completion or a
// letter concerned.
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
	tickInterval = 100 * time.Millisecond // of the tick, see loop.ticking
)

// loop is a thread's kernel, clock and tables. The embedded structs are described in the files of
// their chapters.
type loop struct {
	kernel  Kernel
	id      uint32
	shared  *shared
	table   atomic.Pointer[table] // the newest that it has seen; written by the loop alone
	layout  layout
	control *uring.Arena // connection pages and stages: not registered, populated as it is touched
	pool    *uring.Arena // payloads
	buffers buffers      // of the pool: locked.go
	leases  *leasePool   // of the pool: lease.go

	exportTable // table.go
	connTable   // conn.go
	tagTable    // tag.go
	deviceTable // device.go
	workers     // workers.go
	rowTable    // rows.go

	ledger   ledger // ledger.go: how much each may hold
	queue    queue  // queue.go: the connections that wait for memory or a tag
	stages          // stage.go
	budget          // budget.go
	drain    drain  // stall.go
	mailbox         // mail.go
	reporter        // incident.go
	lookups         // lookup.go
	// pwrite is a write that may block; nil where there is none.
	pwrite func(fd int, addr uint64, n uint32, off uint64) int32

	changeover       // changeover.go
	clock            // patience.go
	counts           // count.go
	more       bool  // the last reap filled its batch
	trace      trace // trace.go
	cqes       [reapBatch]uring.CQE
	check      checker // check_on.go
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
	if l.changing() {
		l.goOnChanging()
		l.settleAll()
	}
	if l.ticking() && l.now >= l.tickAt {
		l.tickAt = l.now + int64(tickInterval)
		l.tick()
	}
	l.checkTurn()
}

// record accounts for one completion in its row. What it means for a connection is decided when the
// connection is settled; a disk operation's next wave is issued at once.
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
	case onReleased:
		l.fileReleased(t.slot())
	case onCancel: // the operation that was cancelled speaks for itself
	default:
		must(false, "a completion of an unknown kind")
	}
}

// settleAll settles until nothing is left to decide: a granted claim or a freed buffer can make
// work for another connection.
func (l *loop) settleAll() {
	for {
		l.takeGrants()
		l.takeAnswered()
		if l.runRows() {
			continue // it may have granted claims
		}
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

// sqe returns a free submission. When the queue is full, what is in it goes to the kernel first.
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

// ticking reports whether something is held or awaited that must not be for ever: then the loop
// wakes every tickInterval.
func (l *loop) ticking() bool {
	return l.stageLRU.head != none || l.queue.waiting > 0 || l.queue.squeezed > 0 ||
		l.drain.phase != drainNot || l.quit || len(l.leavers) > 0 || l.retiring > 0 || l.changing()
}

// tick does what time alone calls for: it reclaims idle stages, closes stalled holders of memory,
// and advances a shutdown.
func (l *loop) tick() {
	l.reclaimIdle()
	l.evictStalled()
	l.wakeSqueezed()
	l.queue.tagFreed() // a stake may have ended
	if l.drain.phase != drainNot {
		l.drainTick()
	}
	if len(l.leavers) > 0 || l.retiring > 0 {
		l.partTick()
	}
}
