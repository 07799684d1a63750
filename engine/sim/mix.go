// A Mix is the set of accidents that one world is prone to. Each seed draws its own ("swarm
// testing": runs that lack some faults reach states that runs with all of them never get to).

package sim

import "math/rand/v2"

// Mix holds chances in 1/1000 per occasion, and durations in nanoseconds of virtual time.
type Mix struct {
	Inline      int // an operation that can complete does so while it is submitted
	Partial     int // Enter takes only some of the queue
	Interrupt   int // Enter comes back at once, as after a signal
	ShortRecv   int // a receive brings less than is there
	ShortSend   int // a send moves less than fits, even with MSG_WAITALL
	ShortRead   int
	ShortWrite  int
	DiskAgain   int // EAGAIN or EINTR from a disk operation
	Refuse      int // what is tried cannot be done without waiting
	ReadError   int // EIO
	WriteError  int // EIO
	WriteFull   int // ENOSPC or EDQUOT
	FsyncError  int
	Unsupported int // EOPNOTSUPP from fallocate or discard that the probe said would work
	Busy        int // EBUSY from zeroing or discarding a block device
	RecvError   int // a receive fails although the peer did nothing
	SendError   int
	Scribble    int // rubbish is written into a buffer that the kernel owns
	Early       int // some sectors of a write reach the disk before it completes
	Cut         int // the network drops a connection, per event
	Truncate    int // a file shrinks, once per run
	LookupError int // a lookup of a meta context fails
	Lag         int // a loop gets no processor for a while, so that completions pile up, per turn
	Unpinnable  int // a part of the pool cannot be registered, for others have used the limit up
	Pause       int // the process is stopped for seconds, per thousand accidents
	DiskDelay   uint64
	SlowDelay   uint64 // fsync, fallocate, discard
	WireDelay   uint64
	Segment     int // most bytes that a wire delivers at once; 0: all
}

// chance is true n times in 1000.
func chance(r *rand.Rand, n int) bool { return n > 0 && r.IntN(1000) < n }

// often draws a chance that is zero in half of the worlds and up to most in the others.
func often(r *rand.Rand, most int) int {
	if r.IntN(2) == 0 {
		return 0
	}
	return 1 + r.IntN(most)
}

// rarely is as often, but zero in three quarters of the worlds: faults that end what the others
// could have shown.
func rarely(r *rand.Rand, most int) int {
	if r.IntN(4) != 0 {
		return 0
	}
	return 1 + r.IntN(most)
}

func drawMix(r *rand.Rand) Mix {
	m := Mix{
		Inline:    []int{0, 300, 900, 1000}[r.IntN(4)],
		Partial:   often(r, 500),
		Interrupt: often(r, 500),
		ShortRecv: often(r, 500),
		ShortSend: often(r, 400),
		ShortRead: often(r, 200), ShortWrite: often(r, 200),
		DiskAgain: often(r, 100),
		Refuse:    []int{0, 0, 100, 900, 1000}[r.IntN(5)],
		ReadError: rarely(r, 50), WriteError: rarely(r, 50), WriteFull: rarely(r, 50),
		FsyncError:  rarely(r, 200),
		Unsupported: rarely(r, 500),
		RecvError:   rarely(r, 5), SendError: rarely(r, 5),
		Scribble: often(r, 500), Early: often(r, 500),
		Cut:         rarely(r, 2),
		Lag:         rarely(r, 30),
		LookupError: rarely(r, 300),
		Pause:       rarely(r, 5),
		Busy:        often(r, 300),
		DiskDelay:   []uint64{0, 100e3, 2e6}[r.IntN(3)],
		SlowDelay:   []uint64{0, 1e6, 50e6}[r.IntN(3)],
		WireDelay:   []uint64{0, 50e3, 1e6}[r.IntN(3)],
		Segment:     []int{0, 0, 0, 4096, 500, 20}[r.IntN(6)],
	}
	if r.IntN(12) == 0 {
		m.Truncate = 500
	}
	// a world without accidents: whatever goes wrong here is nobody else's fault
	if r.IntN(8) == 0 {
		m = Mix{Inline: 500, DiskDelay: m.DiskDelay, SlowDelay: m.SlowDelay, WireDelay: m.WireDelay,
			Segment: m.Segment}
	}
	return m
}

// calm is the mix after the storm: nothing fails any more, and whatever was asked must now be
// answered.
func (m Mix) calm() Mix {
	return Mix{Inline: 500, DiskDelay: min(m.DiskDelay, 1000), SlowDelay: min(m.SlowDelay, 1000),
		WireDelay: min(m.WireDelay, 1000)}
}
