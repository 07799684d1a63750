// Segments: a wave is the disk operations of one step of a request, at most one per 1 MiB piece of
// its lease, all issued at once or, when they are many, over some turns (budget.go). The last one
// to complete ends the step.
//
// Invariant: tag.left counts the segments that are with the kernel, or are still to be issued, or
// wait for one of its workers (workers.go). A segment that comes back short, or with "try again",
// goes out again for the rest; what is left then must still be whole blocks, else the file has been
// truncated under us.

package engine

import (
	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// maxSegments bounds a wave: the pieces of the longest request, rounded out to blocks.
const maxSegments = MaxRequest/pieceSize + 2

// zeroWave is how many segments of zeroes one WRITE_ZEROES has in flight.
const zeroWave = 8

// segment is one disk operation: arena offset, place on the device, length.
type segment struct {
	at  uint64
	off uint64
	len uint32
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

// issueAll begins a wave of so many parts.
func (l *loop) issueAll(t uint32, parts uint8) {
	row := &l.tags[t]
	row.retries, row.short = 0, false
	row.part, row.parts, row.left = 0, parts, uint16(parts)
	l.issueParts(t)
}

// issueParts sends what is left to be sent of a wave, as far as the turn's budget goes.
func (l *loop) issueParts(t uint32) {
	for row := &l.tags[t]; row.part < row.parts; {
		if l.spent() && (row.parts > 1 || row.hi-row.lo > smallWork) {
			l.backlog.push(t)
			return
		}
		l.issuePart(t)
	}
}

// issuePart sends the next part of a wave.
func (l *loop) issuePart(t uint32) {
	row := &l.tags[t]
	part := row.part
	row.part++
	s := l.segmentOf(row, part)
	l.work += uint64(s.len)
	l.issue(t, part, s)
}

// edges says which blocks at the ends of a range are covered in part. When both ends lie in one
// block it is the head, if that is partial.
func (l *loop) edges(row *tag, block uint64) (head, tail bool) {
	head = row.Offset > row.lo
	tail = row.Offset+row.Length < row.hi && !(head && row.hi-row.lo == block)
	return head, tail
}

// issueEdges reads or writes those blocks, from or to the request's scratch: head first, tail
// behind it.
func (l *loop) issueEdges(t uint32) {
	row := &l.tags[t]
	row.retries, row.short = 0, false
	head, tail := l.edges(row, uint64(l.deviceOf(row).Block))
	for part, wanted := range [2]bool{head, tail} {
		if wanted {
			row.left++
			l.issue(t, uint8(part), l.segmentOf(row, uint8(part)))
		}
	}
}

// segmentOf computes a segment of the wave that is in flight.
func (l *loop) segmentOf(row *tag, part uint8) segment {
	switch row.step {
	case stepRead, stepWrite:
		piece := row.memory
		for range part {
			piece = l.leases.next[piece]
		}
		off := row.lo + uint64(part)<<pieceShift
		return segment{l.leases.offset(piece), off, uint32(min(row.hi-off, pieceSize))}
	case stepZeroes:
		off := row.cursor + uint64(part)<<pieceShift
		_, end := l.innerRange(row)
		return segment{0, off, uint32(min(end-off, pieceSize))}
	default: // the edges
		block := uint64(l.deviceOf(row).Block)
		at := l.leases.offset(row.scratch) + uint64(part)*block
		if part == 0 {
			return segment{at, row.lo, uint32(block)}
		}
		return segment{at, row.hi - block, uint32(block)}
	}
}

// after is what is left of a segment behind done bytes of it.
func (s segment) after(done uint32) segment {
	return segment{s.at + uint64(done), s.off + uint64(done), s.len - done}
}

// issue sends one segment, or what is left of it, the way that its device allows: to the kernel, or
// to those that wait for a worker.
func (l *loop) issue(t uint32, part uint8, s segment) {
	row := &l.tags[t]
	rwflags, worker := l.wayOf(&l.devices[row.dev], row.step.reads())
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
	file := q.file
	buffer, fixed := l.bufferOf(s.at)
	addr, reads := l.pool.Addr(s.at), row.step.reads()
	// With O_DIRECT, FUA is part of the write. Through the page cache it is a flush behind it: a
	// write with RWF_DSYNC would also collect the error of somebody's earlier write, which only a
	// flush may, because a flush remembers.
	if row.Flags&proto.CmdFlagFUA != 0 && row.step == stepWrite && q.device.Direct {
		rwflags |= unix.RWF_DSYNC
	}
	e := l.sqe()
	switch {
	case fixed && reads:
		uring.PrepReadFixed(e, data, file, buffer, addr, s.len, s.off, rwflags)
	case fixed:
		uring.PrepWriteFixed(e, data, file, buffer, addr, s.len, s.off, rwflags)
	case reads:
		uring.PrepReadFile(e, data, file, addr, s.len, s.off, rwflags)
	default:
		uring.PrepWriteFile(e, data, file, addr, s.len, s.off, rwflags)
	}
	if part&viaWorker == 0 {
		l.submitted(q)
		return
	}
	l.workerTaken(q)
	e.Flags |= uring.Async
}

// segmentDone files the result of a segment; slices of long operations come here too.
func (l *loop) segmentDone(tok token, res int32) {
	t := tok.slot()
	row := &l.tags[t]
	must(row.generation == tok.generation() && row.left > 0,
		"a completion for a request that is gone")
	switch row.step {
	case stepSlice:
		l.sliceDone(t, res)
		return
	case stepCache:
		l.cacheDone(t)
		return
	}
	q := &l.devices[row.dev]
	gone := l.conns[row.conn].state == connClosing
	part := tok.part() &^ viaWorker
	refused := false
	if part != tok.part() {
		l.workerFreed(q)
		defer l.issueParked(row.dev)
	} else if l.completed(q); l.refuses(q, row, res) {
		if refused = true; !gone {
			l.park(t, part)
			return
		}
	}
	s := l.segmentOf(row, part)
	if row.short {
		s = s.after(l.progress[t][part])
	}
	block := q.device.Block
	switch {
	case res == int32(s.len):
	case gone && (refused || res > 0): // nobody waits for the rest, see unpark
		row.errno = proto.EIO
	case res > 0 && uint32(res) < s.len && uint32(res)%block == 0 && l.again(row):
		l.continueSegment(t, tok.part(), s, uint32(res))
		return
	case (res == -int32(unix.EAGAIN) || res == -int32(unix.EINTR)) && l.again(row):
		l.issue(t, part, s)
		return
	case res >= 0: // the end of the file is nearer than it was
		l.incident(DiskEnded, row, 0)
		row.errno, row.ended = proto.EIO, true
	default:
		row.errno = l.diskError(row, res)
	}
	row.left--
	if row.left == 0 {
		l.stepDone(t)
	}
}

// again bounds how often one wave is sent out anew.
func (l *loop) again(row *tag) bool {
	row.retries++
	return row.retries <= maxRetries
}

// continueSegment sends out what is left of a segment after done more bytes of it. What was not
// with a worker goes to one: the kernel stopped where it would have had to wait, and may do so page
// by page, more often than a wave may be sent out.
func (l *loop) continueSegment(t uint32, part uint8, s segment, done uint32) {
	row, tried := &l.tags[t], part&viaWorker == 0
	part &^= viaWorker
	if !row.short {
		row.short = true
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
// of whomever: later flushes must not succeed.
func (l *loop) diskError(row *tag, res int32) proto.Errno {
	errno := proto.FromSystem(-res)
	row.system = -res
	kind := DiskFailed
	if d := l.deviceOf(row); row.step == stepWrite && row.Flags&proto.CmdFlagFUA != 0 && d.Direct &&
		!refused(-res) {
		if !d.Failed() {
			kind = FlushFailed
		}
		d.fail()
	}
	l.incident(kind, row, -res)
	return errno
}

// refused: the kernel has not begun the operation, for such is not allowed. Every other error of a
// write with RWF_DSYNC may be that of the sync behind it, which reports what any write-back has
// left in the file's mapping: the errno of whatever the disk said (EIO, ETIMEDOUT, EREMOTEIO and
// others), ENOSPC or EDQUOT.
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
	end := row.Offset + row.Length
	if head {
		first := l.pool.Bytes(l.leases.offset(row.memory), int(block))
		copy(first[:row.Offset-row.lo], old)
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
