// What a copy leaves behind in the page cache, and how it gets to the disk while the copy goes on.
//
// Invariant: the ranges are about time and memory only; an error of the disk, whoever the kernel
// tells it to, is the error of every flush from then on.

package transfer

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// writeBack is how much is written before its way to the disk is begun, in bytes.
	writeBack = 16 << 20
	// trailMost is how many such ranges are on their way before the oldest is waited for: a slow
	// disk slows the copy down, and memory is not filled with what it cannot take.
	trailMost = 4
)

// wake is the ranges behind a copy.
type wake struct {
	dirty   Range   // written, and its way to the disk not begun
	written uint64  // bytes in it
	under   []Range // on their way
}

// soil notes what was written. When it is enough, it gives the range whose way to the disk is to be
// begun, and, when there are enough of those, the oldest: that one is to be waited for, and memory
// need not hold it any longer. Empty ranges are nothing to do.
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

// trail does what soil said. Waiting for a range takes an error of the disk away from the flush to
// come, which would then succeed: so it is kept, and the flush tells it.
func (l *local) trail(begin, settle Range) error {
	l.settling.RLock() // a flush meanwhile would find the error taken, and not yet kept
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
		// about memory only
		_ = unix.Fadvise(fd, int64(settle.Start), int64(settle.End-settle.Start),
			unix.FADV_DONTNEED)
	}
	return nil
}

// syncRange is sync_file_range, without the errors of file systems that have no disk or no such
// call.
func (l *local) syncRange(r Range, flags int) error {
	err := unix.SyncFileRange(int(l.f.Fd()), int64(r.Start), int64(r.End-r.Start), flags)
	switch err {
	case nil, unix.EINVAL, unix.ENOSYS, unix.ESPIPE, unix.EOPNOTSUPP, unix.EINTR:
		return nil
	}
	err = l.unwritten(err)
	l.lost.CompareAndSwap(nil, &err)
	return err
}

// unwritten is an error of the disk on which data was lost that had been taken by the page cache.
func (l *local) unwritten(err error) error {
	return fmt.Errorf("%w while flushing: not all of the copy is on the disk", plain(l.name(), err))
}

// flush brings all of it to the disk. Once that has failed it stays so: the kernel tells an error
// once, and what was lost is lost.
func (l *local) flush(context.Context) error {
	l.settling.Lock()
	defer l.settling.Unlock()
	if err := l.f.Sync(); err != nil {
		err = l.unwritten(err)
		l.lost.CompareAndSwap(nil, &err)
	}
	if lost := l.lost.Load(); lost != nil {
		return *lost
	}
	return nil
}
