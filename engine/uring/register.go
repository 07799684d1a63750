// Registration of buffers, of files and of the ring's own descriptor, and the kernel's workers.
// giouring's functions pass 8-byte file numbers, lose errors and cannot give a descriptor back, so
// only its raw Register is used.
//
// Invariant: registration goes to the ring's real descriptor (only Linux 6.3 takes the registered
// one) on its own thread.

package uring

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
)

// bufferSize is the length of a registered buffer, in bytes: the kernel's bound, 1 GiB. The buffer
// of an offset in an arena is offset >> BufferShift, and no I/O may cross a multiple of bufferSize.
const (
	BufferShift = 30
	bufferSize  = 1 << BufferShift
	maxBuffers  = 1 << 14 // IORING_MAX_REG_BUFFERS
)

// chargedAll counts the bytes that the rings of this process have locked, since RLIMIT_MEMLOCK
// bounds the sum: registered buffers and, on recent kernels, the rings themselves.
var chargedAll atomic.Uint64

// The memory of a closed ring, and of one whose process has died, stays charged until a kernel
// worker has torn the ring down: 30 ms when measured. A server that is restarted must not fail for
// it.
const (
	chargeTimeout = time.Second
	chargePause   = 10 * time.Millisecond
)

// charge runs try, which locks that many bytes, and again while only other programs of the same
// user can be in the way.
func (r *Ring) charge(bytes uint64, try func() error) error {
	total := chargedAll.Load() + bytes
	for end := time.Now().Add(chargeTimeout); ; time.Sleep(chargePause) {
		err := try()
		if err == nil {
			r.charged += bytes
			chargedAll.Add(bytes)
			return nil
		}
		if !errors.Is(err, syscall.ENOMEM) {
			return err
		}
		var locked *MemlockError
		if err = pinError(bytes, total); errors.As(err, &locked) && !locked.Shared ||
			time.Now().After(end) {
			return err
		}
	}
}

func uncharge(bytes uint64) { chargedAll.Add(-bytes) }

// RegisterBuffers pins the arena and registers it as fixed buffers 0, 1, ... of 1 GiB each, the
// last one shorter. Once per ring. The arena must stay open until the ring is closed. Errors:
// MemlockError, memoryError, or the system's.
func (r *Ring) RegisterBuffers(a *Arena) error {
	pieces := (a.size + bufferSize - 1) >> BufferShift
	if pieces == 0 || pieces > maxBuffers {
		return errors.New("io_uring: an arena to register must have 1 byte to 16 TiB")
	}
	table := make([]Iovec, pieces)
	for i := range table {
		off := uint64(i) << BufferShift
		table[i] = Iovec{Base: a.Addr(off), Len: min(a.size-off, bufferSize)}
	}
	err := r.charge(a.size, func() error {
		// SAFETY: the kernel reads the table during the call only; it has exactly len(table)
		// entries of struct iovec.
		errno := r.register(giouring.RegisterBuffers, unsafe.Pointer(&table[0]), uint32(pieces))
		runtime.KeepAlive(table)
		if errno != 0 {
			return r.callError("io_uring_register buffers", errno)
		}
		return nil
	})
	r.hasBuffers = r.hasBuffers || err == nil
	return err
}

// SparseShift is the least shift of the size of a buffer that SparseBuffers divides an arena of
// that many bytes into: 2 MiB, one huge page, so that an arena of 32 GiB has the most that the
// kernel takes.
func SparseShift(size uint64) uint {
	shift := uint(21)
	for (size+1<<shift-1)>>shift > maxBuffers {
		shift++
	}
	return shift
}

// SparseBuffers makes a table of fixed buffers, of 1<<SparseShift bytes of the arena each, that are
// not registered yet: nothing is pinned and no memory is taken. Once per ring, instead of
// RegisterBuffers.
func (r *Ring) SparseBuffers(a *Arena) error {
	r.sparse, r.sparseShift = a, SparseShift(a.size)
	n := (a.size + 1<<r.sparseShift - 1) >> r.sparseShift
	argument := giouring.RsrcRegister{Nr: uint32(n), Flags: giouring.RsrcRegisterSparse}
	// SAFETY: the kernel reads one struct io_uring_rsrc_register during the call only.
	errno := r.register(giouring.RegisterBuffers2, unsafe.Pointer(&argument),
		uint32(unsafe.Sizeof(argument)))
	runtime.KeepAlive(&argument)
	if errno != 0 {
		return r.callError("io_uring_register sparse buffers", errno)
	}
	r.hasBuffers = true
	return nil
}

