// A tag is a request in flight: from the moment that its header was taken in until its reply has
// left.
//
// Invariant: a tag belongs to one connection and is in exactly one place: its connection's body
// (payload arriving), a wave on the disk, the guard or the slice queue (waiting its turn), a
// device's flush lists, or its connection's ready or sent list. What it holds (lease, claim) goes
// home in release.

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
	stepStore  // memory: what is copied into it, or cleared, is long
	stepFlush  // waits for a shared flush
	stepCache  // CACHE: the kernel is being told
	stepStatus // BLOCK_STATUS: with those who look the status up
	stepReply  // answered
)

// tag is a row without pointers.
type tag struct {
	proto.Request
	lo, hi uint64 // the request's range rounded out to the device's blocks
	// TRIM, WRITE_ZEROES, WRITE to memory: everything of the range before this is done; READ in
	// chunks: replied to
	cursor  uint64
	issued  int64 // when its slice was issued
	memory  lease
	scratch lease // two blocks, for a range that does not begin and end on blocks
	cost    uint32
	conn    uint32
	dev     uint32 // index of the device that the request is about
	next    uint32
	slice   uint32 // bytes of the slice that is with the kernel
	ahead   uint32 // bytes with which it went before one that waits for memory, see beside
	line    uint32 // that its connection was of when it was taken in
	stride  uint64 // bytes of the next one
	errno   proto.Errno
	// what the kernel said, as a positive errno, when it said something bad
	system     int32
	contexts   proto.ContextSet // BLOCK_STATUS: those that are asked for
	left       uint16           // segments of the wave that are in flight
	generation uint16
	retries    uint16
	step       step
	spared     uint8  // pages of the ledger's reserve that it has
	region     region // of its leases
	part       uint8  // of a wave: the next to be issued,
	parts      uint8  // and how many there are
	portion    portion
	claimed    bool
	mended     bool // WRITE_ZEROES: the blocks at the edges are done
	short      bool // a segment of the wave came back short; its progress is in loop.progress
	ended      bool // the file or device has ended before the request did
	filter     bool // BLOCK_STATUS: its payload names wrong contexts
}

const maxRetries = 16 * maxSegments // of all segments of a wave, of a slice

// claimIndex is a tag's row in the guard, which all loops share.
func (l *loop) claimIndex(t uint32) uint32 { return l.id*tagsPerLoop + t }

// admit takes a request in, or leaves its header where it is: false means that the connection
// waits, for its own replies or for its turn, or has ended.
func (l *loop) admit(i uint32, r *proto.Request) bool {
	c := &l.conns[i]
	if r.Command == proto.CmdDisc {
		l.counters.Requests[proto.CmdDisc]++
		l.leave(i, CloseDisconnect)
		return false
	}
	export := &l.table.exports[c.export]
	errno := proto.Check(r, &export.Facts, c.session)
	if errno != proto.Success && r.Undrainable(&export.Facts) {
		l.fail(i, CloseOversize)
		return false
	}
	if errno == proto.Success && l.outsize(r, export.Device) {
		return l.divide(i, r)
	}
	return l.takeIn(i, r, errno, portionWhole)
}

// takeIn gives a request, or a part of one, its tag and memory, and begins it or lets its payload
// come.
func (l *loop) takeIn(i uint32, r *proto.Request, errno proto.Errno, p portion) bool {
	c := &l.conns[i]
	export := &l.table.exports[c.export]
	var memory, scratch uint64
	lo, hi := r.Offset, r.Offset+r.Length
	if errno == proto.Success {
		if r.Command == proto.CmdBlockStatus {
			memory = statusMemory(r, c.session)
			hi = lo // no data of the device is held
		} else {
			lo, hi = export.Device.down(lo), export.Device.up(hi)
			memory, scratch = needs(r, export.Device, lo, hi)
		}
	}
	t, ok := l.takeTag(i, memory, scratch)
	if !ok {
		return false
	}
	if p == portionWhole {
		l.counters.Requests[min(r.Command, commandSlots-1)]++
		c.count(r)
	}
	row := &l.tags[t]
	row.Request, row.dev, row.errno, row.portion = *r, export.device, errno, p
	row.lo, row.hi = lo, hi
	payload := r.Payload()
	if payload == 0 {
		l.begin(t)
		return true
	}
	c.expectPayload(t, uint32(payload), row.memory, uint32(r.Offset-lo), memory == 0)
	return true
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
		if d.Kind == Null || d.Kind == Memory {
			l.answer(t)
			return
		}
		row.step = stepRead
		l.issueWave(t)
	case proto.CmdFlush:
		l.flush(t)
	case proto.CmdBlockStatus:
		l.beginStatus(t)
	case proto.CmdCache:
		l.beginCache(t)
	default:
		if d.Kind == Null {
			l.answer(t)
			return
		}
		if !d.written.Load() {
			d.written.Store(true)
		}
		row.step, row.claimed = stepClaimed, true
		if l.shared.guard.enter(l.claimIndex(t), l.id, row.dev, row.lo, row.hi) {
			l.run(t)
		} else {
			l.counters.Overlaps++
		}
	}
}

// run starts a write of any kind that now has its range to itself.
func (l *loop) run(t uint32) {
	row := &l.tags[t]
	if l.conns[row.conn].state == connClosing {
		// Its client is gone and will never learn what became of it: better not done than done
		// late, over data that came by another connection.
		l.answer(t)
		return
	}
	switch {
	case row.Command != proto.CmdWrite:
		l.beginRange(t)
	case l.deviceOf(row).Kind == Memory:
		l.store(t)
	case row.scratch != none:
		l.counters.Unaligned++
		row.step = stepEdges
		l.issueEdges(t)
	case l.cacheable(row):
		l.writeCached(t)
	default:
		row.step = stepWrite
		l.issueWave(t)
	}
}

// stepDone: the wave of a request is complete.
func (l *loop) stepDone(t uint32) {
	row := &l.tags[t]
	if row.errno != proto.Success {
		l.answer(t)
		return
	}
	switch row.step {
	case stepWrite:
		if row.Flags&proto.CmdFlagFUA != 0 && !l.deviceOf(row).Direct {
			l.flush(t) // see issue
			return
		}
		l.answer(t)
	case stepRead:
		l.answer(t)
	case stepEdges:
		l.merge(row)
		row.step = stepWrite
		l.issueWave(t)
	case stepZeroes, stepPatch, stepMend:
		l.rangeDone(t)
	default:
		must(false, "a wave ended in a step that has none")
	}
}

// answer ends a request's work: its range is free for others, its reply is next in line.
func (l *loop) answer(t uint32) {
	row := &l.tags[t]
	row.step = stepReply
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

// unclaim leaves the guard; those that waited for this request alone may run.
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
	l.ledger.give(&c.account, &l.holds[c.export], row.region, 1, uint64(row.cost))
	l.queue.ahead -= uint64(row.ahead)
	l.queue.tagFreed()
	row.memory, row.scratch, row.cost, row.ahead, row.spared = none, none, 0, 0, 0
	row.next = l.freeTag
	l.freeTag = t
}
