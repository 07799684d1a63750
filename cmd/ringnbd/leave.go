// Leaving although storage hangs.
//
// Invariant: the end of the process does not close the files of storage that may hang. Some file
// systems (FUSE, NFS) are asked when a descriptor is closed, and whoever closes it sleeps until
// they answer, deaf to every signal: a process that has ended would stay, and whoever waits for it.
// So the table of descriptors is given to a child, which outlives the process and closes them. What
// was asked of storage before and cannot be given up (a FUSE daemon has taken it and does not
// answer; a disk) does keep the process: that is the kernel's.

package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	heirLooks = 50  // milliseconds between two looks whether the process has ended
	heirWaits = 250 // milliseconds for the last of its threads
)

// forsaken does what a signal ends in order, and says whether it was left behind, because it did
// not end within a time after that. The program is to end then.
func forsaken(ctx context.Context, patience time.Duration, do func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
		return false
	case <-ctx.Done():
	}
	select {
	case <-done:
		return false
	case <-time.After(patience + lastWords):
		leaveFiles()
		return true
	}
}

// leaveFiles leaves the files to a child, by clone(2) with CLONE_FILES: the same table, but another
// process. It comes last. The child has a copy of this thread alone, so it makes system calls and
// nothing else, none of which has an address.
func leaveFiles() {
	clock, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return
	}
	parent, others := uintptr(unix.Getpid()), notFiles()
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE,
		uintptr(unix.CLONE_FILES)|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || child != 0 {
		return
	}
	for {
		now, _, _ := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		if now != parent {
			break
		}
		unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(clock), 0, 1, heirLooks, 0, 8)
	}
	unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(clock), 0, 1, heirWaits, 0, 8)
	for _, fd := range others {
		unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// notFiles lists the descriptors that can be closed without asking any storage. Somebody may wait
// for their end: a client, or whoever reads what we say.
func notFiles() []uintptr {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []uintptr{0, 1, 2}
	}
	var fds []uintptr
	for _, entry := range list {
		fd, err := strconv.Atoi(entry.Name())
		path, gone := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && gone == nil && (fd <= 2 || !strings.HasPrefix(path, "/")) {
			fds = append(fds, uintptr(fd))
		}
	}
	return fds
}
