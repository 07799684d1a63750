// A tag is a request in flight: from the moment that its header was taken in until its reply has
// left.
//
// Invariant: a tag belongs to one connection and is in exactly one place: its connection's body
// (payload arriving), a wave on the disk, the guard, the backlog or the slice queue (waiting its
// turn), a device's flush lists, with the lookup workers, or its connection's ready or sent list.
// What it holds (lease, claim) is given back in release. A step is followed only by those that
// nextSteps allows.

package engine

import (
	"ringnbd/proto"
)

// step says which part of a request's work its wave is, and so what happens when the wave is done.
type step uint8

const (
	stepPayload step = iota // the payload is arriving
	stepClaimed             // waits for earlier writes on the same blocks
	stepRead                // READ: the wave reads
	stepEdges               // WRITE: the wave reads the blocks that it covers in part
	stepWrite               // WRITE: the wave writes
	// TRIM, WRITE_ZEROES: one slice of the range is with the kernel, or queued
	stepSlice
	stepZeroes // WRITE_ZEROES: the wave writes zeroes, because the device cannot zero
	stepPatch  // WRITE_ZEROES: the wave reads the blocks at the edges
	stepMend   // WRITE_ZEROES: the wave writes them back
	stepStore  // memory: a long copy or clearing goes on over some turns
	stepFlush  // waits for a shared flush
	stepCache  // CACHE: the kernel is being told
	stepStatus // BLOCK_STATUS: with the lookup workers
	stepRow    // a row: a segment of a plan that is not begun, or what a plan is busy with
	stepReply  // answered
)

// nextSteps is the steps that may follow each step, a bit each.
var nextSteps = [...]uint16{
	stepPayload: 1<<stepClaimed | 1<<stepRead | 1<<stepFlush | 1<<stepCache | 1<<stepStatus |
		1<<stepReply,
	stepClaimed: 1<<stepEdges | 1<<stepWrite | 1<<stepSlice | 1<<stepZeroes | 1<<stepPatch |
		1<<stepStore | 1<<stepFlush | 1<<stepReply,
	stepRead:  1 << stepReply,
	stepEdges: 1<<stepWrite | 1<<stepReply,
	stepWrite: 1<<stepFlush | 1<<stepReply,
	stepSlice: 1<<stepSlice | 1<<stepZeroes | 1<<stepPatch | 1<<stepStore | 1<<stepFlush |
		1<<stepReply,
	stepZeroes: 1<<stepPatch | 1<<stepFlush | 1<<stepReply,
	stepPatch:  1<<stepMend | 1<<stepReply,
	stepMend:   1<<stepSlice | 1<<stepZeroes | 1<<stepFlush | 1<<stepReply,
	stepStore:  1 << stepReply,
	stepFlush:  1 << stepReply,
	stepCache:  1 << stepReply,
	stepStatus: 1 << stepReply,
	stepRow: 1<<stepRead | 1<<stepWrite | 1<<stepSlice | 1<<stepZeroes | 1<<stepStore |
		1<<stepFlush | 1<<stepReply,
	stepReply: 0, // the row is released
}

// become changes a request's step.
func (t *tag) become(s step) {
	must(nextSteps[t.step]>>s&1 != 0, "a request took a step that cannot follow its own")
	t.step = s
}

// tag is a request's row: two cache lines. It holds no pointers.
type tag struct {
	proto.Request
	// at is where the request's range begins on the device: its offset, and the export's base.
	at     uint64
	lo, hi uint64 // the range rounded out to the device's blocks
	// TRIM, WRITE_ZEROES, WRITE to memory: everything of the range before this is done; READ in
	// chunks: bytes of it that are replied to; a row's READ or WRITE: its place in the pool
	cursor uint64

	memory  lease
	scratch lease  // two blocks, for a range that does not begin and end on blocks
	cost    uint32 // bytes of lease
	ahead   uint32 // bytes with which it overtook a request that waits for memory, see queue.go
	// that its connection was of when it was taken in; of a row: the request that it is for, or
	// none, see rows.go
	line   uint32
	conn   uint32 // none: it is a row
	dev    uint32 // index of the device that the request is about
	next   uint32 // in the list that it is in
	errno  proto.Errno
	system int32 // positive errno of the kernel, when it said something bad

	contexts   proto.ContextSet // BLOCK_STATUS: those that are asked for
	generation uint16
	wave       // disk.go
	step       step
	spared     uint8  // pages of the ledger's reserve that it has
	region     region // of its leases
	portion    portion
	claimed    bool
	ended      bool // the file or device has ended before the request did
	filter     bool // BLOCK_STATUS: its payload names wrong contexts
}

// tagTable is the requests of a loop.
type tagTable struct {
	tags    []tag
	freeTag uint32 // stack of free rows, linked through next
	// progress is how far each segment of a wave has come, in bytes; valid while wave.partial.
	progress [][maxSegments]uint32
	ranges   []rangeWork // of a TRIM or WRITE_ZEROES, see range.go
}

