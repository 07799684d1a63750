// The loop: one thread, one ring, and the tables of its connections and requests.
//
// Invariant: only the loop's own thread touches its tables; the kernel holds addresses of the
// arena, never of Go memory; a turn does not allocate, lock, log or start a goroutine. What other
// threads may see of a loop is in shared and in loop.seen.

package load

import (
	"math"
	"sync/atomic"
	"time"

	"ringnbd/engine/uring"
)

const (
	reapBatch = 256 // completions looked at in one turn
	// maxSleep is how long a loop may sleep: how late it can notice that the run is over.
	maxSleep = 50 * time.Millisecond
)

// phase is where a loop is in its run. It only goes forward.
type phase uint8

const (
	phaseFill  phase = iota // the window is written once
	phaseReady              // waits for the other loops
	phaseRun                // warm-up and measuring
	phaseDrain              // nothing is started; what is in flight is awaited
	phaseLeave              // connections say goodbye
	phaseDone
)

// shared has what the loops of a run have in common.
type shared struct {
	filling atomic.Int32 // loops that are not ready
	startAt atomic.Int64 // of phaseRun, for all loops; 0: not yet
	stop    atomic.Bool  // the run is to end now
}

// The kinds of completion. A token is kind:8, generation:24, row:32.
const (
	onReceive = iota + 1
	onSend
	onDisk
)

func tokenOf(kind uint64, generation, row uint32) uint64 {
	return kind<<56 | uint64(generation&generationMask)<<32 | uint64(row)
}

const generationMask = 1<<24 - 1

// none is the index that points nowhere.
const none = ^uint32(0)

type loop struct {
	ring   *uring.Ring
	plan   *plan
	shared *shared
	id     int
	arena  *uring.Arena
	layout layout
	// unregistered is why the buffers of a file's requests are not registered, when they are not.
	unregistered error

	conns []conn
	slots []slot
	dirty []uint32 // connections with an event in this turn; its capacity is that of conns

	// Times are those of uring.Now, in nanoseconds.
	phase    phase
	now      int64 // when the kernel returned
	issued   int64 // before requests are started
	warmAt   int64 // when the warm-up ends
	endAt    int64 // from then on nothing is started
	heardAt  int64 // when the last reply arrived
	inflight int
	quota    uint64 // requests that may still be started and measured
	// more says not to wait: the last reap filled its batch, or this is the first turn.
	more  bool
	open  bool // an open loop, in the queueing sense
	start schedule
	due   schedule
	// rotor is the connection that is tried first, when any connection may take the next request.
	rotor  uint32
	traced int // requests of the trace that have been started
	left   int // connections that are not gone

	tape  *tape // of the requests that are started; nil: they are not recorded
	tally tally
	seen  struct {
		_     [64]byte // a cache line of its own: another thread reads it while the loop runs
		done  atomic.Uint64
		bytes atomic.Uint64
		_     [64]byte
	}
	trouble error // why the loop ended early
	cqes    [reapBatch]uring.CQE
}

// slot is a request that may be in flight.
type slot struct {
	start      int64 // nanoseconds: when it was issued, or due
	offset     uint64
	length     uint32
	next       uint32 // free slots of a connection
	conn       uint32
	generation uint32 // counts the slot's uses, so that a reply to an earlier use is noticed
	kind       requestKind
	live       bool
	filling    bool
	counts     bool // towards Options.Count
}

// turn enters the kernel, records completions, starts requests, and settles connections.
func (l *loop) turn() {
	if err := l.ring.Enter(l.wait()); err != nil {
		l.fail(err)
		return
	}
	l.now = uring.Now()
	l.tally.turns++
	n := l.ring.Reap(l.cqes[:])
	l.more = n == len(l.cqes)
	for i := range l.cqes[:n] {
		l.record(&l.cqes[i])
	}
	for _, c := range l.dirty {
		l.parse(c)
	}
	l.pass()
	if l.phase <= phaseRun && (len(l.dirty) > 0 || l.open) {
		l.issued = uring.Now()
		l.startAll()
	}
	if l.tape != nil {
		l.tape.publish(l.issued)
	}
	l.settleAll()
	l.seen.done.Store(l.tally.done)
	l.seen.bytes.Store(l.tally.bytes)
}

// settleAll settles every connection with an event. A connection that could start nothing, because
// all the blocks that it tried are in use, and that has nothing in flight to wake it, stays marked
// for the next turn.
func (l *loop) settleAll() {
	kept := 0
	for _, c := range l.dirty {
		l.settle(c)
		row := &l.conns[c]
		if row.dirty = row.blocked; row.blocked {
			row.blocked = false
			l.dirty[kept] = c
			kept++
		}
	}
	l.dirty = l.dirty[:kept]
}

// wait returns for how many completions the next Enter waits, and how long.
func (l *loop) wait() (uint32, time.Duration) {
	if l.more || l.phase == phaseLeave && l.left == 0 {
		return 0, 0
	}
	limit := maxSleep
	switch {
	case l.phase == phaseReady:
		limit = time.Millisecond // startAt is near
	case l.phase == phaseRun && l.open:
		if next := l.start.next() - max(l.now, l.issued); next > 0 {
			limit = min(limit, time.Duration(next))
		}
	}
	if l.phase == phaseRun && l.endAt-l.now < int64(limit) {
		limit = time.Duration(max(l.endAt-l.now, 1))
	}
	return 1, limit
}

