// Claims: the locks that are taken before a store is read or written, and the users that it may
// have already.
//
// Three kinds of user are looked for: programs that take a flock, as every ringnbd does; programs
// that take QEMU's locks (imagelock.go); and the kernel itself, with a loop device, a mount or swap
// (occupant.go).
//
// Invariant: what could be locked stays locked as long as the descriptor is open, or until Release;
// with Force as well, which overrides the locks of others and takes all the same locks.

package backing

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Claim is what is wanted of a store.
type Claim struct {
	Path   string // for messages
	Write  bool
	Resize bool // its size may be changed as well
	Still  bool // it must not change while it is read, as what is copied must not
	Force  bool // go on although others use it
}

// Take locks the store of an open descriptor, and checks that it has no user that the claim
// excludes. The error is a HeldError then. Notes are what the user should know although the store
// is used.
func (c Claim) Take(fd int) (notes []string, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	block := st.Mode&unix.S_IFMT == unix.S_IFBLK
	for _, step := range []func() (string, error){
		func() (string, error) { return c.flock(fd, block) },
		func() (string, error) { return c.imageLock(fd) },
		func() (string, error) { return c.unoccupied(&st) },
	} {
		note, err := step()
		var held *HeldError
		if errors.As(err, &held) && c.Force && !held.Final {
			note, err = held.Use+"; it goes on all the same, as asked", nil
		}
		if err != nil {
			return nil, err
		}
		if note != "" {
			notes = append(notes, c.Path+": "+note)
		}
	}
	return notes, nil
}

// Release releases what Take has locked, on a descriptor that is not closed afterwards: a standard
// stream is open in the parent process, too, and the locks would last as long as that.
func Release(fd int) {
	releaseImageLock(fd)
	_ = unix.Flock(fd, unix.LOCK_UN)
}

// held is the error about a use of the store.
func (c *Claim) held(by Holder, use string) error {
	return &HeldError{Path: c.Path, Use: use, By: by, Write: c.Write}
}

// flock takes the lock that keeps servers and copies apart.
func (c *Claim) flock(fd int, block bool) (note string, err error) {
	how := unix.LOCK_EX
	if !c.Write {
		how = unix.LOCK_SH
	}
	switch err := waitLock(fd, how, block); err {
	case nil:
		return "", nil
	case unix.EWOULDBLOCK:
		if c.Force {
			// together with readers: further writers are kept out
			_ = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
		}
		return "", c.held(HeldByServer,
			"in use by another ringnbd (or another program that locks it"+holder(fd, "FLOCK")+")")
	default:
		return "it cannot be locked here (" + err.Error() +
			"), so nothing keeps others from writing to it", nil
	}
}

// Occupied returns the error about a block device that cannot be opened exclusively. fd was opened
// for reading and shows who has the device; -1 if that is not known. The result is nil if a ringnbd
// has just released the device.
func (c Claim) Occupied(fd int) error {
	var st unix.Stat_t
	if fd < 0 || unix.Fstat(fd, &st) != nil {
		return c.held(HeldByKernel, "is mounted or otherwise in use")
	}
	if err := waitLock(fd, unix.LOCK_SH, true); err == unix.EWOULDBLOCK {
		_, err := c.flock(fd, true)
		return err
	}
	_ = unix.Flock(fd, unix.LOCK_UN)
	_, err := c.unoccupied(&st)
	return err
}

// unoccupied looks for what the kernel does with the store. To read while the kernel writes gives
// data that was never on the disk at one time: not a reason not to serve it, but not a copy.
func (c *Claim) unoccupied(st *unix.Stat_t) (note string, err error) {
	var texts []string
	for _, o := range occupants(st) {
		if c.Write || o.writes {
			texts = append(texts, o.text)
		}
		if o.swap && c.Write && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return "", &HeldError{Path: c.Path, Use: "is " + o.text, By: HeldByKernel, Write: true,
				Final: true}
		}
	}
	if len(texts) == 0 {
		return "", nil
	}
	what := "is " + strings.Join(texts, ", and ")
	if c.Write || c.Still {
		return "", c.held(HeldByKernel, what)
	}
	return what + ", and may change while it is read", nil
}
