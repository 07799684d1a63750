// A connection row: one negotiated socket, from adoption to close.
//
// Invariant: a row's socket is closed and the row given back only when the kernel holds no
// operation on it and no tag belongs to it (join before close). receiving and sending are the whole
// ownership protocol with the kernel. A state is followed only by those that nextConnStates allows.

package engine

import (
	"sync/atomic"

	"ringnbd/proto"
)

type connState uint8

const (
	connFree connState = iota
	connOpen
	// the client said goodbye, or we shut down: what was taken in is answered; what comes in is
	// dropped
	connLeaving
	// the link failed or was cut, or all is answered: nothing more is sent, and the row waits until
	// the kernel and all tags have let go of it
	connClosing
)

// nextConnStates is the states that may follow each state, a bit each.
var nextConnStates = [...]uint8{
	connFree:    1 << connOpen,                   // adopt
	connOpen:    1<<connLeaving | 1<<connClosing, // leave, fail
	connLeaving: 1 << connClosing,                // depart, fail
	connClosing: 1 << connFree,                   // depart
}

// become changes a connection's state.
func (c *conn) become(s connState) {
	must(nextConnStates[c.state]>>s&1 != 0, "a connection took a state that cannot follow its own")
	c.state = s
}

// conn is a connection's row. Its parts are described in the files of their chapters.
type conn struct {
	links      [connLinks]connLink // list.go
	fd         int32
	export     uint32
	session    proto.Session
	header     uint32 // length of a request's header, in bytes
	next       uint32 // free rows
	generation uint16
	state      connState
	reason     CloseReason
	ended      bool  // we shut down, all is answered, and the client is told that nothing follows
	endedAt    int64 // when it was told, nanoseconds of the loop's clock

	inbound  // receive.go
	outbound // reply.go
	account  // ledger.go: what it holds, and may hold

	served bool   // it had something of the turn that it was postponed in
	stage  uint32 // its large stage; none: it uses its own

	divided divided // parts.go: the request that is served in parts
	traffic Traffic // count.go
}

// connTable is the connections of a loop.
type connTable struct {
	conns    []conn
	freeConn uint32       // stack of free rows, linked through next
	live     atomic.Int32 // connections, those that are in the mail included
	dirty    list         // connections to be settled in this turn
}

// makeRows makes n rows, all free.
func (c *connTable) makeRows(n int) {
	c.conns, c.dirty = make([]conn, n), empty
	for i := range c.conns {
		c.conns[i].next = uint32(i) + 1
	}
	c.conns[n-1].next = none
}

// adopt gives a socket a row.
func (l *loop) adopt(fd int32, export uint32, s proto.Session, client *Client) {
	i := l.freeConn
	must(i != none, "more connections than rows: the gate let one too many in")
	c := &l.conns[i]
	l.freeConn = c.next
	*c = conn{fd: fd, export: export, session: s, header: s.Framing.HeaderSize(),
		generation: c.generation + 1, next: none, stage: none,
		inbound:  inbound{heard: l.now, body: none},
		outbound: outbound{ready: empty, sent: empty},
		account:  account{tagCredit: firstTags, credit: [regions]uint64{small: firstCredit}}}
	c.become(connOpen)
	l.exports[export].conns++
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

// leave stops taking requests in. Requests that were taken in will be answered; bytes after them
// are dropped, and so is a request whose payload is still arriving: nothing of it was done, and its
// client will send it again.
func (l *loop) leave(i uint32, why CloseReason) {
	c := &l.conns[i]
	if c.state == connOpen {
		c.become(connLeaving)
		c.reason = why
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
		l.tags[body].become(stepReply)
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
		c.become(connClosing)
		l.abandon(i)
		l.queue.withdraw(i)
		l.unpark(i)
		l.cancelRows(i)
		l.kernel.Shutdown(c.fd)
		l.touch(i)
	}
}

// abandon tells the lookup workers that this connection's BLOCK_STATUS requests may have no reader:
// requests that wait are handed back unanswered, ahead of the queue.
func (l *loop) abandon(i uint32) {
	c := &l.conns[i]
	if !l.gone[i].Swap(true) && c.session.Contexts != 0 && c.inflight > 0 {
		l.ask()
	}
}

// lingers reports whether a connection that we end is still to be read. Closing a socket with
// unread bytes resets it, and replies that the client has not received yet are lost. So while we
// shut down, a connection is read, and its bytes are dropped, until it has been silent for a
// moment. Once all is answered, the end of the stream follows the last reply; a client that goes on
// sending all the same has drainLingerNanos to notice.
func (l *loop) lingers(c *conn) bool {
	return c.reason.ours() && !c.eof && l.now-c.heard <= drainSilenceNanos &&
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
		c.become(connClosing)
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
	c.become(connFree)
	c.next = l.freeConn
	l.freeConn = i
	x := &l.exports[c.export]
	x.conns--
	if x.leaving {
		l.left(c.export)
	}
	l.live.Add(-1)
}
