// The errors of this package. Their texts are shown to users as they are: one line, what is wrong
// and what to do. Each error wraps its errno for errors.Is.

package uring

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ringnbd/engine/units"
)

// disabledError says that this process may not use io_uring (EPERM).
type disabledError struct {
	// Sysctl is kernel.io_uring_disabled (Linux 6.6): 0, 1 or 2; -1 if it cannot be read.
	Sysctl int
}

func (e *disabledError) Error() string {
	switch e.Sysctl {
	case 1:
		return "io_uring is reserved for privileged processes here " +
			"(kernel.io_uring_disabled=1): run `sysctl kernel.io_uring_disabled=0` as root, or " +
			"put this user's group into kernel.io_uring_group"
	case 2:
		return "io_uring is switched off on this machine (kernel.io_uring_disabled=2): run " +
			"`sysctl kernel.io_uring_disabled=0` as root"
	}
	return "io_uring is forbidden to this process, most likely by the seccomp filter of its " +
		"container: allow io_uring_setup, io_uring_enter and io_uring_register (docker: " +
		"--security-opt seccomp=PROFILE or seccomp=unconfined)"
}

func (e *disabledError) Unwrap() error { return syscall.EPERM }

// unsupportedError says that the kernel has no io_uring (ENOSYS), or that its io_uring lacks what
// this package needs (EINVAL).
type unsupportedError struct {
	Kernel string // release, as uname -r says it
	Errno  syscall.Errno
}

func (e *unsupportedError) Error() string {
	if major, minor := parseRelease(e.Kernel); e.Errno == syscall.ENOSYS &&
		atLeast(major, minor, 5, 19) {
		return "Linux " + e.Kernel +
			" has no io_uring here: it is built without CONFIG_IO_URING, or a sandbox (gVisor, " +
			"seccomp) hides it; use another kernel or run outside of the sandbox"
	}
	return "Linux " + e.Kernel + " is too old: ringnbd needs io_uring of Linux 5.19 or newer"
}

func (e *unsupportedError) Unwrap() error { return e.Errno }

// MemlockError says that RLIMIT_MEMLOCK forbids pinning the buffers.
type MemlockError struct {
	// Need is how many bytes must be lockable: those asked for, and those that this process has
	// locked already.
	Need  uint64
	Limit uint64 // bytes, the soft limit
	// Shared says that the limit would suffice if other programs of this user had locked nothing:
	// it counts for all of them together.
	Shared bool
}

func (e *MemlockError) Error() string {
	need := roundNumber(e.Need)
	kib := strconv.FormatUint(need>>10, 10)
	lacks := " (RLIMIT_MEMLOCK) and " + units.Exact(need) + " are needed: raise"
	if e.Shared {
		kib = strconv.FormatUint(roundNumber(e.Need+e.Limit)>>10, 10)
		lacks = " (RLIMIT_MEMLOCK) for all programs of this user, and they have left less than " +
			"the " + units.Exact(need) + " that are needed: end some, raise"
	}
	return "locked memory is limited to " + units.Exact(e.Limit) + lacks +
		" the limit (`ulimit -l " + kib + "`; in limits.conf `USER - memlock " + kib +
		"`; in a systemd unit LimitMEMLOCK=" + kib + "K) or give the CAP_IPC_LOCK capability"
}

// roundNumber rounds bytes up to a number that people can type as KiB.
func roundNumber(n uint64) uint64 {
	if n < 1<<20 {
		return wholePages(n)
	}
	return (n + 1<<20 - 1) &^ (1<<20 - 1)
}

func (e *MemlockError) Unwrap() error { return syscall.ENOMEM }

// memoryError says that the kernel does not have that much memory.
type memoryError struct {
	Bytes uint64
	Errno syscall.Errno
}

func (e *memoryError) Error() string {
	if e.Errno == syscall.EINVAL {
		return "cannot map " + units.Exact(e.Bytes) +
			" of memory: the size must be from 1 byte to 128 TiB"
	}
	return "not enough memory: " + units.Exact(e.Bytes) + " is not available (" + e.Errno.Error() +
		"): ask for less, or see `free`, the container's memory limit and vm.overcommit_memory"
}

func (e *memoryError) Unwrap() error { return e.Errno }

// filesError says that more files are to be registered than RLIMIT_NOFILE or the kernel allows.
type filesError struct {
	Files int
	Errno syscall.Errno
}

func (e *filesError) Error() string {
	n := strconv.Itoa(e.Files)
	return "too many files: " + n +
		" are to be registered with io_uring, which RLIMIT_NOFILE forbids: raise it (`ulimit " +
		"-n`, systemd LimitNOFILE=) above " + n
}

func (e *filesError) Unwrap() error { return e.Errno }

// workerError says that the kernel starts no thread for operations that cannot complete inline.
type workerError struct{ Errno syscall.Errno }

