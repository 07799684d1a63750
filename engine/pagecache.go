// Writes into the page cache, for files that are not opened O_DIRECT. On ext4 and others io_uring
// hands those to a worker thread, one at a time per file, which costs more than the write itself;
// so a short write is made by the loop, as long as that is quick.
//
// The loop makes it only on file systems that are local (Device.Cached), and not while an operation
// is in flight that holds the file's lock for long. A writer to a file system that is frozen
// (fsfreeze, as for a snapshot) sleeps until it is thawed, and nothing tells before. So on a file
// system that can be frozen the loop makes writes only if all exports are on it, so that no other
// export sleeps with it.
//
// Invariant: the loop is never held up twice in a row. A write that takes longer than
// slowCachedNanos (the kernel throttles writers when too much is dirty) sends the writes after it
// to the ring, for cachedPauseNanos.

package engine

import (
	"ringnbd/proto"
)

const (
	maxCached        = 64 << 10 // bytes: copying more takes too long for a loop
	slowCachedNanos  = int64(500e3)
	cachedPauseNanos = int64(1e9)
)

// throttle is what a loop knows of a device's page cache.
type throttle struct {
	throttled int64 // until when short writes go to the ring, nanoseconds of the loop's clock
}

// cacheable reports whether the loop may make a write itself. Whole pages only: for a part of a
// page the kernel may have to read the rest from the disk first.
func (l *loop) cacheable(row *tag) bool {
	d := l.deviceOf(row)
	return l.pwrite != nil && d.Cached && (d.Freezes == 0 || l.together) &&
		d.busy.Load() == 0 && row.Flags&proto.CmdFlagFUA == 0 &&
		row.Length <= maxCached && (row.at|row.Length)&(pageSize-1) == 0 &&
		l.now >= l.devices[row.dev].throttled
}

// writeCached copies a payload into the page cache. A write that fails or is short goes to the
// ring.
func (l *loop) writeCached(t uint32) {
	row := &l.tags[t]
	start := l.kernel.Now()
	l.work += row.Length
	res := l.pwrite(l.deviceOf(row).FD, l.pool.Addr(l.placeOf(row, row.memory)),
		uint32(row.Length), row.at)
	if l.kernel.Now()-start > slowCachedNanos {
		l.devices[row.dev].throttled = l.now + cachedPauseNanos
	}
	if res == int32(row.Length) {
		l.answer(t)
		return
	}
	row.become(stepWrite)
	if row.portion == portionRow {
		l.issueLeaf(t)
		return
	}
	l.issueWave(t)
}
