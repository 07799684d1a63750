// Ending the process while storage hangs.
//
// Invariant: the end of the process does not close the files of storage that may hang. The kernel
// asks some file systems (FUSE, NFS) when a descriptor is closed, and the thread that closes it
// sleeps, deaf to every signal, until they answer: an ended process would stay, and its parent
// would wait for it. So the table of descriptors is given to a child, which outlives the process
// and closes them. A request to storage that was sent earlier and cannot be cancelled (a FUSE
// daemon has read it and does not answer; a disk) does keep the process in the kernel.

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
	heirPoll = 50 * time.Millisecond  // between two checks whether the process has ended
	heirWait = 250 * time.Millisecond // for the last of its threads
)

// leftBehind calls do, which ends in order after a signal cancels ctx. It reports whether do was
// left behind because it did not end within patience after the signal; the program must end then.
func leftBehind(ctx context.Context, patience time.Duration, do func()) bool {
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

// leaveFiles leaves the files to a child, made by clone(2) with CLONE_FILES: another process with
// the same table. It is the last call of the program. The child has a copy of this thread alone, so
// it makes only system calls, and none that takes an address.
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
		unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(clock), 0, 1,
			uintptr(heirPoll/time.Millisecond), 0, 8)
	}
	unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(clock), 0, 1, uintptr(heirWait/time.Millisecond),
		0, 8)
	for _, fd := range others {
		unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// notFiles lists the descriptors that can be closed without asking any storage: a client, or the
// reader of a pipe, may wait until they are closed.
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
