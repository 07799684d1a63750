// Requests: which is next, how it begins, how it ends.
//
// Invariant: a live slot is counted in its connection's and its loop's inflight, and holds its
// blocks in the table, if there is one.

package load

import (
	"ringnbd/proto"
)

// maxTries is how many offsets are tried before a connection waits until blocks are free.
const maxTries = 64

// startNext starts the pattern's next request on a connection that is ready, and reports whether it
// did: all the blocks that it tried may be in use.
func (l *loop) startNext(i uint32, at int64) bool {
	c := &l.conns[i]
	o := l.plan.options
	kind := l.draw(c)
	if kind == kindFlush {
		c.unflushed = 0
		l.launch(i, kind, 0, 0, at, false)
		return true
	}
	size := o.Sizes.draw(&c.random)
	for range maxTries {
		offset := l.plan.base + l.place(c, size/l.plan.unit)*l.plan.unit
		if l.take(kind, offset, size) {
			if kind != kindRead {
				c.unflushed++
			}
			l.launch(i, kind, offset, size, at, false)
			return true
		}
	}
	return false
}

// draw picks the kind of the next request.
func (l *loop) draw(c *conn) requestKind {
	o := l.plan.options
	p := &o.Pattern
	switch {
	case o.FlushEvery > 0 && c.unflushed >= o.FlushEvery, p.Does[kindFlush]:
		return kindFlush
	case o.Mixed():
		if c.random.below(100) < uint64(o.ReadPercent) {
			return kindRead
		}
	case p.Does[kindRead]:
		return kindRead
	}
	switch {
	case p.Does[kindZero] || o.ZeroPercent > 0 && c.random.below(100) < uint64(o.ZeroPercent):
		return kindZero
	case p.Does[kindWrite]:
		return kindWrite
	}
	return kindTrim
}

// place picks where the next n units are, in units from the window's beginning.
func (l *loop) place(c *conn, n uint64) uint64 {
	if l.plan.options.Pattern.Random {
		return c.part.first + c.random.below(c.part.blocks/n)*n
	}
	if c.cursor+n > c.part.blocks {
		c.cursor = 0
	}
	at := c.part.first + c.cursor
	c.cursor += n
	return at
}

// startFill starts the next write of the connection's share of the window, and reports whether
// there was one.
func (l *loop) startFill(i uint32) bool {
	c := &l.conns[i]
	if c.fill.blocks == 0 {
		return false
	}
	unit := l.plan.unit
	n := min(c.fill.blocks, l.plan.largest/unit)
	offset := l.plan.base + c.fill.first*unit
	c.fill = part{c.fill.first + n, c.fill.blocks - n}
	must(l.take(kindWrite, offset, n*unit), "two fills of one block")
	l.launch(i, kindWrite, offset, n*unit, l.issued, true)
	return true
}

// filled reports whether the whole window was written.
func (l *loop) filled() bool {
	for i := range l.conns {
		if l.conns[i].fill.blocks > 0 {
			return false
		}
	}
	return true
}

// take keeps other requests off the blocks, and reports whether it could.
func (l *loop) take(kind requestKind, offset, length uint64) bool {
	t := l.plan.table
	switch {
	case t == nil:
		return true
	case kind == kindRead:
		return t.takeRead(offset, length)
	}
	return t.takeWrite(offset, length)
}

// launch gives a request a slot and submits it.
func (l *loop) launch(i uint32, kind requestKind, offset, length uint64, at int64, filling bool) {
	c := &l.conns[i]
	row := c.free
	s := &l.slots[row]
	c.free = s.next
	c.inflight++
	if l.inflight == 0 {
		l.heardAt = l.issued // silence begins here at the earliest
	}
	l.inflight++
	counts := !filling && (l.quota == unlimited || l.issued >= l.warmAt)
	if counts && l.quota != unlimited {
		l.quota--
	}
	*s = slot{start: at, offset: offset, length: uint32(length), next: none, conn: i,
		generation: (s.generation + 1) & generationMask,
		kind:       kind, live: true, filling: filling, counts: counts}
	if l.tape != nil && !filling {
		l.tape.put(entry{l.issued, offset, uint32(length), kind})
	}
	payload := l.layout.shared
	if kind == kindWrite && l.plan.table != nil {
		payload = l.layout.bufferAt(row)
		l.plan.table.stamp(l.arena.Bytes(payload, int(length)), offset)
	}
	if c.fd < 0 {
		l.launchDisk(row, payload)
		return
	}
	r := proto.Request{Cookie: uint64(s.generation)<<32 | uint64(row), Command: commands[kind],
		Offset: offset, Length: length}
	r.Flags = l.plan.flags[kind]
	l.addRequest(i, &r, payload)
}

// unlimited is the quota of a run without a count.
const unlimited = ^uint64(0)

var commands = [kinds]uint16{kindRead: proto.CmdRead, kindWrite: proto.CmdWrite,
	kindTrim: proto.CmdTrim, kindFlush: proto.CmdFlush, kindZero: proto.CmdWriteZeroes}

// done ends a request: errno is 0 or the target's error.
func (l *loop) done(row, errno uint32) {
	s := &l.slots[row]
	c := &l.conns[s.conn]
	must(s.live, "a request that ended twice")
	s.live = false
	if t := l.plan.table; t != nil {
		switch s.kind {
		case kindRead:
			t.doneRead(s.offset, uint64(s.length))
		case kindWrite:
			t.doneWrite(s.offset, uint64(s.length), outcome(errno, stamped))
		case kindZero:
			t.doneWrite(s.offset, uint64(s.length), outcome(errno, zeroed))
		case kindTrim:
			t.doneWrite(s.offset, uint64(s.length), unknown)
		}
	}
	l.heardAt = l.now
	l.tally.answered++
	l.inflight--
	c.inflight--
	s.next = c.free
	c.free = row
	switch {
	case errno != 0:
		l.tally.failed(s, errno, c.number)
	case s.counts && l.now >= l.warmAt:
		l.tally.count(s, l.now)
	}
}

// outcome returns what blocks hold after a write: unknown if it failed.
func outcome(errno uint32, content content) content {
	if errno != 0 {
		return unknown
	}
	return content
}

// must panics when the generator has broken one of its own invariants.
func must(ok bool, what string) {
	if !ok {
		panic("ringnbd: bench invariant broken: " + what)
	}
}
