//go:build invariants

// What is checked after a turn of requests: each is in one place, and what it holds is what the
// ledger, the lease pool, the guard and the devices say (check_on.go).
//
// Invariant: as of check_on.go.

package engine

import "math/bits"

// found marks the place of a tag.
func (l *loop) found(t uint32, at place, s step, conn uint32) {
	row := &l.tags[t]
	l.agree(l.check.tags[t] == placeUnknown, t, "a request is in two places")
	l.agree(row.step == s, t, "a request is in a place where its step does not belong")
	l.agree(conn == none || row.conn == conn, t, "a request is in the list of another connection")
	l.check.tags[t] = at
}

// checkTagList checks a list of tags, and counts them.
func (l *loop) checkTagList(q *list, at place, s step, conn uint32) (n int) {
	last := uint32(none)
	for t := q.head; t != none; t = l.tags[t].next {
		l.found(t, at, s, conn)
		n, last = n+1, t
	}
	l.agree(n == 0 || q.tail == last, last, "a list of requests does not end with its tail")
	return n
}

// checkDeviceLists checks the lists of requests that devices have.
func (l *loop) checkDeviceLists() {
	blocked := 0
	for dev := range l.devices {
		q := &l.devices[dev]
		l.checkTagList(&q.slicing, placeSlicing, stepSlice, none)
		flushing := l.checkTagList(&q.flushing, placeFlushing, stepFlush, none)
		waiting := l.checkTagList(&q.waiting, placeFlush, stepFlush, none)
		l.agree(q.fsyncing == (flushing+len(q.asked) > 0), uint32(dev),
			"an fsync is in flight for no request")
		l.agree(waiting+len(q.asking) == 0 || q.fsyncing || q.blocked, uint32(dev),
			"flushes wait, and no fsync is in flight")
		if q.blocked {
			blocked++
		}
		l.agree(q.slicing.head == none || q.slices == maxSlices || q.lacks, uint32(dev),
			"slices wait, and fewer than may be are in flight")
		last := uint32(none)
		for t := q.parked.head; t != none; t = l.tags[t].next {
			l.agree(l.check.tags[t] == placeUnknown, t, "a parked request is in two places")
			l.agree(l.parked[t] != parkedParts{} && l.tags[t].dev == uint32(dev), t,
				"a request is parked without a segment that is, or with another device")
			l.check.tags[t], last = placeParked, t
		}
		l.agree(q.parked.head == none || q.parked.tail == last, last,
			"a list of parked requests does not end with its tail")
		l.agree(q.parked.head == none || q.staff.working > 0 || q.lacks, uint32(dev),
			"segments are parked, and no worker of their device will come back")
	}
	for _, dev := range l.blocked {
		l.agree(l.devices[dev].blocked, dev, "a device is blocked and does not know it")
	}
	l.agree(blocked == len(l.blocked), none, "a blocked device will not be tried again")
}

// checkTags checks every request in flight, and adds up what they hold.
func (l *loop) checkTags() {
	k := &l.check
	for k.used < tagsPerLoop && l.tags[k.used].generation > 0 {
		k.used++ // rows are lent last in, first out, so those never lent are the last ones
	}
	for t := l.freeTag; t != none && t < k.used; t = l.tags[t].next {
		l.agree(k.tags[t] == placeUnknown, t, "a free tag is in use, or free twice")
		k.tags[t] = placeFree
	}
	inBacklog := 0
	for t := range k.used {
		if k.tags[t] == placeFree {
			l.agree(l.tags[t].memory == none && l.tags[t].scratch == none, t,
				"a free tag has a lease")
			continue
		}
		l.checkTag(t)
		if l.tags[t].step == stepStore || l.tags[t].part < l.tags[t].parts {
			inBacklog++
		}
	}
	inBacklog += l.checkRows()
	b := &l.backlog
	l.agree(inBacklog == b.n, none, "a request has more to issue and is not in the backlog")
	for n := range b.n {
		t := b.rows[(b.head+n)%len(b.rows)]
		row := &l.tags[t]
		l.agree((k.tags[t] == placeUnknown || k.tags[t] == placeParked) &&
			(row.step == stepStore || row.part < row.parts), t,
			"a request is in the backlog and has nothing to issue")
	}
}

// checkTag checks one request that is in use.
func (l *loop) checkTag(t uint32) {
	k, row := &l.check, &l.tags[t]
	c := &l.conns[row.conn]
	l.agree(c.state != connFree, t, "a request has a connection that is free")
	l.agree(row.dev == l.exports[c.export].dev, t, "a request is about another device")
	l.checkStep(t)
	claim := &l.shared.guard.claims[l.claimIndex(t)]
	l.agree(row.claimed == claim.held, t, "the guard and a request disagree about a claim")
	l.agree(row.step != stepClaimed || row.claimed, t,
		"a request waits for a claim that it has not")
	l.agree(!row.claimed || claim.device == row.dev && claim.hi == row.hi &&
		claim.lo >= row.lo && claim.lo < claim.hi, t, "a claim is on other bytes than its request")
	cost := uint64(0)
	for _, x := range [2]lease{row.memory, row.scratch} {
		for ; x != none; x = l.leases.next[x] {
			l.agree(l.leases.state[x] <= leased && l.leases.regionOf(x) == row.region, x,
				"a request holds memory that is not on lease")
			cost += l.leases.size(x)
			k.pieces++
		}
	}
	l.agree(cost == uint64(row.cost), t, "a request does not hold what it is charged for")
	k.conns[row.conn].add(row.region, 1, cost)
	k.exports[c.export].add(row.region, 1, cost)
	if !c.taken {
		k.newcomers[c.export].add(row.region, 1, cost)
	}
	k.spared[row.line] += uint32(row.spared)
	k.ahead += uint64(row.ahead)
}

