// Write-back: how written data gets from the page cache to the disk while the copy goes on.
//
// Invariant: the ranges matter for time and memory only; an error of the disk, whichever call the
// kernel reports it to, is the error of every flush from then on.

package transfer

import "golang.org/x/sys/unix"

const (
	// writebackSize is how many bytes are written before their write-back is started.
	writebackSize = 16 << 20
	// maxWritebacks is how many ranges are in write-back before the oldest is waited for: a slow
	// disk then slows the copy down, and does not fill memory with dirty pages.
	maxWritebacks = 4
)

// writeback has the written ranges of a file that are not on the disk yet.
type writeback struct {
	dirty    byteRange   // written, and write-back not started
	written  uint64      // bytes in it
	underWay []byteRange // in write-back, oldest first
}

// noteWritten records a written range. Every writebackSize bytes it returns a range whose
// write-back should start, and, past maxWritebacks, the oldest range to wait for, whose pages
// memory can then drop. An empty range means nothing to do.
func (w *writeback) noteWritten(offset, length uint64) (begin, settle byteRange) {
	if w.written == 0 {
		w.dirty = byteRange{offset, offset}
	}
	w.dirty = byteRange{min(w.dirty.Start, offset), max(w.dirty.End, offset+length)}
	if w.written += length; w.written < writebackSize {
		return begin, settle
	}
	begin, w.written = w.dirty, 0
	w.underWay = append(w.underWay, begin)
	if len(w.underWay) > maxWritebacks {
		settle = w.underWay[0]
		w.underWay = append(w.underWay[:0], w.underWay[1:]...)
	}
	return begin, settle
}

// startWriteback acts on the ranges of noteWritten. Waiting for a range takes an error of the disk
// away from the next flush, which would then succeed: so the error is kept, and flush returns it.
func (l *local) startWriteback(begin, settle byteRange) error {
	l.settling.RLock() // a flush meanwhile would find the error taken, and not kept yet
	defer l.settling.RUnlock()
	fd := int(l.f.Fd())
	if begin.End > 0 {
		if err := l.syncRange(begin, unix.SYNC_FILE_RANGE_WRITE); err != nil {
			return err
		}
	}
	if settle.End > 0 {
		const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE |
			unix.SYNC_FILE_RANGE_WAIT_AFTER
		if err := l.syncRange(settle, wait); err != nil {
			return err
		}
		// this matters for memory only
		_ = unix.Fadvise(fd, int64(settle.Start), int64(settle.End-settle.Start),
			unix.FADV_DONTNEED)
	}
	return nil
}

// syncRange calls sync_file_range, and ignores the errors of file systems without a disk or without
// the call.
func (l *local) syncRange(r byteRange, flags int) error {
	err := unix.SyncFileRange(int(l.f.Fd()), int64(r.Start), int64(r.End-r.Start), flags)
	switch err {
	case nil, unix.EINVAL, unix.ENOSYS, unix.ESPIPE, unix.EOPNOTSUPP, unix.EINTR:
		return nil
	}
	err = l.unwritten(err)
	l.lost.CompareAndSwap(nil, &err)
	return err
}
