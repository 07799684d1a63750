// The memory queue: which connections wait for memory or a tag, and which of them is next.
//
// Every export has two lines for each region: one of the connections that have taken a reply, one
// of newcomers. Lines take turns, so that a line whose share is used up does not hold up another;
// within a line the order is that of arrival.
//
// The first connection of a line that finds too little room, although its share would allow the
// request, gets a stake: for stakeNanos the memory that is freed is kept for it, and no connection
// of another line goes before it. After that no stake is given for stakeRestNanos: what the
// connection waits for may be held by clients that never let go.
//
// The queue knows connections and lines by index and nothing else of the loop: its decisions follow
// from their arguments. The loop's side of it is in feed.go.
//
// Invariant: a connection waits in one line of one region at most, and is not read meanwhile. A
// line in which a connection waits is in the ring of its region. Freed memory is offered until
// every line had a turn without using it. While no connection waits, nothing here is touched.

package engine

const (
	stakeNanos     = int64(100e6)
	stakeRestNanos = int64(1e9)
	// maxAhead bounds how many bytes requests that overtook a waiting request may hold together; it
	// bounds the extra time for which that request waits.
	maxAhead = 16 * pieceSize
)

// waiter is what the queue knows of a connection.
type waiter struct {
	next, prev uint32 // in its line
	line       uint32
	needs      uint64 // bytes of lease of the request that it waits with
	since      int64  // when it began to wait
	region     region
	lacks      standing
	waits      bool
	squeezed   bool // waits outside of the lines, for its own replies or for the tick
}

// line is the connections of one kind of one export that wait.
type line struct {
	waiting [regions]list
	next    [regions]uint32 // in the ring
	ringed  [regions]bool
}

// ring is the lines in which a connection waits, or did a moment ago, in the order of their turns.
type ring struct {
	list
	n      int // lines
	vainly int // lines in a row to which the freed memory was of no use
}

// stake is the right of one connection to what is freed of a region.
type stake struct {
	conn  uint32
	until int64 // the end of it
	rest  int64 // no other before that
}

type queue struct {
	waiters  []waiter // by connection
	lines    []line   // two for each export, see lineOf
	rings    [regions]ring
	stakes   [regions]stake
	waiting  int    // connections in lines
	squeezed int    // connections that are
	largeLen uint64 // bytes of the large region
	ahead    uint64 // bytes of it that requests hold which overtook a waiting one
	// returned, by region: memory or a tag was freed since it was last offered to every line.
	returned [regions]bool
	fedFirst region // the region that is offered first in this turn of the loop
	turn     uint32 // the connection whose turn it is: it stands before its whole line
	trying   uint32 // the connection that tries again now, be it only as an overtaker
}

// newQueue makes an empty queue.
func newQueue(conns, exports int, largeLen uint64) queue {
	q := queue{waiters: make([]waiter, conns), largeLen: largeLen, turn: none, trying: none}
	q.grow(exports)
	for r := range q.rings {
		q.rings[r].list, q.stakes[r].conn = empty, none
	}
	return q
}

// grow makes room for the lines of so many exports.
func (q *queue) grow(exports int) {
	for len(q.lines) < 2*exports {
		q.lines = append(q.lines, line{waiting: [regions]list{empty, empty}})
	}
}

// lineOf is the line of an export's newcomers, or of its other connections.
func lineOf(export uint32, newcomer bool) uint32 {
	if newcomer {
		return 2*export + 1
	}
	return 2 * export
}

// waits reports whether a connection waits in a line.
func (q *queue) waits(i uint32) bool { return q.waiting > 0 && q.waiters[i].waits }

// mayGo reports whether a request that the ledger grants may go now: others may have come before
// it. ahead is how many bytes it overtakes them with. A connection whose turn it is goes before its
// line.
func (q *queue) mayGo(i, at uint32, r region, cost uint64, now int64) (ahead uint64, ok bool) {
	if q.waiting == 0 {
		return 0, true
	}
	first := q.stakeholder(r, now)
	if first == none || first == i {
		first = q.lines[at].waiting[r].head
		if first == none || first == i || q.turn == i {
			return 0, true
		}
	}
	if !q.mayOvertake(first, r, cost) {
		return 0, false
	}
	return inPieces(cost), true
}

