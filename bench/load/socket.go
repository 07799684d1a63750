// The socket on its way from net to a loop.
//
// Invariant: afterwards exactly one descriptor is open, it is in blocking mode, and the Go runtime
// does not know it.

package load

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unixSendBuffer is asked for on Unix sockets, in bytes: they have no autotuning.
const unixSendBuffer = 1 << 20

// detach takes the socket out of a connection, which it closes. note is the congestion control of a
// TCP socket.
func detach(c net.Conn) (fd int, note string, err error) {
	defer c.Close()
	s, ok := c.(syscall.Conn)
	if !ok {
		return -1, "", errors.New("the connection has no descriptor")
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return -1, "", err
	}
	fd = -1
	var dupErr error
	if err := raw.Control(func(n uintptr) {
		fd, dupErr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, "", err
	}
	if dupErr != nil {
		return -1, "", fmt.Errorf("duplicate the socket: %w (ulimit -n)", dupErr)
	}
	_, local := c.(*net.UnixConn)
	if note, err = prepare(c, fd, local); err != nil {
		_ = unix.Close(fd)
		return -1, "", err
	}
	return fd, note, nil
}

// prepare closes the connection and sets its duplicate up. The order matters: the two share one
// O_NONBLOCK, and the Go runtime relies on it until the connection is closed.
func prepare(c net.Conn, fd int, local bool) (note string, err error) {
	if err := c.Close(); err != nil {
		return "", err
	}
	// io_uring would complete with EAGAIN instead of waiting
	if err := unix.SetNonblock(fd, false); err != nil {
		return "", fmt.Errorf("set blocking mode: %w", err)
	}
	if local {
		// an error only makes it slower
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, unixSendBuffer)
		return "", nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return "", fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	for _, name := range []string{"cubic", "reno"} {
		if unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) == nil {
			return name, nil
		}
	}
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		return "", fmt.Errorf("ask for the congestion control: %w", err)
	}
	return name, nil
}
