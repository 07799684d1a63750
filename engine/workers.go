// Workers: what an operation on a file does that cannot be done at once, the kernel does on threads
// of the ring (io-wq). They are few, and storage that hangs keeps those that it has. So it is the
// loop, not the kernel, that decides what goes to them, and how much of one device at a time.
//
// With RWF_NOWAIT the kernel answers EAGAIN where it would have handed an operation to a worker. On
// storage that takes that flag, operations are tried with it, and sent to a worker (IOSQE_ASYNC)
// when they were refused, or the rest of them when they stopped early. What is known to put its
// caller to sleep (Device.Waits: FUSE, NFS), and what goes to a device that has answered nothing
// for a while, goes to a worker without a trial: tried, it might hold up the loop, and every other
// export with it.
//
// Invariant: deviceRow.working is how many reads and writes of a device workers have, at most
// quotaOf; the rest of a wave is parked: its bits are set in loop.parked, and its tag is in
// deviceRow.parked. A FLUSH, slices and a CACHE go to workers too, but their own rules keep them
// few (ownWorkers).

package engine

import (
	"math/bits"
	"runtime"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

const (
	// viaWorker in a token's part: the segment is with a worker.
	viaWorker = uint8(0x80)
	// ownWorkers is how many a device may have beside those for reads and writes: a flush, slices,
	// a CACHE.
	ownWorkers = 1 + maxSlices + 1
	// workersMost bounds the workers of one loop, whatever hangs: a thread of the kernel's each.
	workersMost = 1024
	// lateAfter is how long, in nanoseconds, a device with operations in flight may complete none
	// of them before it is taken for one that hangs. A disk that is only slow completes something
	// all the time.
	lateAfter = int64(100e6)
	// A trial that is refused costs a turn of the ring. After refusedMost in a row the next are
	// left out: twice as many each time, up to restMost.
	refusedMost = 4
	restMost    = 64
)

// parkedParts are the segments of a wave that wait for a worker, a bit each.
type parkedParts [2]uint64

// workers is what a loop has given to its ring's workers.
type workers struct {
	parked  []parkedParts // by tag: its segments that wait for a worker
	working uint32        // reads and writes that workers have, of all devices
	quota   uint32        // how many of one device they may have
}

// trial is what a loop has learnt about a device: whether its operations can be done at once.
type trial struct {
	refused uint8 // trials in a row that were
	pause   uint8 // operations that go without a trial after the next refusal
	rest    uint8 // operations to come without a trial
}

// staff is what of one device is with the kernel, and with its workers.
type staff struct {
	trials  [2]trial // of reads and of writes
	flying  uint32   // reads and writes that are with the kernel
	working uint32   // and of them, with workers
	parked  list     // tags with segments that wait for a worker
	moved   int64    // when the last of them came back, or the first of them went
}

// due: the next operation is tried.
func (x *trial) due() bool {
	if x.rest > 0 {
		x.rest--
		return false
	}
	return true
}

// failed: a trial was refused.
func (x *trial) failed() {
	if x.refused++; x.refused >= refusedMost {
		x.refused = refusedMost
		x.pause = min(max(2*x.pause, 1), restMost)
		x.rest = x.pause
	}
}

// passed: a trial was not.
func (x *trial) passed() { x.refused, x.pause = 0, 0 }

// deviceQuota is how many workers the reads and writes of one device may have: as many as the
// kernel gives a ring by itself.
func deviceQuota() uint32 { return uint32(min(max(4*runtime.NumCPU(), 8), 32)) }

// workersOf is how many workers a ring may have for so many devices.
func workersOf(devices int) uint32 {
	return uint32(min(devices*(int(deviceQuota())+ownWorkers), workersMost))
}

// quotaOf is how many a device may have now. When many hang, what is left is divided so that the
// next still finds some. One in any case, though it may have to wait for it in the kernel: what is
// parked is called by those that come back only.
func (l *loop) quotaOf() uint32 {
	return min(l.quota, max(1, (workersMost-min(l.working, workersMost))/8))
}

// wayOf says how a segment goes to the kernel: the flags of the operation, and whether to a worker.
func (l *loop) wayOf(q *deviceRow, reads bool) (rwflags uint32, worker bool) {
	switch d := q.device; {
	case d.Waits || q.flying > 0 && l.now-q.moved > lateAfter:
		return 0, true
	case !d.Direct && reads: // the kernel waits for pages without a worker
		return 0, false
	case q.trials[way(reads)].due():
		return unix.RWF_NOWAIT, false
	}
	return 0, true
}

// way is the index of a deviceRow's trials.
func way(reads bool) int {
	if reads {
		return 0
	}
	return 1
}

// submitted and completed count what of a device is with the kernel and not with a worker.
func (l *loop) submitted(q *deviceRow) {
	if q.flying == 0 {
		q.moved = l.now
	}
	q.flying++
}

func (l *loop) completed(q *deviceRow) {
	q.flying--
	q.moved = l.now
}

// refuses files the outcome of a trial: true when the kernel could not do a segment without
// waiting, so that it is for a worker.
func (l *loop) refuses(q *deviceRow, o op, res int32) bool {
	x := &q.trials[way(o == opRead)]
	if res != -int32(unix.EAGAIN) && res != -int32(unix.EOPNOTSUPP) {
		x.passed()
		return false
	}
	x.failed()
	return true
}

// park has a segment wait for a worker, of which there may be one.
func (l *loop) park(t uint32, part uint8) {
	row := &l.tags[t]
	if l.parked[t] == (parkedParts{}) {
		l.appendTag(&l.devices[row.dev].parked, t)
	}
	l.parked[t][part>>6] |= 1 << (part & 63)
	l.issueParked(row.dev)
}

// issueParked hands to workers what waits for them, in order.
func (l *loop) issueParked(dev uint32) {
	q := &l.devices[dev]
	for q.parked.head != none && q.working < l.quotaOf() {
		t := q.parked.head
		p := &l.parked[t]
		i := 0
		if p[0] == 0 {
			i = 1
		}
		part := uint8(i<<6 + bits.TrailingZeros64(p[i]))
		p[i] &= p[i] - 1
		if *p == (parkedParts{}) {
			l.popTag(&q.parked)
		}
		l.issueTo(t, part|viaWorker, l.restOf(t, part), 0)
	}
}

// workerTaken and workerFreed count what of a device is with workers.
func (l *loop) workerTaken(q *deviceRow) {
	q.working++
	l.working++
}

func (l *loop) workerFreed(q *deviceRow) {
	q.working--
	l.working--
}

// unpark drops what a connection that was cut has waiting for workers: nobody waits for it.
func (l *loop) unpark(i uint32) {
	q := &l.devices[l.table.exports[l.conns[i].export].device]
	waiting := q.parked
	q.parked = empty
	for t := l.popTag(&waiting); t != none; t = l.popTag(&waiting) {
		row := &l.tags[t]
		if row.conn != i {
			l.appendTag(&q.parked, t)
			continue
		}
		n := bits.OnesCount64(l.parked[t][0]) + bits.OnesCount64(l.parked[t][1])
		l.parked[t] = parkedParts{}
		l.segmentsOver(t, uint16(n), proto.EIO)
	}
}
