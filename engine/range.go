// TRIM and WRITE_ZEROES: operations on a range that may be the whole device. They are done slice by
// slice, each slice as long as takes the device a few milliseconds, a few slices in flight per
// device, and the claim on what is done is given up at once, so that a 1 TiB TRIM delays nothing
// else. Where the device cannot zero, waves of zeroes are written.
//
// Invariant: nothing outside a claim is written. The blocks at the edges (read, zeroed in part,
// written back) come before anything of the claim is given up; the inner range is whole blocks
// only; the flush that FUA asks for comes last.
//
//	step     in flight               next
//	claimed  nothing                 patch, where the edges need it and FAST_ZERO does not; or inner
//	patch    reads of the edges      mend
//	mend     writes of the edges     inner, while some of it is left; or the end
//	inner    (a choice, not a step)  slice; zeroes, where the device cannot; done, for a TRIM; or
//	                                 ENOTSUP, for FAST_ZERO, while nothing has changed
//	slice    one slice, or none yet  slice, while some is left; inner's other choices, when the
//	                                 device cannot after all; done
//	zeroes   up to 8 MiB of zeroes   zeroes, while some is left; done
//	done     (a choice)              patch, when the edges are still to be mended; or the end
//	the end  (a choice)              flush, for FUA; or the answer

package engine

