// Admission: what a request must hold before it is taken in, and whether its connection may hold
// that much more.
//
// Invariant: a request takes its tag and all the memory that it will ever need at once, or nothing:
// none waits while it holds something.

package engine

import "ringnbd/proto"

// account is what a connection holds and how much it may hold.
type account struct {
	holdings
	tagCredit uint32          // how many tags it may have
	credit    [regions]uint64 // how many bytes it may have; one request always fits
	taken     bool            // it has taken a reply
}

// admit takes a request in, or leaves its header where it is: false means that the connection
// waits, for its own replies or for its turn, or has ended.
func (l *loop) admit(i uint32, r *proto.Request) bool {
	c := &l.conns[i]
	if r.Command == proto.CmdDisc {
		l.counters.Requests[proto.CmdDisc]++
		l.leave(i, CloseDisconnect)
		return false
	}
	export := &l.exports[c.export]
	errno := export.refusal(r, c.session)
	if errno != proto.Success && r.Undrainable(&export.Facts) {
		l.fail(i, CloseOversize)
		return false
	}
	if errno == proto.Success && l.outsize(r, export) {
		return l.divide(i, r)
	}
	return l.takeIn(i, r, errno, portionWhole)
}

// takeIn gives a request, or a part of one, its tag and memory, and begins it or waits for its
// payload. False means that the connection waits.
func (l *loop) takeIn(i uint32, r *proto.Request, errno proto.Errno, p portion) bool {
	c := &l.conns[i]
	export := &l.exports[c.export]
	var memory, scratch uint64
	at := r.Offset + export.base
	lo, hi := at, at+r.Length
	if errno == proto.Success {
		if r.Command == proto.CmdBlockStatus {
			memory = statusMemory(r, c.session)
			hi = lo // no data of the device is held
		} else {
			lo, hi = export.device.down(lo), export.device.up(hi)
			memory, scratch = needs(r, export.device, at, lo, hi)
		}
	}
	t, ok := l.takeTag(i, memory, scratch)
	if !ok {
		return false
	}
	if p == portionWhole {
		l.counters.Requests[min(r.Command, commandSlots-1)]++
		c.count(r)
	}
	row := &l.tags[t]
	row.Request, row.dev, row.errno, row.portion = *r, export.dev, errno, p
	row.at, row.lo, row.hi = at, lo, hi
	payload := r.Payload()
	if payload == 0 {
		l.begin(t)
		return true
	}
	c.expectPayload(t, uint32(payload), row.memory, uint32(at-lo), memory == 0)
	return true
}

// needs is how many bytes a request must hold: its rounded payload, and two blocks when its ends
// must be read first.
func needs(r *proto.Request, d *Device, at, lo, hi uint64) (memory, scratch uint64) {
	if r.Length == 0 || !d.keeps() {
		return 0, 0
	}
	onDisk := d.onDisk()
	unaligned := onDisk && (lo != at || hi != at+r.Length)
	switch r.Command {
	case proto.CmdRead:
		if onDisk {
			memory = hi - lo
		}
	case proto.CmdWrite:
		memory = hi - lo
		if unaligned {
			scratch = 2 * uint64(d.Block)
		}
	case proto.CmdWriteZeroes:
		if unaligned {
			scratch = 2 * uint64(d.Block)
		}
	}
	return memory, scratch
}

// leaseCost is what n bytes on lease take from the pool.
func leaseCost(n uint64) uint64 {
	whole, rest := n>>pieceShift<<pieceShift, n&(pieceSize-1)
	if rest == 0 {
		return whole
	}
	return whole + pageSize<<orderOf(rest)
}

// takeTag reserves all that a request will need, or nothing: then its connection waits.
func (l *loop) takeTag(i uint32, memory, scratch uint64) (uint32, bool) {
	c := &l.conns[i]
	cost := leaseCost(memory) + leaseCost(scratch)
	r, at := regionOf(cost), lineOf(c.export, !c.taken)
	l.queue.unsqueeze(i)
	s := l.ledger.admits(&c.account, c.export, r, cost)
	if s == capped {
		l.queue.stepOut(i) // its own replies will free what it needs
		return none, false
	}
	pages, ahead := uint32(0), uint64(0)
	goes := s == granted
	if goes {
		ahead, goes = l.queue.mayGo(i, at, r, cost, l.now)
	}
	if !goes {
		if pages = l.ledger.spares(&c.account, at, r, cost); pages == 0 {
			l.hold(i, at, r, cost, s)
			return none, false
		}
	}
	first, second, ok := l.leases.takeBoth(r, memory, scratch)
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
	l.queue.ahead += ahead
	l.queue.withdraw(i) // its own replies may have freed what it waited for: it is read again
	l.ledger.take(&c.account, c.export, r, cost)
	if pages > 0 {
		l.ledger.spare(at, pages)
	}
	return t, true
}

// hold has a connection wait: in its line, or outside of it for what it holds itself.
func (l *loop) hold(i, at uint32, r region, cost uint64, s standing) {
	if s == squeezed {
		l.queue.squeeze(i)
		return
	}
	if s == granted {
		s = scarce // the pool is in pieces, or others come first
	}
	if l.queue.wait(i, at, r, cost, s, l.now) {
		l.counters.Starved++
	}
}

// earn raises what a connection may hold by what it has just taken in replies, up to its share:
// like a window that opens as it is used. A connection that takes nothing never holds more than it
// was given to begin with, so that it needs a crowd to be a burden.
func (l *loop) earn(c *conn, r region, cost uint64) {
	if !c.taken {
		l.ledger.accept(&c.account, c.export)
		l.queue.tagFreed() // the newcomers' part
	}
	c.credit[r] = min(c.credit[r]+cost, l.layout.share[r])
}
