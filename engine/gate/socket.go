// The socket on its way from net to the engine. Invariant: afterwards exactly one descriptor is
// open, it is in blocking mode, and the Go runtime has no part in it.

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
	// A peer whose machine is gone is found out by probes: the first after a minute without
	// traffic, then every 15 s.
	keepaliveIdle     = time.Minute
	keepaliveInterval = 15 * time.Second
	// userTimeout is how long sent data or probes may go without an answer. It has to be well above
	// what people do to living clients (stop them in a debugger, suspend a laptop for a moment),
	// because it counts also while a client reads nothing, and below the quarter of an hour that
	// Linux takes otherwise.
	userTimeout = 5 * time.Minute
	// SocketMemory is about the most that the kernel holds of replies for a client that takes none,
	// in bytes. It comes on top of what the server itself sets aside.
	SocketMemory = 1 << 20
	// tcpUnsent is how many bytes of replies the kernel takes in for a TCP client beyond what is on
	// its way to it, so that a batch of replies fits. Without it the send buffer of a client that
	// takes nothing grows to 4 MiB and more, and a smaller send buffer would limit what may be on
	// its way over a long line.
	tcpUnsent = 512 << 10
	// unixSendBuffer is asked for on Unix sockets, in bytes. They have no autotuning, and a reply
	// of a megabyte should not need five rounds; the kernel clamps it to net.core.wmem_max and
	// doubles that.
	unixSendBuffer = SocketMemory / 2
)

// detach takes the socket out of a connection, which is closed by it, and puts it in the place of
// the descriptor fd: close-on-exec, blocking, with the options a block device wants. It takes no
// descriptor that was not there before. On an error fd is closed. memory bounds what the kernel may
// hold of replies, in bytes; 0: as usual.
func detach(c net.Conn, fd, memory int) error {
	err := replace(c, fd)
	if err == nil {
		err = prepare(c, fd, memory)
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
func prepare(c net.Conn, fd, memory int) error {
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
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepaliveIdle / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepaliveInterval / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout / time.Millisecond)},
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