func (e *workerError) Error() string {
	return "the kernel starts no thread for io_uring (" + e.Errno.Error() +
		"): a limit on threads leaves no room; raise it " +
		"(pids.max of its cgroup, TasksMax= of a systemd unit, --pids-limit of a container, " +
		"ulimit -u)"
}

func (e *workerError) Unwrap() error { return e.Errno }

// threadError says that a ring was used on another thread than its own: a mistake in the program.
type threadError struct{ Owner, Caller int }

func (e *threadError) Error() string {
	return "io_uring: a ring of thread " + strconv.Itoa(e.Owner) + " was used on thread " +
		strconv.Itoa(e.Caller) +
		": call runtime.LockOSThread before uring.Open and use the ring from that goroutine only"
}

// InFlightError says that Close gave up waiting. The kernel may still write into the arena, which
// must stay mapped.
type InFlightError struct{ Requests int }

func (e *InFlightError) Error() string {
	return "io_uring: " + strconv.Itoa(e.Requests) + " requests did not end within " +
		closeTimeout.String() +
		" of being cancelled: their memory must stay mapped; is a disk hanging?"
}

// setupError turns what io_uring_setup said into what to do about it.
func setupError(err error) error {
	var locked *MemlockError
	var memory *memoryError
	if errors.As(err, &locked) || errors.As(err, &memory) {
		return err
	}
	switch errno := errnoOf(err); errno {
	case syscall.EPERM, syscall.EACCES:
		return &disabledError{Sysctl: sysctlDisabled()}
	case syscall.ENOSYS, syscall.EINVAL:
		return &unsupportedError{Kernel: release(), Errno: errno}
	case syscall.EMFILE, syscall.ENFILE:
		return &callFailure{"too many open files for io_uring: raise RLIMIT_NOFILE (`ulimit " +
			"-n`, systemd LimitNOFILE=)", errno}
	default:
		return callError("io_uring_setup", errno)
	}
}

// callFailure is a system call that failed for a reason with no type of its own.
type callFailure struct {
	text  string
	errno syscall.Errno
}

func (e *callFailure) Error() string { return e.text }
func (e *callFailure) Unwrap() error { return e.errno }

func callError(call string, errno syscall.Errno) error {
	return &callFailure{call + ": " + errno.Error(), errno}
}

// callError is the error of a system call on the ring. Most unexpected errors (EEXIST of
// SINGLE_ISSUER, EBADF and EINVAL of a slot that this thread does not have) come from the wrong
// thread, and only here is it worth asking which thread this is.
func (r *Ring) callError(call string, errno syscall.Errno) error {
	if err := r.threadError(); err != nil {
		return err
	}
	return callError(call, errno)
}

// threadError returns nil on the ring's own thread. It costs a system call.
func (r *Ring) threadError() error {
	if tid := unix.Gettid(); tid != r.thread {
		return &threadError{Owner: r.thread, Caller: tid}
	}
	return nil
}

// pinError tells a limit from a machine that is full. total is the bytes that this process has
// pinned and wants to pin.
func pinError(bytes, total uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil ||
		limit.Cur == unix.RLIM_INFINITY || mayLock(max(limit.Cur, total)+pageSize) {
		return &memoryError{Bytes: bytes, Errno: syscall.ENOMEM}
	}
	return &MemlockError{Need: total, Limit: limit.Cur, Shared: limit.Cur >= total}
}

// CheckMemlock returns, before any ring is open, nil if total bytes may be pinned, else a
// MemlockError. total is the sum over all rings of Config.Memory and the arena to be registered. A
// process with CAP_IPC_LOCK has no limit. Other processes of the same user count too, so
// RegisterBuffers can still fail.
func CheckMemlock(total uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || limit.Cur >= total ||
		mayLock(total) {
		return nil
	}
	return &MemlockError{Need: total, Limit: limit.Cur}
}

// mayLock asks the kernel whether total bytes may be locked, above the limit. CAP_IPC_LOCK counts
// only where it was given in the first user namespace: root of a rootless container shows it and
// does not have it. mlock2 judges as io_uring does, and with MLOCK_ONFAULT it takes no memory.
func mayLock(total uint64) bool {
	const lockOnFault = 1 // MLOCK_ONFAULT, linux/mman.h
	length := uintptr(wholePages(total))
	p, err := unix.MmapPtr(-1, 0, nil, length, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return true // not the limit's doing: the mapping of the memory will meet the same error
	}
	_, _, errno := syscall.Syscall(unix.SYS_MLOCK2, uintptr(p), length, lockOnFault)
	_ = unix.MunmapPtr(p, length)
	return errno == 0
}

// sysctlDisabled reads kernel.io_uring_disabled.
func sysctlDisabled() int {
	text, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return n
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
