// Locked memory: the pools of all loops, if they are registered with io_uring, and the rings.
//
// Invariant: what is locked is decided once, from the sum over all loops, before anything is
// opened. Registered memory is pinned, and a user who is not root may pin as much as RLIMIT_MEMLOCK
// says, 8 MiB by default. Without it the same pools serve unregistered: the kernel then pins the
// pages of each disk operation for as long as that takes.
//
// It is all or nothing. A part, as much as the limit allows, would serve small requests as well as
// the whole, but it would leave other programs of the same user without the locked memory that
// their rings take: the limit counts for all of them together.

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

// Settle decides what is locked, and is to be called before anything is opened that the engine will
// serve. unregistered says why RegisterAuto came out as RegisterOff; err, why the engine cannot
// start.
func (c *Config) Settle() (unregistered, err error) {
	if c.ring, err = roomyRing.Within(c.Loops); err != nil {
		return nil, err
	}
	if c.Register == RegisterOff {
		return nil, nil
	}
	if err = uring.CheckMemlock(c.Locked()); err == nil {
		return nil, nil
	}
	if c.Register == RegisterOn {
		return nil, err
	}
	c.Register = RegisterOff
	return err, nil
}

// Locked is how many bytes all loops lock together when their memory is registered.
func (c *Config) Locked() uint64 {
	y, _ := layoutOf(c.Memory/uint64(c.Loops), connsPerLoop(*c))
	return uint64(c.Loops) * (wholeHuge(y.poolLen()) + roomyRing.Memory())
}

// bufferState says how a part of the pool is used for disk operations.
type bufferState uint8

const (
	bufferPlain      bufferState = iota // it is not registered
	bufferUntouched                     // it will be when it is first needed
	bufferRegistered                    // it is
)

// buffers are the parts of a loop's pool that are registered one by one.
type buffers struct {
	states []bufferState
	shift  uint // a part is 1<<shift bytes
}

// newBuffers is the parts of a pool of so many bytes.
func newBuffers(pool uint64) buffers {
	shift := uring.SparseShift(pool)
	return buffers{states: make([]bufferState, (pool+1<<shift-1)>>shift), shift: shift}
}

// registerPool makes a loop's pool ready to be registered part by part, and registers the first.
// all is what the engine locks altogether, in bytes.
//
// Registering pins, and so takes, the memory. Done for the whole pool at start, it made an idle
// export cost 150 MiB a core. So a part, one huge page, is registered when a disk operation first
// needs it. The pool lends the memory that came home last, so that an export which is used a little
// needs few parts, and once what the busiest moment needed is registered it is never done again. It
// costs a turn a quarter of a millisecond, for each 2 MiB once: what the first touch of that memory
// would have cost, and pinning.
func (l *loop) registerPool(ring *uring.Ring, all uint64) error {
	if err := ring.SparseBuffers(l.pool); err != nil {
		return err
	}
	if err := ring.FirstBuffer(); err != nil {
		var locked *uring.MemlockError
		if errors.As(err, &locked) {
			locked.Need = all // not the first part alone
		}
		return err
	}
	l.allowRegistering()
	l.buffers.states[0] = bufferRegistered
	return nil
}

// allowRegistering says that all parts may be registered.
func (l *loop) allowRegistering() {
	for i := range l.buffers.states {
		l.buffers.states[i] = bufferUntouched
	}
}

// bufferOf is the registered buffer that a place of the pool lies in; false: it is not registered,
// because it shall not be, or because others of the same user have used the limit on locked memory
// up since the start.
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
