// The guard orders overlapping writes of one device, whatever connection and whatever loop they
// come from: a write waits for every earlier write that touches the same blocks, and for nothing
// else. That is what makes read-modify-write of unaligned requests safe, and what keeps the last of
// several overlapping writes in flight the one that stays on the disk.
//
// Invariant: a claim's blockers is the number of claims that are in the table, overlap it and came
// before it; it may run when that is 0.
//
// This is the one piece of state that loops share on a request's path. It is a table under a spin
// word per shard, held for some tens of nanoseconds, never across a system call; see doc.go for why
// not messages or lock-free tables. Claims are rows of one array, indexed by loop*tags+tag, so that
// nothing is allocated.
//
// So that a claim meets those near it and no others, claims hang in chains by the stripe of the
// device that they lie in: narrow ones (up to 64 KiB) in those of the one or two stripes of 64 KiB
// that they touch, middle ones (up to 2 MiB) in those of 2 MiB. The few that are wider are in a
// list that everybody of their device looks through, and look through all of their device.

package engine

import (
	"sync/atomic"

	"ringnbd/engine/uring"
)

const (
	guardShards = 64 // devices are spread over these; a power of two
	// the stripes of a shard's devices are hashed into these, for each width; a power of two
	guardHeads = 1024
)

// width of a claim: which chains it hangs in.
type width uint8

const (
	narrow width = iota // up to a stripe of stripeShift[narrow]
	middle              // up to one of stripeShift[middle]
	wide
)

// stripeShift is the size of stripes, as a power of two, by the width of the claims that hang in
// their chains.
var stripeShift = [wide]uint{narrow: 16, middle: 21}

func widthOf(n uint64) width {
	w := narrow
	for w < wide && n > 1<<stripeShift[w] {
		w++
	}
	return w
}

// links of a claim: the chain of its first stripe and of its second, or in inFirst the list of the
// wide ones; and the list of all of its device.
const (
	inFirst = iota
	inSecond
	inAll
	linkKinds
)

type claim struct {
	lo, hi   uint64 // bytes [lo, hi), rounded to the device's blocks
	ticket   uint64 // order of arrival within the shard
	device   uint32
	owner    uint32 // the loop whose request this is
	wake     uint32 // next in a stack of granted claims
	blockers int32
	held     bool // in the table
	width    width
	next     [linkKinds]uint32
	prev     [linkKinds]uint32
}

// guardShard is what one word protects: the heads of the chains of its devices, as entries (see
// entryOf).
type guardShard struct {
	word    atomic.Uint32
	tickets uint64
	heads   [wide][guardHeads]uint32
	_       [64]byte // keeps the next shard's word off this cache line
}

// guardDevice are the lists of one device, under the word of its shard.
type guardDevice struct {
	all  uint32
	wide uint32
	// of the claims that are not wide: where there are none, no stripe is looked at
	count [wide]uint32
	_     [48]byte // keeps the next device, which is of another shard, off this cache line
}

type guard struct {
	claims  []claim
	shards  [guardShards]guardShard
	devices []guardDevice
}

func newGuard(claims, devices int) *guard {
	g := &guard{claims: make([]claim, claims), devices: make([]guardDevice, devices)}
	for i := range g.devices {
		g.devices[i] = guardDevice{all: none, wide: none}
	}
	for i := range g.shards {
		for w := range g.shards[i].heads {
			for h := range g.shards[i].heads[w] {
				g.shards[i].heads[w][h] = none
			}
		}
	}
	return g
}

func (s *guardShard) lock() {
	for spins := 0; !s.word.CompareAndSwap(0, 1); spins++ {
		if spins > 100 { // the holder's thread was preempted: give it the core
			uring.Yield()
		}
	}
}

func (s *guardShard) unlock() { s.word.Store(0) }

func (g *guard) shardOf(device uint32) *guardShard { return &g.shards[device&(guardShards-1)] }

// headOf hashes a stripe. Two that are neighbours never share a head, for one of them is odd, which
// the counting in meetNear relies on; whatever the distance of others, it is not one at which all
// meet.
func headOf(device uint32, stripe uint64) uint64 {
	x := (stripe>>1 ^ uint64(device)<<44) * 0x9e3779b97f4a7c15
	return (x>>32<<1 | stripe&1) & (guardHeads - 1)
}

// enter puts claim i, the bytes [lo, hi) of a device, into the table and reports whether it may
// run now. If not, its owner will be granted it.
func (g *guard) enter(i, owner, device uint32, lo, hi uint64) bool {
	c := &g.claims[i]
	must(!c.held && lo < hi, "a request claimed its range twice, or nothing")
	s := g.shardOf(device)
	s.lock()
	s.tickets++
	c.lo, c.hi, c.device, c.owner, c.ticket = lo, hi, device, owner, s.tickets
	c.width = widthOf(hi - lo)
	c.blockers = g.meet(s, c, nil)
	c.held = true
	g.link(&g.devices[device].all, i, i, inAll, 0)
	g.hang(s, i)
	run := c.blockers == 0
	s.unlock()
	return run
}

// leave takes claim i out. Claims that waited for it alone are put on the stack grants, linked
// through claim.wake.
func (g *guard) leave(i uint32, grants *uint32) {
	c := &g.claims[i]
	must(c.held && c.blockers == 0, "a request left a range that it did not hold")
	s := g.shardOf(c.device)
	s.lock()
	g.unhang(s, i)
	g.unlink(&g.devices[c.device].all, i, inAll, false)
	c.held = false
	g.meet(s, c, grants)
	s.unlock()
}

