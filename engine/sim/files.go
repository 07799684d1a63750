// The registered files of a ring: a table of places that are filled and emptied while operations
// are in flight. A file whose place was emptied is let go of later, when the kernel gets round to
// it; until then it is open, and locked, whatever happens to its descriptor.
//
// Invariant: a file is in files, in letting, or not the ring's.

package sim

import (
	"syscall"

	"ringnbd/engine/uring"
)

// letting is a file whose place was emptied.
type letting struct {
	place uint32
	node  *node
	due   uint64 // not before this instant
}

// RegisterFiles sets the table of registered files.
func (k *Kernel) RegisterFiles(fds []int32) {
	k.files = k.files[:0]
	for _, fd := range fds {
		if fd < 0 { // a hole in the table
			k.files = append(k.files, nil)
			continue
		}
		k.files = append(k.files, k.world.node(fd))
	}
}

// SetFile fills an empty place of the table of registered files, or empties it (-1). Nothing may be
// in flight on a file whose place is emptied, or queued: the engine counts on its completions, and
// on the file.
func (k *Kernel) SetFile(place uint32, fd int32) error {
	w := k.world
	if int(place) >= len(k.files) || (fd < 0) == (k.files[place] == nil) {
		w.bug("registered file %d of %d is set to %d", place, len(k.files), fd)
	}
	if fd < 0 && chance(w.rng, w.mix.unpinnable/4) {
		w.note("no memory for a file", "loop place fd", int64(k.id), int64(place), int64(fd))
		w.mark(markFileRefused)
		return syscall.ENOMEM
	}
	w.note("set file", "loop place fd", int64(k.id), int64(place), int64(fd))
	if fd >= 0 {
		k.files[place] = w.node(fd)
		return nil
	}
	for _, o := range k.flight {
		if o.sqe.Flags&sqeFixedFile != 0 && o.sqe.Fd == int32(place) {
			w.bug("registered file %d is let go of while %s is in flight on it", place, o.name())
		}
	}
	for i := k.head; i != k.tail; i++ {
		s := &k.sq[i%uint32(len(k.sq))]
		if s.Flags&sqeFixedFile != 0 && s.Fd == int32(place) {
			w.bug("registered file %d is let go of while %s for it is queued", place,
				opNames[s.OpCode])
		}
	}
	k.letting = append(k.letting, letting{place, k.files[place],
		w.clock + w.delay(w.mix.slowDelayNanos)})
	k.files[place] = nil
	return nil
}

// Released says that the kernel has let go of a file, whether it has or not: for tests that plant
// mistakes.
func (k *Kernel) Released(place uint32) {
	k.posted = append(k.posted, uring.CQE{UserData: uring.ReleasedKind<<56 | uint64(place)})
}

// FileReleased accounts for a completion of SetFile.
func (k *Kernel) FileReleased() {}

// letGo lets go of a file whose place was emptied, and reports whether there was one.
func (k *Kernel) letGo() bool {
	w := k.world
	for i, l := range k.letting {
		if l.due > w.clock {
			w.mark(markFileLate)
			continue
		}
		w.note("let go", "loop place", int64(k.id), int64(l.place))
		k.letting = append(k.letting[:i], k.letting[i+1:]...)
		k.Released(l.place)
		return true
	}
	return false
}

// has reports whether a file is open for a ring.
func (k *Kernel) has(n *node) bool {
	for _, f := range k.files {
		if f == n {
			return true
		}
	}
	for _, l := range k.letting {
		if l.node == n {
			return true
		}
	}
	return false
}
