// A connection row: one negotiated socket, from adoption to close.
//
// Invariant: a row's socket is closed and the row given back only when the kernel holds no
// operation on it and no tag belongs to it (join before close). receiving and sending are the whole
// ownership protocol with the kernel.
//
//	free -> open               adopt
//	open -> leaving            the client said goodbye, or we shut down: what was taken in is
//	                           answered; what comes in is dropped
//	open, leaving -> closing   the link failed or was cut: nothing more is sent; wait for the kernel
//	leaving -> closing         all is answered
//	closing -> free            all is quiet

package engine

import "ringnbd/proto"

type connState uint8

const (
	connFree connState = iota
	connOpen
	connLeaving
	connClosing
)

// receiving says which receive operation of a connection is with the kernel.
type receiving uint8

const (
	receiveNone    receiving = iota
	receiveOwn               // into the connection's own stage
	receiveStage             // into its large stage
	receivePayload           // straight into the lease of the request whose payload is arriving
)

type conn struct {
	links      [connLinks]connLink
	fd         int32
	export     uint32
	session    proto.Session
	header     uint32 // length of a request's header, in bytes
	generation uint16
	state      connState
	reason     CloseReason
	receiving  receiving
	cancelling bool // its receive is being taken back from the kernel
	bulky      bool // its last receive brought more than its own stage holds
	served     bool // it had something of the turn that it was postponed in
	eof        bool // the client has ended its side
	idle       bool // its receive was taken back: it has been silent for long
	ended      bool // we shut down, all is answered, and the client is told that nothing follows
	sending    bool
	next       uint32 // free rows

	stage      uint32 // the large one; none: it has its own
	start, end uint32 // bytes of the stage not parsed yet
	body       uint32 // tag whose payload is arriving
	bodyLeft   uint32 // bytes of it still to come

	divided divided // the request that is served in parts

	account         // what it holds, and may
	ready    list   // tags that are answered, in order of completion
	sent     list   // tags whose replies are in the send that is in flight
	iovFrom  uint32 // the send's iovecs [iovFrom, iovTo) are not sent yet
	iovTo    uint32
	sendLeft uint64 // bytes
	sendPart uint64 // bytes that are with the kernel
	partial  bool   // the last of sent has more to send

	// Times in nanoseconds of the loop's clock.
	heard     int64 // the last bytes came
	since     int64 // the megabyte of payload that is arriving began to; 0: none is
	sendSince int64 // the send that is in flight began
	endedAt   int64 // it was told that nothing follows

	traffic Traffic
}

// adopt gives a socket a row.
func (l *loop) adopt(fd int32, export uint32, s proto.Session, client *Client) {
	i := l.freeConn
	must(i != none, "more connections than rows: the gate let one too many in")
	c := &l.conns[i]
	l.freeConn = c.next
	*c = conn{fd: fd, export: export, session: s, header: s.Framing.HeaderSize(),
		generation: c.generation + 1, state: connOpen, stage: none, body: none, ready: empty,
		sent: empty, next: none, heard: l.now,
		account: account{tagCredit: firstTags, credit: [regions]uint64{small: firstCredit}}}
	l.gone[i].Store(false)
	l.clients[i] = client
	l.counters.Opened++
	l.touch(i)
}

// connAt finds the row that a completion is about.
func (l *loop) connAt(t token) (*conn, uint32) {
	c := &l.conns[t.slot()]
	must(c.state != connFree && c.generation == t.generation(),
		"a completion for a connection that is gone")
	return c, t.slot()
}

// leave stops taking requests in; what was taken in will be answered, what has come behind it is
// dropped, and so is a request whose payload is still arriving: nothing of it was done, and its
// client will send it again.
func (l *loop) leave(i uint32, why CloseReason) {
	c := &l.conns[i]
	if c.state == connOpen {
		c.state, c.reason = connLeaving, why
		c.start, c.end = 0, 0
		l.dropBody(i)
		l.queue.withdraw(i)
		l.abandon(i)
		l.touch(i)
	}
}

// dropBody gives up the request whose payload is arriving. If the kernel still writes into its
// lease, that is ended first.
func (l *loop) dropBody(i uint32) {
	c := &l.conns[i]
	switch {
	case c.body == none:
	case c.receiving != receivePayload:
		body := c.body
		c.body, c.bodyLeft = none, 0
		l.release(body)
	case c.state == connLeaving: // a socket that was shut down ends it by itself
		l.takeBack(i)
	}
}

// fail cuts a connection: operations on its socket complete, nothing more is sent.
func (l *loop) fail(i uint32, why CloseReason) {
	c := &l.conns[i]
	if c.state == connOpen || c.state == connLeaving {
		if c.state == connOpen {
			c.reason = why
		}
		c.state = connClosing
		l.abandon(i)
		l.queue.withdraw(i)
		l.unpark(i)
		l.kernel.Shutdown(c.fd)
		l.touch(i)
	}
}

// abandon tells those who look up what a connection has asked that nobody may be waiting any more.
// It need not wait behind what others have asked, either.
func (l *loop) abandon(i uint32) {
	c := &l.conns[i]
	if !l.gone[i].Swap(true) && c.session.Contexts != 0 && c.inflight > 0 {
		l.offload()
	}
}

// lingers: closing a socket with unread bytes resets it, and what the client has not got yet of its
// replies is lost. So while we shut down, a connection is read, and what comes is dropped, until it
// has been silent for a moment; once all is answered, that is said behind the last reply, and a
// client that goes on sending all the same has drainLingerNanos to notice.
func (l *loop) lingers(c *conn) bool {
	return c.reason == CloseShutdown && !c.eof && l.now-c.heard <= drainSilenceNanos &&
		(!c.ended || l.now-c.endedAt <= drainLingerNanos)
}

// depart moves a connection that is on its way out one step further.
func (l *loop) depart(i uint32) {
	c := &l.conns[i]
	if c.state == connOpen || c.state == connFree {
		return
	}
	l.dropBody(i)
	if c.state == connLeaving && (c.inflight > 0 || c.sending) {
		return
	}
	if c.state == connLeaving && l.lingers(c) {
		if !c.ended {
			c.ended, c.endedAt = true, l.now
			l.kernel.EndSending(c.fd)
		}
		return
	}
	if c.state == connLeaving {
		c.state = connClosing
		l.kernel.Shutdown(c.fd)
	}
	for t := l.popTag(&c.ready); t != none; t = l.popTag(&c.ready) {
		l.release(t)
	}
	if c.inflight > 0 || c.sending || c.receiving != receiveNone {
		return
	}
	l.queue.withdraw(i)
	l.delist(l.laterOf(c), linkLater, i)
	l.queue.unsqueeze(i)
	c.start, c.end = 0, 0
	l.giveStage(i)
	l.kernel.CloseFD(c.fd)
	l.counters.Closed[c.reason]++
	l.reportEnd(i)
	c.state = connFree
	c.next = l.freeConn
	l.freeConn = i
	l.live.Add(-1)
}
