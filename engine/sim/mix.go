// A mix is the set of accidents to which a world is prone. Each seed draws its own ("swarm
// testing": runs without some of the faults reach states that runs with all faults never reach).

package sim

import "math/rand/v2"

// mix has chances in 1/1000 per occasion, and durations in nanoseconds of virtual time.
type mix struct {
	inline         int // an operation that can complete does so while it is submitted
	partial        int // Enter takes only some of the queue
	interrupt      int // Enter comes back at once, as after a signal
	shortRecv      int // a receive brings less than has arrived
	shortSend      int // a send moves less than fits, even with MSG_WAITALL
	shortRead      int
	shortWrite     int
	diskAgain      int // EAGAIN or EINTR from a disk operation
	refuse         int // a transfer with RWF_NOWAIT cannot be done without waiting
	readError      int // EIO
	writeError     int // EIO
	writeFull      int // ENOSPC or EDQUOT
	fsyncError     int
	unsupported    int // EOPNOTSUPP from fallocate or discard that the probe said would work
	busy           int // EBUSY from zeroing or discarding a block device
	recvError      int // a receive fails although the client did nothing
	sendError      int
	scribble       int // rubbish is written into a buffer that the kernel owns
	early          int // some sectors of a write reach the disk before it completes
	cut            int // the network drops a connection, per event
	truncate       int // a file shrinks, once per run
	lookupError    int // a lookup of a meta context fails
	lag            int // a loop gets no processor for a while, and completions pile up, per turn
	unpinnable     int // a part of the pool cannot be registered: no locked memory is left
	pause          int // the process is stopped for seconds, per thousand accidents
	diskDelayNanos uint64
	slowDelayNanos uint64 // fsync, fallocate, discard
	wireDelayNanos uint64
	segment        int // limit of the bytes that a wire delivers at once; 0: none
}

// chance reports true n times in 1000.
func chance(r *rand.Rand, n int) bool { return n > 0 && r.IntN(1000) < n }

// often draws a chance that is zero in half of the worlds and up to limit in the others.
func often(r *rand.Rand, limit int) int {
	if r.IntN(2) == 0 {
		return 0
	}
	return 1 + r.IntN(limit)
}

// rarely is like often, but zero in three quarters of the worlds: for faults that end what other
// faults could have shown.
func rarely(r *rand.Rand, limit int) int {
	if r.IntN(4) != 0 {
		return 0
	}
	return 1 + r.IntN(limit)
}

// drawMix draws the accidents of a world.
func drawMix(r *rand.Rand) mix {
	m := mix{
		inline:    []int{0, 300, 900, 1000}[r.IntN(4)],
		partial:   often(r, 500),
		interrupt: often(r, 500),
		shortRecv: often(r, 500),
		shortSend: often(r, 400),
		shortRead: often(r, 200), shortWrite: often(r, 200),
		diskAgain: often(r, 100),
		refuse:    []int{0, 0, 100, 900, 1000}[r.IntN(5)],
		readError: rarely(r, 50), writeError: rarely(r, 50), writeFull: rarely(r, 50),
		fsyncError:  rarely(r, 200),
		unsupported: rarely(r, 500),
		recvError:   rarely(r, 5), sendError: rarely(r, 5),
		scribble: often(r, 500), early: often(r, 500),
		cut:            rarely(r, 2),
		lag:            rarely(r, 30),
		lookupError:    rarely(r, 300),
		pause:          rarely(r, 5),
		busy:           often(r, 300),
		diskDelayNanos: []uint64{0, 100e3, 2e6}[r.IntN(3)],
		slowDelayNanos: []uint64{0, 1e6, 50e6}[r.IntN(3)],
		wireDelayNanos: []uint64{0, 50e3, 1e6}[r.IntN(3)],
		segment:        []int{0, 0, 0, 4096, 500, 20}[r.IntN(6)],
	}
	if r.IntN(12) == 0 {
		m.truncate = 500
	}
	// a world without accidents: whatever goes wrong in it is the engine's fault
	if r.IntN(8) == 0 {
		m = mix{inline: 500, diskDelayNanos: m.diskDelayNanos, slowDelayNanos: m.slowDelayNanos,
			wireDelayNanos: m.wireDelayNanos, segment: m.segment}
	}
	return m
}

// calm returns the mix after the storm: nothing fails any more, and every request must be answered.
func (m mix) calm() mix {
	return mix{inline: 500, diskDelayNanos: min(m.diskDelayNanos, 1000),
		slowDelayNanos: min(m.slowDelayNanos, 1000),
		wireDelayNanos: min(m.wireDelayNanos, 1000)}
}
