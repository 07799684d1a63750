// Feeding: what is freed is offered to the connections that wait for it, in the order that the
// queue gives (queue.go).
//
// Invariant: a connection in a line holds nothing for the request that it waits with. In every turn
// in which something was freed one waiting connection at least tries again, though the turn's
// budget is spent.

package engine

// maxFeed bounds how many lines in a row try in vain in one turn.
const maxFeed = 64

// feedAll offers what was freed of both regions. Tags are one pool for both, so neither is always
// first.
func (l *loop) feedAll() {
	l.queue.fedFirst ^= large
	l.feed(l.queue.fedFirst)
	l.feed(l.queue.fedFirst ^ large)
	l.settleAll()
}

// feed lets connections that wait try again, line by line, one of each, as long as it helps. A
// connection that got something and wants more goes to the end of its line. A connection that got
// nothing stays first, and of those after it only the ones that may overtake are served.
func (l *loop) feed(r region) {
	q := &l.queue
	for tries := 0; q.offers(r); tries++ {
		if tries == maxFeed || tries > 0 && l.spent() {
			return // the other lines in the next turn, at once: see leftOver
		}
		at, i := q.next(r)
		if i == none {
			continue
		}
		helped := l.tryAgain(r, at, i) || r == large && l.feedOvertakers(at)
		if helped {
			tries = 0
		}
		q.tried(r, helped)
	}
}

// tryAgain lets a connection that waits try, and reports whether it got something. One that did not
// keeps its place.
func (l *loop) tryAgain(r region, at, i uint32) bool {
	c, q := &l.conns[i], &l.queue
	start, rest := c.start, c.divided.rest
	q.trying = i
	l.parse(i)
	q.turn, q.trying = none, none
	got := c.start != start || c.divided.rest != rest || c.state != connOpen
	if !got && q.stands(i, at, r) {
		return false
	}
	q.dropStake(r, i)
	l.settle(i)
	return got
}

// feedOvertakers lets those connections of a line for large requests try again that need not wait
// for its first, and reports whether one got something.
func (l *loop) feedOvertakers(at uint32) (any bool) {
	q := &l.queue
	x := &q.lines[at].waiting[large]
	if x.head == none {
		return false
	}
	last := x.tail // those that got something and want more come to stand after it
	for i := q.waiters[x.head].next; i != none && l.leases.free(large) >= maxSmallCost; {
		after, ended := q.waiters[i].next, i == last
		if q.fits(i, at, l.leases.free(large)) {
			any = l.tryAgain(large, at, i) || any
			if l.spent() {
				return true // the others keep their places until the next turn
			}
		}
		if ended {
			break
		}
		i = after
	}
	return any
}

// wakeSqueezed has those connections try again that held as much as they may while so little was
// left. Their own replies have them do so too, but those may take long.
func (l *loop) wakeSqueezed() {
	if l.queue.squeezed == 0 {
		return
	}
	for i := range l.conns {
		if l.queue.waiters[i].squeezed {
			l.touch(uint32(i))
		}
	}
	l.settleAll()
}
