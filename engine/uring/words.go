// Tables of words outside the Go heap, for what is large and mostly never touched: the heap would
// clear such a table as a whole when it uses memory again, and end the process if there is none.
//
// Invariant: the words are there for as long as what owns them is reachable.

package uring

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewWords maps n words of zeroes; a page of memory is taken when it is first written. The caller
// says by Owned who owns them.
func NewWords(n int) (*Words, error) {
	length := wholePages(uint64(n) * 8)
	if n <= 0 || uint64(n) > 1<<44 {
		return nil, &memoryError{Bytes: uint64(max(n, 0)) * 8, Errno: unix.EINVAL}
	}
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(length), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, &memoryError{Bytes: length, Errno: errnoOf(err)}
	}
	// SAFETY: base to base+length is mapped, page aligned, readable and writable until it is
	// unmapped, and not Go memory.
	w := &Words{base: base, length: length, words: unsafe.Slice((*uint64)(base), n)}
	// a huge page would make one written word cost 2 MiB; a kernel without them answers EINVAL
	_ = unix.Madvise(unsafe.Slice((*byte)(base), length), unix.MADV_NOHUGEPAGE)
	return w, nil
}

// Words is such a table.
type Words struct {
	base   unsafe.Pointer
	length uint64
	words  []uint64
}

// Slice returns the words.
func (w *Words) Slice() []uint64 { return w.words }

// Owned gives the words to owner, who has the only slice of them: they are unmapped when it cannot
// be reached any more.
func Owned[T any](w *Words, owner *T) {
	runtime.AddCleanup(owner, func(m Words) {
		// SAFETY: the owner had the only slice, and is gone. It cannot fail on a whole mapping.
		_ = unix.MunmapPtr(m.base, uintptr(m.length))
	}, *w)
}
