// A network of its own: the loopback of a fresh namespace with a congestion control that does
// not pace.
//
// Invariant: the machine's own network settings are never changed.

package measure

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolatedMark in the environment says that the program is in its own network already.
const isolatedMark = "RINGNBD_BENCH_NETWORK=own"

// Isolate executes the running program again, as the same process, inside a new network namespace.
// It returns only if the process is inside already or may not make one (it needs root); then the
// report shows the machine's own congestion control. Call it first in main.
func Isolate() {
	if slices.Contains(os.Environ(), isolatedMark) {
		return
	}
	runtime.LockOSThread() // the namespace is the thread's until the exec
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil || unix.Unshare(unix.CLONE_NEWNET) != nil {
		return
	}
	// From here on this thread has no usable network: do not return.
	if err := raiseLoopback(); err != nil {
		os.Stderr.WriteString("cannot raise the loopback of a new network namespace: " +
			err.Error() + "\n")
		os.Exit(1)
	}
	chooseCongestion()
	err = unix.Exec(self, os.Args, append(os.Environ(), isolatedMark))
	os.Stderr.WriteString("cannot execute " + self + " again: " + err.Error() + "\n")
	os.Exit(1)
}

// chooseCongestion makes both ends of every loopback connection use cubic, by an attribute of the
// loopback's routes: any process that may change routes may set it. A machine can reserve the
// sysctl's choice of cubic for root of the first namespace; reno, which does not pace either, is
// never refused.
func chooseCongestion() {
	for _, control := range []string{"cubic", "reno"} {
		if os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte(control), 0) == nil {
			break
		}
	}
	for _, prefix := range []string{"127.0.0.0/8", "127.0.0.1"} {
		arguments := "route replace table local local " + prefix +
			" dev lo proto kernel scope host src 127.0.0.1 congctl cubic"
		// Without iproute2, the congestion control of the sysctl stays; the report shows it.
		_ = exec.Command("ip", strings.Fields(arguments)...).Run()
	}
}

// congestion is what the two ends of a TCP connection over the loopback really use here, "" if
// there can be none.
func congestion() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return ""
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return ""
	}
	defer a.Close()
	b, err := l.Accept()
	if err != nil {
		return ""
	}
	defer b.Close()
	client, server := congestionOf(a), congestionOf(b)
	if client != server {
		return client + " (generator), " + server + " (server)"
	}
	return server
}

func congestionOf(c net.Conn) (name string) {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return ""
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return ""
	}
	_ = raw.Control(func(fd uintptr) {
		name, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	return strings.TrimRight(name, "\x00")
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

// raiseDescriptors lets this program's children have as many descriptors as it may itself: a server
// with a thousand clients needs more than the usual 1024.
func raiseDescriptors() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		// a server that needs more fails with a message
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}