// FirstBuffer registers buffer 0 of SparseBuffers, and tries for a second: the memory of a server
// that has just ended may still be charged. Errors are those of RegisterBuffers.
func (r *Ring) FirstBuffer() error {
	return r.charge(r.sparseLen(0), func() error {
		if errno := r.fillBuffer(0); errno != 0 {
			return r.callError("io_uring_register buffer", errno)
		}
		return nil
	})
}

// RegisterBuffer pins and registers one more buffer of SparseBuffers, and reports whether it did:
// other programs of the same user may have used up the limit. Pages that were never touched are
// taken now.
func (r *Ring) RegisterBuffer(i uint32) bool {
	n := r.sparseLen(i)
	if r.fillBuffer(i) != 0 {
		return false
	}
	r.charged += n
	chargedAll.Add(n)
	return true
}

// sparseLen returns the length of a buffer in bytes; the last buffer may be shorter.
func (r *Ring) sparseLen(i uint32) uint64 {
	return min(r.sparse.size-uint64(i)<<r.sparseShift, 1<<r.sparseShift)
}

// fillBuffer puts a buffer into its place. The argument and the iovec it points to are in the
// ring's own page, so that nothing is allocated.
func (r *Ring) fillBuffer(i uint32) syscall.Errno {
	off := uint64(i) << r.sparseShift
	r.page.Iovecs(bufferVectorAt, 1)[0] = Iovec{Base: r.sparse.Addr(off), Len: r.sparseLen(i)}
	update := r.page.rsrcUpdate()
	*update = giouring.RsrcUpdate2{Offset: i, Data: r.page.Addr(bufferVectorAt), Nr: 1}
	// SAFETY: the kernel reads one struct io_uring_rsrc_update2 and one iovec, both in the ring's
	// page; it answers with the number of buffers that it has put in place, 1, or an error.
	return r.register(giouring.RegisterBuffersUpdate, unsafe.Pointer(update),
		uint32(unsafe.Sizeof(*update)))
}

// ReleasedKind is the highest byte of the user_data of the completion that the kernel posts when it
// has let go of a registered file: of its last operation on it, and of its lock. The lower half of
// the user_data is the file's place.
const ReleasedKind = 0xfe

// releasedAt is the user_data for a place.
func releasedAt(place uint32) uint64 { return ReleasedKind<<56 | uint64(place) }

// released reports whether a completion says that a file was let go of.
func (c *CQE) released() bool { return c.UserData>>32 == ReleasedKind<<24 }

// RegisterFiles registers descriptors, once per ring; their indexes are the file arguments of the
// Prep functions. -1 leaves a place empty. The files stay open, whatever happens to the
// descriptors, until SetFile empties their places or the ring is closed.
func (r *Ring) RegisterFiles(fds []int32) error {
	if len(fds) == 0 {
		return nil
	}
	// The kernel gets addresses inside a struct, where Go does not see them: the tables are outside
	// its heap and stacks.
	n := len(fds)
	table, err := NewArena(n*12, false)
	if err != nil {
		return err
	}
	defer func() { _ = table.Close() }()
	tags := table.Bytes(0, n*8)
	numbers := table.Bytes(uint64(n)*8, n*4)
	files := 0
	for i, fd := range fds {
		binary.NativeEndian.PutUint32(numbers[i*4:], uint32(fd))
		if fd >= 0 { // an empty place has no tag
			binary.NativeEndian.PutUint64(tags[i*8:], releasedAt(uint32(i)))
			files++
		}
	}
	argument := giouring.RsrcRegister{Nr: uint32(n), Data: table.Addr(uint64(n) * 8),
		Tags: table.Addr(0)}
	// SAFETY: the kernel reads one struct io_uring_rsrc_register, and n tags and n 32-bit numbers
	// in the table, during the call only. The last argument is the size of the struct, as for all
	// of the newer registrations.
	errno := r.register(giouring.RegisterFiles2, unsafe.Pointer(&argument),
		uint32(unsafe.Sizeof(argument)))
	runtime.KeepAlive(&argument)
	switch errno {
	case 0:
		r.files, r.places = files, n
		return nil
	case syscall.EMFILE:
		return &filesError{Files: n, Errno: errno}
	}
	return r.callError("io_uring_register files", errno)
}

