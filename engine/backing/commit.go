// Emptying an overlay: Commit writes what it holds into its origin first, Drop throws it away.
//
// The order makes both repeatable, whenever a crash cuts them. A commit first marks the top,
// durably, then writes into the origin, makes the origin durable, empties the map, and takes the
// mark away. Until the map is empty, clients of the overlay see what they saw before, because what
// it holds covers what was written into the origin; a commit that was cut writes the same bytes
// again. The mark says that the origin is not what the top was made over, and will be with the next
// commit.
//
// Invariant: the engine has let go of the export. The map is emptied only when the origin is
// durable. The origin is locked against every other user while it is written.

package backing

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/layer/overlay"
)

// commitChunk is how much is copied at a time, in bytes.
const commitChunk = 4 << 20

// EmptyError says why an overlay cannot be committed or dropped.
type EmptyError struct {
	Path string
	Why  string
	Busy string // the name of another export that is in the way, if that is the reason
}

func (e *EmptyError) Error() string { return e.Path + ": " + e.Why }

// mayEmpty returns why the Backing is not an overlay that can be emptied.
func (b *Backing) mayEmpty() error {
	why := ""
	switch {
	case b.tree == nil:
		why = "is not an overlay"
	case b.Discards():
		why = "every client has an overlay of its own, which is thrown away when it leaves"
	case b.spec.ReadOnly:
		why = "is served read-only, so nothing of it may change"
	default:
		return nil
	}
	return &EmptyError{Path: b.spec.Path, Why: why}
}

// Held returns how many bytes an overlay holds, and how many of its origin it hides with zeroes
// that take no space; ok is false for what is not an overlay with a FILE.
func (b *Backing) Held() (data, zeroes uint64, ok bool) {
	if b.tree == nil || b.laid == nil || b.laid.plan == nil {
		return 0, 0, false
	}
	s := b.laid.plan.Stats()
	return s.Data, s.Zeroes, true
}

// Unfinished reports whether a commit was cut off, and is to be done again.
func (b *Backing) Unfinished() bool { return b.laid != nil && b.laid.super.Committing }

// Drop throws away what an overlay holds: afterwards it shows its origin.
func (b *Backing) Drop() error {
	if err := b.mayEmpty(); err != nil {
		return err
	}
	if b.laid.super.Committing {
		return &EmptyError{Path: b.spec.Path, Why: "a commit was cut off, so a part of it is in " +
			"the origin already; commit it again"}
	}
	fd, err := reopen(b.parts[1].Device.FD, true)
	if err != nil {
		return explain(&b.parts[1].spec, err)
	}
	defer unix.Close(fd)
	return b.empty(fd, b.laid.super)
}

// Commit writes what an overlay holds into its origin and then drops it. It tells how many bytes
// are done, and ends early when the context ends: then, as after any error, the overlay shows what
// it showed before, and may be committed again.
func (b *Backing) Commit(ctx context.Context, tell func(done, total uint64)) error {
	if err := b.mayCommit(); err != nil {
		return err
	}
	origin, top := b.parts[0], b.parts[1]
	release, err := origin.claimAlone()
	if err != nil {
		return err
	}
	defer release()
	to, err := reopen(origin.Device.FD, true)
	if err != nil {
		return explain(&Spec{Path: origin.spec.Path}, err)
	}
	defer unix.Close(to)
	from, err := reopen(top.Device.FD, true)
	if err != nil {
		return explain(&top.spec, err)
	}
	defer unix.Close(from)

	super := b.laid.super.Next()
	super.Committing = true
	if err := b.mark(from, super); err != nil {
		return err
	}
	c := committing{b: b, ctx: ctx, from: from, to: to, tell: tell,
		buffer: make([]byte, commitChunk)}
	err = c.copyAll()
	if err == nil {
		err = unix.Fsync(to)
	}
	if err != nil {
		return fmt.Errorf("%s: cannot be committed: %w", b.spec.Path, err)
	}
	_ = unix.Fadvise(to, 0, 0, unix.FADV_DONTNEED) // the export reads without the page cache
	if super.Origin.Identity, err = origin.fingerprint(); err != nil {
		return err
	}
	return b.empty(from, super)
}

// Renew makes the layer anew from what its top has on the disk, after a commit that failed: a plan
// is not used twice.
func (b *Backing) Renew() error {
	if err := b.mayEmpty(); err != nil {
		return err
	}
	m, err := b.openTop(b.laid.layout)
	if err != nil {
		return err
	}
	b.lay(m, overlay.Persistent, b.parts[1].Device)
	return nil
}

// mayCommit returns why an overlay cannot be committed.
func (b *Backing) mayCommit() error {
	if err := b.mayEmpty(); err != nil {
		return err
	}
	origin := b.parts[0]
	switch {
	case origin.tree != nil:
		return &EmptyError{Path: b.spec.Path, Why: "its origin is an overlay itself, which is " +
			"not written to; serve and commit that first, or drop this"}
	case origin.Device.Kind != engine.File && origin.Device.Kind != engine.Block:
		return &EmptyError{Path: b.spec.Path, Why: "its origin keeps nothing"}
	}
	if twin := b.stores.twin(origin.store.id); twin != nil {
		return b.originUsed(twin.Name)
	}
	b.stores.mu.Lock()
	defer b.stores.mu.Unlock()
	for _, u := range origin.store.users {
		if u != origin {
			return b.originUsed(u.spec.Name)
		}
	}
	return nil
}

