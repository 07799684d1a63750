// The ledger decides how much a connection may hold of what all connections of a loop share: tags,
// and memory of either region. It knows numbers only, no rows: who holds how much, and what is
// left.
//
// A client that holds for long (its storage hangs, or it takes no replies) must not take memory
// from all others. So what each may hold follows from what is left, as in a switch whose ports
// share their buffers (dynamic thresholds, Choudhury and Hahne): a connection half as much as is
// left, all connections of an export together as much. So an export has half at most and the next
// one half of the rest, whichever came first, and no count or guess of the active ones is needed.
// An export that is alone has no share.
//
//   - Newcomers, the connections that have taken no reply yet, hold a quarter at most together, and
//     those of an export as much as is left of that quarter: the newcomers of a device that hangs
//     hold what they have for as long as it hangs, and must leave room to those of other exports.
//   - A reserve is kept for small requests of connections that hold little. The newcomers of an
//     export, and its other connections, may each have an eighth of what is left of it, and one
//     request in any case.
//   - A connection that holds nothing may have one request of any length, as soon as there is room.
//
// Clients are not told apart by address or user: all machines of a host share one, and a client
// that wants many connections can have many.
//
// Invariant: free and what the connections hold add up to total; an export holds what its
// connections hold; newcomers is what the newcomers hold, and the sum of newcomersOf; reserved is
// the sum of spared.

package engine

// holdings is how much of a loop a connection or an export holds.
type holdings struct {
	inflight uint32          // tags
	leased   [regions]uint64 // bytes
}

// standing is what the ledger says to a request.
type standing uint8

const (
	granted standing = iota
	// the connection holds as much as it ever may: its own replies free what it needs
	capped
	squeezed  // the connection holds as much as it may while so little is left
	crowded   // the newcomers hold as much as newcomers may
	outshared // the export, or its newcomers, hold as much as they may
	scarce    // there is not enough left
)

const (
	newcomersPart = 4   // a quarter
	reserveTags   = 128 // and a page for each of them
	reserveTimes  = 8

	// A small request of a connection that holds little: what the reserve is for.
	smallCost  = 4 * pageSize
	littleHeld = 16 * pageSize
	littleTags = 16
)

type ledger struct {
	several     bool // there are several exports, and so shares
	total, free holdings
	newcomers   holdings
	exports     []holdings // by export
	newcomersOf []holdings // by export: what its newcomers hold of that
	reserve     uint64     // bytes of the small region that are kept for small requests
	wanted      uint64     // bytes of the small region that are kept for plans' own rows
	reserved    uint32     // pages of the reserve that requests have
	spared      []uint32   // of them, those of a line's requests, by line (see lineOf)
}

func newLedger(tags uint32, bytes [regions]uint64, exports int) ledger {
	all := holdings{tags, bytes}
	reserve := min(reserveTags*pageSize, bytes[small]/4)
	b := ledger{total: all, free: all, reserve: reserve, several: exports > 1}
	b.grow(exports)
	return b
}

// grow makes room for so many exports. Those that were there keep what they hold.
func (b *ledger) grow(exports int) {
	for len(b.exports) < exports {
		b.exports = append(b.exports, holdings{})
		b.newcomersOf = append(b.newcomersOf, holdings{})
		b.spared = append(b.spared, 0, 0)
	}
}

// admits says whether a connection of an export may have one more request, of cost bytes of a
// region.
func (b *ledger) admits(c *account, export uint32, r region, cost uint64) standing {
	if c.inflight >= c.tagCredit || c.leased[r] > 0 && c.leased[r]+cost > c.credit[r] {
		return capped
	}
	if c.presses(&b.free, r, cost) {
		return squeezed
	}
	if !c.taken {
		left := holdings{inflight: quarter(b.total.inflight, b.newcomers.inflight)}
		left.leased[r] = quarter(b.total.leased[r], b.newcomers.leased[r])
		if c.presses(&left, r, cost) {
			return squeezed
		}
		if left.inflight == 0 || b.newcomers.leased[r] > 0 && cost > left.leased[r] {
			return crowded
		}
		if b.several && b.newcomersOf[export].outgrows(&left, r, cost) {
			return outshared
		}
	}
	if b.several && b.exports[export].outgrows(&b.free, r, cost) {
		return outshared
	}
	kept := uint64(0)
	if r == small {
		kept = b.reserve - min(b.reserve, uint64(b.reserved)*pageSize) + b.wanted
	}
	if b.free.inflight <= reserveTags || cost > 0 && b.free.leased[r] < cost+kept {
		return scarce
	}
	return granted
}