// SetFile registers a descriptor at an empty place of RegisterFiles, or empties the place (-1).
// When the kernel has let go of a file whose place was emptied, it posts a completion
// (ReleasedKind), for which FileReleased must be called. It allocates nothing.
func (r *Ring) SetFile(place uint32, fd int32) error {
	at := r.page.Addr(fileUpdateAt)
	b, tag := r.page.Bytes(fileUpdateAt, 16), uint64(0)
	if fd >= 0 {
		tag = releasedAt(place)
	}
	binary.NativeEndian.PutUint64(b, tag)
	binary.NativeEndian.PutUint32(b[8:], uint32(fd))
	update := r.page.rsrcUpdate()
	*update = giouring.RsrcUpdate2{Offset: place, Data: at + 8, Tags: at, Nr: 1}
	// SAFETY: the kernel reads one struct io_uring_rsrc_update2, one tag and one 32-bit number, all
	// in the ring's page, during the call only.
	errno := r.register(giouring.RegisterFilesUpdate2, unsafe.Pointer(update),
		uint32(unsafe.Sizeof(*update)))
	if errno != 0 {
		return r.callError("io_uring_register (file)", errno)
	}
	if fd >= 0 {
		r.files++
	}
	return nil
}

// FileReleased accounts for a completion of ReleasedKind that was reaped: it ended no request.
func (r *Ring) FileReleased() {
	r.files--
	r.finished--
}

// LimitWorkers limits the kernel threads that run what cannot complete inline: bounded ones for
// disks (fsync, fallocate, buffered writes), unbounded ones for sockets. 0 leaves a limit as it is.
// The limits are the thread's, and so those of every ring of it. Linux 5.15.
func (r *Ring) LimitWorkers(bounded, unbounded uint32) error {
	limits := [2]uint32{bounded, unbounded}
	// SAFETY: the kernel reads and writes two 32-bit numbers during the call only.
	errno := r.register(giouring.RegisterIOWQMaxWorkers, unsafe.Pointer(&limits[0]), 2)
	runtime.KeepAlive(&limits)
	if errno != 0 {
		return r.callError("io_uring_register workers", errno)
	}
	return nil
}

// keepTimeout is how long the kernel may take to start a thread.
const keepTimeout = 10 * time.Second

// KeepWorkers makes the kernel start the first worker of each kind now, which it keeps as long as
// the ring is open. Later a limit on threads may forbid to start any, and each request that needs a
// worker would be cancelled. The ring must have nothing in flight.
func (r *Ring) KeepWorkers() error {
	for _, prepare := range []func(*SQE){
		func(s *SQE) { PrepNop(s, 0) },
		// a worker completes it with ENOTSOCK
		func(s *SQE) { PrepRecv(s, 0, int32(r.inner.RingFd()), 0, 0, 0) },
	} {
		s := r.SQE()
		prepare(s)
		s.Flags = Async
		var out [1]CQE
		for until := time.Now().Add(keepTimeout); r.Reap(out[:]) == 0; {
			if time.Now().After(until) {
				return &workerError{Errno: syscall.ETIME}
			}
			if err := r.Enter(1, time.Second); err != nil {
				return err
			}
		}
		if out[0].Res == -int32(syscall.ECANCELED) || out[0].Res == -int32(syscall.EAGAIN) {
			return &workerError{Errno: syscall.Errno(-out[0].Res)}
		}
	}
	return nil
}

// register is io_uring_register on the real descriptor.
func (r *Ring) register(op uint32, argument unsafe.Pointer, n uint32) syscall.Errno {
	for {
		_, errno := r.inner.Register(r.inner.RingFd(), op, argument, n)
		if errno != syscall.EINTR { // Go's preemption signal
			return errno
		}
	}
}

