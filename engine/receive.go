// Receiving: bytes come from the socket into a stage, as many as there are, in one operation for
// many requests; payloads are copied from there into their leases. Only a payload with 128 KiB or
// more to come, or one for which no large stage is left, is received straight into its lease: a
// receive per header would cost more than copying.
//
// Invariant: stage bytes [start, end) are received and not parsed; a receive into the stage writes
// behind end. At most one receive is in flight.

package engine

import (
	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

// directPayload is how much of a payload must still be to come before a receive of its own pays: a
// copy of 128 KiB of cold memory costs some 18 µs, a turn of the loop with nothing but one receive
// about half of that.
const directPayload = 128 << 10

// received files what a receive brought.
func (l *loop) received(t token, res int32) {
	c, i := l.connAt(t)
	how := c.receiving
	c.receiving, c.cancelling = receiveNone, false
	c.idle = res == -int32(unix.ECANCELED)
	l.counters.Receives++
	l.touch(i)
	switch {
	case res > 0 && how == receivePayload && c.state != connOpen:
		c.heard = l.now // of a request that was given up
	case res > 0:
		c.heard = l.now
		l.came(c, i, how, uint32(res))
	case res == 0 && c.state == connLeaving:
		c.eof = true
	case res == 0 && c.state == connOpen:
		if c.body != none || c.end > c.start {
			l.fail(i, CloseTruncated)
		} else {
			l.leave(i, CloseHangup)
		}
	case res == -int32(unix.ECANCELED) || res == -int32(unix.EINTR) || res == -int32(unix.EAGAIN) ||
		res == 0:
	default:
		l.fail(i, CloseReceive)
	}
	if c.state != connOpen {
		l.dropBody(i)
	}
}

// came: n bytes are where the receive put them. A connection that sends more than its own stage
// holds is given a large one from now on, one that does not is not.
func (l *loop) came(c *conn, i uint32, how receiving, n uint32) {
	switch how {
	case receivePayload:
		l.filled(c, n)
	case receiveStage:
		c.end += n
		c.bulky = n > ownSize
		l.refreshStage(i)
	default:
		c.end += n
		// or the rest of a payload that the header brought the beginning of
		c.bulky = c.end == ownSize || c.body != none
	}
}

// parse takes in whatever requests are complete enough to be taken in.
func (l *loop) parse(i uint32) {
	c := &l.conns[i]
	if c.state == connLeaving {
		c.start, c.end = 0, 0 // it is read only so that its replies arrive, see lingers
		return
	}
	at, size := l.stageOf(i)
	stage := l.control.Bytes(at, int(size))
	for taken := 0; c.state == connOpen; {
		have := c.end - c.start
		switch {
		case c.body != none:
			n := min(c.bodyLeft, have)
			l.fill(c, stage[c.start:c.start+n])
			c.start += n
			if c.body != none {
				return
			}
		case c.divided.open:
			if !l.nextPart(i) {
				return
			}
		case have < c.header:
			return
		default:
			if l.drain == drainCut {
				l.leave(i, CloseShutdown)
				return
			}
			r, ok := c.session.Framing.ParseRequest(stage[c.start:c.end])
			if !ok {
				l.fail(i, CloseMagic)
				return
			}
			if l.tooMuch(i, &r, taken) {
				l.postpone(i, taken > 0)
				return
			}
			if !l.admit(i, &r) {
				return
			}
			taken++
			l.work += requestWork
			c.start += c.header
			c.since = 0
		}
	}
}

// fill copies payload bytes into the lease of the request that they belong to, or drops them when
// the request was refused or keeps nothing.
func (l *loop) fill(c *conn, b []byte) {
	t := &l.tags[c.body]
	l.work += uint64(len(b))
	for at := 0; at < len(b) && !t.sink; {
		n := min(len(b)-at, int(pieceSize-t.fillAt))
		copy(l.pool.Bytes(l.leases.offset(t.fill)+uint64(t.fillAt), n), b[at:at+n])
		at += n
		l.advance(t, uint32(n))
	}
	l.arrived(c, uint32(len(b)))
}

// filled: the kernel has put n payload bytes where they belong.
func (l *loop) filled(c *conn, n uint32) {
	c.since = l.now // it was received as a whole
	l.advance(&l.tags[c.body], n)
	l.arrived(c, n)
}

// advance moves a payload's cursor, which never rests on the end of a piece that has a successor.
func (l *loop) advance(t *tag, n uint32) {
	t.fillAt += n
	if t.fillAt == pieceSize && l.leases.next[t.fill] != none {
		t.fill, t.fillAt = l.leases.next[t.fill], 0
	}
}

func (l *loop) arrived(c *conn, n uint32) {
	if (c.bodyLeft-n)>>pieceShift != c.bodyLeft>>pieceShift {
		c.since = l.now // another megabyte
	}
	c.bodyLeft -= n
	if c.bodyLeft == 0 {
		t := c.body
		c.body, c.since = none, 0
		l.begin(t)
	}
}

// listen asks for the next bytes, into the place that fits: the lease that they are for, a large
// stage, or the connection's own.
func (l *loop) listen(i uint32) {
	c := &l.conns[i]
	reads := c.state == connOpen && !l.full(c) ||
		c.state == connLeaving && c.reason == CloseShutdown && !c.eof
	if !reads || c.receiving != receiveNone || l.queue.waits(i) || c.links[linkLater].in {
		return
	}
	if c.body != none && c.since == 0 {
		c.since = l.now
	}
	l.chooseStage(c, i)
	data := uint64(tokenOf(onReceive, 0, c.generation, i))
	if t := c.body; t != none && !l.tags[t].sink &&
		(c.bodyLeft >= directPayload || c.stage == none && c.bodyLeft > ownSize) {
		c.receiving = receivePayload
		at := l.leases.offset(l.tags[t].fill) + uint64(l.tags[t].fillAt)
		uring.PrepRecv(l.sqe(), data, c.fd, l.pool.Addr(at),
			min(c.bodyLeft, pieceSize-l.tags[t].fillAt), unix.MSG_WAITALL)
		return
	}
	l.compact(i)
	c.receiving = receiveOwn
	if c.stage != none {
		c.receiving = receiveStage
	}
	at, size := l.stageOf(i)
	uring.PrepRecv(l.sqe(), data, c.fd, l.control.Addr(at+uint64(c.end)), size-c.end, 0)
}

// chooseStage borrows a large stage for a connection that has use for one, and gives back that of
// one that has not, or that has had its turn.
func (l *loop) chooseStage(c *conn, i uint32) {
	payload := c.body != none && c.bodyLeft > ownSize &&
		(c.bodyLeft < directPayload || l.tags[c.body].sink)
	switch {
	case c.stage == none && (payload || c.bulky && c.body == none) && !c.idle:
		l.takeStage(i)
	case c.stage != none && (c.idle || l.scarce || !payload && !c.bulky):
		l.scarce = false
		l.giveStage(i)
	}
}

// compact moves the front part of a header, all that can be left unparsed when a receive is due, to
// the beginning of the stage.
func (l *loop) compact(i uint32) {
	c := &l.conns[i]
	if c.start == 0 {
		return
	}
	if c.start < c.end {
		at, size := l.stageOf(i)
		stage := l.control.Bytes(at, int(size))
		copy(stage, stage[c.start:c.end])
	}
	c.start, c.end = 0, c.end-c.start
}

// full: the connection has as much in flight as one may have; its own replies must go out first.
func (l *loop) full(c *conn) bool {
	return c.body == none && (c.divided.open || c.end-c.start >= c.header)
}
