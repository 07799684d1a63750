// Tests of the texts a user sees when io_uring is not available, two of them under a real seccomp
// filter.

package uring

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// playFiltered lets io_uring_setup fail as a container's seccomp filter would.
func playFiltered(errno syscall.Errno) int {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_IO_URING_SETUP},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Println(err)
		return 1
	}
	// SAFETY: the kernel reads the program and the filter it points to during the call only.
	_, _, failed := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP,
		unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if failed != 0 {
		fmt.Println("seccomp cannot be tested:", failed)
		return 0
	}
	_, err := Open(Config{Entries: 8})
	fmt.Println(err, errors.Is(err, errno))
	return 0
}

func TestSeccompErrorsSayWhatToDo(t *testing.T) {
	for role, want := range map[string]string{
		"EPERM":  "seccomp=unconfined) true",
		"ENOSYS": "outside of the sandbox true",
	} {
		out := runRole(t, role)
		if strings.HasPrefix(out, "seccomp cannot be tested") {
			t.Skip(out)
		}
		if role == "EPERM" && sysctlDisabled() > 0 {
			want = "kernel.io_uring_disabled=0` as root"
		}
		if !strings.Contains(out, want) || strings.Contains(out, "\n") {
			t.Errorf("%s: %q, want one line with %q", role, out, want)
		}
	}
}

func TestErrorTexts(t *testing.T) {
	for _, e := range []struct {
		err  error
		is   error
		want string
	}{
		{&disabledError{Sysctl: 2}, syscall.EPERM,
			"kernel.io_uring_disabled=2): run `sysctl kernel.io_uring_disabled=0` as root"},
		{&disabledError{Sysctl: 1}, syscall.EPERM, "kernel.io_uring_group"},
		{&disabledError{Sysctl: 0}, syscall.EPERM, "seccomp"},
		{&unsupportedError{Kernel: "5.10.0-28-amd64", Errno: syscall.EINVAL}, syscall.EINVAL,
			"Linux 5.10.0-28-amd64 is too old: ringnbd needs io_uring of Linux 5.19 or newer"},
		{&unsupportedError{Kernel: "4.18.0", Errno: syscall.ENOSYS}, syscall.ENOSYS, "too old"},
		{&unsupportedError{Kernel: "6.1.0", Errno: syscall.ENOSYS}, syscall.ENOSYS,
			"CONFIG_IO_URING"},
		{&MemlockError{Need: 64 << 20, Limit: 8 << 20}, syscall.ENOMEM,
			"locked memory is limited to 8 MiB (RLIMIT_MEMLOCK) and 64 MiB are needed: raise " +
				"the limit (`ulimit -l 65536`; in limits.conf `USER - memlock 65536`; in a " +
				"systemd unit LimitMEMLOCK=65536K) or give the CAP_IPC_LOCK capability"},
		{&memoryError{Bytes: 1 << 30, Errno: syscall.ENOMEM}, syscall.ENOMEM,
			"1 GiB is not available"},
		{&filesError{Files: 2000, Errno: syscall.EMFILE}, syscall.EMFILE,
			"2000 are to be registered"},
		{&InFlightError{Requests: 3}, nil, "3 requests did not end within 5s"},
		{&threadError{Owner: 1, Caller: 2}, nil, "thread 1 was used on thread 2"},
		{setupError(syscall.EINVAL), syscall.EINVAL, "Linux 5.19"},
		{setupError(&memoryError{Bytes: 160 << 10, Errno: syscall.ENOMEM}), syscall.ENOMEM,
			"160 KiB"},
		{setupError(syscall.EMFILE), syscall.EMFILE, "ulimit -n"},
		{setupError(syscall.EFAULT), syscall.EFAULT, "io_uring_setup: bad address"},
	} {
		text := e.err.Error()
		if !strings.Contains(text, e.want) || strings.Contains(text, "\n") {
			t.Errorf("%T: %q, want one line with %q", e.err, text, e.want)
		}
		if e.is != nil && !errors.Is(e.err, e.is) {
			t.Errorf("%T is not %v", e.err, e.is)
		}
	}
}
