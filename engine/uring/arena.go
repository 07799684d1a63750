// This file is the memory that the kernel and Go share: one mapping outside the Go heap, addressed
// by offset. The garbage collector neither scans nor moves it, so its addresses may stand in
// submissions for as long as the arena is open.
//
// Invariant: every accessor checks its range against the mapping and panics outside of it; a closed
// arena has size 0.

package uring

import (
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096
	hugeSize = 2 << 20 // x86-64 and arm64 with 4 KiB pages
)

// wholePages rounds n up to whole pages.
func wholePages(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// The structs below have the 64-bit layout; on a 32-bit machine this does not compile.
var _ [unsafe.Sizeof(uintptr(0)) - 8]byte

// Arena is mmap'd memory outside the Go heap. Methods may be called from any goroutine; which
// goroutine touches which bytes, and when, is for the caller to arrange.
type Arena struct {
	base unsafe.Pointer
	size uint64
	// base and size once more, for Bytes: a plain slice expression is checked by Go and gets
	// inlined
	memory []byte
}

// Iovec is the kernel's struct iovec. Base is a kernel address: Arena.Addr.
type Iovec struct {
	Base uint64
	Len  uint64 // bytes
}

// Msghdr is the kernel's struct user_msghdr on 64-bit machines. Name, Iov and Control are kernel
// addresses: Arena.Addr.
type Msghdr struct {
	Name       uint64
	NameLen    uint32
	_          uint32
	Iov        uint64
	IovLen     uint64 // number of iovecs, at most 1024 (UIO_MAXIOV)
	Control    uint64
	ControlLen uint64
	Flags      uint32
	_          uint32
}

const (
	iovecSize  = 16
	msghdrSize = 56
)

// NewArena maps size bytes of zeroes, rounded up to whole pages. With huge it begins at a multiple
// of 2 MiB and asks for transparent huge pages, which make large disk I/O cheaper (fewer segments);
// the kernel may decline without an error. Pages are taken when first touched or pinned. The error
// is a memoryError.
func NewArena(size int, huge bool) (*Arena, error) {
	unit := uint64(pageSize)
	if huge {
		unit = hugeSize
	}
	if page := uint64(unix.Getpagesize()); unit < page {
		unit = page
	}
	if size <= 0 || uint64(size) > 1<<47 {
		return nil, &memoryError{Bytes: uint64(max(size, 0)), Errno: syscall.EINVAL}
	}
	length := (uint64(size) + unit - 1) &^ (unit - 1)
	a := &Arena{size: length}
	extra := uint64(0)
	if huge {
		extra = hugeSize // so that an aligned start is inside, wherever the mapping falls
	}
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(length+extra), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, &memoryError{Bytes: length, Errno: errnoOf(err)}
	}
	a.base = base
	if huge {
		a.align(extra)
	}
	// SAFETY: base to base+size is mapped, readable and writable until Close; it is not Go memory,
	// so nothing moves or frees it.
	a.memory = unsafe.Slice((*byte)(a.base), a.size)
	// pages that the kernel has pinned would be copied at once
	_ = unix.Madvise(a.memory, unix.MADV_DONTFORK)
	if huge {
		// a kernel without huge pages answers EINVAL, and small pages do
		_ = unix.Madvise(a.memory, unix.MADV_HUGEPAGE)
	}
	return a, nil
}

// align unmaps what lies before the first multiple of 2 MiB and after the arena's end.
func (a *Arena) align(extra uint64) {
	// SAFETY: the mapping is size+extra bytes long and extra is 2 MiB, so skip+size stays inside;
	// MunmapPtr gets page multiples that no slice has been made of yet. Neither call can fail on a
	// mapping just made, and a failure would only waste address space.
	skip := -uint64(uintptr(a.base)) & (hugeSize - 1)
	if skip > 0 {
		_ = unix.MunmapPtr(a.base, uintptr(skip))
	}
	a.base = unsafe.Add(a.base, skip)
	if rest := extra - skip; rest > 0 {
		_ = unix.MunmapPtr(unsafe.Add(a.base, a.size), uintptr(rest))
	}
}

// Size returns the arena's length in bytes.
func (a *Arena) Size() uint64 { return a.size }