// shrink gives up the front of a claim that is not narrow, [lo, to), so that a long TRIM or
// WRITE_ZEROES lets go of what it has done.
func (g *guard) shrink(i uint32, to uint64, grants *uint32) {
	c := &g.claims[i]
	must(c.held && to >= c.lo && to < c.hi, "a claim was shrunk past its end")
	if c.width == narrow {
		return
	}
	s := g.shardOf(c.device)
	s.lock()
	for j := g.devices[c.device].all; j != none; j = g.claims[j].next[inAll] {
		w := &g.claims[j]
		if w.ticket > c.ticket && w.lo < to && w.hi > c.lo && w.hi <= to {
			g.unblock(j, grants) // it overlapped only the part given up
		}
	}
	g.unhang(s, i)
	c.lo = to
	g.hang(s, i)
	s.unlock()
}

// meet finds every claim of the table that overlaps c, which is not in it. Without grants it counts
// them: all came before c. With grants, c has just left, and those that came after it wait for one
// claim less.
func (g *guard) meet(s *guardShard, c *claim, grants *uint32) (met int32) {
	e := &g.devices[c.device]
	if c.width == wide {
		for j := e.all; j != none; j = g.claims[j].next[inAll] {
			met += g.touch(j, c, grants)
		}
		return met
	}
	for of := narrow; of < wide; of++ {
		if e.count[of] > 0 {
			met += g.meetNear(of, s, c, grants)
		}
	}
	for j := e.wide; j != none; j = g.claims[j].next[inFirst] {
		met += g.touch(j, c, grants)
	}
	return met
}

// meetNear is meet for the claims of one width, in the chains of the stripes that c touches.
func (g *guard) meetNear(of width, s *guardShard, c *claim, grants *uint32) (met int32) {
	shift := stripeShift[of]
	for stripe, last := c.lo>>shift, (c.hi-1)>>shift; stripe <= last; stripe++ {
		for e := s.heads[of][headOf(c.device, stripe)]; e != none; e = g.claims[e>>1].next[e&1] {
			// A pair that shares both stripes meets twice; it counts where its overlap begins.
			if max(c.lo, g.claims[e>>1].lo)>>shift == stripe {
				met += g.touch(e>>1, c, grants)
			}
		}
	}
	return met
}

// touch is one pair of meet: 1 when claim j overlaps c.
func (g *guard) touch(j uint32, c *claim, grants *uint32) int32 {
	w := &g.claims[j]
	if w.device != c.device || w.lo >= c.hi || w.hi <= c.lo {
		return 0
	}
	if grants != nil && w.ticket > c.ticket {
		g.unblock(j, grants)
	}
	return 1
}

func (g *guard) unblock(j uint32, grants *uint32) {
	w := &g.claims[j]
	w.blockers--
	must(w.blockers >= 0, "a claim was granted more often than it was blocked")
	if w.blockers == 0 {
		w.wake = *grants
		*grants = j
	}
}

// entryOf names one of a claim's two links in the chains of its stripes.
func entryOf(i, which uint32) uint32 { return i<<1 | which }

// hang links claim i into the chains of its stripes, or the list of the wide ones; unhang takes it
// out of them.
func (g *guard) hang(s *guardShard, i uint32) {
	c := &g.claims[i]
	if c.width == wide {
		g.link(&g.devices[c.device].wide, i, i, inFirst, 0)
		return
	}
	g.devices[c.device].count[c.width]++
	shift := stripeShift[c.width]
	first, last := c.lo>>shift, (c.hi-1)>>shift
	g.link(&s.heads[c.width][headOf(c.device, first)], i, entryOf(i, inFirst), inFirst, 1)
	if last != first {
		g.link(&s.heads[c.width][headOf(c.device, last)], i, entryOf(i, inSecond), inSecond, 1)
	}
}

func (g *guard) unhang(s *guardShard, i uint32) {
	c := &g.claims[i]
	if c.width == wide {
		g.unlink(&g.devices[c.device].wide, i, inFirst, false)
		return
	}
	g.devices[c.device].count[c.width]--
	shift := stripeShift[c.width]
	first, last := c.lo>>shift, (c.hi-1)>>shift
	g.unlink(&s.heads[c.width][headOf(c.device, first)], i, inFirst, true)
	if last != first {
		g.unlink(&s.heads[c.width][headOf(c.device, last)], i, inSecond, true)
	}
}

// link pushes claim i, known in this list as entry, to the front. In a stripe's chain (shift 1) an
// entry says which of a claim's two links is meant.
func (g *guard) link(head *uint32, i, entry uint32, in int, shift uint32) {
	c := &g.claims[i]
	c.prev[in] = none
	c.next[in] = *head
	if old := *head; old != none {
		at := in
		if shift == 1 {
			at = int(old & 1)
		}
		g.claims[old>>shift].prev[at] = entry
	}
	*head = entry
}

func (g *guard) unlink(head *uint32, i uint32, in int, chain bool) {
	c := &g.claims[i]
	next, prev := c.next[in], c.prev[in]
	nextAt, prevAt, shift := in, in, uint32(0)
	if chain {
		nextAt, prevAt, shift = int(next&1), int(prev&1), 1
	}
	if prev == none {
		*head = next
	} else {
		g.claims[prev>>shift].next[prevAt] = next
	}
	if next != none {
		g.claims[next>>shift].prev[nextAt] = prev
	}
}
