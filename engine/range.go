// TRIM and WRITE_ZEROES: operations on a range that may be the whole device. They are done slice by
// slice, each slice as long as takes the device a few milliseconds, a few slices in flight per
// device, and the claim on what is done is given up at once, so that a 1 TiB TRIM delays nobody.
//
// Invariant: nothing outside a claim is written. The blocks at the edges (read, zeroed in part,
// written back) come before anything of the claim is given up; the inner range is whole blocks
// only; the flush that FUA asks for comes last.

package engine

import (
	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

const (
	// per device and loop: each occupies a kernel worker, and most file systems serialise them
	// anyway
	maxSlices = 2
	// A request begins with firstSlice bytes and doubles from slice to slice while they take less
	// than sliceShort. Nothing is remembered beyond the request: what a hole allows, the fragmented
	// part of the same file does not, and a slice holds the file's lock until it is done.
	firstSlice = 4 << 20
	leastSlice = 1 << 20
	mostSlice  = 32 << 20
	sliceShort = int64(1e6) // nanoseconds
	sliceLong  = int64(4e6) // a slice that takes more than this is followed by a shorter one
)

// slicer is the slices of one device.
type slicer struct {
	slicing list // tags with another slice of a long operation to do
	slices  int  // slices in flight
}

// innerRange is the part of a request's range that consists of whole blocks (of pages, for memory);
// lo >= hi when there is none.
func (l *loop) innerRange(row *tag) (lo, hi uint64) {
	block := l.zeroBlock(row)
	return (row.Offset + block - 1) &^ (block - 1), (row.Offset + row.Length) &^ (block - 1)
}

func (l *loop) zeroBlock(row *tag) uint64 {
	d := l.deviceOf(row)
	if d.Kind == Memory {
		return pageSize
	}
	return uint64(d.Block)
}

// beginRange starts a TRIM or WRITE_ZEROES that has its range to itself. The edges are zeroed
// first, because what is done of the inner range is given up bit by bit, and with it the head.
// FAST_ZERO alone begins inside: it may be refused only while nothing has changed.
func (l *loop) beginRange(t uint32) {
	row := &l.tags[t]
	row.cursor, _ = l.innerRange(row)
	row.stride = l.shared.firstSlice
	zeroes := row.Command == proto.CmdWriteZeroes
	switch {
	case zeroes && l.deviceOf(row).Kind == Memory:
		l.clearEdges(row)
		row.mended = true
	case zeroes && row.scratch != none && row.Flags&proto.CmdFlagFastZero == 0:
		row.step = stepPatch
		l.issueEdges(t)
		return
	}
	l.beginInner(t)
}

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

// sliceMode is how the device does the inner range: a mode of fallocate, or 0 for a discard or
// madvise. ok is false when it cannot.
func (l *loop) sliceMode(row *tag) (mode uint32, ok bool) {
	d := l.deviceOf(row)
	const punch, zero = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	fast := row.Flags&proto.CmdFlagFastZero != 0
	switch {
	case d.Kind == Memory:
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

// cannotSlice: TRIM is only a hint; zeroes must be written, unless the client asked for fast or
// nothing. When something has been zeroed it is too late for nothing.
func (l *loop) cannotSlice(t uint32) {
	row := &l.tags[t]
	first, _ := l.innerRange(row)
	switch {
	case row.Command == proto.CmdTrim:
		l.innerDone(t)
	case row.Flags&proto.CmdFlagFastZero != 0 && row.cursor == first:
		row.errno = proto.ENOTSUP
		l.answer(t)
	case l.deviceOf(row).Kind == Memory: // locked in memory: no page of it can be given back
		row.step = stepStore
		l.backlog.push(t)
	default:
		row.step = stepZeroes
		l.issueZeroes(t)
	}
}

// cacheMost is how much of a CACHE is done, in bytes: to read more ahead would throw out of the
// page cache what was wanted before it.
const cacheMost = 64 << 20

// beginCache has the kernel read ahead. With O_DIRECT there is nothing to read ahead into, and
// CACHE is not advertised. It is a hint: while one is taken, the next is not, so that nobody waits
// for it.
func (l *loop) beginCache(t uint32) {
	row := &l.tags[t]
	q := &l.devices[row.dev]
	if d := q.device; d.FD < 0 || d.Direct || q.caching {
		l.answer(t)
		return
	}
	q.caching = true
	row.step, row.left = stepCache, 1
	data := uint64(tokenOf(onDisk, 0, row.generation, t))
	uring.PrepFadvise(l.sqe(), data, q.file, row.Offset,
		uint32(min(row.Length, cacheMost)), uring.AdviceWillNeed)
}

// cacheDone: the hint has been taken, or could not be, which is no failure.
func (l *loop) cacheDone(t uint32) {
	row := &l.tags[t]
	row.left = 0
	l.devices[row.dev].caching = false
	l.answer(t)
}

// queueSlice takes a place in the line for the next slice: long operations take turns.
func (l *loop) queueSlice(t uint32) {
	row := &l.tags[t]
	row.step = stepSlice
	l.appendTag(&l.devices[row.dev].slicing, t)
	l.issueSlices(row.dev)
}

func (l *loop) issueSlices(dev uint32) {
	q := &l.devices[dev]
	for q.slices < maxSlices && q.slicing.head != none {
		t := l.popTag(&q.slicing)
		if l.conns[l.tags[t].conn].state == connClosing {
			l.answer(t) // nobody waits for the rest of it
			continue
		}
		l.issueSlice(t)
	}
}

func (l *loop) issueSlice(t uint32) {
	row := &l.tags[t]
	q := &l.devices[row.dev]
	d := q.device
	_, hi := l.innerRange(row)
	n := min(hi-row.cursor, row.stride)
	row.slice, row.issued = uint32(n), l.now
	row.left = 1
	q.slices++
	d.busy.Add(1)
	data := uint64(tokenOf(onDisk, 0, row.generation, t))
	mode, _ := l.sliceMode(row)
	switch {
	case d.Kind == Memory:
		uring.PrepMadvise(l.sqe(), data, d.Memory.Addr(row.cursor), uint32(n), unix.MADV_DONTNEED)
	case mode == 0:
		uring.PrepDiscard(l.sqe(), data, q.file, row.cursor, n)
	default:
		uring.PrepFallocate(l.sqe(), data, q.file, mode, row.cursor, n)
	}
}

// sliceDone moves on to the next slice, or to what follows the last one.
func (l *loop) sliceDone(t uint32, res int32) {
	row := &l.tags[t]
	row.left = 0
	l.devices[row.dev].slices--
	l.deviceOf(row).busy.Add(-1)
	defer l.issueSlices(row.dev)
	_, hi := l.innerRange(row)
	// Busy: the device's page cache holds what another program has just written there. TRIM is a
	// hint, and the slice is done without it; to zero is an order, which is tried again, and
	// carried out by writing if that does not help.
	busy := res == -int32(unix.EBUSY) || res == -int32(unix.ETXTBSY)
	switch {
	case res == 0 || busy && row.Command == proto.CmdTrim:
		l.tuneSlice(row)
		row.retries = 0
		row.cursor += uint64(row.slice)
		if row.cursor < hi {
			l.giveUpFront(t)
			l.queueSlice(t)
		} else {
			l.innerDone(t)
		}
	case (res == -int32(unix.EINTR) || res == -int32(unix.EAGAIN) || busy) && l.again(row):
		l.queueSlice(t)
	case busy || unsupported(res) || row.Command == proto.CmdTrim && res == -int32(unix.EINVAL) ||
		l.deviceOf(row).Kind == Memory:
		l.cannotSlice(t)
	default:
		l.incident(DiskFailed, row, -res)
		row.errno, row.system = proto.FromSystem(-res), -res
		l.answer(t)
	}
}

// unsupported: the device has no such operation, whatever was found out when it was opened.
func unsupported(res int32) bool {
	return res == -int32(unix.EOPNOTSUPP) || res == -int32(unix.ENOSYS) ||
		res == -int32(unix.ENOTTY)
}

// tuneSlice keeps a slice's time between sliceShort and sliceLong.
func (l *loop) tuneSlice(row *tag) {
	took := l.now - row.issued
	if took < sliceShort {
		row.stride = min(row.stride*2, mostSlice)
	} else if took > sliceLong {
		row.stride = max(row.stride/2, min(leastSlice, l.shared.firstSlice))
	}
}

// giveUpFront lets others at what is done, unless the block before it has still to be mended.
func (l *loop) giveUpFront(t uint32) {
	if row := &l.tags[t]; row.scratch != none && !row.mended || !row.claimed {
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
	l.issueAll(t, uint8(min(zeroWave, (hi-row.cursor+pieceSize-1)>>pieceShift)))
}

// rangeDone: a wave of a range operation is complete.
func (l *loop) rangeDone(t uint32) {
	row := &l.tags[t]
	_, hi := l.innerRange(row)
	switch row.step {
	case stepZeroes:
		row.cursor = min(row.cursor+zeroWave<<pieceShift, hi)
		if row.cursor == hi || l.conns[row.conn].state == connClosing {
			l.innerDone(t)
			return
		}
		l.giveUpFront(t)
		l.issueZeroes(t)
	case stepPatch:
		l.zeroEdges(row)
		row.step = stepMend
		l.issueEdges(t)
	default:
		row.mended = true
		if row.cursor < hi {
			l.beginInner(t)
		} else {
			l.rangeFinished(t)
		}
	}
}

// innerDone: all whole blocks are done. What may be left is the edges.
func (l *loop) innerDone(t uint32) {
	row := &l.tags[t]
	if row.Command == proto.CmdTrim || row.scratch == none || row.mended {
		l.rangeFinished(t)
		return
	}
	row.step = stepPatch
	l.issueEdges(t)
}

// rangeFinished: the range is as asked; FUA wants it to stay so.
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
	end := row.Offset + row.Length
	if head {
		clear(old[row.Offset-row.lo : min(end-row.lo, block)])
	}
	if tail {
		clear(old[block : 2*block-(row.hi-end)])
	}
}

// clearEdges zeroes the parts of a memory export's range that are not whole pages.
func (l *loop) clearEdges(row *tag) {
	d := l.deviceOf(row)
	end := row.Offset + row.Length
	lo, hi := l.innerRange(row)
	if lo >= hi {
		clear(d.Memory.Bytes(row.Offset, int(row.Length)))
		return
	}
	clear(d.Memory.Bytes(row.Offset, int(lo-row.Offset)))
	clear(d.Memory.Bytes(hi, int(end-hi)))
}

// store begins to copy a write's payload into a memory export.
func (l *loop) store(t uint32) {
	row := &l.tags[t]
	row.step, row.cursor = stepStore, row.Offset
	if l.spent() && row.Length > smallWork {
		l.backlog.push(t)
		return
	}
	l.storePart(t)
}

// storePart goes on with it, or with clearing what could not be given back, as long as takes a loop
// some 0.1 ms.
func (l *loop) storePart(t uint32) {
	row := &l.tags[t]
	memory := l.deviceOf(row).Memory
	end := row.Offset + row.Length
	if row.Command != proto.CmdWrite {
		_, end = l.innerRange(row)
	}
	for left := min(end-row.cursor, maxStore); left > 0; {
		n := left
		if row.Command != proto.CmdWrite {
			clear(memory.Bytes(row.cursor, int(n)))
		} else {
			at := row.cursor - row.Offset
			n = min(n, pieceSize-at&(pieceSize-1))
			copy(memory.Bytes(row.cursor, int(n)),
				l.pool.Bytes(l.leases.offset(l.leases.piece(row.memory, at))+at&(pieceSize-1),
					int(n)))
		}
		row.cursor, left = row.cursor+n, left-n
		l.work += n * storeWeight
	}
	switch {
	case row.cursor < end:
		l.backlog.push(t)
	case row.Command == proto.CmdWrite:
		l.answer(t)
	default:
		l.innerDone(t)
	}
}
