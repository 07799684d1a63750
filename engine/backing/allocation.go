// base:allocation: what is a hole, what is known to be zero, and what is data ("base:allocation metadata context").
//
// Invariant: ZERO is never said of a byte that a write answered before the lookup made something else of. So FIEMAP is believed only on file systems where it
// knows about data that is still in the page cache, and of an extent that is allocated but not written, only what SEEK_DATA says too.

package backing

import (
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

// fewExtents are fetched first: many ask for no more than the next one (REQ_ONE).
const fewExtents = 4

// allocation is the engine.Context for a Device.
type allocation struct{ device *engine.Device }

// Status implements engine.Context.
func (a allocation) Status(off, length uint64, emit func(length, status uint64) bool) error {
	switch d := a.device; {
	case d.Kind == engine.Null:
		emit(length, hole)
		return nil
	case d.Kind != engine.File:
		emit(length, data) // nobody can say cheaply
		return nil
	case fiemapKnows(d.FD):
		return byFiemap(d.FD, off, off+length, emit)
	default:
		_, err := bySeek(d.FD, off, off+length, hole, emit)
		return err
	}
}

// fiemapKnows says whether FIEMAP tells about delayed allocation, too: where it goes through iomap it does.
func fiemapKnows(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && (fs.Type == unix.EXT4_SUPER_MAGIC || fs.Type == unix.XFS_SUPER_MAGIC)
}

// byFiemap walks the file's extents: some hundred a system call, where SEEK_DATA and SEEK_HOLE need two for each.
func byFiemap(fd int, off, end uint64, emit func(length, status uint64) bool) error {
	var m uring.Fiemap
	for most := uint32(fewExtents); off < end; most = uring.FiemapExtents {
		from := off
		extents, err := m.Get(fd, off, end-off, most)
		if err != nil {
			_, err = bySeek(fd, off, end, hole, emit)
			return err
		}
		for i := range extents {
			x := &extents[i]
			lo, hi := max(x.Logical, off), min(x.Logical+x.Length, end)
			if lo >= end || hi <= lo {
				continue
			}
			if lo > off && !emit(lo-off, hole) {
				return nil
			}
			if more, err := extent(fd, lo, hi, x.Flags, emit); !more {
				return err
			}
			off = hi
		}
		if len(extents) < int(most) {
			if off < end {
				emit(end-off, hole)
			}
			return nil
		}
		if off == from { // a full answer about nothing
			emit(end-off, data)
			return nil
		}
	}
	return nil
}

// extent emits one extent. What is allocated but not written may have data in the page cache.
func extent(fd int, lo, hi uint64, flags uint32, emit func(length, status uint64) bool) (more bool, err error) {
	if flags&uring.FiemapUnwritten == 0 {
		return emit(hi-lo, data), nil
	}
	return bySeek(fd, lo, hi, zeroes, emit)
}

// bySeek emits what lies between the data as the given status. more says whether emit wanted more.
func bySeek(fd int, off, end, between uint64, emit func(length, status uint64) bool) (more bool, err error) {
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
			if more = emit(next-off, between); !more {
				break
			}
			off = next
			continue
		}
		next, err = seek(fd, off, unix.SEEK_HOLE)
		if err != nil || next <= off { // ENXIO: the file ends before its time
			return false, err
		}
		next = min(next, end)
		more = emit(next-off, data)
		off = next
	}
	return more, nil
}

// seek does not disturb anybody: all other I/O on the descriptor says where.
func seek(fd int, off uint64, whence int) (uint64, error) {
	for {
		at, err := unix.Seek(fd, int64(off), whence)
		if err != unix.EINTR {
			return uint64(at), err
		}
	}
}
