// The guard orders overlapping writes of one device, whatever connection, export and loop they come
// from: a write waits for every earlier write that touches the same blocks, and for nothing else.
// That is what makes read-modify-write of unaligned requests safe, and what keeps the last of
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
// A claim is compared with the claims near it and with no others, because claims are in chains by
// the stripe of the device that they lie in: narrow claims (up to 64 KiB) in the chains of the one
// or two stripes of 64 KiB that they touch, middle claims (up to 2 MiB) in those of stripes of 2
// MiB. The few wider claims are in a list of their own, which every claim of their device is
// compared with; a wide claim is compared with all claims of its device.

package engine

import (
	"sync/atomic"

	"ringnbd/engine/uring"
)

const (
	guardShards = 64 // devices are spread over them; a power of two
	// chains of a shard for each width, into which the stripes of its devices are hashed; a power
	// of two
	guardHeads = 1024
)

// width of a claim says which chains it is in.
type width uint8

const (
	narrow width = iota // up to a stripe of 64 KiB
	middle              // up to a stripe of 2 MiB
	wide                // more: in no chain
)

// stripeShift is the size of stripes, as a power of two, by the width of the claims in their
// chains.
var stripeShift = [wide]uint{narrow: 16, middle: 21}

func widthOf(n uint64) width {
	w := narrow
	for w < wide && n > 1<<stripeShift[w] {
		w++
	}
	return w
}

// Links of a claim: in the chain of its first stripe (or, of a wide claim, in the list of those),
// in the chain of its second stripe, and in the list of all claims of its device.
const (
	inFirst = iota
	inSecond
	inAll
	linkKinds
)

// claim is a row of the table: one cache line.
type claim struct {
	lo, hi   uint64 // bytes [lo, hi), rounded to the device's blocks
	ticket   uint64 // order of arrival within the shard
	device   uint32
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

// guardDevice is the lists of one device, under the word of its shard.
type guardDevice struct {
	all  uint32
	wide uint32
	// how many claims there are of each width but wide: where there are none, no chain is read
	count [wide]uint32
	_     [48]byte // keeps the next device, which is in another shard, off this cache line
}

type guard struct {
	claims  []claim
	shards  [guardShards]guardShard
	devices []guardDevice
}

func newGuard(claims, devices int) *guard {
	g := roomyGuard(claims, devices)
	for i := range g.devices {
		g.open(uint32(i))
	}
	return g
}

// open makes the lists of a device that was not in the table. No claim is on it yet.
func (g *guard) open(device uint32) {
	g.devices[device] = guardDevice{all: none, wide: none}
}

// roomyGuard makes a guard with room for so many devices, which open adds: the table of devices
// never moves while loops read it, and what is not used of it takes no memory.
func roomyGuard(claims, devices int) *guard {
	g := &guard{claims: make([]claim, claims), devices: make([]guardDevice, devices)}
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

// headOf hashes a stripe to the head of its chain. Neighbouring stripes never share a head, because
// one of them is odd, which the counting in overlapsNear relies on. There is no distance at which
// all stripes share a head.
func headOf(device uint32, stripe uint64) uint64 {
	x := (stripe>>1 ^ uint64(device)<<44) * 0x9e3779b97f4a7c15
	return (x>>32<<1 | stripe&1) & (guardHeads - 1)
}

// enter puts claim i, the bytes [lo, hi) of a device, into the table and reports whether it may run
// now. If not, it will be granted to its loop.
func (g *guard) enter(i, device uint32, lo, hi uint64) bool {
	c := &g.claims[i]
	must(!c.held && lo < hi, "a request claimed its range twice, or nothing")
	s := g.shardOf(device)
	s.lock()
	s.tickets++
	c.lo, c.hi, c.device, c.ticket = lo, hi, device, s.tickets
	c.width = widthOf(hi - lo)
	c.blockers = g.overlaps(s, c, nil)
	c.held = true
	g.link(&g.devices[device].all, i, i, inAll, 0)
	g.chain(s, i)
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
	g.unchain(s, i)
	g.unlink(&g.devices[c.device].all, i, inAll, false)
	c.held = false
	g.overlaps(s, c, grants)
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
	g.unchain(s, i)
	c.lo = to
	g.chain(s, i)
	s.unlock()
}

// overlaps finds the claims of the table that overlap c, which is not in it. Without grants it
// counts them: all came before c. With grants, c has just left, and the claims that came after it
// wait for one claim less.
func (g *guard) overlaps(s *guardShard, c *claim, grants *uint32) (found int32) {
	e := &g.devices[c.device]
	if c.width == wide {
		for j := e.all; j != none; j = g.claims[j].next[inAll] {
			found += g.compare(j, c, grants)
		}
		return found
	}
	for of := narrow; of < wide; of++ {
		if e.count[of] > 0 {
			found += g.overlapsNear(of, s, c, grants)
		}
	}
	for j := e.wide; j != none; j = g.claims[j].next[inFirst] {
		found += g.compare(j, c, grants)
	}
	return found
}

// overlapsNear is overlaps for the claims of one width, in the chains of the stripes that c
// touches.
func (g *guard) overlapsNear(of width, s *guardShard, c *claim, grants *uint32) (found int32) {
	shift := stripeShift[of]
	for stripe, last := c.lo>>shift, (c.hi-1)>>shift; stripe <= last; stripe++ {
		for e := s.heads[of][headOf(c.device, stripe)]; e != none; e = g.claims[e>>1].next[e&1] {
			// A pair that shares both stripes is found twice; it counts where its overlap begins.
			if max(c.lo, g.claims[e>>1].lo)>>shift == stripe {
				found += g.compare(e>>1, c, grants)
			}
		}
	}
	return found
}

// compare is one pair of overlaps: 1 when claim j overlaps c.
func (g *guard) compare(j uint32, c *claim, grants *uint32) int32 {
	w := &g.claims[j]
	if w.device != c.device || w.lo >= c.hi || w.hi <= c.lo {
		return 0
	}
	if grants != nil && w.ticket > c.ticket {
		g.unblock(j, grants)
	}
	return 1
}

// unblock takes one blocker from claim j. Without any, it is granted.
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

// chain links claim i into the chains of its stripes, or into the list of wide claims.
func (g *guard) chain(s *guardShard, i uint32) {
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

// unchain takes claim i out of the chains, or the list, that chain has linked it into.
func (g *guard) unchain(s *guardShard, i uint32) {
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
// entry says which of the claim's two links is meant.
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

// unlink takes claim i out of a list, or out of a stripe's chain.
func (g *guard) unlink(head *uint32, i uint32, in int, chained bool) {
	c := &g.claims[i]
	next, prev := c.next[in], c.prev[in]
	nextAt, prevAt, shift := in, in, uint32(0)
	if chained {
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