// record passes a completion to its row.
func (l *loop) record(c *uring.CQE) {
	row := uint32(c.UserData)
	switch c.UserData >> 56 {
	case onReceive:
		l.received(row, c.Res)
	case onSend:
		l.sent(row, c.Res)
	case onDisk:
		l.diskDone(row, c.Res)
	}
}

// touch marks a connection for settling at the end of this turn.
func (l *loop) touch(c uint32) {
	if row := &l.conns[c]; !row.dirty {
		row.dirty = true
		l.dirty = append(l.dirty, c)
	}
}

func (l *loop) touchAll() {
	for c := range l.conns {
		l.touch(uint32(c))
	}
}

// pass goes on to the next phase when it is time.
func (l *loop) pass() {
	if l.shared.stop.Load() && l.phase < phaseDrain {
		l.phase = phaseDrain
		l.tally.endAt = min(l.tally.endAt, l.now)
	}
	if l.phase == phaseFill && l.inflight == 0 && l.filled() {
		l.phase = phaseReady
		if l.shared.filling.Add(-1) == 0 {
			// so that the others do not begin late
			l.shared.startAt.Store(l.now + int64(time.Millisecond))
		}
	}
	if at := l.shared.startAt.Load(); l.phase == phaseReady && at != 0 && l.now >= at {
		l.begin(at)
	}
	if l.phase == phaseRun {
		l.passRun()
	}
	if l.phase == phaseDrain && l.inflight == 0 {
		l.phase = phaseLeave
		l.touchAll()
	}
	if l.phase == phaseLeave && l.left == 0 {
		l.phase = phaseDone
	}
	if l.inflight > 0 && l.now-l.heardAt > int64(l.plan.options.Timeout) {
		l.silent()
	}
}

// begin starts the clock of the run.
func (l *loop) begin(at int64) {
	o := l.plan.options
	l.phase = phaseRun
	l.warmAt = at + int64(o.Warmup)
	l.endAt = math.MaxInt64
	if o.Duration > 0 {
		l.endAt = l.warmAt + int64(o.Duration)
	}
	l.tally.startAt, l.tally.endAt = l.warmAt, l.endAt
	if o.Rate > 0 {
		share := o.Rate * float64(len(l.conns)) / float64(o.Connections)
		l.start = newSchedule(at, share, o.Poisson, scramble(o.Seed+uint64(l.id)),
			float64(l.id)/float64(o.Threads))
		l.due = l.start
		l.open = true
	} else if o.Replay.Timed {
		l.start = newReplaySchedule(at, l.plan.trace, o.Replay.Speed)
		l.due = l.start
		l.open = true
	}
	l.heardAt = l.now
	l.touchAll()
}

func (l *loop) passRun() {
	if l.open {
		l.due.advance(l.now, l.endAt)
		backlog := l.due.n - l.start.n
		l.tally.backlog = backlog
		if l.now >= l.warmAt {
			l.tally.maxBacklog = max(l.tally.maxBacklog, backlog)
		}
	}
	if l.now >= l.endAt || l.quota == 0 || l.replayed() {
		l.phase = phaseDrain
	}
}

// startAll starts the requests that may be started: on every connection with an event, or those
// that the schedule says are due.
func (l *loop) startAll() {
	switch {
	case l.phase == phaseFill:
		for _, c := range l.dirty {
			for l.ready(c) && l.startFill(c) {
			}
		}
	case l.phase != phaseRun:
	case l.open:
		l.startDue()
	case l.plan.trace != nil:
		l.startTraced()
	default:
		for _, c := range l.dirty {
			for l.quota > 0 && l.ready(c) {
				if !l.startNext(c, l.issued) {
					l.conns[c].blocked = l.conns[c].inflight == 0
					break
				}
			}
		}
	}
}

// startDue gives the requests that are due to connections in turn. A request without a free slot
// stays due.
func (l *loop) startDue() {
	for l.quota > 0 {
		at := l.start.next()
		if at > l.issued || at > l.endAt || !l.startOne(at) {
			return
		}
		if l.issued >= l.warmAt {
			l.tally.lag.record(l.issued - at)
		}
		l.start.step()
	}
}

// startOne starts a request that was due at that time.
func (l *loop) startOne(at int64) bool {
	for range l.conns {
		c := l.offer()
		switch {
		case c == none:
			return false
		case l.plan.trace != nil && !l.startRecorded(c, at):
			return false // no other connection would start it either
		case l.plan.trace == nil && !l.startNext(c, at):
			continue
		}
		l.touch(c)
		return true
	}
	return false
}

// fail ends the run: this program or the machine does not work.
func (l *loop) fail(err error) {
	if l.trouble == nil {
		l.trouble = err
	}
	l.shared.stop.Store(true)
	l.phase = phaseDone
}