import (
	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

const (
	// maxSlices is per device and loop: each slice occupies a kernel worker, and most file systems
	// serialise them anyway.
	maxSlices = 2
	// A request begins with firstSlice bytes and doubles from slice to slice while they take less
	// than quickSliceNanos. Nothing is remembered beyond the request: what a hole allows, the
	// fragmented part of the same file does not, and a slice holds the file's lock until it is
	// done.
	firstSlice      = 4 << 20
	minSlice        = 1 << 20
	maxSlice        = 32 << 20
	quickSliceNanos = int64(1e6)
	// slowSliceNanos is what a slice may take before it is followed by a shorter one.
	slowSliceNanos = int64(4e6)
	// maxZeroWave is how many segments of zeroes one WRITE_ZEROES has in flight.
	maxZeroWave = 8
)

// slicer is the slices of one device.
type slicer struct {
	slicing list // tags with another slice of a long operation to do
	slices  int  // slices in flight
}

// rangeWork is what a TRIM or WRITE_ZEROES knows beside its tag (loop.ranges, by tag). tag.cursor
// is where the part of the inner range begins that is not done.
type rangeWork struct {
	stride uint64 // bytes of the next slice
	issued int64  // when the slice was issued, nanoseconds of the loop's clock
	slice  uint32 // bytes of the slice in flight; 0 when it is back: the device cannot do it
	mended bool   // the blocks at the edges are done
}

// innerRange computes the part of a request's range that consists of whole blocks (of pages, for
// memory); lo >= hi when there is none.
func (l *loop) innerRange(row *tag) (lo, hi uint64) {
	block := l.zeroBlock(row)
	return (row.at + block - 1) &^ (block - 1), (row.at + row.Length) &^ (block - 1)
}

func (l *loop) zeroBlock(row *tag) uint64 {
	d := l.deviceOf(row)
	if d.onDisk() {
		return uint64(d.Block)
	}
	return pageSize
}

// beginRange starts a TRIM or WRITE_ZEROES that has its range to itself. The edges are zeroed
// first, because the claim on what is done of the inner range is given up slice by slice, and with
// it the claim on the head. A FAST_ZERO begins with the inner range: it may be refused only while
// nothing has changed.
func (l *loop) beginRange(t uint32) {
	row := &l.tags[t]
	row.cursor, _ = l.innerRange(row)
	l.ranges[t] = rangeWork{stride: l.shared.firstSlice}
	zeroes := row.Command == proto.CmdWriteZeroes
	switch {
	case zeroes && !l.deviceOf(row).onDisk():
		l.clearEdges(row)
		l.ranges[t].mended = true
	case zeroes && row.scratch != none && row.Flags&proto.CmdFlagFastZero == 0:
		row.become(stepPatch)
		l.issueEdges(t)
		return
	}
	l.beginInner(t)
}

// beginInner goes on with the inner range, by slices if the device has an operation for it.
func (l *loop) beginInner(t uint32) {
	row := &l.tags[t]
	if _, hi := l.innerRange(row); row.cursor >= hi {
		l.innerDone(t)
	} else if _, ok := l.sliceMode(row); ok {
		l.queueSlice(t)
	} else {
		l.cannotSlice(t)
	}
}

// sliceMode says how the device does the inner range: a mode of fallocate, or 0 for a discard or
// madvise. ok is false when it cannot.
func (l *loop) sliceMode(row *tag) (mode uint32, ok bool) {
	d := l.deviceOf(row)
	const punch, zero = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	fast := row.Flags&proto.CmdFlagFastZero != 0
	switch {
	case !d.onDisk() || d.Kind == Planned:
		return 0, true
	case row.Command == proto.CmdTrim && d.Kind == Block && d.Discard && l.shared.discard:
		return 0, true
	case row.Command == proto.CmdTrim:
		return punch, d.Punch
	case row.Flags&proto.CmdFlagNoHole == 0 && d.Punch:
		return punch, true
	default:
		// On a block device the kernel itself falls back to writing zeroes, which is not fast.
		return zero, d.ZeroRange && !(fast && d.Kind == Block && !d.FastZero)
	}
}

// cannotSlice does the inner range, or the rest of it, without the device's own operation. TRIM is
// only a hint; zeroes must be written, unless the client asked for fast or nothing. When something
// has been zeroed it is too late for nothing.
func (l *loop) cannotSlice(t uint32) {
	row := &l.tags[t]
	first, _ := l.innerRange(row)
	switch {
	case row.Command == proto.CmdTrim:
		l.innerDone(t)
	case row.Flags&proto.CmdFlagFastZero != 0 && row.cursor == first:
		row.errno = proto.ENOTSUP
		l.answer(t)
	case !l.deviceOf(row).onDisk(): // locked in memory: no page of it can be given back
		row.become(stepStore)
		l.backlog.push(t)
	default:
		row.become(stepZeroes)
		l.issueZeroes(t)
	}
}

// queueSlice takes a place in the line for the next slice: long operations take turns.
func (l *loop) queueSlice(t uint32) {
	row := &l.tags[t]
	row.become(stepSlice)
	row.left = 1
	l.appendTag(&l.devices[row.dev].slicing, t)
	l.issueSlices(row.dev)
}

func (l *loop) issueSlices(dev uint32) {
	q := &l.devices[dev]
	for q.slices < maxSlices && q.slicing.head != none {
		if q.device.Kind == Planned && !l.mayHave(dev) {
			l.lack(dev)
			return
		}
		t := l.popTag(&q.slicing)
		if l.deserted(t) {
			l.tags[t].left = 0
			l.answer(t)
			continue
		}
		l.issueSlice(t)
	}
}

func (l *loop) issueSlice(t uint32) {
	row, work := &l.tags[t], &l.ranges[t]
	q := &l.devices[row.dev]
	d := q.device
	_, hi := l.innerRange(row)
	n := min(hi-row.cursor, work.stride)
	work.slice, work.issued = uint32(n), l.now
	q.slices++
	d.busy.Add(1)
	data := uint64(tokenOf(onDisk, 0, row.generation, t))
	mode, _ := l.sliceMode(row)
	switch {
	case d.Kind == Planned:
		l.spawnSlice(t, n)
	case !d.onDisk():
		uring.PrepMadvise(l.sqe(), data, d.Memory.Addr(row.cursor), uint32(n), unix.MADV_DONTNEED)
	case mode == 0:
		uring.PrepDiscard(l.sqe(), data, q.file, row.cursor, n)
	default:
		uring.PrepFallocate(l.sqe(), data, q.file, mode, row.cursor, n)
	}
}

// sliceDone judges what the result of a slice means.
func (l *loop) sliceDone(t uint32, res int32) {
	row, work := &l.tags[t], &l.ranges[t]
	dev, d := row.dev, l.deviceOf(row)
	l.devices[dev].slices--
	d.busy.Add(-1)
	// Busy: the device's page cache holds what another program has just written there. TRIM is a
	// hint, and the slice is done without it; to zero is an order, which is tried again, and
	// carried out by writing if that does not help.
	busy := res == -int32(unix.EBUSY) || res == -int32(unix.ETXTBSY)
	switch {
	case res == 0 || busy && row.Command == proto.CmdTrim:
		work.tune(l.now, l.shared.firstSlice)
		row.retries = 0
		l.segmentsOver(t, 1, proto.Success)
	case (res == -int32(unix.EINTR) || res == -int32(unix.EAGAIN) || busy) && row.again():
		l.queueSlice(t)
	case busy || unsupported(res) || row.Command == proto.CmdTrim && res == -int32(unix.EINVAL) ||
		!d.onDisk():
		work.slice = 0
		l.segmentsOver(t, 1, proto.Success)
	default:
		l.incident(DiskFailed, row, -res)
		row.system = -res
		l.segmentsOver(t, 1, proto.FromSystem(-res))
	}
	l.issueSlices(dev)
}

// sliceAnswered judges how the slice of a planned device has ended. What failed below it was
// reported there.
func (l *loop) sliceAnswered(t uint32, errno proto.Errno) {
	row, work := &l.tags[t], &l.ranges[t]
	dev := row.dev
	l.devices[dev].slices--
	l.deviceOf(row).busy.Add(-1)
	switch errno {
	case proto.Success:
		work.tune(l.now, l.shared.firstSlice)
	case proto.ENOTSUP:
		work.slice, errno = 0, proto.Success
	}
	l.segmentsOver(t, 1, errno)
	l.issueSlices(dev)
}

// sliceOver goes on after a slice: with the next, or with what follows the last, or without slices
// when the device could not do it.
func (l *loop) sliceOver(t uint32) {
	row, done := &l.tags[t], uint64(l.ranges[t].slice)
	row.cursor += done
	switch _, hi := l.innerRange(row); {
	case done == 0:
		l.cannotSlice(t)
	case row.cursor < hi:
		l.giveUpFront(t)
		l.queueSlice(t)
	default:
		l.innerDone(t)
	}
}

// unsupported reports whether the device turned out not to have an operation, whatever was found
// out when it was opened.
func unsupported(res int32) bool {
	return res == -int32(unix.EOPNOTSUPP) || res == -int32(unix.ENOSYS) ||
		res == -int32(unix.ENOTTY)
}

// tune keeps the time of slices between quickSliceNanos and slowSliceNanos. first is the length of
// a request's first slice.
func (w *rangeWork) tune(now int64, first uint64) {
	took := now - w.issued
	if took < quickSliceNanos {
		w.stride = min(w.stride*2, maxSlice)
	} else if took > slowSliceNanos {
		w.stride = max(w.stride/2, min(minSlice, first))
	}
}

// giveUpFront gives up the claim on what is done, unless the block before it has still to be
// mended.
func (l *loop) giveUpFront(t uint32) {
	if row := &l.tags[t]; row.scratch != none && !l.ranges[t].mended || !row.claimed {
		return
	}
	grants := uint32(none)
	l.shared.guard.shrink(l.claimIndex(t), l.tags[t].cursor, &grants)
	l.deal(grants)
}

// issueZeroes writes the next few MiB of zeroes.
func (l *loop) issueZeroes(t uint32) {
	row := &l.tags[t]
	_, hi := l.innerRange(row)
	l.issueAll(t, uint8(min(maxZeroWave, (hi-row.cursor+pieceSize-1)>>pieceShift)))
}

// rangeDone goes on after a wave of a range operation, or a slice.
func (l *loop) rangeDone(t uint32) {
	row := &l.tags[t]
	_, hi := l.innerRange(row)
	switch row.step {
	case stepSlice:
		l.sliceOver(t)
	case stepZeroes:
		row.cursor = min(row.cursor+maxZeroWave<<pieceShift, hi)
		if row.cursor == hi || l.deserted(t) {
			l.innerDone(t)
			return
		}
		l.giveUpFront(t)
		l.issueZeroes(t)
	case stepPatch:
		l.zeroEdges(row)
		row.become(stepMend)
		l.issueEdges(t)
	default:
		l.ranges[t].mended = true
		if row.cursor < hi {
			l.beginInner(t)
		} else {
			l.rangeFinished(t)
		}
	}
}

// innerDone goes on when all whole blocks are done. What may be left is the edges.
func (l *loop) innerDone(t uint32) {
	row := &l.tags[t]
	if row.Command == proto.CmdTrim || row.scratch == none || l.ranges[t].mended {
		l.rangeFinished(t)
		return
	}
	row.become(stepPatch)
	l.issueEdges(t)
}

// rangeFinished answers a request whose range is as asked. With FUA it is flushed first.
func (l *loop) rangeFinished(t uint32) {
	row := &l.tags[t]
	if row.Flags&proto.CmdFlagFUA == 0 {
		l.answer(t)
		return
	}
	l.flush(t)
}

// zeroEdges zeroes, in a request's scratch, what it covers of its first and last block.
func (l *loop) zeroEdges(row *tag) {
	block := uint64(l.deviceOf(row).Block)
	head, tail := l.edges(row, block)
	old := l.pool.Bytes(l.leases.offset(row.scratch), int(2*block))
	end := row.at + row.Length
	if head {
		clear(old[row.at-row.lo : min(end-row.lo, block)])
	}
	if tail {
		clear(old[block : 2*block-(row.hi-end)])
	}
}
