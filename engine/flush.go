// FLUSH: fdatasync, shared by all flushes that wait for it. A flush that arrives while an fsync is
// in flight waits for the next fsync, which covers it: every write that was answered before the
// flush arrived is on the device by then, whatever connection and loop it came from.
//
// Invariant: at most one fsync per device is in flight, of all loops; a failed fsync is remembered
// in the device, and no later flush succeeds.

package engine

import (
	"slices"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// flusher is the flushes of one device.
type flusher struct {
	flushing list // tags that the fsync in flight answers
	waiting  list // tags that the next fsync answers
	fsyncing bool // an fsync is in flight
	blocked  bool // an fsync of this device by another loop must end first
	// letters of the control plane: what the fsync in flight, and the next one, answers
	asked, asking []*mail
}

// flush queues a request for the next fsync of its device.
func (l *loop) flush(t uint32) {
	row := &l.tags[t]
	d := l.deviceOf(row)
	if !d.onDisk() || d.ReadOnly {
		l.answer(t)
		return
	}
	row.become(stepFlush)
	row.left = 1
	l.appendTag(&l.devices[row.dev].waiting, t)
	l.issueFlush(row.dev)
}

// issueFlush submits an fsync, if a request waits for it and this loop may.
func (l *loop) issueFlush(dev uint32) {
	q := &l.devices[dev]
	if q.fsyncing || q.waiting.head == none && len(q.asking) == 0 || !l.ownFlush(dev) {
		return
	}
	q.fsyncing = true
	q.flushing, q.waiting = q.waiting, empty
	q.asked, q.asking = q.asking, nil
	q.device.busy.Add(1)
	if q.device.Kind == Planned {
		l.spawnFlush(dev)
		return
	}
	uring.PrepFsync(l.sqe(), uint64(tokenOf(onFlush, 0, q.generation, dev)), q.file, true)
}

// ownFlush makes this loop the one that may flush the device, and reports whether it did. If not,
// the loop waits in line: after the loop that is flushing, or after those that have waited while
// this loop flushed.
func (l *loop) ownFlush(dev uint32) bool {
	q := &l.devices[dev]
	d := q.device
	if !q.blocked {
		if d.queued.Load() == 0 && d.syncing.CompareAndSwap(false, true) {
			d.syncer.Store(l.id + 1)
			return true
		}
		q.blocked = true
		l.blocked = append(l.blocked, dev) // within its capacity: each device is there once
		d.queued.Add(1)
	}
	// Again, now that the loop which is flushing can see that this one waits.
	if d.syncer.Load() == l.id+1 && d.queued.Load() > 1 || !d.syncing.CompareAndSwap(false, true) {
		return false
	}
	d.syncer.Store(l.id + 1)
	q.blocked = false
	at := slices.Index(l.blocked, dev)
	l.blocked = slices.Delete(l.blocked, at, at+1)
	d.queued.Add(-1)
	return true
}

// disownFlush lets another loop flush.
func (l *loop) disownFlush(d *Device) {
	d.syncing.Store(false)
	if d.queued.Load() == 0 {
		return
	}
	for _, other := range l.shared.loops {
		if other != l {
			other.wake()
		}
	}
}

// retryFlushes tries again for the devices that another loop was flushing.
func (l *loop) retryFlushes() {
	for at := 0; at < len(l.blocked); {
		dev := l.blocked[at]
		if l.issueFlush(dev); l.devices[dev].blocked {
			at++
		}
	}
}

// flushed answers the requests that the fsync was for.
func (l *loop) flushed(tok token, res int32) {
	dev := tok.slot()
	q := &l.devices[dev]
	must(q.fsyncing && q.generation == tok.generation(), "a flush that was not asked for")
	q.fsyncing = false
	d := q.device
	d.busy.Add(-1)
	kind := FlushRefused
	if res == -int32(unix.EINTR) || res == -int32(unix.EAGAIN) {
		l.flushAgain(q)
	} else if res < 0 {
		if !d.Failed() {
			kind = FlushFailed
		}
		d.fail()
	}
	l.disownFlush(d)
	q.flushedFor(d, res)
	for t := l.popTag(&q.flushing); t != none; t = l.popTag(&q.flushing) {
		errno := proto.Success
		if d.Failed() {
			l.incident(kind, &l.tags[t], max(-res, 0))
			errno, kind = proto.EIO, FlushRefused
		}
		l.segmentsOver(t, 1, errno)
	}
	l.issueFlush(dev)
}

// flushAnswered answers the requests that the flush of a planned device was for. It is not sticky:
// a file below that has lost data says so every time, and the plan knows what that means.
func (l *loop) flushAnswered(dev uint32, errno proto.Errno) {
	q := &l.devices[dev]
	q.fsyncing = false
	q.device.busy.Add(-1)
	l.disownFlush(q.device)
	for _, m := range q.asked {
		if errno != proto.Success {
			m.err = unix.Errno(errno)
		}
		close(m.done)
	}
	q.asked = nil
	for t := l.popTag(&q.flushing); t != none; t = l.popTag(&q.flushing) {
		l.segmentsOver(t, 1, errno)
	}
	l.issueFlush(dev)
}

// flushAgain queues the requests of an interrupted fsync again, before those that arrived since.
func (l *loop) flushAgain(q *deviceRow) {
	for t := l.popTag(&q.waiting); t != none; t = l.popTag(&q.waiting) {
		l.appendTag(&q.flushing, t)
	}
	q.waiting, q.flushing = q.flushing, empty
	q.asking, q.asked = append(q.asked, q.asking...), nil
}
