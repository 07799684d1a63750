// Touching a path in a child process: a thread that waits for storage that hangs hears no signal,
// and a process with that thread does not end. A child can be left behind.
//
// Invariant: the child has no descriptor of this process, and is a copy of one thread alone. So it
// makes system calls and nothing else: it allocates nothing, takes no lock, and does not return.

package uring

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// touch has the memory of the child's system calls. It is made before the child is.
type touch struct {
	path, directory *byte
	found           unix.Statx_t
	system          unix.Statfs_t
	block           [512]byte
	signals         [8]byte
}

// Touch starts a child that opens, measures and reads a path: a file, a directory or a block
// device, or, where nothing is, the directory in which it would be. The child ends when the storage
// has answered, whatever the answer. The caller need not wait for it: the child ends with the
// process, unless the kernel keeps it.
//
//go:norace
func Touch(path, directory string) (child int, err error) {
	t := new(touch)
	if t.path, err = unix.BytePtrFromString(path); err != nil {
		return 0, err
	}
	if t.directory, err = unix.BytePtrFromString(directory); err != nil {
		return 0, err
	}
	for i := range t.signals {
		t.signals[i] = 0xff
	}
	// The child's signal handlers are Go's, which need a runtime: it blocks all signals.
	var before [8]byte
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask(&t.signals, &before)
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		t.child()
	}
	mask(&before, nil)
	runtime.KeepAlive(t)
	if errno != 0 {
		return 0, callError("clone", errno)
	}
	return int(pid), nil
}

func mask(to, before *[8]byte) {
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(to)),
		uintptr(unsafe.Pointer(before)), uintptr(len(to)), 0, 0)
}

// child is all that the child does.
//
//go:norace
//go:nosplit
func (t *touch) child() {
	const here = ^uintptr(99) // AT_FDCWD
	unix.RawSyscall(unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
	unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	name := t.path
	_, _, errno := unix.RawSyscall6(unix.SYS_STATX, here, uintptr(unsafe.Pointer(name)), 0,
		unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&t.found)), 0)
	kind := t.found.Mode & unix.S_IFMT
	if errno == unix.ENOENT {
		name, kind, errno = t.directory, unix.S_IFDIR, 0
	}
	// To open a FIFO wakes its other end, and to open a tape moves it.
	if errno == 0 && (kind == unix.S_IFREG || kind == unix.S_IFBLK || kind == unix.S_IFDIR) {
		flags := uintptr(unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY)
		if kind == unix.S_IFDIR {
			flags |= unix.O_DIRECTORY
		}
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, here,
			uintptr(unsafe.Pointer(name)), flags, 0, 0, 0)
		if errno == 0 {
			unix.RawSyscall(unix.SYS_FSTATFS, fd, uintptr(unsafe.Pointer(&t.system)), 0)
			unix.RawSyscall6(unix.SYS_PREAD64, fd, uintptr(unsafe.Pointer(&t.block)),
				uintptr(len(t.block)), 0, 0, 0)
			unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		}
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
