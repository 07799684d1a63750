// confine runs a command with less than it would have, for scripts about what a machine may lack:
//
//	confine [-memlock BYTES] [-seccomp ERRNO] command [argument...]
//
// Capabilities are always dropped, so that root meets the same permissions and limits as others.
// -seccomp makes io_uring_setup fail.
//
// Invariant: only the calling thread is changed, and exec makes it the whole process.

package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

func confine() {
	memlock := flag.Int64("memlock", -1, "RLIMIT_MEMLOCK in bytes")
	errno := flag.Uint("seccomp", 0, "errno of io_uring_setup")
	flag.Parse()
	runtime.LockOSThread()
	err := runConfined(*memlock, uint32(*errno), flag.Args())
	fmt.Fprintln(os.Stderr, "confine:", err)
	os.Exit(99)
}

func runConfined(memlock int64, errno uint32, command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	if memlock >= 0 {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK,
			&unix.Rlimit{Cur: uint64(memlock), Max: uint64(memlock)}); err != nil {
			return err
		}
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// Fails for users without capabilities, who have none to drop.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
	if errno > 0 {
		if err := forbidIOUring(errno); err != nil {
			return err
		}
	}
	return syscall.Exec(path, command, os.Environ())
}

// forbidIOUring installs the filter "io_uring_setup fails, all else is allowed", as containers have
// it.
func forbidIOUring(errno uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_SETUP, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER,
		reflect.ValueOf(program).Pointer(), 0, 0)
	runtime.KeepAlive(program)
	return err
}
