// Workers: an operation on a file that cannot be done at once is done by a thread of the ring, a
// worker (io-wq). Workers are few, and storage that hangs keeps the workers that it has. So the
// loop, not the kernel, decides what goes to them, and how much of one device at a time.
//
// With RWF_NOWAIT the kernel answers EAGAIN where it would have handed an operation to a worker. On
// storage that takes that flag, operations are tried with it, and sent to a worker (IOSQE_ASYNC)
// when they were refused; of an operation that stopped early, the rest is. An operation that is
// known to put its caller to sleep (Device.Waits: FUSE, NFS), or whose device has answered nothing
// for a while, goes to a worker without a trial: tried, it might hold up the loop, and every other
// export with it.
//
// Invariant: staff.working is how many reads and writes of a device workers have, at most quotaOf;
// the rest of a wave is parked: its bits are set in workers.parked, and its tag is in staff.parked.
// A FLUSH, slices and a CACHE go to workers too, but their own rules keep them few (ownWorkers).

package engine

import (
	"math/bits"
	"runtime"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

const (
	// viaWorker in a token's part says that the segment is with a worker.
	viaWorker = uint8(0x80)
	// ownWorkers is how many workers a device may have for other operations than reads and writes:
	// a flush, slices, a CACHE.
	ownWorkers = 1 + maxSlices + 1
	// maxWorkers bounds the workers of one loop, whatever hangs: each is a thread of the kernel.
	maxWorkers = 1024
	// hangsNanos is how long a device with operations in flight may complete none of them before it
	// is taken to hang. A disk that is only slow completes something all the time.
	hangsNanos = int64(100e6)
	// A trial that is refused costs a turn of the ring. After maxRefused refusals in a row the next
	// trials are left out: twice as many each time, up to maxRest.
	maxRefused = 4
	maxRest    = 64
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

// staff is what the kernel and its workers have of one device.
type staff struct {
	trials  [2]trial // of reads and of writes
	flying  uint32   // reads and writes that are with the kernel, and not with a worker
	working uint32   // reads and writes that are with workers
	parked  list     // tags with segments that wait for a worker
	moved   int64    // when the last of those flying came back, or the first of them was submitted
}

// due reports whether the next operation is tried, and counts it.
func (x *trial) due() bool {
	if x.rest > 0 {
		x.rest--
		return false
	}
	return true
}

// failed counts a trial that was refused.
func (x *trial) failed() {
	if x.refused++; x.refused >= maxRefused {
		x.refused = maxRefused
		x.pause = min(max(2*x.pause, 1), maxRest)
		x.rest = x.pause
	}
}

// passed counts a trial that was not refused.
func (x *trial) passed() { x.refused, x.pause = 0, 0 }

// deviceQuota is how many workers the reads and writes of one device may have: the number that the
// kernel gives a ring by itself.
func deviceQuota() uint32 { return uint32(min(max(4*runtime.NumCPU(), 8), 32)) }

// workersOf is how many workers a ring may have for that many devices.
func workersOf(devices int, quota uint32) uint32 {
	return uint32(min(max(devices, 1)*(int(quota)+ownWorkers), maxWorkers))
}

// quotaOf is how many workers a device may have now. When many devices hang, what is left is
// divided so that the next device still finds some. It may have one in any case, though that
// operation may have to wait for a worker in the kernel: a parked segment is issued only when a
// worker of its device comes back.
func (l *loop) quotaOf() uint32 {
	return min(l.quota, max(1, (maxWorkers-min(l.working, maxWorkers))/8))
}

// wayOf says how a segment goes to the kernel: the flags of the operation, and whether to a worker.
func (l *loop) wayOf(q *deviceRow, reads bool) (rwflags uint32, worker bool) {
	switch d := q.device; {
	case d.Waits || q.flying > 0 && l.now-q.moved > hangsNanos:
		return 0, true
	case !d.Direct && reads: // the kernel waits for pages without a worker
		return 0, false
	case q.trials[way(reads)].due():
		return unix.RWF_NOWAIT, false
	}
	return 0, true
}

// way is the index in staff.trials.
func way(reads bool) int {
	if reads {
		return 0
	}
	return 1
}

// submitted and completed count the segments of a device that are with the kernel and not with a
// worker.
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

// refuses files the outcome of a trial, and reports whether the kernel could not do a segment
// without waiting, so that it is for a worker.
func (l *loop) refuses(q *deviceRow, o op, res int32) bool {
	x := &q.trials[way(o == opRead)]
	if res != -int32(unix.EAGAIN) && res != -int32(unix.EOPNOTSUPP) {
		x.passed()
		return false
	}
	x.failed()
	return true
}

// park has a segment wait for a worker, which may be free already.
func (l *loop) park(t uint32, part uint8) {
	l.keepParked(t, part)
	l.issueParked(l.tags[t].dev)
}

// keepParked has a segment wait until its device has a worker for it, or a row.
func (l *loop) keepParked(t uint32, part uint8) {
	if l.parked[t] == (parkedParts{}) {
		l.appendTag(&l.devices[l.tags[t].dev].parked, t)
	}
	l.parked[t][part>>6] |= 1 << (part & 63)
}

// popParked takes the first segment of those that wait.
func (l *loop) popParked(q *deviceRow) (t uint32, part uint8) {
	t = q.parked.head
	p := &l.parked[t]
	i := 0
	if p[0] == 0 {
		i = 1
	}
	part = uint8(i<<6 + bits.TrailingZeros64(p[i]))
	p[i] &= p[i] - 1
	if *p == (parkedParts{}) {
		l.popTag(&q.parked)
	}
	return t, part
}

// issueParked hands the parked segments of a device to workers, in order, as far as its quota goes.
func (l *loop) issueParked(dev uint32) {
	q := &l.devices[dev]
	for q.parked.head != none && q.working < l.quotaOf() {
		t, part := l.popParked(q)
		l.issueTo(t, part|viaWorker, l.restOf(t, part), 0)
	}
}

// workerTaken and workerFreed count the segments of a device that are with workers.
func (l *loop) workerTaken(q *deviceRow) {
	q.working++
	l.working++
}

func (l *loop) workerFreed(q *deviceRow) {
	q.working--
	l.working--
}

// unpark drops the parked segments of a connection that was cut: their results have no reader.
func (l *loop) unpark(i uint32) {
	q := &l.devices[l.exports[l.conns[i].export].dev]
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
