// What time changes: connections that hold memory without moving while others wait for it are
// closed, and a shutdown goes through its phases.
//
// Invariant: as long as nobody waits, nobody is closed for being slow or silent: an idle client
// stays for ever.

package engine

import "ringnbd/proto"

const (
	// stallGraceNanos is how long a connection must have starved before others are looked at;
	// stallQuietNanos how long those may then have been without progress. Progress is a megabyte:
	// the piece of a payload that one receive brings, the part of a batch that one send carries. So
	// a client that does move, if only 512 KiB a second, is never closed, and nobody is while there
	// is memory for all.
	stallGraceNanos = int64(3e9)
	stallQuietNanos = int64(2e9)

	drainSilenceNanos = int64(100e6) // while draining, a connection silent for so long is closed
	// and after this no request is taken in, nor a payload waited for that is still arriving
	drainGraceNanos = int64(1e9)
	// and this is what a client has to fall silent once it was told that nothing follows
	drainLingerNanos = int64(500e6)

	// No request is answered with ESHUTDOWN, which the spec offers to make the end quicker: the
	// kernel's client passes it on as an I/O error, where it would send the request again to the
	// next server if the connection had just been closed; so do virtual machines (reconnect-delay).
)

type drainPhase uint8

const (
	drainNot   drainPhase = iota
	drainServe            // requests are served as ever; a connection that is silent is closed
	drainCut              // what was taken in is answered, nothing else is
)

// drain is how far a shutdown has come.
type drain struct {
	phase   drainPhase
	since   int64   // it began
	letters []*mail // to be answered when no connection is left
}

// evictStalled closes those that others have been waiting for too long. Who waits for the share of
// an export waits for its connections only.
func (l *loop) evictStalled() {
	q, before := &l.queue, l.now-stallGraceNanos
	if q.waiting == 0 {
		return
	}
	all := q.starving(before)
	for i := range l.conns {
		c := &l.conns[i]
		if c.state != connFree && c.state != connClosing && l.stalled(c) &&
			(all || q.starves(lineOf(c.export, false), true, before) ||
				q.starves(lineOf(c.export, true), true, before)) {
			l.fail(uint32(i), CloseStalled)
		}
	}
	l.settleAll()
}

// stalled: the connection's payload or replies have stood still. One that has only begun a header
// holds nothing.
func (l *loop) stalled(c *conn) bool {
	receives := c.body != none && c.receiving != receiveNone && c.bodySince != 0 &&
		l.now-c.bodySince > stallQuietNanos
	return receives || c.sending && l.now-c.sendSince > stallQuietNanos
}

// drainTick closes the connections that have nothing more to say, and after a while those that will
// not stop.
func (l *loop) drainTick() {
	if l.drain.phase == drainServe && l.now-l.drain.since > drainGraceNanos {
		l.drain.phase = drainCut
	}
	for i := range l.conns {
		c := &l.conns[i]
		// all of it was promised with its first part
		reads := c.divided.open && c.divided.Command == proto.CmdRead
		between := c.body == none && !c.divided.open && c.start == c.end
		quiet := between && c.inflight == 0 && l.now-c.heard > drainSilenceNanos
		switch {
		case c.state == connLeaving:
			l.touch(uint32(i)) // it may have lingered long enough
		case c.state == connOpen && (quiet || l.drain.phase == drainCut && !reads):
			l.leave(uint32(i), CloseShutdown)
		}
	}
	l.settleAll()
	if l.live.Load() == 0 {
		for _, m := range l.drain.letters {
			close(m.done)
		}
		l.drain.letters = nil
	}
}
