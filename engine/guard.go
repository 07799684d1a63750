// The guard orders overlapping writes of one export, whatever connection and whatever loop they come from: a write waits for every earlier write
// that touches the same blocks, and for nothing else. That is what makes read-modify-write of unaligned requests safe, and what keeps the
// last of several overlapping writes in flight the one that stays on the disk.
//
// Invariant: a claim's blockers is the number of claims that are in the table, overlap it and came before it; it may run when that is 0.
//
// This is the one piece of state that loops share on a request's path. It is a table under a spin word per shard, held for some tens of nanoseconds,
// never across a system call; see doc.go for why not messages or lock-free tables. Claims are rows of one array, indexed by loop*tags+tag,
// so that nothing is allocated. Narrow claims (<= 64 KiB) hang in the chains of the one or two 64 KiB regions that they touch; wide ones in a list
// that everybody looks through, and they look through everybody.

package engine

import (
	"sync/atomic"

	"ringnbd/engine/uring"
)

const (
	regionShift = 16
	regionSize  = 1 << regionShift
	guardShards = 64   // exports are spread over these; a power of two
	guardHeads  = 1024 // regions of a shard are hashed into these; a power of two
)

// links of a claim: the chain of its first region and of its second (a narrow claim), or the list of wide claims; and the list of all.
const (
	inFirst = iota
	inSecond
	inWide
	inAll
	linkKinds
)

type claim struct {
	lo, hi   uint64 // bytes [lo, hi), rounded to the device's blocks
	ticket   uint64 // order of arrival within the shard
	export   uint32
	owner    uint32 // the loop whose request this is
	wake     uint32 // next in a stack of granted claims
	blockers int32
	held     bool // in the table
	wide     bool // hangs in the wide list
	next     [linkKinds]uint32
	prev     [linkKinds]uint32
}

type guardShard struct {
	word    atomic.Uint32
	wide    uint32
	all     uint32
	tickets uint64
	heads   [guardHeads]uint32 // entries, see entryOf
	_       [64]byte           // keeps the next shard's word off this cache line
}

type guard struct {
	claims []claim
	shards [guardShards]guardShard
}

func newGuard(claims int) *guard {
	g := &guard{claims: make([]claim, claims)}
	for i := range g.shards {
		s := &g.shards[i]
		s.wide, s.all = none, none
		for h := range s.heads {
			s.heads[h] = none
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

func (g *guard) shardOf(export uint32) *guardShard { return &g.shards[export&(guardShards-1)] }

// headOf hashes a region. Neighbouring regions of an export never share a head, which the counting in meet relies on.
func headOf(export uint32, region uint64) uint64 {
	return (region + uint64(export)*0x9e3779b1) & (guardHeads - 1)
}

// enter puts claim i, the bytes [lo, hi) of an export, into the table and reports whether it may run now. If not, its owner will be granted it.
func (g *guard) enter(i, owner, export uint32, lo, hi uint64) bool {
	c := &g.claims[i]
	must(!c.held && lo < hi, "a request claimed its range twice, or nothing")
	s := g.shardOf(export)
	s.lock()
	s.tickets++
	c.lo, c.hi, c.export, c.owner, c.ticket = lo, hi, export, owner, s.tickets
	c.wide = hi-lo > regionSize
	c.blockers = g.meet(s, c, nil)
	c.held = true
	g.hang(s, i)
	run := c.blockers == 0
	s.unlock()
	return run
}

// leave takes claim i out. Claims that waited for it alone are put on the stack grants, linked through claim.wake.
func (g *guard) leave(i uint32, grants *uint32) {
	c := &g.claims[i]
	must(c.held && c.blockers == 0, "a request left a range that it did not hold")
	s := g.shardOf(c.export)
	s.lock()
	g.unhang(s, i)
	c.held = false
	g.meet(s, c, grants)
	s.unlock()
}

// shrink gives up the front of a wide claim, [lo, to), so that a long TRIM or WRITE_ZEROES lets go of what it has done.
func (g *guard) shrink(i uint32, to uint64, grants *uint32) {
	c := &g.claims[i]
	must(c.held && to >= c.lo && to < c.hi, "a claim was shrunk past its end")
	if !c.wide {
		return
	}
	s := g.shardOf(c.export)
	s.lock()
	for j := s.all; j != none; j = g.claims[j].next[inAll] {
		w := &g.claims[j]
		if w.export == c.export && w.ticket > c.ticket && w.lo < to && w.hi > c.lo && w.hi <= to {
			g.unblock(j, grants) // it overlapped only the part given up
		}
	}
	c.lo = to
	s.unlock()
}

// meet finds every claim of the table that overlaps c, which is not in it. Without grants it counts them: all came before c. With grants, c has
// just left, and those that came after it wait for one claim less.
func (g *guard) meet(s *guardShard, c *claim, grants *uint32) (met int32) {
	if c.wide {
		for j := s.all; j != none; j = g.claims[j].next[inAll] {
			met += g.touch(j, c, grants)
		}
		return met
	}
	first, last := c.lo>>regionShift, (c.hi-1)>>regionShift
	for region := first; region <= last; region++ {
		for e := s.heads[headOf(c.export, region)]; e != none; e = g.claims[e>>1].next[e&1] {
			// A pair that shares both regions meets twice; it counts where its overlap begins.
			if max(c.lo, g.claims[e>>1].lo)>>regionShift == region {
				met += g.touch(e>>1, c, grants)
			}
		}
	}
	for j := s.wide; j != none; j = g.claims[j].next[inWide] {
		met += g.touch(j, c, grants)
	}
	return met
}

// touch is one pair of meet: 1 when claim j overlaps c.
func (g *guard) touch(j uint32, c *claim, grants *uint32) int32 {
	w := &g.claims[j]
	if w.export != c.export || w.lo >= c.hi || w.hi <= c.lo {
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

// entryOf names one of a claim's two links in the chains of its regions.
func entryOf(i, which uint32) uint32 { return i<<1 | which }

// hang links claim i into its chains, unhang takes it out of them.
func (g *guard) hang(s *guardShard, i uint32) {
	c := &g.claims[i]
	g.link(&s.all, i, i, inAll, 0)
	if c.wide {
		g.link(&s.wide, i, i, inWide, 0)
		return
	}
	first, last := c.lo>>regionShift, (c.hi-1)>>regionShift
	g.link(&s.heads[headOf(c.export, first)], i, entryOf(i, inFirst), inFirst, 1)
	if last != first {
		g.link(&s.heads[headOf(c.export, last)], i, entryOf(i, inSecond), inSecond, 1)
	}
}

func (g *guard) unhang(s *guardShard, i uint32) {
	c := &g.claims[i]
	g.unlink(&s.all, i, inAll, false)
	if c.wide {
		g.unlink(&s.wide, i, inWide, false)
		return
	}
	first, last := c.lo>>regionShift, (c.hi-1)>>regionShift
	g.unlink(&s.heads[headOf(c.export, first)], i, inFirst, true)
	if last != first {
		g.unlink(&s.heads[headOf(c.export, last)], i, inSecond, true)
	}
}

// link pushes claim i, known in this list as entry, to the front. In a region's chain (shift 1) an entry says which of a claim's two links is meant.
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
