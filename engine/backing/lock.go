// Exclusion between servers: a flock on the descriptor that does the I/O, exclusive for a writable
// export and shared for a read-only one.
//
// Invariant: a server that writes holds the lock, so two servers never write to one store. A lock
// outlives the process that took it: after kill -9 the kernel ends the operations in flight before
// it closes the descriptor, which takes as long as the disk does. So a lock whose holder has ended
// is waited for, and a lock whose holder lives is reported.

package backing

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// livingTimeout is how long a holder must be seen alive to be believed: a process that was just
	// killed is still there for a moment.
	livingTimeout = 300 * time.Millisecond
	// udevTimeout is the same for block devices: systemd-udevd takes a shared lock for some
	// milliseconds whenever a device changes, and it counts as a change when a writable descriptor
	// is closed, by the server's last run for instance.
	udevTimeout = time.Second
	// departedTimeout is for holders that cannot be seen: they have ended, or live in another PID
	// namespace.
	departedTimeout = 10 * time.Second
)

// claim takes the locks that the export needs, and keeps the notes for the user.
func (o *store) claim() error {
	s := &o.spec
	if s.glance {
		return nil
	}
	c := Claim{Path: s.Path, Write: !o.device.ReadOnly, Still: s.still, Force: s.Force}
	notes, err := c.Take(o.device.FD)
	o.notes = append(o.notes, notes...)
	return err
}

// waitLock takes a lock, and waits for holders that are about to release it. EWOULDBLOCK means that
// another program keeps it.
func waitLock(fd, how int, block bool) error {
	timeout := livingTimeout
	if block {
		timeout = udevTimeout
	}
	start := time.Now()
	alive := start // since when the holder has been seen alive
	for {
		err := unix.Flock(fd, how|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return err
		}
		now := time.Now()
		if !heldByLiving(fd) {
			alive = now
		}
		if now.Sub(alive) > timeout || now.Sub(start) > departedTimeout {
			return unix.EWOULDBLOCK
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// heldByLiving reports whether a process that has not ended holds a flock on the file. /proc/locks
// leaves out processes that cannot be seen. It shows the superblock's device, which is not that of
// stat on every file system, so only the inode's number is compared.
func heldByLiving(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return false
	}
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	for line := range strings.Lines(string(text)) {
		// 12: FLOCK  ADVISORY  WRITE 4711 fe:00:1835014 0 EOF
		f := strings.Fields(line)
		if len(f) >= 6 && f[1] == "FLOCK" && strings.HasSuffix(f[5], inode) && living(f[4]) {
			return true
		}
	}
	return false
}

// living reports whether a process exists and is not a zombie.
func living(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	// The state follows the name, which is in parentheses and may hold anything.
	_, state, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return ok && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}
