// base:allocation: what is a hole, what is known to be zero, and what is data ("base:allocation
// metadata context").
//
// Invariant: ZERO is never reported for a byte that is not zero by a write answered before the
// lookup, nor for a byte that a READ would fail for. So FIEMAP is believed only on ext4, which
// knows data that is still in the page cache (XFS does not, next to blocks that are shared by
// reflink), and an extent that is allocated but not written is ZERO only where SEEK_DATA agrees.

package backing

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

const (
	hole   = uint64(proto.StatusHole | proto.StatusZero)
	zeroes = uint64(proto.StatusZero)
	data   = uint64(0)
)

// fewExtents are fetched first: many clients want no more than the next extent (REQ_ONE).
const fewExtents = 4

// SEEK_DATA looks at every extent up to the next data, and SEEK_HOLE at every extent up to the next
// hole: a million of them, if a client has zeroed block by block. A seek that takes longer than
// slowSeek is followed by a pause restFactor times as long, in which allocated extents that were
// not written are reported as data.
const (
	slowSeek   = 2 * time.Millisecond
	restFactor = 20
)

// allocation is the engine.Context for a Device.
type allocation struct {
	device *engine.Device
	fiemap bool          // FIEMAP is believed
	rest   *atomic.Int64 // nanoseconds since born: no seek in an allocated extent before then
}

var born = time.Now()

// allocationOf returns the context of a Device that is complete.
func allocationOf(d *engine.Device) allocation {
	var fs unix.Statfs_t
	ext4 := d.Kind == engine.File && unix.Fstatfs(d.FD, &fs) == nil &&
		fs.Type == unix.EXT4_SUPER_MAGIC
	return allocation{device: d, fiemap: ext4, rest: new(atomic.Int64)}
}

// Status implements engine.Context.
func (a allocation) Status(off, length uint64, emit func(length, status uint64) bool) error {
	d := a.device
	if d.Kind == engine.Null {
		emit(length, hole)
		return nil
	}
	if d.Kind != engine.File {
		emit(length, data) // a block device cannot tell cheaply
		return nil
	}
	// A file that has become shorter has no zeroes after its new end: to read there is an error.
	var st unix.Stat_t
	if err := unix.Fstat(d.FD, &st); err != nil {
		return err
	}
	end := off + length
	if inside := max(off, min(end, uint64(st.Size))); inside > off {
		more, err := a.inside(off, inside, emit)
		if !more {
			return err
		}
		off = inside
	}
	if off < end {
		emit(end-off, data)
	}
	return nil
}

// inside looks up a range that lies in the file. more reports whether emit wants more.
func (a allocation) inside(off, end uint64,
	emit func(length, status uint64) bool) (more bool, err error) {
	if a.fiemap {
		return a.byFiemap(off, end, emit)
	}
	return bySeek(a.device.FD, off, end, emit)
}

// byFiemap walks the file's extents: some hundred with one system call, where SEEK_DATA and
// SEEK_HOLE need two calls for each.
func (a allocation) byFiemap(off, end uint64,
	emit func(length, status uint64) bool) (more bool, err error) {
	var m uring.Fiemap
	look := lookahead{fd: a.device.FD, rest: a.rest}
	for limit := uint32(fewExtents); off < end; limit = uring.MaxFiemap {
		from := off
		extents, err := m.Get(a.device.FD, off, end-off, limit)
		if err != nil {
			return bySeek(a.device.FD, off, end, emit)
		}
		for i := range extents {
			x := &extents[i]
			lo, hi := max(x.Logical, off), min(x.Logical+x.Length, end)
			if lo >= end || hi <= lo {
				continue
			}
			if lo > off && !emit(lo-off, hole) {
				return false, nil
			}
			if !look.extent(lo, hi, x.Flags, emit) {
				return false, nil
			}
			off = hi
		}
		if len(extents) < int(limit) {
			return off == end || emit(end-off, hole), nil
		}
		if off == from { // a full answer without an extent in the range
			return emit(end-off, data), nil
		}
	}
	return true, nil
}

// lookahead remembers, during a lookup, what SEEK_DATA and SEEK_HOLE have found: there is no data
// in [from, to), and no hole before filled. Without it each unwritten extent costs a walk over all
// unwritten extents after it.
type lookahead struct {
	fd       int
	rest     *atomic.Int64
	from, to uint64
	filled   uint64
}

// extent emits an extent. Blocks that are allocated but not written may have data in the page
// cache; where that cannot be found out, they are reported as data.
func (l *lookahead) extent(lo, hi uint64, flags uint32,
	emit func(length, status uint64) bool) (more bool) {
	if flags&uring.FiemapUnwritten == 0 {
		return emit(hi-lo, data)
	}
	for lo < hi {
		end, status, ok := l.at(lo)
		if !ok {
			return emit(hi-lo, data)
		}
		end = min(end, hi)
		if !emit(end-lo, status) {
			return false
		}
		lo = end
	}
	return true
}

// at returns the status at an offset and where it ends; false if that is not known, or costs too
// much now. Offsets do not decrease from call to call.
func (l *lookahead) at(off uint64) (end, status uint64, ok bool) {
	switch {
	case off < l.filled:
		return l.filled, data, true
	case off >= l.to || off < l.from:
		next, err := l.seek(off, unix.SEEK_DATA)
		if err == unix.ENXIO { // no data up to the end of the file
			next, err = 1<<63, nil
		}
		if err != nil {
			return 0, 0, false
		}
		l.from, l.to = off, next
	}
	if off < l.to {
		return l.to, zeroes, true
	}
	next, err := l.seek(off, unix.SEEK_HOLE)
	if err != nil || next <= off {
		return 0, 0, false
	}
	l.filled = next
	return next, data, true
}

// seek is the function seek, and EBUSY during the pause after a slow seek.
func (l *lookahead) seek(at uint64, whence int) (uint64, error) {
	began := time.Since(born)
	if int64(began) < l.rest.Load() {
		return 0, unix.EBUSY
	}
	next, err := seek(l.fd, at, whence)
	if took := time.Since(born) - began; took > slowSeek {
		l.rest.Store(int64(began + restFactor*took))
	}
	return next, err
}

// bySeek emits the ranges between data as holes. more reports whether emit wants more.
func bySeek(fd int, off, end uint64, emit func(length, status uint64) bool) (more bool, err error) {
	more = true
	for more && off < end {
		next, err := seek(fd, off, unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // no data up to the end of the file
			next = end
		case err != nil:
			return false, err
		}
		if next = min(next, end); next > off {
			more = emit(next-off, hole)
			off = next
			continue
		}
		next, err = seek(fd, off, unix.SEEK_HOLE)
		if err != nil || next <= off { // ENXIO: the file has become shorter
			return false, err
		}
		next = min(next, end)
		more = emit(next-off, data)
		off = next
	}
	return more, nil
}

// seek moves the descriptor's offset, which no other I/O on it uses.
func seek(fd int, off uint64, whence int) (uint64, error) {
	for {
		at, err := unix.Seek(fd, int64(off), whence)
		if err != unix.EINTR {
			return uint64(at), err
		}
	}
}