// presses reports whether a connection with one more request holds more than half of what is left.
// Large requests are few: of them it may have what its credit says.
func (c *account) presses(left *holdings, r region, cost uint64) bool {
	return c.inflight > 0 && 2*c.inflight >= left.inflight ||
		r == small && c.leased[r] > 0 && 2*(c.leased[r]+cost) > left.leased[r]
}

// outgrows reports whether an export, or its newcomers, with one more request hold more than is
// then left.
func (h *holdings) outgrows(left *holdings, r region, cost uint64) bool {
	return h.inflight >= left.inflight || h.leased[r] > 0 && h.leased[r]+2*cost > left.leased[r]
}

// quarter is what is left of a quarter of total when have of it are held.
func quarter[T uint32 | uint64](total, have T) T {
	return total/newcomersPart - min(have, total/newcomersPart)
}

// spares is how many pages of the reserve a request gets that was not granted; 0: none. A request
// without memory counts as a page, so that tags are kept as well.
func (b *ledger) spares(c *account, line uint32, r region, cost uint64) (pages uint32) {
	cheap := r == small && cost <= smallCost
	little := c.inflight < littleTags && c.leased[small]+cost <= littleHeld
	if !cheap || !little || b.free.inflight == 0 || b.free.leased[small] < cost {
		return 0
	}
	all := uint32(b.reserve / pageSize)
	left := all - min(b.reserved, all)
	pages = uint32(max(cost, pageSize) / pageSize)
	mine := b.spared[line]
	if pages > left || mine > 0 && reserveTimes*(mine+pages) > left {
		return 0
	}
	return pages
}

// take moves a tag and cost bytes of a region from what is free to a connection and its export.
func (b *ledger) take(c *account, export uint32, r region, cost uint64) {
	c.holdings.add(r, 1, cost)
	b.exports[export].add(r, 1, cost)
	b.free.sub(r, 1, cost)
	if !c.taken {
		b.newcomers.add(r, 1, cost)
		b.newcomersOf[export].add(r, 1, cost)
	}
}

// give moves tags and cost bytes back from a connection and its export.
func (b *ledger) give(c *account, export uint32, r region, tags uint32, cost uint64) {
	c.holdings.sub(r, tags, cost)
	b.exports[export].sub(r, tags, cost)
	b.free.add(r, tags, cost)
	if !c.taken {
		b.newcomers.sub(r, tags, cost)
		b.newcomersOf[export].sub(r, tags, cost)
	}
}

// spare gives a request of a line pages of the reserve; unspare takes them back.
func (b *ledger) spare(line, pages uint32) {
	b.reserved += pages
	b.spared[line] += pages
}

func (b *ledger) unspare(line, pages uint32) {
	must(b.spared[line] >= pages, "more of the reserve was given back than was taken")
	b.reserved -= pages
	b.spared[line] -= pages
}

// cede takes bytes of the small region out of what connections share; recover puts them back.
func (b *ledger) cede(bytes uint64) {
	b.free.leased[small] -= bytes
	b.total.leased[small] -= bytes
}

func (b *ledger) recover(bytes uint64) {
	b.free.leased[small] += bytes
	b.total.leased[small] += bytes
}

// accept makes a newcomer of an export one of its connections that have taken a reply.
func (b *ledger) accept(c *account, export uint32) {
	if c.taken {
		return
	}
	c.taken = true
	for _, h := range [2]*holdings{&b.newcomers, &b.newcomersOf[export]} {
		h.inflight -= c.inflight
		for r := range c.leased {
			h.leased[r] -= c.leased[r]
		}
	}
}

func (h *holdings) add(r region, tags uint32, bytes uint64) {
	h.inflight += tags
	h.leased[r] += bytes
}

func (h *holdings) sub(r region, tags uint32, bytes uint64) {
	must(h.inflight >= tags && h.leased[r] >= bytes, "more was given back than was taken")
	h.inflight -= tags
	h.leased[r] -= bytes
}
