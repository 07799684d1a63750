// The same requests on a file or block device itself, through registered file 0 and, where the
// limit on locked memory allows it, registered buffers.
//
// Invariant: a slot has one operation with the kernel at a time; the rest of a short read or write
// is submitted again before the slot is done.

package load

import (
	"syscall"

	"ringnbd/engine"
	"ringnbd/engine/uring"
)

// launchDisk submits a request from the beginning; layout.progress has how far it is.
func (l *loop) launchDisk(row uint32, payload uint64) {
	s := &l.slots[row]
	l.layout.progress[row] = 0
	data := tokenOf(onDisk, s.generation, row)
	d := l.plan.subject.file.Device
	switch {
	case s.kind == kindFlush:
		uring.PrepFsync(l.sqe(), data, 0, true)
	case s.kind == kindTrim && d.Kind == engine.Block && l.ring.Features().Discard:
		uring.PrepDiscard(l.sqe(), data, 0, s.offset, uint64(s.length))
	case s.kind == kindTrim || s.kind == kindZero && d.Punch && !l.plan.options.NoHole:
		uring.PrepFallocate(l.sqe(), data, 0, uring.FallocateKeepSize|uring.FallocatePunchHole,
			s.offset, uint64(s.length))
	case s.kind == kindZero:
		uring.PrepFallocate(l.sqe(), data, 0, uring.FallocateKeepSize|uring.FallocateZeroRange,
			s.offset, uint64(s.length))
	default:
		l.transfer(row, payload)
	}
}

// transfer submits the rest of a read or write.
func (l *loop) transfer(row uint32, payload uint64) {
	s := &l.slots[row]
	done := l.layout.progress[row]
	data := tokenOf(onDisk, s.generation, row)
	if s.kind == kindRead {
		at := l.layout.bufferAt(row) + uint64(done)
		addr, n, off := l.arena.Addr(at), s.length-done, s.offset+uint64(done)
		if l.unregistered != nil {
			uring.PrepReadFile(l.sqe(), data, 0, addr, n, off, 0)
		} else {
			uring.PrepReadFixed(l.sqe(), data, 0, uint16(at>>uring.BufferShift), addr, n, off, 0)
		}
		return
	}
	flags := uint32(0)
	if l.plan.options.FUA {
		flags = uring.WriteDsync
	}
	at := payload + uint64(done)
	addr, n, off := l.arena.Addr(at), s.length-done, s.offset+uint64(done)
	if l.unregistered != nil {
		uring.PrepWriteFile(l.sqe(), data, 0, addr, n, off, flags)
	} else {
		uring.PrepWriteFixed(l.sqe(), data, 0, uint16(at>>uring.BufferShift), addr, n, off, flags)
	}
}

// diskDone accounts for a completion.
func (l *loop) diskDone(row uint32, res int32) {
	s := &l.slots[row]
	l.touch(s.conn)
	moves := s.kind == kindRead || s.kind == kindWrite
	lasting := l.plan.options.FUA && (s.kind == kindTrim || s.kind == kindZero)
	switch {
	case res == -int32(syscall.EINTR) || res == -int32(syscall.EAGAIN):
		l.again(row)
	case res < 0:
		l.done(row, uint32(-res))
	case lasting && l.layout.progress[row] == 0:
		l.layout.progress[row] = 1 // the range is done; the fsync that makes it durable is second
		uring.PrepFsync(l.sqe(), tokenOf(onDisk, s.generation, row), 0, true)
	case moves && res == 0:
		l.done(row, uint32(syscall.EIO)) // the end of a file that was truncated meanwhile
	case moves && l.layout.progress[row]+uint32(res) < s.length:
		l.layout.progress[row] += uint32(res)
		l.again(row)
	default:
		if s.kind == kindRead && l.plan.table != nil {
			c := &l.conns[s.conn]
			c.judge.begin(s.offset, uint64(s.length))
			l.judge(c, l.arena.Bytes(l.layout.bufferAt(row), int(s.length)))
		}
		l.done(row, 0)
	}
}

// again submits a request once more, or the rest of it.
func (l *loop) again(row uint32) {
	s := &l.slots[row]
	payload := l.layout.shared
	if l.plan.table != nil {
		payload = l.layout.bufferAt(row)
	}
	if s.kind == kindRead || s.kind == kindWrite {
		l.transfer(row, payload)
		return
	}
	l.launchDisk(row, payload) // from the beginning: zeroing twice is zeroing
}
