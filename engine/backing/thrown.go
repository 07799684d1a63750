// Throw-away overlays: each client has one of its own, over an origin that all share. Its top has
// no name, so it is gone with its descriptor, whatever becomes of the process.
//
// Invariant: the origin stays open until the export and the last overlay that it made are closed.
// What fails in one, a full disk for instance, fails for its client alone.

package backing

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/layer/overlay"
	"ringnbd/engine/tree"
)

// DefaultThrowAwayDir is where tops without a name are made: on a disk, not in memory, and where
// what is left after a crash of the machine is cleaned up.
const DefaultThrowAwayDir = "/var/tmp"

// Discards reports whether every client is to have a throw-away overlay of its own.
func (b *Backing) Discards() bool {
	return b.tree != nil && b.tree.Option(tree.OptionDiscard) != ""
}

// throwAwayDir is the directory of the tops without a name.
func (b *Backing) throwAwayDir() string {
	if dir := b.tree.Option(tree.OptionDir); dir != "" {
		return dir
	}
	return DefaultThrowAwayDir
}

// tryThrowAway finds out whether a top can be made at all, so that a start fails, not every client.
func (b *Backing) tryThrowAway() error {
	top, err := b.unnamedTop()
	if err != nil {
		return err
	}
	return top.close()
}

// ThrowAway makes an overlay for one client of an export that Discards. The caller closes it when
// the engine has let go of it; until then the parts of b stay open, b closed or not. It may block
// on the disk.
func (b *Backing) ThrowAway(ctx context.Context) (*Backing, error) {
	made := make(chan *store, 1)
	err := Await(ctx, func() error {
		top, err := b.unnamedTop()
		if err == nil && ctx.Err() != nil { // it is too late
			err = errors.Join(ctx.Err(), top.close())
		}
		if err == nil {
			made <- top
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	top := <-made
	if !b.lend() {
		return nil, errors.Join(fmt.Errorf("%s: has been closed", b.spec.Path), top.close())
	}
	one := &Backing{spec: b.spec, stores: b.stores, tree: b.tree, parts: b.parts[:1:1],
		store: top, window: b.window, laid: &laid{layout: b.laid.layout}, lender: b,
		Export: b.Export}
	m, err := newMap(b.laid.layout)
	if err != nil {
		return nil, errors.Join(err, one.Close())
	}
	one.lay(m, overlay.ThrowAway, &top.device)
	return one, nil
}

// lend counts one more overlay that uses the parts of b, unless b is closed.
func (b *Backing) lend() bool {
	b.stores.mu.Lock()
	defer b.stores.mu.Unlock()
	if b.closed {
		return false
	}
	b.lent++
	return true
}

// giveBack ends that, and closes the parts of b if b was closed and this was the last.
func (b *Backing) giveBack() error {
	b.stores.mu.Lock()
	b.lent--
	last := b.closed && b.lent == 0
	b.stores.mu.Unlock()
	if last {
		return b.closeParts()
	}
	return nil
}

// unnamedTop makes a file without a name, as long as a top, and measures it as any store.
func (b *Backing) unnamedTop() (*store, error) {
	dir := b.throwAwayDir()
	fail := func(err error) (*store, error) {
		return nil, &TopError{Path: dir, Dir: true, Err: err}
	}
	fd, err := openUnnamed(dir)
	if err != nil {
		return fail(err)
	}
	// The page cache: what is thrown away soon need not reach the disk at all.
	o := &store{device: engine.Device{Kind: engine.File, FD: fd, Name: dir,
		Size: b.laid.layout.FileLen},
		spec: Spec{Path: dir, Direct: DirectOff}, made: false}
	var st unix.Statx_t
	err = unix.Ftruncate(fd, int64(b.laid.layout.FileLen))
	if err == nil {
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, statMask, &st)
	}
	if err == nil {
		err = o.measureFile(&st)
	}
	if err != nil {
		_ = o.close()
		return fail(err)
	}
	return o, nil
}

// openUnnamed opens a new file without a name. File systems that have none give one that is removed
// at once.
func openUnnamed(dir string) (int, error) {
	fd, err := openRetry(dir, unix.O_CLOEXEC|unix.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != unix.EOPNOTSUPP && err != unix.EISDIR && err != unix.EINVAL {
		return fd, err
	}
	f, err := os.CreateTemp(dir, ".ringnbd-*")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	err = os.Remove(f.Name())
	if err == nil {
		fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return fd, nil
}
