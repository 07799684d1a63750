// Who waits for memory or a tag, and who is next.
//
// Every export has two lines for each region: of connections that have taken a reply, and of
// newcomers. Lines take turns, so that one whose share is used up holds up no other; within a line
// the order is that of arrival.
//
// For a request that finds no room although its line's share would allow it, what comes home is
// kept for a while (stakeTime): nobody of another line goes before it. Not for longer, and then not
// again for stakeRest: what it waits for may be in the hands of those who never let go.
//
// Invariant: a connection in a line holds nothing for the request that it waits with, and is not
// read. A line with somebody in it is in the ring of its region. What has come home is offered
// until all lines have had a turn without using it.

package engine

const (
	stakeNanos     = int64(100e6) // nanoseconds
	stakeRestNanos = int64(1e9)
	// maxFeed bounds how many lines in a row are asked in vain in one turn. One is asked although
	// the turn is spent.
	maxFeed = 64
)

// line is the connections of one kind of one export that wait.
type line struct {
	waiting [regions]list
	next    [regions]uint32 // in the ring
	ringed  [regions]bool
	spared  uint32 // pages of the reserve that its requests have
}

// ring is the lines in which somebody waits, or did a moment ago, in the order of their turns.
type ring struct {
	list
	n     int // lines
	asked int // of them, one after the other, to whom what has come home was of no use
}

// stake is what one that waits has in what comes home.
type stake struct {
	conn  uint32
	until int64 // the end of it
	rest  int64 // no other before that
}

// lineOf is the line that a connection is of.
func lineOf(c *conn) uint32 {
	if c.taken {
		return 2 * c.export
	}
	return 2*c.export + 1
}

// takeTag reserves all that a request will need, or nothing: nobody waits while holding.
func (l *loop) takeTag(i uint32, memory, scratch uint64) (uint32, bool) {
	c := &l.conns[i]
	cost := leaseCost(memory) + leaseCost(scratch)
	r, at := regionOf(cost), lineOf(c)
	l.unsqueeze(c)
	s := l.ledger.admits(&c.account, &l.holds[c.export], r, cost)
	if s == capped {
		return none, false // its own replies will free what it needs
	}
	pages, ahead := uint32(0), uint64(0)
	goes := s == granted
	if goes {
		ahead, goes = l.passes(i, at, r, cost)
	}
	if !goes {
		if pages = l.ledger.spares(&c.account, l.lines[at].spared, r, cost); pages == 0 {
			l.hold(i, at, r, cost, s)
			return none, false
		}
	}
	first, ok := l.leases.take(r, memory)
	second := uint32(none)
	if ok {
		if second, ok = l.leases.take(r, scratch); !ok {
			l.leases.give(first)
		}
	}
	if !ok {
		l.hold(i, at, r, cost, scarce)
		return none, false
	}
	t := l.freeTag
	row := &l.tags[t]
	l.freeTag = row.next
	*row = tag{conn: i, memory: first, scratch: second, cost: uint32(cost), region: r,
		generation: row.generation + 1, next: none, ahead: uint32(ahead), line: at,
		spared: uint8(pages)}
	l.ahead += ahead
	l.lines[at].spared += pages
	l.withdraw(i) // its own replies may have brought what it waited for; who waits is not read
	l.ledger.take(&c.account, &l.holds[c.export], r, cost, pages)
	return t, true
}

// passes says whether a request that the ledger grants may go now: others may have come before it.
// ahead is how many bytes it goes before them with.
func (l *loop) passes(i, at uint32, r region, cost uint64) (ahead uint64, ok bool) {
	first := l.staked(r)
	if first == none || first == i {
		first = l.lines[at].waiting[r].head
		if first == none || first == i || l.feeding == i {
			return 0, true
		}
	}
	if !l.beside(r, first, cost) {
		return 0, false
	}
	return inPieces(cost), true
}

// hold has a connection wait, in its line, or outside of it for what it holds itself.
func (l *loop) hold(i, at uint32, r region, cost uint64, s standing) {
	if s == squeezed {
		l.conns[i].squeezed = true
		l.squeezed++
		return
	}
	if s == granted {
		s = scarce // the pool is in pieces, or others come first
	}
	l.starve(i, at, r, cost, s)
	if s == scarce {
		l.stakeOut(i, at, r)
	}
}

// unsqueeze: the connection tries again.
func (l *loop) unsqueeze(c *conn) {
	if c.squeezed {
		c.squeezed = false
		l.squeezed--
	}
}

// looseSqueezed has those try again whose own share was small because little was left. Their own
// replies have them do so, too; but what they wait for may take long.
func (l *loop) looseSqueezed() {
	if l.squeezed == 0 {
		return
	}
	for i := range l.conns {
		if l.conns[i].squeezed {
			l.touch(uint32(i))
		}
	}
	l.settleAll()
}

// staked is the connection that what comes home of a region is kept for, or none.
func (l *loop) staked(r region) uint32 {
	k := &l.stakes[r]
	if k.conn != none && l.now > k.until {
		k.conn, k.rest = none, l.now+stakeRestNanos
	}
	return k.conn
}

// stakeOut makes a connection that finds no room the one that is next, if it is the first of its
// line and there is none.
func (l *loop) stakeOut(i, at uint32, r region) {
	first := l.lines[at].waiting[r].head == i || l.feeding == i
	if k := &l.stakes[r]; first && l.staked(r) == none && l.now >= k.rest {
		k.conn, k.until = i, l.now+stakeNanos
	}
}

// earn raises what a connection may hold by what it has just taken in replies, up to its share:
// like a window that opens as it is used. One that takes nothing never holds more than it was given
// to begin with, so that it needs a crowd to be a burden.
func (l *loop) earn(c *conn, r region, cost uint64) {
	if !c.taken {
		l.ledger.accept(&c.account)
		l.comesHome(small) // the newcomers' part
		l.comesHome(large)
	}
	c.credit[r] = min(c.credit[r]+cost, l.layout.share[r])
}