// checkStep checks what a request, or a segment of a plan, has in flight.
func (l *loop) checkStep(t uint32) {
	k, row := &l.check, &l.tags[t]
	d := &k.devices[row.dev]
	parked := bits.OnesCount64(l.parked[t][0]) + bits.OnesCount64(l.parked[t][1])
	l.agree((parked > 0) == (k.tags[t] == placeParked), t,
		"a segment is parked, and its device does not know it")
	switch row.step {
	case stepPayload:
		l.agree(k.tags[t] == placeBody, t, "a request waits for a payload that does not arrive")
	case stepReply:
		l.agree(k.tags[t] == placeReady || k.tags[t] == placeSent, t,
			"a request is answered and has no reply")
	case stepFlush:
		l.agree(k.tags[t] == placeFlushing || k.tags[t] == placeFlush, t, "a flush waits for none")
	case stepSlice:
		if k.tags[t] != placeSlicing {
			d.slices++
		}
	case stepCache:
		d.caches++
	case stepRead, stepEdges, stepWrite, stepZeroes, stepPatch, stepMend:
		flying := int(row.left) - int(row.parts-row.part) - parked
		l.agree(row.left > 0 && flying >= 0, t, "a wave has fewer segments than were issued")
		d.segments += flying
		parked = 0
	}
	l.agree(parked == 0, t, "a segment is parked, and its request has no wave")
}

// checkLedger compares what requests hold with the ledger's books.
func (l *loop) checkLedger() {
	k, b := &l.check, &l.ledger
	all, newcomers := b.free, holdings{}
	for i := range l.conns {
		if c := &l.conns[i]; c.state != connFree {
			l.agree(c.holdings == k.conns[i], uint32(i), "the ledger and a connection disagree")
		}
	}
	for i := range b.exports {
		l.agree(b.exports[i] == k.exports[i], uint32(i), "the ledger and an export disagree")
		all.inflight += b.exports[i].inflight
		l.agree(b.newcomersOf[i] == k.newcomers[i], uint32(i),
			"the ledger and an export's newcomers disagree")
		newcomers.inflight += k.newcomers[i].inflight
		for r := range all.leased {
			all.leased[r] += b.exports[i].leased[r]
			newcomers.leased[r] += k.newcomers[i].leased[r]
		}
	}
	l.agree(all == b.total, none, "what is free and what is held are not the total")
	l.agree(b.newcomers == newcomers, none, "the ledger and the newcomers disagree")
	reserved := uint32(0)
	for i, n := range b.spared {
		l.agree(n == k.spared[i], uint32(i), "the ledger and a line disagree about the reserve")
		reserved += n
	}
	l.agree(reserved == b.reserved, none, "the lines have not what the reserve has given")
	l.agree(l.queue.ahead == k.ahead, none, "the memory queue counts other overtakers")
	for r := range b.free.leased {
		l.agree(l.leases.free(region(r)) == b.free.leased[r], uint32(r),
			"the ledger and the lease pool disagree")
	}
}

// checkDevices compares what requests have in flight with the devices' counts.
func (l *loop) checkDevices() {
	working := uint32(0)
	for dev := range l.devices {
		q, d := &l.devices[dev], &l.check.devices[dev]
		working += q.staff.working
		if q.device == nil || q.device.Kind != Planned {
			l.agree(int(q.flying+q.staff.working) == d.segments, uint32(dev),
				"a device counts other segments in flight")
		}
		l.agree(q.slices == d.slices && q.slices <= maxSlices, uint32(dev),
			"a device counts other slices in flight")
		l.agree(q.caching == (d.caches == 1) && d.caches <= 1, uint32(dev),
			"a device counts another CACHE")
		l.agree(q.staff.working <= l.quota, uint32(dev), "a device has more workers than it may")
	}
	l.agree(working == l.workers.working, none, "the loop counts other workers than its devices")
}

// checkLeases checks that every page is of one free block or one leased piece.
func (l *loop) checkLeases() {
	p := l.leases
	free, pieces := 0, 0
	for page := 0; page < len(p.state); {
		s, order := p.state[page], 0
		switch {
		case s == inner:
			l.agree(false, uint32(page), "a page belongs to no block")
		case s <= leased:
			order = int(leased - s)
			pieces++
		default:
			order = int(s)
			free++
			buddy := page ^ 1<<order
			l.agree(order == topOrder || p.state[buddy] != s, uint32(page),
				"two free buddies were not merged")
		}
		page += 1 << order
	}
	l.agree(pieces == l.check.pieces, none, "memory is on lease to no request")
	for r := range p.heads {
		for order, page := range p.heads[r] {
			for before := uint32(none); page != none; page = p.next[page] {
				l.agree(p.state[page] == int8(order) && p.prev[page] == before &&
					p.regionOf(page) == region(r), page,
					"a block is in the wrong list of free ones")
				before = page
				free--
			}
		}
	}
	l.agree(free == 0, none, "a free block is in no list")
}
