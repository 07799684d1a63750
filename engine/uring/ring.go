// The ring itself: set up, queue, enter, reap, close.
//
// Invariant: a ring belongs to the thread that opened it. Between two calls every entry is in
// exactly one of three places: queued (tail - kernel's head), in flight (kernel's head - finished),
// or in the completion queue.

package uring

import (
	"errors"
	"math/bits"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pawelgaczynski/giouring"
	"golang.org/x/sys/unix"
)

// SQE is a submission: the kernel's struct io_uring_sqe, 64 bytes. Only the Prep functions write
// its fields.
type SQE = giouring.SubmissionQueueEntry

// CQE is a completion: the kernel's struct io_uring_cqe, 16 bytes. Res is the result, or a negative
// errno.
type CQE struct {
	UserData uint64
	Res      int32
	Flags    uint32
}

// Config sizes a ring, in entries. Both are rounded up to a power of two by the kernel.
type Config struct {
	Entries     uint32 // of the submission queue, which one Enter submits at most; 1 to 32768
	Completions uint32 // of the completion queue: from Entries to 65536; 0 means twice Entries
}

// The kernel's own bounds (IORING_MAX_ENTRIES, IORING_MAX_CQ_ENTRIES). Checked here so that EINVAL
// from io_uring_setup can only mean that a flag is not known.
const (
	maxEntries     = 32768
	maxCompletions = 2 * maxEntries
)

// Memory returns how many bytes of kernel memory a ring of this size takes. Recent kernels (seen on
// 6.18, not on 5.19) count it against RLIMIT_MEMLOCK, as they do registered buffers.
func (c Config) Memory() uint64 {
	const header = 64 // both heads, both tails, masks and flags
	entries, completions := powerOfTwo(c.Entries), powerOfTwo(c.Completions)
	if completions == 0 {
		completions = 2 * entries
	}
	return wholePages(entries*64) + wholePages(header+completions*16+entries*4)
}

// Within returns the size of a ring like this one, made smaller until n of them may be locked. The
// kernel keeps completions that find no place in a small queue, with an allocation for each. The
// error is a MemlockError: not even the smallest rings may be locked.
func (c Config) Within(n int) (Config, error) {
	const minEntries = 32 // more than a turn of a loop often submits
	for {
		err := CheckMemlock(uint64(n) * c.Memory())
		if err == nil || c.Entries <= minEntries {
			return c, err
		}
		c.Entries, c.Completions = c.Entries/2, max(c.Completions/2, c.Entries)
	}
}

// powerOfTwo rounds n up to a power of two; 0 stays 0.
func powerOfTwo(n uint32) uint64 {
	if n == 0 {
		return 0
	}
	return 1 << bits.Len32(n-1)
}

// closeTimeout is how long Close waits for requests that are still in flight. A cancelled receive
// or poll ends at once; a write that has reached the disk ends when the disk answers.
const closeTimeout = 5 * time.Second

// closeData is the user_data of the cancel request that Close sends; Close drops all completions.
const closeData = ^uint64(0)

// Ring is an io_uring instance. It is not safe for concurrent use: every method must run on the
// thread that called Open. A call from another thread is answered with a threadError wherever it
// can be noticed for free: by the kernel (SINGLE_ISSUER, or a registered descriptor that only its
// thread knows) and, under -race or -tags invariants, always.
type Ring struct {
	view               // pointers into the memory shared with the kernel
	tail       uint32  // next submission slot; Enter publishes it to the kernel
	finished   uint32  // completions reaped that ended a request; wraps as the kernel's do
	descriptor uintptr // for enter: the slot, or the ring's file descriptor
	flags      uintptr // flags of every enter
	flagsWait  uintptr // flags of an enter that may block
	argument   *waitArgument
	thread     int

	slot        uint32 // of the registered descriptor on its thread; or slotNone
	page        *Arena // has the wait argument with its timespec, where nothing moves them
	inner       *giouring.Ring
	setup       uint32 // SETUP flags that the kernel took
	features    uint32 // FEAT bits
	charged     uint64 // bytes that count against RLIMIT_MEMLOCK because of this ring
	hasBuffers  bool
	sparse      *Arena // the arena of SparseBuffers
	sparseShift uint   // its buffers have 1<<sparseShift bytes
	files       int    // registered files
	places      int    // of the table of registered files, empty places included
	closed      bool
	found       Features
}

// rungs are the sets of setup flags, best first; after EINVAL the next set is tried. Each has
// CQSIZE and SUBMIT_ALL: one bad entry must not stop the rest of its batch (5.18), and TASKRUN_FLAG
// shows deferred work without a call (5.19).
var rungs = [...]uint32{
	giouring.SetupSingleIssuer | giouring.SetupDeferTaskrun | setupAlways,
	giouring.SetupSingleIssuer | giouring.SetupCoopTaskrun | setupAlways,
	giouring.SetupCoopTaskrun | setupAlways,
}

