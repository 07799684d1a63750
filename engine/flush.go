// FLUSH: fdatasync, shared by all that wait for it. A flush that arrives while one is in flight waits for the next, which covers it: every write that
// was answered before it came is on the device by then, from whatever connection and loop.
//
// Invariant: at most one fsync per device and loop is in flight; a failed one is remembered in the device, and no later flush succeeds.

package engine

import (
	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// flush queues a request for the next fsync of its device.
func (l *loop) flush(t uint32) {
	row := &l.tags[t]
	d := l.deviceOf(row)
	if d.Kind == Null || d.Kind == Memory || d.ReadOnly {
		l.answer(t)
		return
	}
	row.step = stepFlush
	export := l.conns[row.conn].export
	l.appendTag(&l.devices[export].waiting, t)
	l.issueFlush(export)
}

func (l *loop) issueFlush(export uint32) {
	q := &l.devices[export]
	if q.inFlight || q.waiting.head == none {
		return
	}
	q.inFlight = true
	q.flushing, q.waiting = q.waiting, empty
	uring.PrepFsync(l.sqe(), uint64(tokenOf(onFlush, 0, 0, export)), l.shared.files[export], true)
}

// flushed answers those that waited.
func (l *loop) flushed(tok token, res int32) {
	export := tok.slot()
	q := &l.devices[export]
	must(q.inFlight, "a flush that nobody asked for")
	q.inFlight = false
	d := l.shared.exports[export].Device
	if res == -int32(unix.EINTR) || res == -int32(unix.EAGAIN) {
		l.flushAgain(q)
	} else if res < 0 {
		d.fail()
	}
	for t := l.popTag(&q.flushing); t != none; t = l.popTag(&q.flushing) {
		if d.Failed() {
			l.tags[t].errno = proto.EIO
		}
		l.answer(t)
	}
	l.issueFlush(export)
}

// flushAgain puts those that an interrupted fsync was for back in front of those that came since.
func (l *loop) flushAgain(q *deviceRow) {
	for t := l.popTag(&q.waiting); t != none; t = l.popTag(&q.waiting) {
		l.appendTag(&q.flushing, t)
	}
	q.waiting, q.flushing = q.flushing, empty
}
