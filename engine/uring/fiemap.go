// FS_IOC_FIEMAP tells to which ranges of a file its file system has given blocks. It is not on the
// path of a request.
//
// Invariant: the kernel writes into a buffer of the caller's stack or heap during one system call,
// and keeps no address of it.

package uring

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxFiemap is how many extents one call fetches at most.
const MaxFiemap = 256

// FiemapUnwritten is the flag of a FiemapExtent that has blocks, and reads as zeroes as far as the
// disk is concerned (FIEMAP_EXTENT_UNWRITTEN, linux/fiemap.h).
const FiemapUnwritten uint32 = 1 << 11

// FiemapExtent is struct fiemap_extent. Offsets and lengths are bytes.
type FiemapExtent struct {
	Logical, Physical, Length uint64
	_                         [2]uint64
	Flags                     uint32
	_                         [3]uint32
}

// Fiemap is struct fiemap with room for a call's extents.
type Fiemap struct {
	start, length           uint64
	flags, mapped, count, _ uint32
	extents                 [MaxFiemap]FiemapExtent
}

// fsIocFiemap is _IOWR('f', 11, struct fiemap), whose size without extents is 32.
const fsIocFiemap = 0xc020660b

// Get fetches the extents that overlap [off, off+n), in order, at most limit of them; if it returns
// limit extents, there may be more after them. File systems without FIEMAP answer EOPNOTSUPP or
// ENOTTY.
func (m *Fiemap) Get(fd int, off, n uint64, limit uint32) ([]FiemapExtent, error) {
	m.start, m.length, m.flags, m.mapped, m.count = off, n, 0, 0, min(limit, MaxFiemap)
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocFiemap,
			uintptr(unsafe.Pointer(m)))
		runtime.KeepAlive(m)
		if errno == 0 {
			return m.extents[:min(m.mapped, MaxFiemap)], nil
		}
		if errno != unix.EINTR {
			return nil, errno
		}
	}
}