const setupAlways = giouring.SetupTaskrunFlag | giouring.SetupSubmitAll | giouring.SetupCQSize

// Open makes a ring that belongs to the calling thread: the caller has locked its goroutine to the
// thread with runtime.LockOSThread, and keeps it locked until Close. The best flags that this
// kernel knows are used (see Features), and the ring's descriptor is registered with the thread,
// which saves a lookup on every Enter. Errors: disabledError, unsupportedError, memoryError, or the
// system's; each says what to do.
func Open(c Config) (*Ring, error) { return open(c, rungs[:]) }

// open tries the given sets of setup flags in order.
func open(c Config, ladder []uint32) (*Ring, error) {
	if c.Completions == 0 {
		c.Completions = 2 * c.Entries
	}
	if c.Entries == 0 || c.Entries > maxEntries || c.Completions < c.Entries ||
		c.Completions > maxCompletions {
		return nil, errors.New("io_uring: entries must be 1 to 32768, and completions from " +
			"entries to 65536")
	}
	page, err := NewArena(pageSize, false)
	if err != nil {
		return nil, err
	}
	r := &Ring{page: page, argument: page.waitArgument(), thread: unix.Gettid(), slot: slotNone}
	err = r.charge(c.Memory(), func() error {
		var err error
		for _, flags := range ladder {
			if err = r.init(c, flags); !errors.Is(err, syscall.EINVAL) {
				break
			}
		}
		return err
	})
	if err != nil {
		_ = page.Close()
		return nil, setupError(err)
	}
	r.view = viewOf(r.inner)
	r.tail = atomic.LoadUint32(r.sqTail)
	r.finished = atomic.LoadUint32(r.sqHead)
	r.flags = uintptr(giouring.EnterGetEvents)
	r.descriptor = uintptr(r.inner.RingFd())
	r.registerDescriptor()
	r.flagsWait = r.flags
	if r.features&featNoIOWait != 0 {
		r.flagsWait |= enterNoIOWait
	}
	r.found = r.probe()
	return r, nil
}

// init tries one set of setup flags.
func (r *Ring) init(c Config, flags uint32) error {
	inner := giouring.NewRing()
	p := newParams(flags, c.Completions)
	if err := inner.QueueInitParams(c.Entries, p.raw); err != nil {
		return err
	}
	r.inner, r.setup, r.features = inner, flags, p.features()
	return nil
}

// SQE returns the next submission entry, zeroed (giouring leaves half of a reused one as it was),
// or nil when the queue is full: then Enter(0, 0) empties it. With DEFER_TASKRUN that Enter also
// runs the work that the kernel has put off, so there may be completions when it returns.
func (r *Ring) SQE() *SQE {
	// Acquire: pairs with the kernel's release of sq.head in io_commit_sqring; the slot is ours
	// once head has passed it.
	if r.tail-atomic.LoadUint32(r.sqHead) >= uint32(len(r.sqes)) {
		return nil
	}
	s := &r.sqes[r.tail&r.sqMask]
	*s = SQE{}
	r.tail++
	return s
}

// queued returns how many entries wait for the next Enter.
func (r *Ring) queued() int { return int(r.tail - atomic.LoadUint32(r.sqHead)) }

// inFlight returns how many requests the kernel has taken whose last completion was not reaped.
func (r *Ring) inFlight() int { return int(atomic.LoadUint32(r.sqHead) - r.finished) }

// Ready reports without a system call whether Reap or Enter(0, 0) has something to do: a
// completion, or work that the kernel has deferred to this thread. It is the condition of a busy
// poll. Deferred work may end without a completion: a worker drops its reference to a request after
// the completion.
func (r *Ring) Ready() bool {
	return atomic.LoadUint32(r.cqTail) != atomic.LoadUint32(r.cqHead) || r.deferred()
}

// deferred reports whether the kernel has task work for this thread, or completions that found the
// queue full. Both need an Enter.
func (r *Ring) deferred() bool {
	return atomic.LoadUint32(r.sqFlags)&(giouring.SQTaskrun|giouring.SQCQOverflow) != 0
}

