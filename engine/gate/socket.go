// The socket on its way from net to the engine.
//
// Invariant: afterwards exactly one descriptor is open, it is in blocking mode, and the Go runtime
// does not know it.

package gate

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A client whose machine has vanished is noticed by probes: the first after a minute without
	// traffic, then every 15 s.
	keepaliveIdle     = time.Minute
	keepaliveInterval = 15 * time.Second
	// userTimeout is how long sent data or probes may go without an answer. It has to be well above
	// what people do to living clients (stop them in a debugger, suspend a laptop for a moment),
	// because it counts also while a client reads nothing, and below the quarter of an hour that
	// Linux takes otherwise.
	userTimeout = 5 * time.Minute
	// SocketMemory is about how many bytes of replies the kernel holds at most for a client that
	// takes none, on top of what the server itself sets aside.
	SocketMemory = 1 << 20
	// tcpUnsent is how many bytes of replies the kernel accepts for a TCP client besides those in
	// flight, so that a batch of replies fits. Without it the send buffer of a client that takes
	// nothing grows to 4 MiB and more, and a smaller send buffer would limit the bytes in flight on
	// a long line.
	tcpUnsent = 512 << 10
	// unixSendBuffer is asked for on Unix sockets, in bytes. They have no autotuning, and a reply
	// of a megabyte should not need five rounds; the kernel clamps it to net.core.wmem_max and
	// doubles that.
	unixSendBuffer = SocketMemory / 2
)

// detach takes the socket out of a connection, which it closes, and puts it in the place of the
// descriptor fd: close-on-exec, blocking, with the options a block device wants. It needs no new
// descriptor. On an error fd is closed. memory limits the bytes of replies that the kernel may
// hold; 0 leaves the usual limit.
func detach(c net.Conn, fd, memory int, k Keepalive) error {
	err := replace(c, fd)
	if err == nil {
		err = prepare(c, fd, memory, k)
	}
	if err != nil {
		unix.Close(fd)
		c.Close() // if prepare has not
	}
	return err
}

// replace makes fd another descriptor of the connection's socket.
func replace(c net.Conn, fd int) error {
	s, ok := c.(syscall.Conn)
	if !ok {
		return errors.New("connection has no descriptor")
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var dup error
	if err := raw.Control(func(n uintptr) {
		dup = unix.Dup3(int(n), fd, unix.O_CLOEXEC)
	}); err != nil {
		return err
	}
	return dup
}

// prepare closes the connection and sets up its duplicate. The order matters: the two share one
// O_NONBLOCK, and the Go runtime relies on it until the connection is closed.
func prepare(c net.Conn, fd, memory int, k Keepalive) error {
	if err := c.Close(); err != nil {
		return err
	}
	// io_uring would complete with EAGAIN instead of waiting
	if err := unix.SetNonblock(fd, false); err != nil {
		return fmt.Errorf("set blocking mode: %w", err)
	}
	type option struct{ level, name, value int }
	options := []option{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(k.Idle / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(k.Interval / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(k.UserTimeout / time.Millisecond)},
		{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, tcpUnsent},
	}
	if _, ok := c.(*net.UnixConn); ok {
		options = []option{{unix.SOL_SOCKET, unix.SO_SNDBUF, unixSendBuffer}}
	}
	// the kernel doubles them; they end the autotuning of TCP
	if memory > 0 && memory < SocketMemory {
		options = append(options, option{unix.SOL_SOCKET, unix.SO_SNDBUF, memory / 2},
			option{unix.SOL_SOCKET, unix.SO_RCVBUF, memory / 2})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("set socket option %d: %w", o.name, err)
		}
	}
	return nil
}
