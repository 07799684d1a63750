// Requests: which comes next, how it begins, how it ends.
//
// Invariant: a live slot is counted in its connection's and its loop's inflight, and holds its
// blocks in the table, if there is one.

package load

import (
	"ringnbd/proto"
)

// tries is how many offsets are tried before a connection waits for others to get off the blocks.
const tries = 64

// startNext starts the pattern's next request on a connection that is ready. False: every block
// that it tried is taken.
func (l *loop) startNext(i uint32, at int64) bool {
	c := &l.conns[i]
	o := l.plan.options
	kind := l.draw(c)
	if kind == Flush {
		c.unflushed = 0
		l.launch(i, kind, 0, 0, at, false)
		return true
	}
	size := o.Sizes.draw(&c.random)
	for range tries {
		offset := l.plan.base + l.place(c, size/l.plan.unit)*l.plan.unit
		if l.take(kind, offset, size) {
			if kind != Read {
				c.unflushed++
			}
			l.launch(i, kind, offset, size, at, false)
			return true
		}
	}
	return false
}

// draw picks the kind of the next request.
func (l *loop) draw(c *conn) Kind {
	o := l.plan.options
	p := &o.Pattern
	switch {
	case o.FlushEvery > 0 && c.unflushed >= o.FlushEvery, p.Does[Flush]:
		return Flush
	case o.Mixed():
		if c.random.below(100) < uint64(o.ReadPercent) {
			return Read
		}
	case p.Does[Read]:
		return Read
	}
	switch {
	case p.Does[Zero] || o.ZeroPercent > 0 && c.random.below(100) < uint64(o.ZeroPercent):
		return Zero
	case p.Does[Write]:
		return Write
	}
	return Trim
}

// place picks where n units go, in units from the window's beginning.
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

// startFill starts the next piece of the connection's share of the window; false: there is no more.
func (l *loop) startFill(i uint32) bool {
	c := &l.conns[i]
	if c.fill.blocks == 0 {
		return false
	}
	unit := l.plan.unit
	n := min(c.fill.blocks, l.plan.largest/unit)
	offset := l.plan.base + c.fill.first*unit
	c.fill = part{c.fill.first + n, c.fill.blocks - n}
	must(l.take(Write, offset, n*unit), "two fills of one block")
	l.launch(i, Write, offset, n*unit, l.issued, true)
	return true
}

// filled: nothing is left to fill.
func (l *loop) filled() bool {
	for i := range l.conns {
		if l.conns[i].fill.blocks > 0 {
			return false
		}
	}
	return true
}

// take keeps others off the blocks.
func (l *loop) take(kind Kind, offset, length uint64) bool {
	t := l.plan.table
	switch {
	case t == nil:
		return true
	case kind == Read:
		return t.takeRead(offset, length)
	}
	return t.takeWrite(offset, length)
}

// launch gives a request a slot and puts it on its way.
func (l *loop) launch(i uint32, kind Kind, offset, length uint64, at int64, filling bool) {
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
	if kind == Write && l.plan.table != nil {
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

var commands = [kinds]uint16{Read: proto.CmdRead, Write: proto.CmdWrite, Trim: proto.CmdTrim,
	Flush: proto.CmdFlush, Zero: proto.CmdWriteZeroes}

// done ends a request: errno is 0 or what the target said.
func (l *loop) done(row, errno uint32) {
	s := &l.slots[row]
	c := &l.conns[s.conn]
	must(s.live, "a request that ended twice")
	s.live = false
	if t := l.plan.table; t != nil {
		switch s.kind {
		case Read:
			t.doneRead(s.offset, uint64(s.length))
		case Write:
			t.doneWrite(s.offset, uint64(s.length), outcome(errno, stamped))
		case Zero:
			t.doneWrite(s.offset, uint64(s.length), outcome(errno, zeroed))
		case Trim:
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

// outcome is what blocks hold after a write: nobody knows if it failed.
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
