// Changeover: a loop takes on a new table, ends the connections of exports that leave, and says
// when nothing of them is left. The control plane's side is in change.go.
//
// Invariant: a letter is answered when all is done that it asks for: devices that have gone are
// home in this loop, and the kernel has let go of their files (it posts a completion for each);
// what was asked of an export before it could do less has ended. As long as something is not,
// something of the loop's wakes it: a completion, or the tick.
//
// A connection of an export that leaves is served as at the end of the server (stall.go): what was
// taken in is answered, what comes in is refused (ESHUTDOWN), a silent connection is closed, and
// after a while each; what a client does not take then, or storage does not answer, is cut.

package engine

import (
	"slices"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

const (
	// leaveGraceNanos is how long requests to an export that leaves are refused before its
	// connections are closed.
	leaveGraceNanos = int64(1e9)
	// cutAfterNanos is how long a connection may take to end before it is cut.
	cutAfterNanos = int64(5e9)
)

// changeover is what a loop has not ended yet of changes.
type changeover struct {
	leavers []leaver  // exports that leave and have connections
	parting []parting // devices that have gone and are not home
	// letters that wait for the kernel to let go of a file, by its place
	releasing map[uint32]*mail
	planting  []parting  // planned devices whose own rows have no memory yet
	settling  []settling // letters that wait for requests of before
	retiring  int        // connections that Retire ends
	limited   uint32     // workers that the ring may have
}

// leaver is an export that leaves.
type leaver struct {
	place     uint32
	departure *departure
}

// parting is the place of a device, and the letter that waits for it.
type parting struct {
	place  uint32
	letter *mail
}

// settling is requests that a letter waits for.
type settling struct {
	letter *mail
	tags   []rowMark
}

// rowMark names a row for as long as it has the same generation.
type rowMark struct {
	row        uint32
	generation uint16
}

// changing reports whether something waits that the end of a turn may bring.
func (c *changeover) changing() bool { return len(c.parting)+len(c.planting)+len(c.settling) > 0 }

// changeOver takes on the table of a letter.
func (l *loop) changeOver(m *mail) {
	u := m.update
	m.waits = 1 // until all of it has been begun
	l.grow(u.table)
	for _, place := range u.devices {
		l.changeDevice(m, place)
	}
	for _, place := range u.exports {
		if u.table.exports[place] == nil {
			l.foldTally(place)
		}
		l.showExport(u.table, place)
	}
	l.see(u.table)
	l.limitWorkers()
	for _, d := range u.departures {
		l.seeOff(d)
		l.tickAt = l.now // so that connections which are silent already end in this turn
	}
	l.cutExports(u.cut)
	if len(u.settle) > 0 {
		l.settleFirst(m, u.settle)
	}
	l.goOnChanging()
	l.finished(m)
}

// finished ends one of the things that a letter waits for; with the last it is answered.
func (l *loop) finished(m *mail) {
	m.waits--
	if m.waits == 0 {
		close(m.done)
	}
}

// changeDevice takes on a device, or begins to part with one.
func (l *loop) changeDevice(m *mail, place uint32) {
	q, p := &l.devices[place], m.update.table.devices[place]
	switch {
	case q.device == nil && p.device != nil:
		l.showDevice(m.update.table, place)
		if p.home == l.id {
			m.waits++
			l.planting = append(l.planting, parting{place, m})
		}
		if p.file == none {
			return
		}
		if err := l.kernel.SetFile(p.file, int32(p.device.FD)); err != nil {
			q.file, m.err = none, err
		}
	case q.device != nil && p.device == nil:
		m.waits++
		l.parting = append(l.parting, parting{place, m})
	}
}

// limitWorkers follows the number of devices that may need workers.
func (l *loop) limitWorkers() {
	if n := workersOf(l.table.Load().filed, l.quota); n != l.limited {
		l.limited = n
		l.kernel.LimitWorkers(n)
	}
}

// goOnChanging looks whether what letters wait for has come about. It is called at the end of every
// turn in which one waits.
func (l *loop) goOnChanging() {
	l.parting = slices.DeleteFunc(l.parting, func(p parting) bool {
		q := &l.devices[p.place]
		if !q.home() || !l.uproot(p.place) {
			return false
		}
		if q.file != none {
			if l.kernel.SetFile(q.file, -1) != nil {
				return false // the kernel is short of memory: with the next tick
			}
			if l.releasing == nil {
				l.releasing = map[uint32]*mail{}
			}
			l.releasing[q.file] = p.letter
		} else {
			l.finished(p.letter)
		}
		*q = freeDeviceRow()
		return true
	})
	l.plantSome()
	l.settling = slices.DeleteFunc(l.settling, func(s settling) bool {
		if !l.settled(&s) {
			return false
		}
		l.finished(s.letter)
		return true
	})
}

// plantSome makes planned devices usable whose memory and rows are there by now. What is kept for
// those that wait for memory is as much as they need: nothing, when the last of them has it, or has
// gone.
func (l *loop) plantSome() {
	if len(l.planting) == 0 {
		return
	}
	kept := l.ledger.wanted
	l.ledger.wanted = 0
	l.planting = slices.DeleteFunc(l.planting, func(p parting) bool {
		planted, err := true, error(nil)
		if l.devices[p.place].device != nil { // else it was removed before it was usable
			planted, err = l.plant(p.place)
		}
		if err != nil {
			p.letter.err = err
		}
		if planted || err != nil {
			l.finished(p.letter)
		}
		return planted || err != nil
	})
	if l.ledger.wanted < kept {
		l.queue.freed(small)
	}
}

// fileReleased notes that the kernel has let go of a file: of every operation on it, and of its
// lock.
func (l *loop) fileReleased(place uint32) {
	l.kernel.FileReleased()
	m := l.releasing[place]
	must(m != nil, "the kernel let go of a file that the loop still has")
	delete(l.releasing, place)
	l.finished(m)
}

// seeOff begins to end the connections of an export that leaves.
func (l *loop) seeOff(d *departure) {
	place := d.id.place()
	row := &l.exports[place]
	row.since = l.now
	if row.conns == 0 {
		d.homeIn()
		return
	}
	d.conns.Add(int32(row.conns))
	l.leavers = append(l.leavers, leaver{place, d})
}

// left notes that a connection of an export that leaves has ended.
func (l *loop) left(place uint32) {
	i := slices.IndexFunc(l.leavers, func(v leaver) bool { return v.place == place })
	must(i >= 0, "an export leaves, and the loop does not know")
	d := l.leavers[i].departure
	d.conns.Add(-1)
	if l.exports[place].conns == 0 {
		l.leavers = slices.Delete(l.leavers, i, i+1)
		d.homeIn()
	}
}

// cutExports cuts the connections of exports.
func (l *loop) cutExports(places []uint32) {
	if len(places) == 0 {
		return
	}
	cut := make(map[uint32]bool, len(places))
	for _, place := range places {
		cut[place] = true
	}
	for i := range l.conns {
		if c := &l.conns[i]; c.state != connFree && cut[c.export] {
			l.fail(uint32(i), CloseRemoved)
		}
	}
}

// partTick brings connections that are to end one step further: those of exports that leave, and
// those that Retire ends.
func (l *loop) partTick() {
	for i := range l.conns {
		c := &l.conns[i]
		if c.state != connOpen && c.state != connLeaving {
			continue
		}
		row, why, since, grace := &l.exports[c.export], CloseRemoved, int64(0), leaveGraceNanos
		switch client := l.clients[i]; {
		case client != nil && client.retired != nil:
			why, since, grace = CloseRetired, client.retired.since, -1
		case row.leaving:
			since = row.since
		default:
			continue
		}
		ends := c.state == connLeaving || c.owes()
		switch {
		case ends && l.now-since > cutAfterNanos:
			l.fail(uint32(i), why)
		case c.state == connLeaving:
			l.touch(uint32(i)) // it may have lingered long enough
		case !ends && (l.now-since > grace || l.quiet(c)):
			l.leave(uint32(i), why)
		}
	}
	l.settleAll()
}

// retire ends the connection of a client: what was taken in is answered.
func (l *loop) retire(m *mail) {
	i := slices.Index(l.clients, m.client)
	if i < 0 {
		close(m.done)
		return
	}
	m.since = l.now
	if m.also = m.client.retired; m.also != nil {
		m.since = m.also.since
	} else {
		l.retiring++
	}
	m.client.retired = m
	if !l.conns[i].owes() { // else with a tick after its last part
		l.leave(uint32(i), CloseRetired)
	}
}

// retired answers the letters of those who wanted a client to end.
func (l *loop) retired(client *Client) {
	if client.retired == nil {
		return
	}
	l.retiring--
	for m := client.retired; m != nil; m = m.also {
		close(m.done)
	}
	client.retired = nil
}

// settleFirst has a letter wait for the requests of exports that can do less now, which they would
// be refused today. Of those whose payload is arriving nothing has been done: they are refused when
// it is there, and a client that stalls keeps up no change; and so are the parts of a request that
// have not begun.
func (l *loop) settleFirst(m *mail, places []uint32) {
	concerned := make(map[uint32]bool, len(places))
	for _, place := range places {
		concerned[place] = true
	}
	free := make([]bool, tagsPerLoop) // rows end with the requests that they are for
	for t := l.freeTag; t != none; t = l.tags[t].next {
		free[t] = true
	}
	s := settling{letter: m}
	for t := range l.tags[:tagsPerLoop] {
		row := &l.tags[t]
		if free[t] || !concerned[l.conns[row.conn].export] || row.errno != proto.Success {
			continue
		}
		switch errno := l.refusedToday(row.conn, &row.Request); {
		case errno == proto.Success || row.step == stepReply:
		case row.step == stepPayload:
			row.errno = errno
		default:
			s.tags = append(s.tags, rowMark{uint32(t), row.generation})
		}
	}
	for i := range l.conns {
		if c := &l.conns[i]; c.state != connFree && c.divided.open && concerned[c.export] &&
			c.divided.errno == proto.Success {
			c.divided.errno = l.refusedToday(uint32(i), &c.divided.Request)
		}
	}
	m.waits++
	l.settling = append(l.settling, s)
}

// refusedToday is what a request that was taken in would be refused with now.
func (l *loop) refusedToday(i uint32, r *proto.Request) proto.Errno {
	c := &l.conns[i]
	return proto.Check(r, &l.exports[c.export].Facts, c.session)
}

// settled reports whether the requests that a letter waits for have ended.
func (l *loop) settled(s *settling) bool {
	s.tags = slices.DeleteFunc(s.tags, func(r rowMark) bool {
		row := &l.tags[r.row]
		return row.generation != r.generation || row.step == stepReply
	})
	return len(s.tags) == 0
}

// flushFor has a device flushed for a letter.
func (l *loop) flushFor(m *mail) {
	if int(m.dev) >= len(l.devices) {
		must(false, "a letter about a device that was never there")
	}
	q := &l.devices[m.dev]
	switch {
	case q.device == nil || q.generation != m.generation:
		m.err = ErrGone
	case !q.device.onDisk() || q.device.ReadOnly:
	default:
		q.asking = append(q.asking, m)
		l.issueFlush(m.dev)
		return
	}
	close(m.done)
}

// flushedFor answers the letters of a flush.
func (q *flusher) flushedFor(d *Device, res int32) {
	for _, m := range q.asked {
		if d.Failed() {
			m.err = errFlushFailed
			if res < 0 {
				m.err = unix.Errno(-res)
			}
		}
		close(m.done)
	}
	q.asked = nil
}

// foldTally keeps what was counted of an export that has gone in the loop's sums.
func (l *loop) foldTally(place uint32) {
	x := &l.tally[place]
	l.counters.Errors += x.Errors
	l.counters.BytesRead += x.BytesRead
	l.counters.BytesWrite += x.BytesWrite
	*x = exportTally{}
}

// refusal is what a request finds whose export leaves, or that its facts do not allow.
func (x *exportRow) refusal(r *proto.Request, s proto.Session) proto.Errno {
	errno := proto.Check(r, &x.Facts, s)
	if x.leaving && errno == proto.Success {
		return proto.ESHUTDOWN
	}
	return errno
}
