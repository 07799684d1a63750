package bench

// A network of our own: the loopback of a fresh namespace with a congestion
// control that does not pace. Invariant: the machine's own network settings are
// never changed.

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// isolatedMark tells the program, executed anew, that it is in its own network.
const isolatedMark = "RINGNBD_BENCH_NETWORK=own"

// Isolate executes the running program again, as the same process, inside a new
// network namespace. It returns only if the process is inside already or may not
// make one (it needs root); then the report shows the machine's own congestion
// control. To be called first thing in main.
func Isolate() {
	for _, e := range os.Environ() {
		if e == isolatedMark {
			return
		}
	}
	runtime.LockOSThread() // the namespace is the thread's until the exec
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil || unix.Unshare(unix.CLONE_NEWNET) != nil {
		return
	}
	// From here on this thread has no usable network: do not return.
	if err := raiseLoopback(); err != nil {
		os.Stderr.WriteString("cannot raise the loopback of a new network namespace: " + err.Error() + "\n")
		os.Exit(1)
	}
	// The sysctl belongs to the namespace. A control that the machine reserves
	// for root of the first namespace is refused here; reno never is.
	for _, control := range []string{"cubic", "reno"} {
		if os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte(control), 0) == nil {
			break
		}
	}
	err = unix.Exec(self, os.Args, append(os.Environ(), isolatedMark))
	os.Stderr.WriteString("cannot execute " + self + " again: " + err.Error() + "\n")
	os.Exit(1)
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