// newTagTable makes the tags of a loop's requests, all free. After them there is room for rows,
// which costs address space only, until a planned device comes (rows.go).
func newTagTable(rows int) tagTable {
	n := tagsPerLoop + rows
	t := tagTable{tags: make([]tag, n), ranges: make([]rangeWork, n),
		progress: make([][maxSegments]uint32, n)}
	for i := range tagsPerLoop {
		t.tags[i].next = uint32(i) + 1
	}
	t.tags[tagsPerLoop-1].next = none
	return t
}

// claimIndex is a tag's row in the guard, which all loops share; deal finds the loop by it.
func (l *loop) claimIndex(t uint32) uint32 { return l.id*tagsPerLoop + t }

// deserted reports whether a request's client is gone, and will never learn what became of it.
// A row goes on all the same: what its device has begun is for its plan to know.
func (l *loop) deserted(t uint32) bool {
	c := l.tags[t].conn
	return c != none && l.conns[c].state == connClosing
}

// begin starts a request whose payload, if it has one, is complete.
func (l *loop) begin(t uint32) {
	row := &l.tags[t]
	d := l.deviceOf(row)
	if row.errno != proto.Success ||
		row.Length == 0 && row.Command != proto.CmdFlush && row.Command != proto.CmdBlockStatus {
		l.answer(t)
		return
	}
	switch row.Command {
	case proto.CmdRead:
		if !d.onDisk() {
			l.answer(t)
			return
		}
		row.become(stepRead)
		l.issueWave(t)
	case proto.CmdFlush:
		l.flush(t)
	case proto.CmdBlockStatus:
		l.beginStatus(t)
	case proto.CmdCache:
		l.beginCache(t)
	default:
		if !d.keeps() {
			l.answer(t)
			return
		}
		if !d.written.Load() {
			d.written.Store(true)
		}
		row.become(stepClaimed)
		row.claimed = true
		if l.shared.guard.enter(l.claimIndex(t), row.dev, row.lo, row.hi) {
			l.run(t)
		} else {
			l.counters.Overlaps++
		}
	}
}

// run starts a write of any kind that now has its range to itself.
func (l *loop) run(t uint32) {
	row := &l.tags[t]
	if l.deserted(t) {
		// Better not done than done late, over data that came by another connection.
		l.answer(t)
		return
	}
	switch {
	case row.Command != proto.CmdWrite:
		l.beginRange(t)
	case !l.deviceOf(row).onDisk():
		l.store(t)
	case row.scratch != none:
		l.counters.Unaligned++
		row.become(stepEdges)
		l.issueEdges(t)
	case l.cacheable(row):
		l.writeCached(t)
	default:
		row.become(stepWrite)
		l.issueWave(t)
	}
}

// stepDone goes on with a request whose wave is complete.
func (l *loop) stepDone(t uint32) {
	row := &l.tags[t]
	if row.errno != proto.Success {
		l.answer(t)
		return
	}
	switch row.step {
	case stepWrite:
		if row.Flags&proto.CmdFlagFUA != 0 && !l.deviceOf(row).Direct {
			l.flush(t) // FUA through the page cache: a write, then a flush, see segmentOf
			return
		}
		l.answer(t)
	case stepRead, stepFlush, stepCache:
		l.answer(t)
	case stepEdges:
		l.merge(row)
		row.become(stepWrite)
		l.issueWave(t)
	case stepSlice, stepZeroes, stepPatch, stepMend:
		l.rangeDone(t)
	default:
		must(false, "a wave ended in a step that has none")
	}
}

// answer ends a request's work: its range is free for others, its reply is next in line.
func (l *loop) answer(t uint32) {
	row := &l.tags[t]
	row.become(stepReply)
	l.unclaim(t)
	if row.portion != portionWhole && l.partDone(t) {
		return
	}
	c := &l.conns[row.conn]
	if row.errno != proto.Success {
		c.traffic.Errors++
	}
	l.appendTag(&c.ready, t)
	l.touch(row.conn)
}

// unclaim leaves the guard; requests that waited for this one alone may run.
func (l *loop) unclaim(t uint32) {
	row := &l.tags[t]
	if row.claimed {
		row.claimed = false
		grants := uint32(none)
		l.shared.guard.leave(l.claimIndex(t), &grants)
		l.deal(grants)
	}
}

// release gives a tag and all that it holds back.
func (l *loop) release(t uint32) {
	row := &l.tags[t]
	must(row.left == 0 && !row.claimed, "a request was released while its work went on")
	c := &l.conns[row.conn]
	l.leases.give(row.memory)
	l.leases.give(row.scratch)
	if row.spared > 0 {
		l.ledger.unspare(row.line, uint32(row.spared))
	}
	l.ledger.give(&c.account, c.export, row.region, 1, uint64(row.cost))
	l.queue.ahead -= uint64(row.ahead)
	l.queue.tagFreed()
	row.memory, row.scratch, row.cost, row.ahead, row.spared = none, none, 0, 0, 0
	row.next = l.freeTag
	l.freeTag = t
}
