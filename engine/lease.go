// The lease pool hands out pieces of the loop's registered arena: payloads live here and nowhere
// else.
//
// It is a buddy allocator over 1 MiB blocks with 4 KiB pages. A request longer than 1 MiB gets a
// chain of 1 MiB pieces, so a 64 MiB request never needs 64 MiB in one place. Short and long
// requests have a region each, small and large: neither the fragments of short requests nor the
// long waits of long ones can starve the other kind.
//
// Invariant: every page belongs to exactly one free block or one leased piece; freeing a piece
// merges it with its free buddy at once. The pool is owned by one loop; nothing here is atomic. A
// lease is the index of its first page; chain links are kept beside it.

package engine

import "ringnbd/engine/uring"

const (
	pageShift  = 12
	pageSize   = 1 << pageShift
	pieceShift = 20 // the longest piece: 1 MiB, also the unit of one disk operation
	pieceSize  = 1 << pieceShift
	topOrder   = pieceShift - pageShift

	leased = int8(-1) // state of the first page of a leased piece: -1-order
	inner  = int8(-128)
)

// region is the part of the pool that a request's memory comes from, by its length.
type region uint8

const (
	small region = iota // up to a piece and a bit
	large
	regions
)

// maxSmallCost is the most, in bytes of lease, that a request takes from the small region. A 1 MiB
// request that is not aligned still does.
const maxSmallCost = pieceSize + 128<<10

func regionOf(cost uint64) region {
	if cost > maxSmallCost {
		return large
	}
	return small
}

// lease names a chain of pieces by the first page of its first piece; none is the empty lease.
type lease = uint32

type leasePool struct {
	base  uint64 // arena offset of page 0
	split uint32 // the first page of the large region
	// per page: order of the free block it begins, leased-order of the piece it begins, or inner
	state []int8
	next  []uint32
	prev  []uint32
	heads [regions][topOrder + 1]uint32 // of the lists of free blocks
	used  [regions]uint64               // bytes on lease
	total [regions]uint64               // bytes on lease and free
	arena *uring.Arena                  // where the pages are
}

// newLeasePool lays out smallLen bytes for the small region and largeLen for the large one from
// base on, all multiples of 1 MiB.
func newLeasePool(base, smallLen, largeLen uint64) *leasePool {
	pages := (smallLen + largeLen) >> pageShift
	p := &leasePool{base: base, total: [regions]uint64{small: smallLen, large: largeLen},
		split: uint32(smallLen >> pageShift), state: make([]int8, pages),
		next: make([]uint32, pages), prev: make([]uint32, pages)}
	for r := range p.heads {
		for i := range p.heads[r] {
			p.heads[r][i] = none
		}
	}
	for i := range p.state {
		p.state[i] = inner
	}
	for page := int(pages) - 1<<topOrder; page >= 0; page -= 1 << topOrder {
		p.push(uint32(page), topOrder)
	}
	return p
}

func (p *leasePool) regionOf(page uint32) region {
	if page >= p.split {
		return large
	}
	return small
}

// offset is where a piece begins in the arena.
func (p *leasePool) offset(piece uint32) uint64 { return p.base + uint64(piece)<<pageShift }

// free is how many bytes of a region are not on lease, in pieces of any size.
func (p *leasePool) free(r region) uint64 { return p.total[r] - p.used[r] }

// size is how many bytes of the arena a leased piece takes.
func (p *leasePool) size(piece uint32) uint64 {
	return pageSize << (leased - p.state[piece])
}

// find returns the piece of a chain that holds an offset of the arena, or none.
func (p *leasePool) find(l lease, offset uint64) uint32 {
	for ; l != none; l = p.next[l] {
		if from := p.offset(l); offset >= from && offset-from < p.size(l) {
			break
		}
	}
	return l
}

// piece returns the piece of a chain that holds byte at of the leased bytes.
func (p *leasePool) piece(l lease, at uint64) uint32 {
	for ; at >= pieceSize; at -= pieceSize {
		l = p.next[l]
	}
	return l
}

// orderOf is the smallest order whose blocks hold n bytes (n <= 1 MiB).
func orderOf(n uint64) int {
	order := 0
	for uint64(pageSize)<<order < n {
		order++
	}
	return order
}

// take leases a chain that holds n bytes, or nothing at all: a request never waits while it holds
// memory.
func (p *leasePool) take(r region, n uint64) (lease, bool) {
	head := uint32(none)
	for left := n; left > 0; {
		// The short piece, if there is one, is taken first and so ends the chain.
		order, bytes := topOrder, uint64(pieceSize)
		if rest := left & (pieceSize - 1); rest > 0 {
			order, bytes = orderOf(rest), rest
		}
		piece, ok := p.pop(r, order)
		if !ok {
			p.give(head)
			return none, false
		}
		p.next[piece] = head
		head = piece
		left -= bytes
	}
	return head, true
}

// takeBoth leases two chains, or nothing at all.
func (p *leasePool) takeBoth(r region, n, m uint64) (first, second lease, ok bool) {
	if first, ok = p.take(r, n); !ok {
		return none, none, false
	}
	if second, ok = p.take(r, m); !ok {
		p.give(first)
		return none, none, false
	}
	return first, second, true
}

// give takes a whole chain back.
func (p *leasePool) give(l lease) {
	for l != none {
		after := p.next[l]
		p.giveBlock(l)
		l = after
	}
}

func (p *leasePool) pop(r region, order int) (uint32, bool) {
	from := order
	for from <= topOrder && p.heads[r][from] == none {
		from++
	}
	if from > topOrder {
		return none, false
	}
	page := p.heads[r][from]
	p.unlink(page, from)
	for from > order {
		from--
		p.push(page+1<<from, from)
	}
	p.state[page] = leased - int8(order)
	p.used[r] += pageSize << order
	return page, true
}

func (p *leasePool) giveBlock(page uint32) {
	must(p.state[page] <= leased && p.state[page] >= leased-topOrder,
		"a lease was given back twice")
	order := int(leased - p.state[page])
	p.used[p.regionOf(page)] -= pageSize << order
	poison(p, page, order)
	p.state[page] = inner
	for order < topOrder {
		buddy := page ^ 1<<order
		if p.state[buddy] != int8(order) {
			break
		}
		p.unlink(buddy, order)
		p.state[buddy] = inner
		page &= buddy
		order++
	}
	p.push(page, order)
}

func (p *leasePool) push(page uint32, order int) {
	head := &p.heads[p.regionOf(page)][order]
	p.state[page] = int8(order)
	p.prev[page] = none
	p.next[page] = *head
	if *head != none {
		p.prev[*head] = page
	}
	*head = page
}

func (p *leasePool) unlink(page uint32, order int) {
	if p.prev[page] == none {
		p.heads[p.regionOf(page)][order] = p.next[page]
	} else {
		p.next[p.prev[page]] = p.next[page]
	}
	if p.next[page] != none {
		p.prev[p.next[page]] = p.prev[page]
	}
}
