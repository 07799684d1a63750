// Readahead: CACHE, which asks the kernel to read a range into its page cache.
//
// Invariant: at most one CACHE of a device is in flight, of each loop.

package engine

import (
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// maxReadahead is how much of a CACHE is done, in bytes: to read more ahead would throw out of the
// page cache what was wanted before it.
const maxReadahead = 64 << 20

// readahead is the CACHE of one device.
type readahead struct {
	caching bool // a CACHE is in flight
}

// beginCache has the kernel read ahead. With O_DIRECT there is nothing to read ahead into, and
// CACHE is not advertised. It is a hint: while one is taken, the next is not, so that no other
// request waits for it.
func (l *loop) beginCache(t uint32) {
	row := &l.tags[t]
	q := &l.devices[row.dev]
	if d := q.device; d.FD < 0 || d.Direct || q.caching {
		l.answer(t)
		return
	}
	q.caching = true
	row.become(stepCache)
	row.left = 1
	data := uint64(tokenOf(onDisk, 0, row.generation, t))
	uring.PrepFadvise(l.sqe(), data, q.file, row.at,
		uint32(min(row.Length, maxReadahead)), uring.AdviceWillNeed)
}

// cacheDone answers a CACHE. The kernel has taken the hint, or could not, which is not a failure.
func (l *loop) cacheDone(t uint32) {
	l.devices[l.tags[t].dev].caching = false
	l.segmentsOver(t, 1, proto.Success)
}