// Addr returns the kernel address of an offset.
func (a *Arena) Addr(off uint64) uint64 {
	if off > a.size {
		a.outside(off, 0)
	}
	return uint64(uintptr(a.base)) + off
}

// Bytes returns the n bytes at off.
func (a *Arena) Bytes(off uint64, n int) []byte {
	// a negative n, or a sum that wraps, ends below off or after the arena: both panic
	end := off + uint64(n)
	return a.memory[off:end:end]
}

// Iovecs returns n iovecs at off, a multiple of 8.
func (a *Arena) Iovecs(off uint64, n int) []Iovec {
	if uint64(n) > a.size/iovecSize || off > a.size-uint64(n)*iovecSize || off&7 != 0 {
		a.outside(off, n)
	}
	// SAFETY: off+n*16 <= size and 8-byte aligned, checked above; Iovec has no pointers and any
	// bytes are a valid one.
	return unsafe.Slice((*Iovec)(unsafe.Add(a.base, off)), n)
}

// Msghdr returns the message header at off, a multiple of 8.
func (a *Arena) Msghdr(off uint64) *Msghdr {
	if a.size < msghdrSize || off > a.size-msghdrSize || off&7 != 0 {
		a.outside(off, 1)
	}
	// SAFETY: off+56 <= size and 8-byte aligned, checked above; Msghdr has no pointers and any
	// bytes are a valid one.
	return (*Msghdr)(unsafe.Add(a.base, off))
}

// Find returns the offset of a kernel address, and whether it lies in this arena: the reverse of
// Addr.
func (a *Arena) Find(addr uint64) (off uint64, ok bool) {
	off = addr - uint64(uintptr(a.base))
	return off, off < a.size
}

// Close unmaps the arena. Every slice made of it is invalid from here on, and no ring may have
// requests in flight on it.
func (a *Arena) Close() error {
	if a.size == 0 {
		return nil
	}
	err := unix.MunmapPtr(a.base, uintptr(a.size))
	a.base, a.size, a.memory = nil, 0, nil
	return err
}

// outside panics about an access. It is a function of its own so that the accessors stay small
// enough to be inlined.
func (a *Arena) outside(off uint64, n int) {
	panic("engine/uring: arena access at " + strconv.FormatUint(off, 10) + " of " +
		strconv.Itoa(n) +
		" (or not 8-byte aligned) in an arena of " + strconv.FormatUint(a.size, 10) + " bytes")
}

// waitArgument is struct io_uring_getevents_arg with the __kernel_timespec it points to. It lives
// at offset 0 of a ring's own page: giouring keeps the timespec's address in an integer while its
// owner may move with the stack.
type waitArgument struct {
	signals     uint64
	signalsSize uint32
	minimum     uint32 // microseconds, Linux 6.12; not used
	timespec    uint64
	seconds     int64
	nanoseconds int64
}

const (
	waitArgumentSize = 24 // without the timespec, which follows it in memory
	timespecAt       = 24
)

// waitArgument prepares the argument at the start of a ring's page.
func (a *Arena) waitArgument() *waitArgument {
	// SAFETY: the page is larger than waitArgument and page-aligned, and it is open as long as its
	// ring.
	w := (*waitArgument)(a.base)
	w.signalsSize = 8 // _NSIG / 8; no mask is given
	w.timespec = a.Addr(timespecAt)
	return w
}

// Offsets in the ring's page of what register.go passes, after the wait argument.
const (
	bufferVectorAt = 128
	rsrcUpdateAt   = 192
	fileUpdateAt   = 256 // a tag, and a descriptor
)

// rsrcUpdate returns the argument of a registration in a ring's page.
func (a *Arena) rsrcUpdate() *giouring.RsrcUpdate2 {
	// SAFETY: the page has room after rsrcUpdateAt, which is a multiple of 8, and is open as long
	// as its ring.
	return (*giouring.RsrcUpdate2)(unsafe.Add(a.base, rsrcUpdateAt))
}

func (w *waitArgument) set(d time.Duration) {
	w.seconds, w.nanoseconds = int64(d/time.Second), int64(d%time.Second)
}