// mayOvertake reports whether a request may go before the connection first, which waits for memory
// of the same region. It may if first's need fits into the region beside all overtakers: then first
// never waits for an overtaker, only for earlier requests. So two clients that take their time for
// 64 MiB each do not keep all others from 2 MiB. The small region is freed quickly, and order is
// worth more there.
func (q *queue) mayOvertake(first uint32, r region, cost uint64) bool {
	if r != large {
		return false
	}
	needs := inPieces(q.waiters[first].needs)
	return q.ahead+inPieces(cost) <= min(q.largeLen-min(needs, q.largeLen), maxAhead)
}

// inPieces is what a request may take of a region of whole pieces, in bytes: its leases, and what
// is left of the pieces that it has begun.
func inPieces(cost uint64) uint64 { return (cost+pieceSize-1)&^(pieceSize-1) + pieceSize }

// wait puts a connection at the end of a line, where it is not there, and reports whether it did.
// One that has taken its first reply while it waited changes over to the line of the others, and
// has waited as long.
func (q *queue) wait(i, at uint32, r region, cost uint64, lacks standing, now int64) (fresh bool) {
	w := &q.waiters[i]
	since := now
	fresh = !w.waits || w.line != at || w.region != r
	if fresh {
		if w.waits {
			since = w.since
			q.withdraw(i)
		}
		w.line, w.region, w.since = at, r, since
		q.enlist(i)
	}
	w.needs, w.lacks = cost, lacks
	if lacks == scarce {
		q.stakeOut(i, now)
	}
	return fresh
}

// withdraw takes a connection out of its line, if it waits. Those after it need not wait for it any
// more.
func (q *queue) withdraw(i uint32) {
	if !q.waits(i) {
		return
	}
	q.freed(q.waiters[i].region)
	for r := range q.stakes {
		if q.turn != i {
			q.dropStake(region(r), i)
		}
	}
	q.delist(i)
}

// stakeholder is the connection for which freed memory of a region is kept, or none.
func (q *queue) stakeholder(r region, now int64) uint32 {
	k := &q.stakes[r]
	if k.conn != none && now > k.until {
		k.conn, k.rest = none, now+stakeRestNanos
	}
	return k.conn
}

// stakeOut gives the stake of its region to a connection that finds no room, if it is the first of
// its line and no other has it.
func (q *queue) stakeOut(i uint32, now int64) {
	w := &q.waiters[i]
	first := q.lines[w.line].waiting[w.region].head == i || q.turn == i
	if k := &q.stakes[w.region]; first && q.stakeholder(w.region, now) == none && now >= k.rest {
		k.conn, k.until = i, now+stakeNanos
	}
}

// dropStake takes a stake from a connection, if it has it.
func (q *queue) dropStake(r region, i uint32) {
	if q.stakes[r].conn == i {
		q.stakes[r].conn = none
	}
}

// freed notes that memory of a region, or a tag, is there to be offered, if a connection waits.
func (q *queue) freed(r region) {
	if q.waiting > 0 {
		q.returned[r], q.rings[r].vainly = true, 0
	}
}

// tagFreed is freed for both regions: a tag is good for either.
func (q *queue) tagFreed() {
	q.freed(small)
	q.freed(large)
}

// offering reports whether what was freed is still to be offered to a connection that waits: what
// the last settling of a turn frees is left to the next turn, which must not sleep then.
func (q *queue) offering() bool { return q.waiting > 0 && q.returned != [regions]bool{} }

// offers reports whether something is to be offered to the lines of a region; when the last of them
// had no use for it, it is not any more.
func (q *queue) offers(r region) bool {
	if x := &q.rings[r]; q.returned[r] && x.vainly >= x.n {
		q.returned[r], x.vainly = false, 0
	}
	return q.returned[r]
}