// originUsed is the error about another export that shows the origin.
func (b *Backing) originUsed(by string) error {
	return &EmptyError{Path: b.spec.Path, Busy: by, Why: fmt.Sprintf("its origin is used by the "+
		"export %q as well, which must not change; remove that first", by)}
}

// claimAlone exchanges the lock of a reader for that of a writer, until release.
func (b *Backing) claimAlone() (release func(), err error) {
	fd := b.Device.FD
	alone := Claim{Path: b.spec.Path, Write: true, Force: b.spec.Force}
	back := func() {
		Release(fd)
		still := Claim{Path: b.spec.Path, Still: b.spec.still, Force: true}
		_, _ = still.Take(fd) // what was taken by another meanwhile is seen by its own locks
	}
	if _, err := alone.Take(fd); err != nil {
		back()
		return nil, err
	}
	return back, nil
}

// mark writes a superblock of the top, durably.
func (b *Backing) mark(fd int, super overlay.Super) error {
	at, text := super.Encode()
	err := writeFull(fd, text, int64(at))
	if err == nil {
		err = unix.Fdatasync(fd)
	}
	if err != nil {
		return fmt.Errorf("%s: cannot be marked: %w", b.parts[1].spec.Path, err)
	}
	b.laid.super = super
	return nil
}

// empty empties the top. From the first mark on it shows its origin, whatever becomes of the rest:
// a map that is cleared in part, of whatever is left of it, does not count.
func (b *Backing) empty(fd int, super overlay.Super) error {
	super = super.Next()
	super.Committing, super.Emptying = false, true
	if err := b.mark(fd, super); err != nil {
		return err
	}
	if err := b.clearTop(fd); err != nil {
		return err
	}
	m, err := newMap(b.laid.layout)
	if err != nil {
		return err
	}
	b.lay(m, overlay.Persistent, b.parts[1].Device)
	return nil
}

// clearTop clears a top that is marked as being emptied, and takes the mark away.
func (b *Backing) clearTop(fd int) error {
	l := b.laid.layout
	err := zeroRange(fd, l.MapAt, l.MapLen)
	if err == nil {
		err = unix.Fdatasync(fd)
	}
	if err != nil {
		return fmt.Errorf("%s: its map cannot be emptied: %w", b.parts[1].spec.Path, err)
	}
	super := b.laid.super.Next()
	super.Emptying = false
	if err := b.mark(fd, super); err != nil {
		return err
	}
	_ = punchHole(fd, l.DataAt, l.Size) // space that cannot be given back is used again
	reserveMap(fd, l)
	return nil
}

// committing copies what an overlay holds into its origin.
type committing struct {
	b           *Backing
	ctx         context.Context
	from, to    int // descriptors
	tell        func(done, total uint64)
	done, total uint64
	buffer      []byte
}

func (c *committing) copyAll() error {
	l := c.b.laid.layout
	stats := c.b.laid.plan.Stats()
	c.total = stats.Data + stats.Zeroes
	base := c.b.parts[0].window.base
	var err error
	c.b.laid.plan.Extents(0, l.Size, func(at, n uint64, s overlay.State) bool {
		switch s {
		case overlay.Data:
			err = c.copy(l.DataAt+at, base+at, n)
		case overlay.Zeroes:
			err = c.zero(base+at, n)
		}
		return err == nil
	})
	return err
}

// step counts what is done, and returns an error if the commit is to end.
func (c *committing) step(n uint64) error {
	c.done += n
	if c.tell != nil {
		c.tell(min(c.done, c.total), c.total)
	}
	return context.Cause(c.ctx)
}

// copy copies a run of the top.
func (c *committing) copy(from, to, length uint64) error {
	for length > 0 {
		p := c.buffer[:min(uint64(len(c.buffer)), length)]
		n, err := readFull(c.from, p, int64(from))
		if err == nil && n < len(p) {
			err = errors.New("the file of the overlay has become shorter")
		}
		if err == nil {
			err = writeFull(c.to, p, int64(to))
		}
		if err == nil {
			err = c.step(uint64(n))
		}
		if err != nil {
			return err
		}
		from, to, length = from+uint64(n), to+uint64(n), length-uint64(n)
	}
	return nil
}

// zero makes a run of the origin read as zeroes.
func (c *committing) zero(at, length uint64) error {
	const most = 1 << 30 // so that a signal is noticed
	for length > 0 {
		n := min(length, most)
		if err := zeroRange(c.to, at, n); err != nil {
			return err
		}
		if err := c.step(n); err != nil {
			return err
		}
		at, length = at+n, length-n
	}
	return nil
}

// zeroRange makes a range of a file or block device read as zeroes: as a hole, if it can have one.
func zeroRange(fd int, at, length uint64) error {
	if punchHole(fd, at, length) == nil {
		return nil
	}
	zeroes := make([]byte, min(length, commitChunk))
	for length > 0 {
		n := min(length, uint64(len(zeroes)))
		if err := writeFull(fd, zeroes[:n], int64(at)); err != nil {
			return err
		}
		at, length = at+n, length-n
	}
	return nil
}

// punchHole gives back the space of a range, which reads as zeroes then. Block devices have it,
// too.
func punchHole(fd int, at, length uint64) error {
	for {
		err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(at),
			int64(length))
		if err != unix.EINTR {
			return err
		}
	}
}
