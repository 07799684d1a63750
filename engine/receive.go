// Receiving: bytes come from the socket into a stage, in one operation for all requests that have
// arrived; payloads are copied from there into their leases. Only a payload with 128 KiB or more to
// come, or one for which no large stage is left, is received straight into its lease: a receive per
// header would cost more than copying.
//
// Invariant: stage bytes [start, end) are received and not parsed; a receive into the stage writes
// from end on. At most one receive is in flight. The cursor of a payload (body, bodyPiece, bodyAt)
// is where its next byte goes.
//
// Bytes are received (a completion says so), have landed (they are accounted for in their stage or
// lease), and are consumed (parsed as a header, or counted as payload that is in its place).

package engine

import (
	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

// directPayload is how much of a payload must still be to come before a receive of its own pays: a
// copy of 128 KiB of cold memory costs some 18 µs, a turn of the loop with nothing but one receive
// about half of that.
const directPayload = 128 << 10

// receiving says which receive operation of a connection is with the kernel.
type receiving uint8

const (
	receiveNone    receiving = iota
	receiveOwn               // into the connection's own stage
	receiveStage             // into its large stage
	receivePayload           // straight into the lease of the request whose payload is arriving
)

// inbound is the receiving half of a connection. Times are nanoseconds of the loop's clock.
type inbound struct {
	heard      int64  // when the last bytes were received
	bodySince  int64  // when the current MiB of the payload began to arrive; 0: no payload does
	start, end uint32 // bytes of the stage that are not parsed yet

	body      uint32 // tag whose payload is arriving, or none; the rest is valid while there is one
	bodyLeft  uint32 // bytes of the payload that are still to come
	bodyPiece uint32 // piece of the lease that the next byte goes to
	bodyAt    uint32 // and its place there
	bodySink  bool   // the payload is dropped: refused, or for a device that keeps nothing

	receiving  receiving
	cancelling bool // its receive is being taken back from the kernel
	bulky      bool // its last receive brought more than its own stage holds
	idle       bool // its receive was taken back: it has been silent for long
	eof        bool // the client has ended its side
}

// received files the completion of a receive.
func (l *loop) received(t token, res int32) {
	c, i := l.connAt(t)
	how := c.receiving
	c.receiving, c.cancelling = receiveNone, false
	c.idle = res == -int32(unix.ECANCELED)
	l.counters.Receives++
	l.touch(i)
	switch {
	case res > 0 && how == receivePayload && c.state != connOpen:
		c.heard = l.now // payload of a request that was given up
	case res > 0:
		c.heard = l.now
		l.landed(c, i, how, uint32(res))
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

// landed accounts for n received bytes, and decides which stage the next receive uses: a large one
// if this receive brought more than the connection's own stage holds.
func (l *loop) landed(c *conn, i uint32, how receiving, n uint32) {
	switch how {
	case receivePayload:
		c.bodySince = l.now // the receive brought a whole piece
		l.advance(c, n)
		l.consumed(c, n)
	case receiveStage:
		c.end += n
		c.bulky = n > ownSize
		l.refreshStage(i)
	default:
		c.end += n
		// or the rest of a payload whose beginning came with its header
		c.bulky = c.end == ownSize || c.body != none
	}
}

// parse takes in all requests whose headers are complete, as far as the turn's budget, tags and
// memory go.
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
			l.copyPayload(c, stage[c.start:c.start+n])
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
			if l.drain.phase == drainCut {
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
			c.bodySince = 0
		}
	}
}

// expectPayload makes the next n bytes of a connection the payload of a request: first is the
// first piece of its lease, at the place of the first byte there.
func (c *conn) expectPayload(t uint32, n, first, at uint32, sink bool) {
	c.body, c.bodyLeft = t, n
	c.bodyPiece, c.bodyAt, c.bodySink = first, at, sink
}

// copyPayload copies payload bytes into the lease of the request that they belong to, or drops them
// when the request was refused or keeps nothing.
func (l *loop) copyPayload(c *conn, b []byte) {
	l.work += uint64(len(b))
	for at := 0; at < len(b) && !c.bodySink; {
		n := min(len(b)-at, int(pieceSize-c.bodyAt))
		copy(l.pool.Bytes(l.payloadAt(c), n), b[at:at+n])
		at += n
		l.advance(c, uint32(n))
	}
	l.consumed(c, uint32(len(b)))
}

// payloadAt returns the offset in the pool of the next payload byte.
func (l *loop) payloadAt(c *conn) uint64 {
	return l.leases.offset(c.bodyPiece) + uint64(c.bodyAt)
}

// advance moves a payload's cursor, which never rests on the end of a piece that has a successor.
func (l *loop) advance(c *conn, n uint32) {
	c.bodyAt += n
	if c.bodyAt == pieceSize && l.leases.next[c.bodyPiece] != none {
		c.bodyPiece, c.bodyAt = l.leases.next[c.bodyPiece], 0
	}
}

// consumed counts n payload bytes that are in their place. The last of them begins the request.
func (l *loop) consumed(c *conn, n uint32) {
	if (c.bodyLeft-n)>>pieceShift != c.bodyLeft>>pieceShift {
		c.bodySince = l.now // another MiB
	}
	c.bodyLeft -= n
	if c.bodyLeft == 0 {
		t := c.body
		c.body, c.bodySince = none, 0
		l.begin(t)
	}
}

// listen asks for the next bytes, into the place that fits: the lease that they are for, a large
// stage, or the connection's own.
func (l *loop) listen(i uint32) {
	c := &l.conns[i]
	reads := c.state == connOpen && !c.waits() ||
		c.state == connLeaving && c.reason.ours() && !c.eof
	if !reads || c.receiving != receiveNone || l.queue.waits(i) || c.links[linkLater].in {
		return
	}
	if c.body != none && c.bodySince == 0 {
		c.bodySince = l.now
	}
	l.chooseStage(c, i)
	data := uint64(tokenOf(onReceive, 0, c.generation, i))
	if c.body != none && !c.bodySink &&
		(c.bodyLeft >= directPayload || c.stage == none && c.bodyLeft > ownSize) {
		c.receiving = receivePayload
		uring.PrepRecv(l.sqe(), data, c.fd, l.pool.Addr(l.payloadAt(c)),
			min(c.bodyLeft, pieceSize-c.bodyAt), unix.MSG_WAITALL)
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

// chooseStage borrows a large stage for a connection that has use for it, and gives it back when
// the connection has no more use for it, or when others wait for a large stage.
func (l *loop) chooseStage(c *conn, i uint32) {
	payload := c.body != none && c.bodyLeft > ownSize &&
		(c.bodyLeft < directPayload || c.bodySink)
	switch {
	case c.stage == none && (payload || c.bulky && c.body == none) && !c.idle:
		l.takeStage(i)
	case c.stage != none && (c.idle || l.stageShortage || !payload && !c.bulky):
		l.stageShortage = false
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

// waits reports whether a complete header, or the rest of a request in parts, has not been taken
// in: the connection waits for its own replies, for memory or for its turn, and is not read.
func (c *conn) waits() bool {
	return c.body == none && (c.divided.open || c.end-c.start >= c.header)
}