// next gives the next line of a region its turn, and is that line and its first connection, whose
// turn it is then; none: no connection is left there.
func (q *queue) next(r region) (at, first uint32) {
	at = q.fromRing(r)
	n := &q.lines[at]
	if first = n.waiting[r].head; first == none {
		n.ringed[r] = false
		return at, none
	}
	q.toRing(r, at)
	q.turn = first
	return at, first
}

// tried ends the turn of a line.
func (q *queue) tried(r region, helped bool) {
	if helped {
		q.rings[r].vainly = 0
	} else {
		q.rings[r].vainly++
	}
}

// stands reports whether a connection that has tried again still waits where it did.
func (q *queue) stands(i, at uint32, r region) bool {
	w := &q.waiters[i]
	return q.waits(i) && w.line == at && w.region == r
}

// fits reports whether a connection of the large region, in a line's order after its first, could
// overtake that first one into free bytes.
func (q *queue) fits(i, at uint32, free uint64) bool {
	first, needs := q.lines[at].waiting[large].head, q.waiters[i].needs
	return first != none && first != i && needs <= free && q.mayOvertake(first, large, needs)
}

// squeeze has a connection that holds as much as it may while so little is left wait outside of the
// lines; unsqueeze ends that.
func (q *queue) squeeze(i uint32) {
	q.stepOut(i)
	q.waiters[i].squeezed = true
	q.squeezed++
}

func (q *queue) unsqueeze(i uint32) {
	if q.squeezed > 0 && q.waiters[i].squeezed {
		q.waiters[i].squeezed = false
		q.squeezed--
	}
}

// stepOut takes a connection that tries again out of its line: it waits for its own replies now.
func (q *queue) stepOut(i uint32) {
	if q.trying == i {
		q.withdraw(i)
	}
}

// starving reports whether a connection has waited since before a time for what any other may hold.
func (q *queue) starving(before int64) bool {
	for r := range q.rings {
		for at := q.rings[r].head; at != none; at = q.lines[at].next[r] {
			if q.starves(at, false, before) {
				return true
			}
		}
	}
	return false
}

// starves reports whether the first connection of a line has waited since before a time: for the
// share of its export (outshare), or for something else.
func (q *queue) starves(at uint32, outshare bool, before int64) bool {
	for _, x := range q.lines[at].waiting {
		if i := x.head; i != none && q.waiters[i].since < before &&
			(q.waiters[i].lacks == outshared) == outshare {
			return true
		}
	}
	return false
}

// enlist appends a connection to its line, and the line to its ring.
func (q *queue) enlist(i uint32) {
	w := &q.waiters[i]
	n, r := &q.lines[w.line], w.region
	x := &n.waiting[r]
	w.next, w.prev, w.waits = none, x.tail, true
	if x.tail == none {
		x.head = i
	} else {
		q.waiters[x.tail].next = i
	}
	x.tail = i
	q.waiting++
	if !n.ringed[r] {
		n.ringed[r] = true
		q.toRing(r, w.line)
	}
}

// delist takes a connection out of its line; the line stays in the ring until its turn.
func (q *queue) delist(i uint32) {
	w := &q.waiters[i]
	x := &q.lines[w.line].waiting[w.region]
	if w.prev == none {
		x.head = w.next
	} else {
		q.waiters[w.prev].next = w.next
	}
	if w.next == none {
		x.tail = w.prev
	} else {
		q.waiters[w.next].prev = w.prev
	}
	w.next, w.prev, w.waits = none, none, false
	q.waiting--
}

// toRing gives a line the last turn of a ring; fromRing takes out the line whose turn is next.
func (q *queue) toRing(r region, at uint32) {
	x := &q.rings[r]
	q.lines[at].next[r] = none
	if x.tail == none {
		x.head = at
	} else {
		q.lines[x.tail].next[r] = at
	}
	x.tail = at
	x.n++
}

func (q *queue) fromRing(r region) uint32 {
	x := &q.rings[r]
	at := x.head
	if x.head = q.lines[at].next[r]; x.head == none {
		x.tail = none
	}
	x.n--
	return at
}