// starve queues a connection for memory of a region, or for a tag. One that has taken its first
// reply since it came to wait goes over to the others' line.
func (l *loop) starve(i, at uint32, r region, cost uint64, lacks standing) {
	c, n := &l.conns[i], &l.lines[at]
	hungry := l.now
	if c.links[linkStarved].in {
		if c.lacks = lacks; c.line == at {
			return
		}
		hungry = c.hungry
		l.withdraw(i)
	}
	c.hungry, c.wants, c.needs, c.line, c.lacks = hungry, r, cost, at, lacks
	l.counters.Starved++
	l.enlist(&n.waiting[r], linkStarved, i)
	if !n.ringed[r] {
		n.ringed[r] = true
		l.toRing(r, at)
	}
}

// withdraw takes a connection out of the line that it waits in, if it does.
func (l *loop) withdraw(i uint32) {
	c := &l.conns[i]
	if !c.links[linkStarved].in {
		return
	}
	l.comesHome(c.wants) // those behind it need not wait for it any more
	for r := range l.stakes {
		if l.stakes[r].conn == i && l.feeding != i {
			l.stakes[r].conn = none
		}
	}
	l.delist(&l.lines[c.line].waiting[c.wants], linkStarved, i)
}

// toRing and fromRing give a line the last turn, and take the line whose turn it is.
func (l *loop) toRing(r region, at uint32) {
	q := &l.rings[r]
	l.lines[at].next[r] = none
	if q.tail == none {
		q.head = at
	} else {
		l.lines[q.tail].next[r] = at
	}
	q.tail = at
	q.n++
}

func (l *loop) fromRing(r region) uint32 {
	q := &l.rings[r]
	at := q.head
	if q.head = l.lines[at].next[r]; q.head == none {
		q.tail = none
	}
	q.n--
	return at
}

// feed lets those that wait try again, line by line, one of each, as long as it helps. One that got
// something and wants more goes to the end of its line; one that got nothing stays first, and
// nobody behind it is served before it but who may go beside it.
func (l *loop) feed(r region) {
	q := &l.rings[r]
	for asked := 0; l.cameHome[r]; asked++ {
		if q.asked >= q.n {
			l.cameHome[r], q.asked = false, 0
			return
		}
		if asked == maxFeed || asked > 0 && l.spent() {
			l.unfed = true // the others in the next turn, at once
			return
		}
		at := l.fromRing(r)
		i := l.lines[at].waiting[r].head
		if i == none {
			l.lines[at].ringed[r] = false
			continue
		}
		l.toRing(r, at)
		l.feeding = i
		helped := l.feedOne(r, at, i)
		l.feeding = none
		if helped || l.feedBeside(r, at) {
			asked, q.asked = 0, 0
		} else {
			q.asked++
		}
	}
}

// comesHome: something of a region has, to be offered to those who wait.
func (l *loop) comesHome(r region) {
	l.cameHome[r], l.rings[r].asked = true, 0
}

// feedOne lets one of those that wait try, and says whether it got something. One that did not
// stands again where it stood, and has waited as long.
func (l *loop) feedOne(r region, at, i uint32) bool {
	c, q := &l.conns[i], &l.lines[at].waiting[r]
	start, rest, hungry, behind := c.start, c.divided.rest, c.hungry, c.links[linkStarved].next
	l.delist(q, linkStarved, i)
	l.fed = i
	l.parse(i)
	l.feeding, l.fed = none, none
	got := c.start != start || c.divided.rest != rest || c.state != connOpen
	if !got && c.links[linkStarved].in && c.wants == r && c.line == at {
		l.delist(q, linkStarved, i)
		l.enlistBefore(q, linkStarved, i, behind)
		c.hungry = hungry
		return false
	}
	if l.stakes[r].conn == i {
		l.stakes[r].conn = none
	}
	l.settle(i)
	return got
}

// maxAhead bounds what all that went before one that waits may hold, in bytes: at most so long as
// this much takes to come home does it wait for their sake.
const maxAhead = 16 * pieceSize

// beside says whether a request may go before one that waits for memory of its region. It may if
// that one would have enough when all others have come home but those that went before it: then it
// never depends on them, though they may take what it would have got a little earlier. So two
// clients that take their time for 64 MiB each do not keep all others from 2 MiB.
func (l *loop) beside(r region, first uint32, cost uint64) bool {
	if r != large {
		return false // they come home quickly, and order is worth more
	}
	needs := inPieces(l.conns[first].needs)
	return l.ahead+inPieces(cost) <= min(l.layout.largeLen-min(needs, l.layout.largeLen), maxAhead)
}

// feedBeside lets those of a line go that need not wait for its first, and says whether any did.
func (l *loop) feedBeside(r region, at uint32) (any bool) {
	if r != large {
		return false
	}
	q := &l.lines[at].waiting[large]
	last := q.tail // those that want more come to stand behind it
	if q.head == none {
		return false
	}
	i := l.conns[q.head].links[linkStarved].next
	for i != none && l.leases.free(large) >= maxSmallCost {
		c := &l.conns[i]
		after, ended := c.links[linkStarved].next, i == last
		if c.needs <= l.leases.free(large) && q.head != none && l.beside(large, q.head, c.needs) {
			any = l.feedOne(large, at, i) || any
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

// inPieces is what a request may take of a region of whole pieces, in bytes: its leases, and what
// is left of the pieces that it has begun.
func inPieces(cost uint64) uint64 { return (cost+pieceSize-1)&^(pieceSize-1) + pieceSize }
