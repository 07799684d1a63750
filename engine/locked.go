// Locked memory: the pools of all loops, if they are registered with io_uring, and the rings.
//
// Invariant: what is locked is decided once, from the sum over all loops, before anything is
// opened. Registered memory is pinned, and a user who is not root may pin as much as RLIMIT_MEMLOCK
// says, 8 MiB by default. Without it the same pools serve unregistered: the kernel then pins the
// pages of each disk operation for as long as that takes.
//
// It is all or nothing. As much as the limit allows would serve small requests as well as the
// whole, but it would leave other programs of the same user without the locked memory that their
// rings take: the limit counts for all of them together.

package engine

import (
	"errors"

	"ringnbd/engine/uring"
)

// Registration says whether the memory for requests is registered with io_uring.
type Registration uint8

const (
	RegisterAuto Registration = iota // if the limit on locked memory allows it
	RegisterOn                       // or the engine does not start
	RegisterOff
)

// roomyRing is a loop's ring where the limit allows it: more completions than every tag, connection
// and long segment in flight at once; more submissions would only make an enter earlier.
var roomyRing = uring.Config{Entries: 512, Completions: 8192}

// Settle decides what is locked. Call it before opening anything that the engine will serve.
// unregistered says why RegisterAuto became RegisterOff; err, why the engine cannot start.
func (c *Config) Settle() (unregistered, err error) {
	if c.ring, err = roomyRing.Within(c.Loops); err != nil {
		return nil, err
	}
	if c.Register == RegisterOff {
		return nil, nil
	}
	if err = uring.CheckMemlock(c.lockedMemory()); err == nil {
		return nil, nil
	}
	if c.Register == RegisterOn {
		return nil, err
	}
	c.Register = RegisterOff
	return err, nil
}

// lockedMemory is how many bytes all loops lock together when their memory is registered.
func (c *Config) lockedMemory() uint64 {
	y, _ := layoutOf(c.Memory/uint64(c.Loops), connsPerLoop(*c))
	return uint64(c.Loops) * (wholeHuge(y.poolLen()) + roomyRing.Memory())
}

// bufferState says whether a buffer, one huge page of the pool, is registered.
type bufferState uint8

const (
	bufferPlain     bufferState = iota // it is not, and will not be
	bufferUntouched                    // it will be when a disk operation first needs it
	bufferRegistered
)

// buffers is a loop's pool as io_uring sees it: buffers that are registered one by one.
type buffers struct {
	states []bufferState
	shift  uint // a buffer is 1<<shift bytes
}

// newBuffers divides a pool of so many bytes into buffers, none of them registered.
func newBuffers(pool uint64) buffers {
	shift := uring.SparseShift(pool)
	return buffers{states: make([]bufferState, (pool+1<<shift-1)>>shift), shift: shift}
}

// registerPool makes a loop's pool ready to be registered buffer by buffer, and registers the
// first. all is what the engine locks altogether, in bytes.
//
// Registering pins, and so takes, the memory. Done for the whole pool at start, it made an idle
// export cost 150 MiB a core. So a buffer, one huge page, is registered when a disk operation first
// needs it. The pool lends the memory that was returned last, so that an export which is used a
// little needs few buffers, and what the busiest moment needed is registered once and for all. It
// costs a turn a quarter of a millisecond for each 2 MiB: what the first touch of that memory would
// have cost, and pinning.
func (l *loop) registerPool(ring *uring.Ring, all uint64) error {
	if err := ring.SparseBuffers(l.pool); err != nil {
		return err
	}
	if err := ring.FirstBuffer(); err != nil {
		var locked *uring.MemlockError
		if errors.As(err, &locked) {
			locked.Need = all // not the first buffer alone
		}
		return err
	}
	l.allowRegistering()
	l.buffers.states[0] = bufferRegistered
	return nil
}

// allowRegistering lets all buffers be registered when they are needed.
func (l *loop) allowRegistering() {
	for i := range l.buffers.states {
		l.buffers.states[i] = bufferUntouched
	}
}

// bufferOf returns the registered buffer that a place of the pool lies in. False means that it is
// not registered: by configuration, or because other programs of the same user have used up the
// limit on locked memory since the start.
func (l *loop) bufferOf(at uint64) (uint16, bool) {
	i := at >> l.buffers.shift
	if l.buffers.states[i] == bufferUntouched {
		l.registerBuffer(uint32(i))
	}
	return uint16(i), l.buffers.states[i] == bufferRegistered
}

func (l *loop) registerBuffer(i uint32) {
	if l.kernel.RegisterBuffer(i) {
		l.buffers.states[i] = bufferRegistered
		l.counters.Registered++
	} else {
		l.buffers.states[i] = bufferPlain
		l.counters.NotRegistered++
		if l.counters.NotRegistered == 1 {
			l.incidents.put(Incident{Kind: MemoryRefused})
			l.report()
		}
	}
}
