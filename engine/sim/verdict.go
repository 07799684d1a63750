// The verdict on a reply: whether this request may be answered with this result now.
//
// Invariant: an error of a valid request must come from a fault that was injected into its own
// blocks while it was under way; a disk error is the error of that request and of no other.

package sim

import (
	"bytes"
	"fmt"
	"slices"

	"ringnbd/proto"
)

// judge checks the error value of a reply. The data of a READ is checked when it is complete.
func (c *client) judge(r *request, e proto.Errno) {
	w, m := c.world, c.model
	r.errno = e
	c.reconsider(r, e)
	switch {
	case e == proto.ESHUTDOWN && c.x.stage >= leaving:
		w.mark(markLeftRefused)
		c.refused(r)
		return
	case e == proto.ESHUTDOWN:
		w.fail("%v was answered with %v: a shutdown fails no request", r, e)
	case w.draining && r.valid() && r.begunAt > w.lateAfterDrain():
		w.fail("%v was answered with %v long after the shutdown began", r, e)
	case w.draining && r.valid() && r.sentAt > w.lateAfterDrain() && r.Payload() > 0:
		w.fail("%v was answered with %v, though its payload ended long after the "+
			"shutdown began", r, e)
	case !r.valid():
		if !slices.Contains(r.allowed, e) {
			w.fail("%v was answered with %v; the protocol allows %v", r, e, r.allowed)
		}
		c.markRefused(r)
		if e == proto.EPERM {
			c.refused(r)
		}
		return
	case r.sent == 0:
		w.fail("%v was answered before its last byte was sent", r)
	case c.healthy() && w.ranSince(r.sentAt, r.pausedAtStart) > maxHealthyNanos && c.excused == "":
		w.fail("%v took %d ms of virtual time, although its disk is well, and other disks are "+
			"not", r, w.ranSince(r.sentAt, r.pausedAtStart)/1e6)
	case w.ranSince(r.sentAt, r.pausedAtStart) > w.maxNanos() && !w.Plan.Hang &&
		c.habit.readNapNanos == 0 && c.excused == "" && c.x.stage == serving:
		w.fail("%v took %d seconds of virtual time, although its own connection was not slow", r,
			(w.clock-r.sentAt)/1e9)
	case e != proto.Success:
		c.checkFault(r, e)
		return
	}
	if r.Length >= 1<<32 {
		w.mark(markLongRange)
	}
	switch {
	case r.Command == proto.CmdFlush:
		if o := c.x.opening; o.failed != 0 && o.failed < r.sent {
			w.fail("%v succeeded although a flush had failed at %d: the data of that one may be "+
				"lost", r, o.failed)
		}
		m.flushSucceeded(r.sent)
		// after a flush a power cut shows most; large disks take long to compare
		if m.disk.plan.survives() && w.rng.Uint64N(1+m.size>>18) == 0 {
			w.checkCrash(m)
		}
	case r.isChange():
		if !m.fastEnough(r) {
			w.fail("%v succeeded, but zeroing is not fast on this export, or not in this way", r)
		}
		if r.Length > 0 && m.disk.plan.Backing != Null {
			m.succeeded(r)
		}
		c.markChange(r)
		m.checkProvisioned(r)
	}
}

// reconsider goes by the facts by which an answer is right, of those that may have been in force.
func (c *client) reconsider(r *request, e proto.Errno) {
	if len(c.x.versions) == 1 || r.fatal {
		return
	}
	q, found := *r, false
	c.x.maybe(r.begun, func(f *proto.Facts) bool {
		c.expect(&q, f)
		if found = slices.Contains(q.allowed, e); found {
			r.allowed = q.allowed
		}
		return !found
	})
	if !found && e != proto.Success { // an error of the disk, if it was valid
		c.x.maybe(r.begun, func(f *proto.Facts) bool {
			c.expect(&q, f)
			r.allowed = q.allowed
			return !q.valid()
		})
	}
	if e == proto.EPERM && c.told.Flags&flagReadOnly == 0 {
		c.world.mark(markSwitched)
	}
}

// refused records that a request was certainly not done.
func (c *client) refused(r *request) {
	if r.changes && !c.inParts(r) {
		c.model.withdraw(r)
	}
}

// markRefused marks what was wrong with a request.
func (c *client) markRefused(r *request) {
	w := c.world
	w.mark(markRefused)
	switch payload := r.Flags&proto.CmdFlagPayloadLen != 0; {
	case r.filtered():
		w.mark(markFilterRefused)
	case r.Extended && payload && r.Command != proto.CmdWrite:
		w.mark(markPayloadMisused)
	}
}

// maxNanos returns how long a request may take.
func (w *World) maxNanos() uint64 {
	if w.Plan.siege {
		return maxSiegeNanos
	}
	return maxRequestNanos
}

// markChange marks what the engine has done for a successful change.
func (c *client) markChange(r *request) {
	w := c.world
	if block := uint64(c.model.disk.plan.Block); (r.lo()|r.Length)%block != 0 {
		w.mark(markUnalignedWrite)
	}
	if r.Command == proto.CmdWrite && r.Length > pieceSize {
		w.mark(markLargeRequest)
	}
	if r.Command == proto.CmdWrite && r.Extended && r.Flags&proto.CmdFlagPayloadLen == 0 &&
		r.Length > 0 {
		w.mark(markWriteUnflagged)
	}
}

// drainNoticeNanos is how long a shutdown may still take in requests: the second during which they
// are served, a tick or two, and the time until the loops hear of it.
const drainNoticeNanos = 1500e6

// maxRetries is how many EAGAIN and EINTR of the disk an engine must tolerate for one request
// before it may fail it.
const maxRetries = 8