// unregister unpins the buffers and drops the files.
func (r *Ring) unregister() error {
	var err error
	if r.hasBuffers {
		if errno := r.register(giouring.UnregisterBuffers, nil, 0); errno != 0 {
			err = r.callError("io_uring_register (unregister buffers)", errno)
		}
	}
	if r.places > 0 {
		err = errors.Join(err, r.releaseFiles())
	}
	return err
}

// releaseFiles drops the registered files and waits until the kernel has let go of them. A kernel
// worker that has run an fsync completes it first and drops its reference to the file a little
// later, and only an Enter of this ring frees that reference: without this wait, every third close
// of a ring left its files open, and flock'ed, until the ring's teardown. The places are emptied by
// an update because only an update posts the tags on every kernel; when a table is unregistered,
// old kernels post nothing, but wait.
func (r *Ring) releaseFiles() error {
	table, err := NewArena(r.places*4, false)
	if err != nil {
		return err
	}
	defer func() { _ = table.Close() }()
	for i, b := 0, table.Bytes(0, r.places*4); i < len(b); i++ {
		b[i] = 0xff // -1 in every place
	}
	update := giouring.RsrcUpdate2{Data: table.Addr(0), Nr: uint32(r.places)}
	// SAFETY: the kernel reads one struct io_uring_rsrc_update2 and places 32-bit numbers in the
	// table, during the call only.
	errno := r.register(giouring.RegisterFilesUpdate2, unsafe.Pointer(&update),
		uint32(unsafe.Sizeof(update)))
	runtime.KeepAlive(&update)
	if errno != 0 {
		return r.callError("io_uring_register (empty files)", errno)
	}
	if errno := r.register(giouring.UnregisterFiles, nil, 0); errno != 0 {
		return r.callError("io_uring_register (unregister files)", errno)
	}
	var out [64]CQE
	for end := time.Now().Add(releaseTimeout); r.files > 0 && time.Now().Before(end); {
		if err := r.Enter(1, 10*time.Millisecond); err != nil {
			return err
		}
		for _, c := range out[:r.Reap(out[:])] {
			if c.released() {
				r.files--
			}
		}
	}
	return nil // what is left after that goes with the ring
}

// releaseTimeout is far longer than was seen (microseconds).
const releaseTimeout = time.Second

const (
	slotNone = ^uint32(0) // it also asks the kernel for any free slot
	maxSlots = 16         // IO_RINGFD_REG_MAX, per thread
)

// slotNext gives every ring of the process a slot number of its own, up to 16 rings. A slot is
// looked up in the calling thread's table: with equal numbers an Enter on the wrong thread would
// silently run another ring.
var slotNext atomic.Uint32

// registerDescriptor makes Enter use a registered descriptor (Linux 5.18), which saves the kernel a
// reference count. If none is free, Enter uses the plain descriptor.
func (r *Ring) registerDescriptor() {
	wanted := (slotNext.Add(1) - 1) % maxSlots
	for _, slot := range [...]uint32{wanted, slotNone} {
		update := giouring.RsrcUpdate{Offset: slot, Data: uint64(r.inner.RingFd())}
		// SAFETY: the kernel reads one struct io_uring_rsrc_update and writes the slot back, during
		// the call only.
		errno := r.register(giouring.RegisterRingFDs, unsafe.Pointer(&update), 1)
		runtime.KeepAlive(&update)
		if errno == 0 {
			r.slot = update.Offset
			r.descriptor = uintptr(r.slot)
			r.flags |= uintptr(giouring.EnterRegisteredRing)
			return
		}
	}
}

// unregisterDescriptor gives the slot back. Until then, or until its thread exits, the kernel keeps
// the whole ring.
func (r *Ring) unregisterDescriptor() {
	if r.slot == slotNone {
		return
	}
	update := giouring.RsrcUpdate{Offset: r.slot}
	// SAFETY: the kernel reads one struct io_uring_rsrc_update during the call only.
	_ = r.register(giouring.UnregisterRingFDs, unsafe.Pointer(&update), 1)
	runtime.KeepAlive(&update)
	r.slot = slotNone
}
