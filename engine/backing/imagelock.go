// QEMU's locks on images: single bytes, by OFD locks (fcntl), as in its block/file-posix.c.
//
// A program that has a permission holds a read lock on the byte permBase + its number; a program
// that does not want others to have the permission, on sharedBase + its number. Read locks never
// collide: a lock of another program is found by asking whether a write lock would be granted. As a
// lock belongs to the open file, not to the process, it lives as long as the descriptor that does
// the I/O, io_uring's reference to it included, and does not conflict with itself.
//
// Invariant: the bytes are locked before the locks of others are looked at, so of two programs that
// start at the same time at least one sees the other.

package backing

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	permBase   = 100
	sharedBase = 200
)

// permission is a bit of QEMU's BlockPermission (include/block/block-common.h).
type permission uint8

const (
	permRead   permission = 1 << iota // CONSISTENT_READ
	permWrite                         // WRITE
	_                                 // WRITE_UNCHANGED
	permResize                        // RESIZE
	permEnd
)

// imageLock takes QEMU's locks. Readers and writers let others read, as a VM's disk does, and let
// no other program write or change the size.
func (c *Claim) imageLock(fd int) (note string, err error) {
	if mandatoryLocks(fd) {
		return "locks are mandatory on its file system, so QEMU's are not taken, nor looked at", nil
	}
	want, unshared := permRead, permWrite|permResize
	if c.Write {
		want |= permWrite
	}
	if c.Resize {
		want |= permResize
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		found, err := tryImageLock(fd, want, unshared)
		switch {
		case err != nil && found == "":
			return "it cannot be locked here for QEMU to see (" + err.Error() + ")", nil
		case err == nil:
			return "", nil
		case time.Since(start) < livingTimeout: // a program that is ending, or that tries as we do
			if !c.Force {
				releaseImageLock(fd)
			}
			continue
		}
		if !c.Force {
			releaseImageLock(fd)
		}
		return "", c.held(HeldByQEMU, found+holder(fd, "OFDLCK"))
	}
}

var errImageLocked = errors.New("locked")

// tryImageLock takes the locks and looks for others'. found says in words which lock is in the way.
func tryImageLock(fd int, want, unshared permission) (found string, err error) {
	for bit, n := permission(1), int64(0); bit < permEnd; bit, n = bit<<1, n+1 {
		for base, bits := range map[int64]permission{permBase: want, sharedBase: unshared} {
			if bits&bit == 0 {
				continue
			}
			err := ofd(fd, unix.F_OFD_SETLK,
				&unix.Flock_t{Type: unix.F_RDLCK, Start: base + n, Len: 1})
			if err == unix.EBADF { // open for writing alone: others see a write lock as well
				err = ofd(fd, unix.F_OFD_SETLK,
					&unix.Flock_t{Type: unix.F_WRLCK, Start: base + n, Len: 1})
			}
			if err == unix.EAGAIN || err == unix.EACCES {
				return "locked by another program", errImageLocked
			}
			if err != nil {
				return "", err
			}
		}
	}
	for bit, n := permission(1), int64(0); bit < permEnd; bit, n = bit<<1, n+1 {
		for _, q := range []struct {
			base int64
			bits permission
			what string
		}{
			{permBase, unshared, "open for writing in QEMU, or in a tool that locks as it does"},
			{sharedBase, want,
				"open in QEMU, or in a tool that locks as it does, which does not share it"},
		} {
			if q.bits&bit == 0 {
				continue
			}
			lock := unix.Flock_t{Type: unix.F_WRLCK, Start: q.base + n, Len: 1}
			if err := ofd(fd, unix.F_OFD_GETLK, &lock); err != nil {
				return "", err
			}
			if lock.Type != unix.F_UNLCK {
				return q.what, errImageLocked
			}
		}
	}
	return "", nil
}

// releaseImageLock releases all of QEMU's bytes.
func releaseImageLock(fd int) {
	_ = ofd(fd, unix.F_OFD_SETLK,
		&unix.Flock_t{Type: unix.F_UNLCK, Start: permBase, Len: 2 * permBase})
}

func ofd(fd, command int, lock *unix.Flock_t) error {
	for {
		if err := unix.FcntlFlock(uintptr(fd), command, lock); err != unix.EINTR {
			return err
		}
	}
}

// mandatoryLocks reports whether a locked byte cannot be written: block 0 would be read-only then.
func mandatoryLocks(fd int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return false
	}
	return uint32(fs.Type) == unix.CIFS_SUPER_MAGIC || uint32(fs.Type) == unix.SMB2_SUPER_MAGIC ||
		fs.Type == unix.SMB_SUPER_MAGIC
}

// holder names a process that has a lock of a kind (as /proc calls it) on the file of a descriptor;
// "" if none is visible. Only root sees the locks of other users.
func holder(fd int, kind string) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return ""
	}
	inode := ":" + strconv.FormatUint(st.Ino, 10) + " "
	self := strconv.Itoa(os.Getpid())
	infos, err := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	if err != nil {
		return ""
	}
	for _, path := range infos {
		pid := strings.Split(path, "/")[2]
		if pid == self {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			// lock:	1: OFDLCK  ADVISORY  READ -1 fe:00:10002666 100 101
			if strings.HasPrefix(line, "lock:") &&
				strings.Contains(line, kind) && strings.Contains(line, inode) {
				name, err := os.ReadFile("/proc/" + pid + "/comm")
				if err != nil {
					continue
				}
				return ": " + strings.TrimSpace(string(name)) + ", process " + pid
			}
		}
	}
	return ""
}
