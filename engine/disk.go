// Segments: a wave is the disk operations of one step of a request, at most one per 1 MiB piece of
// its lease, all issued at once or, when they are many, over some turns (budget.go). The last
// segment to complete ends the step.
//
// Invariant: wave.left counts the segments that are with the kernel, or are still to be issued, or
// wait for one of its workers (workers.go). A slice, a CACHE and a flush are waves of one segment,
// and all segments end in segmentsOver. A segment that comes back short, or with "try again", goes
// out again for the rest; what is left then must still be whole blocks, else the file has been
// truncated under us.

package engine

import (
	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// maxSegments bounds a wave: the pieces of the longest request, rounded out to blocks.
const maxSegments = MaxRequest/pieceSize + 2

// maxRetries bounds how often segments of one wave, or one slice, are sent out again.
const maxRetries = 16 * maxSegments

// wave is the progress of a request's wave.
type wave struct {
	left    uint16 // segments that are not over
	retries uint16
	part    uint8 // the next segment to be issued
	parts   uint8 // segments in all
	partial bool  // a segment came back short; loop.progress says how far each has come
}

// op is what a segment does.
type op uint8

const (
	opRead op = iota
	opWrite
	opWriteSync // and is on the disk when it completes
)

// segment is one disk operation: arena offset, place on the device, length.
type segment struct {
	at  uint64
	off uint64
	len uint32
	op  op
}

// issueWave sends every piece of a request's lease to the disk, or fills it from there.
func (l *loop) issueWave(t uint32) {
	off, parts := l.tags[t].lo, uint8(0)
	for piece := l.tags[t].memory; piece != none; piece = l.leases.next[piece] {
		off += min(l.tags[t].hi-off, pieceSize)
		parts++
	}
	must(off == l.tags[t].hi, "a lease does not fit its request")
	l.issueAll(t, parts)
}

// issueAll begins a wave of that many segments.
func (l *loop) issueAll(t uint32, parts uint8) {
	l.tags[t].wave = wave{parts: parts, left: uint16(parts)}
	l.issueParts(t)
}

// issueParts sends the segments of a wave that were not sent yet, as far as the turn's budget goes.
func (l *loop) issueParts(t uint32) {
	for row := &l.tags[t]; row.part < row.parts; {
		if l.spent() && (row.parts > 1 || row.hi-row.lo > smallWork) {
			l.backlog.push(t)
			return
		}
		l.issuePart(t)
	}
}

// issuePart sends the next segment of a wave.
func (l *loop) issuePart(t uint32) {
	row := &l.tags[t]
	part := row.part
	row.part++
	s := l.segmentOf(row, part)
	l.work += uint64(s.len)
	l.issue(t, part, s)
}

// edges says which blocks at the ends of a range are covered in part. When both ends lie in one
// block, it is the head if its front is not covered, else the tail.
func (l *loop) edges(row *tag, block uint64) (head, tail bool) {
	head = row.at > row.lo
	tail = row.at+row.Length < row.hi && !(head && row.hi-row.lo == block)
	return head, tail
}

// issueEdges reads or writes those blocks, from or to the request's scratch: first the head, then
// the tail.
func (l *loop) issueEdges(t uint32) {
	row := &l.tags[t]
	row.wave = wave{}
	head, tail := l.edges(row, uint64(l.deviceOf(row).Block))
	for part, wanted := range [2]bool{head, tail} {
		if wanted {
			row.left++
			l.issue(t, uint8(part), l.segmentOf(row, uint8(part)))
		}
	}
}

// segmentOf computes a segment of the wave that is in flight. With O_DIRECT, FUA is part of the
// write. Through the page cache it is a flush after it: a write with RWF_DSYNC would also collect
// the error of an earlier write, maybe another client's, which only a flush may, because a flush
// remembers.
func (l *loop) segmentOf(row *tag, part uint8) segment {
	switch row.step {
	case stepRead, stepWrite:
		piece := row.memory
		for range part {
			piece = l.leases.next[piece]
		}
		off := row.lo + uint64(part)<<pieceShift
		s := segment{l.placeOf(row, piece), off, uint32(min(row.hi-off, pieceSize)), opRead}
		if row.step == stepWrite {
			s.op = opWrite
			if row.Flags&proto.CmdFlagFUA != 0 && l.deviceOf(row).Direct {
				s.op = opWriteSync
			}
		}
		return s
	case stepZeroes:
		off := row.cursor + uint64(part)<<pieceShift
		_, end := l.innerRange(row)
		return segment{0, off, uint32(min(end-off, pieceSize)), opWrite}
	default: // the edges
		block := l.deviceOf(row).Block
		s := segment{l.leases.offset(row.scratch), row.lo, block, opRead}
		if part > 0 {
			s.at, s.off = s.at+uint64(block), row.hi-uint64(block)
		}
		if row.step == stepMend {
			s.op = opWrite
		}
		return s
	}
}

// placeOf is where in the pool a piece of a request's lease is, or the memory of a row, which is in
// one piece of the lease of another.
func (l *loop) placeOf(row *tag, piece uint32) uint64 {
	if piece == none {
		return row.cursor
	}
	return l.leases.offset(piece)
}

// restOf computes what is left of a segment that may have come back short.
func (l *loop) restOf(t uint32, part uint8) segment {
	row := &l.tags[t]
	s := l.segmentOf(row, part)
	if row.partial {
		s = s.after(l.progress[t][part])
	}
	return s
}

// after is what is left of a segment after done bytes of it.
func (s segment) after(done uint32) segment {
	s.at, s.off, s.len = s.at+uint64(done), s.off+uint64(done), s.len-done
	return s
}

// issue sends one segment, or what is left of it, the way that its device allows: to its plan, to
// the kernel, or to the segments that wait for a worker.
func (l *loop) issue(t uint32, part uint8, s segment) {
	q := &l.devices[l.tags[t].dev]
	if q.device.Kind == Planned {
		l.spawn(t, part, s)
		return
	}
	rwflags, worker := l.wayOf(q, s.op == opRead)
	if worker {
		l.park(t, part)
		return
	}
	l.issueTo(t, part, s, rwflags)
}

// issueTo puts a segment into the submission queue.
func (l *loop) issueTo(t uint32, part uint8, s segment, rwflags uint32) {
	row := &l.tags[t]
	q := &l.devices[row.dev]
	data := uint64(tokenOf(onDisk, part, row.generation, t))
	buffer, fixed := l.bufferOf(s.at)
	addr, reads := l.pool.Addr(s.at), s.op == opRead
	if s.op == opWriteSync {
		rwflags |= unix.RWF_DSYNC
	}
	e := l.sqe()
	switch {
	case fixed && reads:
		uring.PrepReadFixed(e, data, q.file, buffer, addr, s.len, s.off, rwflags)
	case fixed:
		uring.PrepWriteFixed(e, data, q.file, buffer, addr, s.len, s.off, rwflags)
	case reads:
		uring.PrepReadFile(e, data, q.file, addr, s.len, s.off, rwflags)
	default:
		uring.PrepWriteFile(e, data, q.file, addr, s.len, s.off, rwflags)
	}
	if part&viaWorker == 0 {
		l.submitted(q)
		return
	}
	l.workerTaken(q)
	e.Flags |= uring.Async
}

// segmentDone files the completion of a request's disk operation.
func (l *loop) segmentDone(tok token, res int32) {
	t := tok.slot()
	row := &l.tags[t]
	must(row.generation == tok.generation() && row.left > 0,
		"a completion for a request that is gone")
	switch q := &l.devices[row.dev]; {
	case row.step == stepSlice:
		l.sliceDone(t, res)
	case row.step == stepCache:
		l.cacheDone(t)
	case tok.part()&viaWorker == 0:
		l.completed(q)
		l.judge(t, tok.part(), res)
	default:
		dev := row.dev // the row may be another request's afterwards
		l.workerFreed(q)
		l.judge(t, tok.part(), res)
		l.issueParked(dev)
	}
}

// judge decides what the result of a segment means: it is over, or goes out again for the rest.
func (l *loop) judge(t uint32, part uint8, res int32) {
	row := &l.tags[t]
	tried := part&viaWorker == 0
	s := l.restOf(t, part&^viaWorker)
	refused := tried && l.refuses(&l.devices[row.dev], s.op, res)
	gone := l.deserted(t)
	switch {
	case res == int32(s.len):
		l.segmentsOver(t, 1, proto.Success)
	case refused && !gone:
		l.park(t, part)
	case gone && (refused || res > 0): // the rest has no reader, see unpark
		l.segmentsOver(t, 1, proto.EIO)
	case res > 0 && uint32(res) < s.len && uint32(res)%l.deviceOf(row).Block == 0 && row.again():
		l.continueSegment(t, part, s, uint32(res))
	case (res == -int32(unix.EAGAIN) || res == -int32(unix.EINTR)) && row.again():
		l.issue(t, part&^viaWorker, s)
	case res >= 0: // the end of the file is nearer than it was
		l.incident(DiskEnded, row, 0)
		row.ended = true
		l.segmentsOver(t, 1, proto.EIO)
	default:
		l.segmentsOver(t, 1, l.diskError(row, s.op, res))
	}
}

// segmentsOver ends n segments of a request's wave. The last of them ends its step.
func (l *loop) segmentsOver(t uint32, n uint16, errno proto.Errno) {
	row := &l.tags[t]
	must(row.left >= n, "a wave has more ends than segments")
	if errno != proto.Success {
		row.errno = errno
	}
	row.left -= n
	if row.left == 0 {
		l.stepDone(t)
	}
}

// again reports whether a segment of the wave may be sent out once more.
func (w *wave) again() bool {
	w.retries++
	return w.retries <= maxRetries
}

// continueSegment sends out what is left of a segment after done more bytes of it. A segment that
// was tried without a worker goes to a worker: the kernel stopped where it would have had to wait,
// and may do so page by page, more often than a wave may be sent out.
func (l *loop) continueSegment(t uint32, part uint8, s segment, done uint32) {
	row, tried := &l.tags[t], part&viaWorker == 0
	part &^= viaWorker
	if !row.partial {
		row.partial = true
		l.progress[t] = [maxSegments]uint32{}
	}
	l.progress[t][part] += done
	if tried {
		l.park(t, part)
		return
	}
	l.issue(t, part, s.after(done))
}

// diskError is what a failed disk operation means to the client. A write that should have been
// durable and failed may have used up the kernel's only report of what failed to be written back,
// of this write or of others: later flushes must not succeed.
func (l *loop) diskError(row *tag, o op, res int32) proto.Errno {
	row.system = -res
	kind := DiskFailed
	if d := l.deviceOf(row); o == opWriteSync && !refused(-res) {
		if !d.Failed() {
			kind = FlushFailed
		}
		d.fail()
	}
	l.incident(kind, row, -res)
	return proto.FromSystem(-res)
}

// refused reports whether an errno says that the kernel has not begun the operation, because it is
// not allowed. Every other error of a write with RWF_DSYNC may be that of the sync after it, which
// reports what any write-back has left in the file's mapping: the errno of what the disk said (EIO,
// ETIMEDOUT, EREMOTEIO and others), ENOSPC or EDQUOT.
func refused(errno int32) bool {
	switch unix.Errno(errno) {
	case unix.EINVAL, unix.EFBIG, unix.EPERM, unix.EACCES, unix.EBADF, unix.EFAULT:
		return true
	}
	return false
}

// merge completes the first and last block of an unaligned write with what was on the disk around
// it.
func (l *loop) merge(row *tag) {
	block := uint64(l.deviceOf(row).Block)
	head, tail := l.edges(row, block)
	old := l.pool.Bytes(l.leases.offset(row.scratch), int(2*block))
	end := row.at + row.Length
	if head {
		first := l.pool.Bytes(l.leases.offset(row.memory), int(block))
		copy(first[:row.at-row.lo], old)
		if row.hi-row.lo == block {
			copy(first[end-row.lo:], old[end-row.lo:block])
		}
	}
	if tail {
		piece := row.memory
		for l.leases.next[piece] != none {
			piece = l.leases.next[piece]
		}
		lastBlock := (row.hi - row.lo - block) & (pieceSize - 1)
		last := l.pool.Bytes(l.leases.offset(piece)+lastBlock, int(block))
		keep := row.hi - end
		copy(last[block-keep:], old[2*block-keep:2*block])
	}
}
