// Regular files and block devices: one descriptor, opened, locked, and then measured.
//
// Invariant: the order is open, lock, measure. What is measured (size, alignment, abilities) is
// read when no other program can change it, and the lock is on the descriptor that does the I/O, so
// it lives exactly as long as the export.

package backing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
)

// statMask is everything that opening needs of statx.
const statMask = unix.STATX_BASIC_STATS | unix.STATX_DIOALIGN

func (o *store) openPath() error {
	var st unix.Stat_t
	if err := unix.Stat(o.spec.Path, &st); err != nil {
		return explain(&o.spec, err)
	}
	block := st.Mode&unix.S_IFMT == unix.S_IFBLK
	readOnly := o.spec.ReadOnly
	if block && !readOnly && blockReadOnly(o.spec.Path) {
		readOnly = true
		o.note("the device itself is read-only, so the export is")
	}
	flags := unix.O_CLOEXEC | unix.O_RDWR
	if readOnly {
		flags = unix.O_CLOEXEC | unix.O_RDONLY
	}
	switch {
	case !block:
		flags |= unix.O_NONBLOCK // in case a FIFO has taken the file's place since
	case !readOnly && !o.spec.Force:
		// on a block device: refuse one that is mounted, or part of a volume that is in use
		flags |= unix.O_EXCL
	}
	fd, err := openRetry(o.spec.Path, flags, 0)
	if err == unix.EBUSY && block {
		if fd, err = o.openExclusive(flags); err != nil {
			return o.partHeld(err)
		}
	}
	if err != nil {
		return explain(&o.spec, err)
	}
	o.device = engine.Device{FD: fd, ReadOnly: readOnly}
	if err := o.claim(); err != nil && block {
		return o.partHeld(err)
	} else if err != nil {
		return err
	}
	return o.measure(block)
}

// partHeld completes the error about a block device that is held, if a partition of it is wanted.
func (o *store) partHeld(err error) error {
	var held *HeldError
	if errors.As(err, &held) {
		held.Part = o.spec.Partition != ""
	}
	return err
}

// create makes the image and locks it, and then continues as with an image that exists.
func (o *store) create() error {
	s := &o.spec
	fd, err := openRetry(s.Path,
		unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("%s: cannot be made: %w", s.Path, err)
	}
	o.device = engine.Device{FD: fd}
	if err := o.claim(); err != nil {
		return err
	}
	o.made = true // not before: what another program has locked first is not removed
	if err := unix.Ftruncate(fd, int64(s.Create)); err != nil {
		return fmt.Errorf("%s: cannot be made with %d bytes: %w", s.Path, s.Create, err)
	}
	if err := o.measure(false); err != nil {
		return err
	}
	if err := syncEntry(fd, filepath.Dir(s.Path)); err != nil {
		return fmt.Errorf("%s: cannot be made durable: %w", s.Path, err)
	}
	return nil
}

// syncEntry makes a new file's size and its name durable: an acknowledged FLUSH is worth nothing if
// the file itself is gone after a power cut.
func syncEntry(fd int, directory string) error {
	if err := unix.Fsync(fd); err != nil {
		return err
	}
	d, err := os.Open(directory)
	if err != nil {
		// a directory that may be written but not read cannot be synced; nothing more can be done
		return nil
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = nil // the file system has no such operation
	}
	return errors.Join(err, d.Close())
}

// measure reads the facts of the locked descriptor and fills in the Device.
func (o *store) measure(block bool) error {
	s, d := &o.spec, &o.device
	d.Name = s.Path
	var st unix.Statx_t
	if err := unix.Statx(d.FD, "", unix.AT_EMPTY_PATH, statMask, &st); err != nil {
		return explain(s, err)
	}
	kind := uint32(st.Mode) & unix.S_IFMT
	if block != (kind == unix.S_IFBLK) || !block && kind != unix.S_IFREG {
		return fmt.Errorf("%s: was replaced while it was being opened; start again", s.Path)
	}
	if !block && !o.there(&st) {
		return fmt.Errorf("%s: was replaced or removed while it was being opened; start again",
			s.Path)
	}
	d.Kind, d.Size = engine.File, st.Size
	if block {
		end, err := unix.Seek(d.FD, 0, unix.SEEK_END) // what BLKGETSIZE64 says, on every word size
		if err != nil {
			return explain(s, err)
		}
		d.Kind, d.Size = engine.Block, uint64(end)
	}
	switch {
	case d.Size == 0 && block:
		return fmt.Errorf("%s: the device has no medium, its size is 0; attach one first", s.Path)
	case d.Size == 0:
		o.note("is empty, and a disk of 0 bytes to clients; it gets a size with: truncate -s 1G " +
			ShellQuote(s.Path))
	}
	if err := o.sized(s); err != nil {
		return err
	}
	if err := o.look(); err != nil {
		return err
	}
	if block {
		return o.measureBlock(&st)
	}
	return o.measureFile(&st)
}

// there reports whether the path leads to the file that was opened: while its lock was waited for,
// another program could put a new file there, and what clients write would be lost with the old.
func (o *store) there(opened *unix.Statx_t) bool {
	var named unix.Stat_t
	return unix.Stat(o.spec.Path, &named) == nil && named.Ino == opened.Ino &&
		named.Dev == unix.Mkdev(opened.Dev_major, opened.Dev_minor)
}

// preadRetry reads at an offset; signals may interrupt that on network file systems.
func preadRetry(fd int, p []byte, at int64) (int, error) {
	for {
		n, err := unix.Pread(fd, p, at)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (o *store) note(text string) { o.notes = append(o.notes, o.spec.Path+": "+text) }

// openRetry opens a path; signals may interrupt that on network file systems.
func openRetry(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openExclusive opens a block device that answered EBUSY: it is held exclusively. Its locks and its
// uses by the kernel show whether the holder is a ringnbd, which may be about to close it, or a
// mount or another program.
func (o *store) openExclusive(flags int) (int, error) {
	s := &o.spec
	fd, err := openRetry(s.Path, unix.O_CLOEXEC|unix.O_RDONLY, 0)
	if err != nil {
		return -1, explain(s, err)
	}
	c := Claim{Path: s.Path, Write: true}
	err = c.Occupied(fd)
	_ = unix.Close(fd)
	if err != nil {
		return -1, err
	}
	fd, err = openRetry(s.Path, flags, 0)
	switch {
	case err == unix.EBUSY:
		return -1, c.Occupied(-1)
	case err != nil:
		return -1, explain(s, err)
	}
	return fd, nil
}

// explain is the error of a failed open or stat.
func explain(s *Spec, err error) error {
	return &AccessError{Path: s.Path, ReadOnly: s.ReadOnly, Part: s.still || s.top, Err: err}
}

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFCHR:
		return "a character device"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "of an unknown type"
}
