// Holes of a file that is read: a file system answers for them itself, and what is measured is not
// the disk.
//
// Invariant: looking takes a bounded number of system calls, and changes nothing.

package load

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/units"
)

const (
	// maxExtents bounds how many pieces of data are looked at; of a file with more, the share of
	// those counts.
	maxExtents = 4096
	// minHoles is the share of the window from which on a reader should know.
	minHoles = 0.01
)

// noteHoles notes how much of the window has never been written, if this run is to read what it did
// not write.
func (r *run) noteHoles() {
	f := r.subject.file
	if f == nil || f.Device.Kind != engine.File || !r.options.does(kindRead) || r.options.Fill {
		return
	}
	from := r.plan.base
	holes, looked := holesOf(f.Device.FD, from, min(from+r.plan.blocks*r.plan.unit, f.Device.Size))
	if share := float64(holes) / float64(max(looked, 1)); share >= minHoles {
		r.subject.notes = append(r.subject.notes,
			fmt.Sprintf(r.options.spelled("%.0f %% of the window, %s, are holes or were never "+
				"written: reads there never reach the disk, and do not show its limit ({fill} "+
				"writes the window first, and OVERWRITES it)"), 100*share, units.Size(holes)))
	}
}

// holesOf returns the bytes without data from an offset to an end, and how many bytes it checked.
func holesOf(fd int, from, end uint64) (holes, looked uint64) {
	at := from
	for range maxExtents {
		if at >= end {
			break
		}
		data, err := unix.Seek(fd, int64(at), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // nothing but a hole up to the end of the file
			return holes + end - at, end - from
		}
		if err != nil {
			return 0, end - from // the file system cannot tell
		}
		holes += min(uint64(data), end) - at
		if at = uint64(data); at >= end {
			break
		}
		hole, err := unix.Seek(fd, int64(at), unix.SEEK_HOLE)
		if err != nil || uint64(hole) <= at {
			return 0, end - from
		}
		at = uint64(hole)
	}
	return holes, min(at, end) - from
}
