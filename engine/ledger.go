// The ledger says who may take how much of what the connections of a loop share: tags, and memory
// of either region. It knows numbers only, no rows: who holds something, and what is left.
//
// Somebody who holds for long (whose storage hangs, who takes no replies) must not take it from
// everybody. So what each may hold follows from what is left, as in a switch whose ports share
// their buffers (dynamic thresholds, Choudhury and Hahne): a connection half as much, all
// connections of an export together as much. So one export has half at most, and beside it the next
// one half of the rest, whoever came first, and nobody has to be counted or guessed to be active.
// Where there is one export only it has no share.
//
//   - Connections that have taken no reply yet hold a quarter at most, all together.
//   - A reserve is kept for small requests of those who hold little. Of each export its newcomers,
//     and its others, have an eighth of what is left of it, and one request in any case.
//   - Who holds nothing may have one request of any length, as soon as there is room.
//
// By address or user nobody is told apart: all machines of a host share one, and who wants many can
// have many.
//
// Invariant: free and what the connections hold are together total; an export holds what its
// connections do; newcomers is what those hold that have taken nothing.

package engine

// holdings is what somebody has of a loop.
type holdings struct {
	inflight uint32          // tags
	leased   [regions]uint64 // bytes
}

// account is a connection's.
type account struct {
	holdings
	tagCredit uint32          // how many tags it may have
	credit    [regions]uint64 // how many bytes it may have; one request always fits
	taken     bool            // it has taken a reply
}

// standing is what the ledger says to a request.
type standing uint8

const (
	granted standing = iota
	// the connection holds as much as it ever may: its own replies free what it needs
	capped
	squeezed  // or as much as it may while so little is left
	crowded   // the others who have taken no reply hold as much as those may
	outshared // its export does
	scarce    // there is not enough for anybody
)

const (
	newcomersPart = 4   // a quarter
	exportTimes   = 4   // times what is left
	reserveTags   = 128 // and a page for each of them
	reserveTimes  = 8

	// A small request of somebody who holds little: what the reserve is for.
	smallCost  = 4 * pageSize
	littleHeld = 16 * pageSize
	littleTags = 16
)

type ledger struct {
	total, free holdings
	newcomers   holdings
	reserve     uint64 // bytes of the short region that are kept for small requests
	reserved    uint32 // pages of it that such have
	shared      bool   // there is more than one export
}

func newLedger(tags uint32, bytes [regions]uint64, exports int) ledger {
	all := holdings{tags, bytes}
	reserve := min(reserveTags*pageSize, bytes[small]/4)
	return ledger{total: all, free: all, reserve: reserve, shared: exports > 1}
}

// admits says whether a connection of an export may have one more request, of cost bytes of a
// region.
func (b *ledger) admits(c *account, export *holdings, r region, cost uint64) standing {
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
	}
	if b.shared && export.outgrows(&b.free, r, cost) {
		return outshared
	}
	kept := uint64(0)
	if r == small {
		kept = b.reserve - min(b.reserve, uint64(b.reserved)*pageSize)
	}
	if b.free.inflight <= reserveTags || cost > 0 && b.free.leased[r] < cost+kept {
		return scarce
	}
	return granted
}

// presses says whether a connection that has one more request holds more than half of what is left.
// Long requests are few: of them it may have what its credit says.
func (c *account) presses(left *holdings, r region, cost uint64) bool {
	return c.inflight > 0 && 2*c.inflight >= left.inflight ||
		r == small && c.leased[r] > 0 && 2*(c.leased[r]+cost) > left.leased[r]
}

// outgrows says whether an export that has one more request holds more than is then left.
func (h *holdings) outgrows(left *holdings, r region, cost uint64) bool {
	return h.inflight >= left.inflight || h.leased[r] > 0 && h.leased[r]+2*cost > left.leased[r]
}

// quarter is what is left to the newcomers of a total when they have so much.
func quarter[T uint32 | uint64](total, have T) T {
	return total/newcomersPart - min(have, total/newcomersPart)
}

// spares says how many pages of the reserve a request gets that was not granted; 0: none. mine is
// how many the connections of its kind have already. A request without memory counts as a page, so
// that tags are kept as well.
func (b *ledger) spares(c *account, mine uint32, r region, cost uint64) (pages uint32) {
	cheap := r == small && cost <= smallCost
	little := c.inflight < littleTags && c.leased[small]+cost <= littleHeld
	if !cheap || !little || b.free.inflight == 0 || b.free.leased[small] < cost {
		return 0
	}
	all := uint32(b.reserve / pageSize)
	left := all - min(b.reserved, all)
	pages = uint32(max(cost, pageSize) / pageSize)
	if pages > left || mine > 0 && reserveTimes*(mine+pages) > left {
		return 0
	}
	return pages
}

// take and give move a request's holdings. pages are of the reserve.
func (b *ledger) take(c *account, export *holdings, r region, cost uint64, pages uint32) {
	c.holdings.add(r, 1, cost)
	export.add(r, 1, cost)
	b.free.sub(r, 1, cost)
	b.reserved += pages
	if !c.taken {
		b.newcomers.add(r, 1, cost)
	}
}

func (b *ledger) give(c *account, export *holdings, r region, tags uint32, cost uint64,
	pages uint32) {
	c.holdings.sub(r, tags, cost)
	export.sub(r, tags, cost)
	b.free.add(r, tags, cost)
	b.reserved -= pages
	if !c.taken {
		b.newcomers.sub(r, tags, cost)
	}
}

// accept makes a connection one of those that take replies.
func (b *ledger) accept(c *account) {
	if c.taken {
		return
	}
	c.taken = true
	b.newcomers.inflight -= c.inflight
	for r := range c.leased {
		b.newcomers.leased[r] -= c.leased[r]
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
