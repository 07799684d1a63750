// What a copy leaves behind in the page cache, and how it gets to the disk while the copy goes on.
//
// Invariant: this is about time and memory only. Nothing here decides whether data is safe: the flush at the end does, and it tells the errors.

package transfer

import "golang.org/x/sys/unix"

const (
	// writeBack is how much is written before its way to the disk is begun, in bytes.
	writeBack = 16 << 20
	// trailMost is how many such ranges are on their way before the oldest is waited for: a slow disk slows the copy down, and memory is not filled with what it cannot take.
	trailMost = 4
)

// wake is the ranges behind a copy.
type wake struct {
	dirty   Range   // written, and its way to the disk not begun
	written uint64  // bytes in it
	under   []Range // on their way
}

// soil notes what was written. When it is enough, it gives the range whose way to the disk is to be begun, and, when there are enough of those, the oldest: that one is to be
// waited for, and memory need not hold it any longer. Empty ranges are nothing to do.
func (w *wake) soil(offset, length uint64) (begin, settle Range) {
	if w.written == 0 {
		w.dirty = Range{offset, offset}
	}
	w.dirty = Range{min(w.dirty.Start, offset), max(w.dirty.End, offset+length)}
	if w.written += length; w.written < writeBack {
		return begin, settle
	}
	begin, w.written = w.dirty, 0
	w.under = append(w.under, begin)
	if len(w.under) > trailMost {
		settle = w.under[0]
		w.under = append(w.under[:0], w.under[1:]...)
	}
	return begin, settle
}

// trail does what soil said. Errors are those of file systems that have no disk, or come again in the flush.
func (l *local) trail(begin, settle Range) {
	fd := int(l.f.Fd())
	if begin.End > 0 {
		_ = unix.SyncFileRange(fd, int64(begin.Start), int64(begin.End-begin.Start), unix.SYNC_FILE_RANGE_WRITE)
	}
	if settle.End > 0 {
		start, length := int64(settle.Start), int64(settle.End-settle.Start)
		_ = unix.SyncFileRange(fd, start, length, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
		_ = unix.Fadvise(fd, start, length, unix.FADV_DONTNEED)
	}
}