// How long a request may take whose client sends and reads as fast as it can, in virtual time. A
// client that stalls (for a minute, or for ten in a siege) and holds memory that others need must
// have been evicted by then; in a siege many clients stall, and each takes the memory of the client
// evicted before it.
const (
	maxRequestNanos = 30e9
	maxSiegeNanos   = 200e9
	maxHealthyNanos = 2e9 // with a healthy disk, while other disks hang
)

// checkFault checks that an error was caused by a fault that was injected.
func (c *client) checkFault(r *request, e proto.Errno) {
	w, m := c.world, c.model
	if r.Command == proto.CmdBlockStatus || r.Command == proto.CmdCache {
		w.fail("%v was answered with %v; an unknown status is that of data, and a hint has "+
			"no errors", r, e)
	}
	if r.Command == proto.CmdFlush && c.x.opening.failed == 0 {
		c.x.opening.failed = w.tick
	} else if r.Command == proto.CmdFlush {
		w.mark(markStickyFlush)
	}
	block := max(uint64(m.disk.plan.Block), 1)
	lo, hi := r.lo()/block*block, (r.hi()+block-1)/block*block
	fua := r.Flags&proto.CmdFlagFUA != 0
	again := 0
	for _, f := range m.disk.faults {
		here := f.tick > r.begun && f.lo < hi && lo < f.hi
		// failed flushes and DSYNC writes may fail every later flush
		if f.opcode == opFsync || f.dsync {
			// through the page cache, FUA is a flush
			here = here || r.Command == proto.CmdFlush ||
				fua && (r.Command != proto.CmdWrite || m.disk.plan.Block <= 1)
		}
		if here && (f.res == eAGAIN || f.res == eINTR) { // must be retried, up to a limit
			if again++; again < maxRetries {
				continue
			}
		}
		if here && explains(r, f, e) {
			// to the engine this is a flush that failed
			if f.dropped && fua && c.x.opening.failed == 0 {
				c.x.opening.failed = w.tick
			}
			w.mark(markErrorAnswered)
			return
		}
	}
	// the file was truncated, even if a write has made it longer again
	if hi > m.disk.minLength && e == proto.EIO {
		return
	}
	if r.Command == proto.CmdWriteZeroes && e == proto.ENOTSUP &&
		r.Flags&proto.CmdFlagFastZero != 0 && (!m.disk.plan.FastZero || !m.disk.plan.ZeroRange) {
		return
	}
	w.fail("%v was answered with %v although no fault was injected that would explain it", r, e)
}

// explains reports whether a fault of the disk may become this error on the wire ("Error values" in
// the NBD specification).
func explains(r *request, f fault, e proto.Errno) bool {
	switch f.res {
	case eNOSPC, eDQUOT:
		return e == proto.ENOSPC || (f.opcode == opFsync || f.dsync) && e == proto.EIO
	case eBUSY: // is temporary
		return false
	case eOPNOTSUPP:
		return e == proto.ENOTSUP && r.Command == proto.CmdWriteZeroes &&
			r.Flags&proto.CmdFlagFastZero != 0
	}
	return e == proto.EIO
}

// fastEnough reports whether a request may succeed as far as FAST_ZERO is concerned: it must be
// refused if the disk can zero whole blocks only by writing them.
func (m *model) fastEnough(r *request) bool {
	p := m.disk.plan
	block := uint64(p.Block)
	if r.Flags&proto.CmdFlagFastZero == 0 || !p.onDisk() ||
		(r.lo()+block-1)/block >= r.hi()/block {
		return true
	}
	return p.Punch && r.punches || p.ZeroRange
}

// checkProvisioned checks that after WRITE_ZEROES with NO_HOLE the range is allocated, unless
// another request may have punched it since.
func (m *model) checkProvisioned(r *request) {
	d := m.disk
	if r.Command != proto.CmdWriteZeroes || r.punches || d.plan.Backing != File ||
		d.length < d.plan.Size {
		return
	}
	for _, o := range m.world.requests {
		if o != r && o.punches && o.overlaps(r) && (o.answered == 0 || o.answered > r.begun) {
			return
		}
	}
	for s := (r.lo() + sectorSize - 1) / sectorSize; (s+1)*sectorSize <= r.hi(); s++ {
		if d.hole[s] {
			m.world.fail("%v succeeded, but sector %d is a hole", r, s)
		}
	}
}

// describeOrigin tells which request wrote these bytes, if any.
func (m *model) describeOrigin(off uint64, b []byte) string {
	if len(bytes.Trim(b, "\x00")) == 0 {
		return "zeroes"
	}
	scratch := make([]byte, len(b))
	for i := len(m.world.requests) - 1; i >= 0; i-- {
		r := m.world.requests[i]
		if r.Command != proto.CmdWrite {
			continue
		}
		if fill(scratch, r.id, off); bytes.Equal(scratch, b) {
			return "those of " + r.String()
		}
		if n := sameBytes(scratch, b); len(b) >= 16 && n >= 8 {
			return fmt.Sprintf("a mixture, %d of %d bytes from %v", n, len(b), r)
		}
	}
	if fill(scratch, 0, off); bytes.Equal(scratch, b) {
		return "the initial bytes of the disk"
	}
	n := sameBytes(scratch, b)
	return fmt.Sprintf("% x..., from no request (%d of %d bytes are the initial bytes of the disk)",
		b[:min(len(b), 32)], n, len(b))
}

// sameBytes counts the bytes that agree in runs of at least eight.
func sameBytes(a, b []byte) (n int) {
	for i := 0; i < len(a); {
		run := 0
		for i+run < len(a) && a[i+run] == b[i+run] {
			run++
		}
		if run >= 8 {
			n += run
		}
		i += run + 1
	}
	return n
}