// Enter submits everything queued and waits until the completion queue holds at least wait entries
// or the timeout has passed; timeout < 0 waits without end, 0 does not wait. It may return early
// with nothing to reap: a signal, the timeout and a kernel short of memory or of room for
// completions ("reap first") are all nil. An error means the ring cannot be used.
//
// It makes no system call when there is nothing to submit, to run or to wait for. Only a call that
// may block tells the Go scheduler (Syscall6): that costs 40 ns, and a blocked thread that kept its
// P would hold up every collection.
func (r *Ring) Enter(wait uint32, timeout time.Duration) error {
	if checkThread {
		if err := r.threadError(); err != nil {
			return err
		}
	}
	// Release: pairs with the kernel's acquire of sq.tail in io_sqring_entries; the entries are
	// written before it.
	if r.tail != *r.sqTail {
		atomic.StoreUint32(r.sqTail, r.tail)
	}
	queued := r.tail - atomic.LoadUint32(r.sqHead)
	if wait == 0 || timeout == 0 || atomic.LoadUint32(r.cqTail)-*r.cqHead >= wait {
		if queued == 0 && !r.deferred() {
			return nil
		}
		return r.poll(queued)
	}
	flags, argument, size := r.flagsWait, uintptr(0), uintptr(0)
	if timeout > 0 {
		r.argument.set(timeout)
		flags, argument, size = flags|uintptr(giouring.EnterExtArg), uintptr(r.page.Addr(0)),
			waitArgumentSize
	}
	n, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, r.descriptor, uintptr(queued),
		uintptr(wait), flags, argument, size)
	return r.entered(n, queued, errno)
}

// poll submits entries and runs deferred work. It does not block, and so does not tell the Go
// scheduler.
func (r *Ring) poll(queued uint32) error {
	n, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, r.descriptor, uintptr(queued), 0,
		r.flags, 0, 0)
	return r.entered(n, queued, errno)
}

// entered judges what io_uring_enter returned.
func (r *Ring) entered(n uintptr, queued uint32, errno syscall.Errno) error {
	switch errno {
	case 0:
		// The kernel takes at least one entry of a queue that has some. None means that it looked
		// at another ring: the slot of our registered descriptor belongs to a different ring on
		// this thread.
		if n == 0 && queued > 0 {
			return r.threadError()
		}
		return nil
	case syscall.EINTR, syscall.ETIME, syscall.EBUSY, syscall.EAGAIN:
		return nil
	}
	return r.callError("io_uring_enter", errno)
}

// Reap copies completions into out until it is full, gives their places back to the kernel at once,
// and returns their number. It makes no system call: deferred work and overflowed completions
// arrive by Enter.
func (r *Ring) Reap(out []CQE) int {
	head := *r.cqHead // only this function writes it
	// Acquire: pairs with the kernel's release of cq.tail in io_commit_cqring; the entries are
	// written before it.
	n := atomic.LoadUint32(r.cqTail) - head
	if n > uint32(len(out)) {
		n = uint32(len(out))
	}
	if n == 0 {
		return 0
	}
	for i := range out[:n] {
		c := r.cqes[(head+uint32(i))&r.cqMask]
		out[i] = c
		if c.Flags&completionMore == 0 {
			r.finished++
		}
	}
	// Release: pairs with the kernel's acquire of cq.head in io_cqring_queued; the entries are
	// copied before the kernel may overwrite them.
	atomic.StoreUint32(r.cqHead, head+n)
	return int(n)
}

// Close cancels what is in flight and waits for it, unpins the buffers, gives back the registered
// descriptor (the kernel would keep the whole ring until the thread exits) and unmaps the ring.
// Completions not reaped are lost. When it returns InFlightError the kernel may still write into
// the arena, which must then not be closed; else it may be.
func (r *Ring) Close() error {
	if r.closed {
		return nil
	}
	if err := r.threadError(); err != nil {
		return err
	}
	r.closed = true
	err := r.quiesce()
	// Before the ring goes: its own teardown runs on a kernel worker, 30 ms later when measured,
	// and until then the pinned memory would count against RLIMIT_MEMLOCK and the files would stay
	// open, and flock'ed.
	err = errors.Join(err, r.unregister())
	uncharge(r.charged)
	r.unregisterDescriptor()
	r.inner.QueueExit()
	r.view = view{}
	runtime.KeepAlive(r.inner)
	return errors.Join(err, r.page.Close())
}

// quiesce drops what was never submitted, cancels the rest and waits for the last completion.
func (r *Ring) quiesce() error {
	r.tail = atomic.LoadUint32(r.sqHead)
	atomic.StoreUint32(r.sqTail, r.tail)
	var out [64]CQE
	sent := false
	for end := time.Now().Add(closeTimeout); ; {
		for n := r.Reap(out[:]); n > 0; n = r.Reap(out[:]) {
			for i := range out[:n] {
				if out[i].released() {
					r.FileReleased()
				}
			}
		}
		left := r.inFlight()
		if left == 0 {
			return nil
		}
		if time.Now().After(end) {
			return &InFlightError{Requests: left}
		}
		if !sent {
			prepCancelAll(r.SQE(), closeData) // the queue is empty: there is always an entry
			sent = true
		}
		if err := r.Enter(1, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
