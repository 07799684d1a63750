// Changes to an export that is open: another description, read-only or not, another size. The store
// stays open, with its descriptor and its locks.
//
// Invariant: nothing here tells a client or the engine of a change: the caller does, before the
// change where it takes something away (a smaller size, read-only), and after it where it gives.

package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// Spec returns what the export was opened with, and altered to.
func (b *Backing) Spec() Spec { return b.spec }

// Altered returns the export as a spec wants it, if that needs no other store: the same path,
// opened in the same way, and writable only if the store was opened for that. Else ok is false. An
// error says that another export of the store, which is not leaving, is in the way.
func (b *Backing) Altered(s Spec, leaving ...*Backing) (shown proto.Export, ok bool, err error) {
	if !b.MayAlter(s) {
		return proto.Export{}, false, nil
	}
	r := b.stores
	old := r.exchange(b, s)
	if b.tree != nil {
		as := *b
		as.describeLayer()
		return as.Export, true, nil
	}
	if err := r.admit(b, leaving); err != nil {
		r.exchange(b, old)
		return proto.Export{}, false, err
	}
	as := *b // what clients are told changes with Shows
	as.describe()
	return as.Export, true, nil
}

// MayAlter reports whether the export can become what a spec wants while it stays open, as far as
// other exports of its store are not in the way.
func (b *Backing) MayAlter(s Spec) bool {
	switch {
	case s.Text() != b.spec.Text() || s.Direct != b.spec.Direct || s.Raw != b.spec.Raw ||
		s.Force != b.spec.Force:
		return false
	case b.tree != nil && b.Discards(): // clients that only read have nothing to throw away
		return s.ReadOnly == b.spec.ReadOnly
	case b.tree != nil:
		return s.ReadOnly || !b.parts[1].store.spec.ReadOnly
	}
	return s.ReadOnly || !b.store.spec.ReadOnly
}

// exchange gives a backing another spec, and returns the one that it had.
func (r *Stores) exchange(b *Backing, s Spec) (old Spec) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Create, s.Partitions = b.spec.Create, b.spec.Partitions // which say how it was opened
	s.Tree, s.still, s.top = b.spec.Tree, b.spec.still, b.spec.top
	old, b.spec = b.spec, s
	return old
}

// errWindow is about an export that shows a part of its store.
var errWindow = errors.New("is a part of a disk; its size is what the disk's table of partitions " +
	"says")

// errLayer is about an export that is made of others.
var errLayer = errors.New("has the size that its parts have")

// errSynthetic is about an export without a file.
var errSynthetic = errors.New("has its size in its name; serve another in its place")

// Look returns the size that the store has now: other programs change it.
func (b *Backing) Look() (uint64, error) {
	d := b.Device
	switch {
	case b.tree != nil:
		return 0, fmt.Errorf("%s: %w", b.spec.Path, errLayer)
	case b.window.base != 0 || b.window.size != d.Size:
		return 0, fmt.Errorf("%s: %w", b.spec.Text(), errWindow)
	case d.FD < 0:
		return 0, fmt.Errorf("%s: %w", b.spec.Path, errSynthetic)
	}
	Reach(b.spec.Path)
	end, err := unix.Seek(d.FD, 0, unix.SEEK_END)
	if err != nil {
		return 0, explain(&b.spec, err)
	}
	return uint64(end), nil
}

// ResizeError says why an export cannot have a size.
type ResizeError struct {
	Path string
	Size uint64 // bytes
	Why  string
}

func (e *ResizeError) Error() string {
	return fmt.Sprintf("%s: cannot be %d bytes: %s", e.Path, e.Size, e.Why)
}

// MayResize returns why the export cannot have a size, or nil.
func (b *Backing) MayResize(size uint64) error {
	d := b.Device
	why := ""
	switch {
	case size > 1<<63-1:
		why = "the protocol has room for 2^63-1"
	case size == 0:
		why = "a disk has a byte at least"
	case size%uint64(max(d.Block, 1)) != 0:
		why = fmt.Sprintf("it must be a multiple of %d, the block of its storage", d.Block)
	case size < d.Size && b.stores.beyond(b, size):
		why = "another export shows what is behind that"
	}
	if why != "" {
		return &ResizeError{Path: b.spec.Path, Size: size, Why: why}
	}
	return nil
}

// beyond reports whether another export of the store shows bytes from an offset on.
func (r *Stores) beyond(b *Backing, from uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range b.store.users {
		if u != b && u.window.base+u.window.size > from {
			return true
		}
	}
	return false
}

// Truncate makes a file shorter or longer. What is added reads as zeroes.
func (b *Backing) Truncate(size uint64) error {
	if b.Device.ReadOnly || b.store.id.kind != idFile {
		return &ResizeError{Path: b.spec.Path, Size: size,
			Why: "only a file that is served for writing can be made longer or shorter"}
	}
	Reach(b.spec.Path)
	for {
		err := unix.Ftruncate(b.Device.FD, int64(size))
		if err == nil {
			err = unix.Fsync(b.Device.FD)
		}
		if err != unix.EINTR {
			if err != nil {
				return &ResizeError{Path: b.spec.Path, Size: size, Why: err.Error()}
			}
			return nil
		}
	}
}

// Resized returns the export with another size.
func (b *Backing) Resized(size uint64) proto.Export {
	shown := b.Export
	shown.Size = size
	return shown
}

// Shows records what clients are told of the export from now on.
func (b *Backing) Shows(shown proto.Export) {
	r := b.stores
	r.mu.Lock()
	defer r.mu.Unlock()
	if shown.Size != b.Export.Size {
		b.window.size = shown.Size // the engine changes that of the device
	}
	b.Export = shown
}
