// The name of the remote end, for people who read the log.
//
// Invariant: the text is made while the socket is open and does not change afterwards.

package gate

import (
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerOf returns the client's address, or, on a Unix socket, its process and user at the time when
// it connected. A process of another PID namespace has no number here.
func peerOf(c net.Conn) string {
	address := ""
	if a := c.RemoteAddr(); a != nil {
		address = a.String()
	}
	s, ok := c.(syscall.Conn)
	if _, local := c.(*net.UnixConn); !local || !ok {
		return address
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return address
	}
	var who *unix.Ucred
	if raw.Control(func(fd uintptr) {
		who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}) != nil || err != nil {
		return address
	}
	text := "uid " + strconv.FormatUint(uint64(who.Uid), 10)
	if who.Pid > 0 {
		text = "pid " + strconv.Itoa(int(who.Pid)) + " " + text
	}
	return text
}
