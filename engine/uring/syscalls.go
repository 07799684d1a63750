// The few system calls that a loop needs besides the ring. Apart from Notify, Now and Pwrite none
// is on the path of a request.

package uring

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Eventfd makes the descriptor that wakes a loop: its ring keeps a read armed, and any thread may
// Notify. It is close-on-exec, and in blocking mode because io_uring answers EAGAIN on an empty
// non-blocking one.
func Eventfd() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return -1, callError("eventfd", errnoOf(err))
	}
	return fd, nil
}

// one is the number that Notify adds to an eventfd: 1 as a little-endian 64-bit number.
var one = [8]byte{1}

// Notify wakes the reader of the eventfd. Any goroutine may call it; it blocks only after 2^64-2
// unread notifications.
func Notify(fd int) {
	for {
		if _, err := unix.Write(fd, one[:]); err != unix.EINTR {
			return
		}
	}
}

// Await sleeps until the eventfd has been notified, and takes all notifications.
func Await(fd int) error {
	var word [8]byte
	for {
		if _, err := unix.Read(fd, word[:]); err != unix.EINTR {
			return err
		}
	}
}

// Shutdown ends both directions of a socket, so that requests in flight on it complete. Errors do
// not matter: the connection may have ended already.
func Shutdown(fd int32) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }

// CloseFD closes a descriptor, without a retry: on Linux it is closed even after EINTR.
func CloseFD(fd int32) { _ = unix.Close(int(fd)) }

// EndSending ends the sending direction of a socket: the client finds the end after what was sent.
func (r *Ring) EndSending(fd int32) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) }

// Shutdown is the function Shutdown; as a method it lets a Ring stand for the whole kernel.
func (r *Ring) Shutdown(fd int32) { Shutdown(fd) }

// CloseFD is the function CloseFD; as a method it lets a Ring stand for the whole kernel.
func (r *Ring) CloseFD(fd int32) { CloseFD(fd) }

var start = time.Now()

// Now returns the monotonic clock, in nanoseconds since the process started. time.Since reads only
// that clock, at half the cost of time.Now; still, a loop reads it once per turn.
func Now() int64 { return int64(time.Since(start)) }

// Pwrite writes n bytes at addr, an address in an arena, to a file, and returns what a completion
// would have: bytes written, or a negative errno. It is for writes into the page cache, which
// io_uring hands to a worker thread on file systems that cannot promise not to block (ext4).
func Pwrite(fd int, addr uint64, n uint32, off uint64) int32 {
	written, _, errno := unix.Syscall6(unix.SYS_PWRITE64, uintptr(fd), uintptr(addr), uintptr(n),
		uintptr(off), 0, 0)
	if errno != 0 {
		return -int32(errno)
	}
	return int32(written)
}

// soPeerGroups is SO_PEERGROUPS of the kernel's asm-generic/socket.h.
const soPeerGroups = 59

// PeerGroups returns the supplementary groups that the process at the other end of a Unix socket
// had when it connected.
func PeerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET,
			soPeerGroups, uintptr(unsafe.Pointer(unsafe.SliceData(groups))),
			uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size)/4 > len(groups):
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil, callError("getsockopt", errnoOf(errno))
		default:
			return groups[:size/4], nil
		}
	}
}
