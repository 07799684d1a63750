// Stalls and the phases of a shutdown: what time alone changes. Connections that hold memory
// without progress while others wait for it are closed.
//
// Invariant: as long as no connection waits for memory, none is closed for being slow or silent: an
// idle client stays for ever.

package engine

const (
	// stallGraceNanos is how long a connection must have waited for memory before others are
	// judged; stallQuietNanos is how long those may then have made no progress. Progress is a MiB:
	// the piece of a payload that one receive brings, the part of a batch that one send carries. So
	// a client that moves, if only 512 KiB a second, is never closed, and none is closed while
	// there is memory for all.
	stallGraceNanos = int64(3e9)
	stallQuietNanos = int64(2e9)

	// drainSilenceNanos is how long a connection must have been silent to be closed while draining.
	drainSilenceNanos = int64(100e6)
	// After drainGraceNanos no request is taken in, and a payload that is arriving is given up.
	drainGraceNanos = int64(1e9)
	// drainLingerNanos is what a client has to fall silent once it was told that nothing follows.
	drainLingerNanos = int64(500e6)

	// At the end of the server no request is answered with ESHUTDOWN, which the spec offers to make
	// the end quicker: the kernel's client passes it on as an I/O error, where it would send the
	// request again to the next server if the connection had just been closed; so do virtual
	// machines (reconnect-delay). A removed export is another matter: nothing else will serve it.
)

type drainPhase uint8

const (
	drainNot   drainPhase = iota
	drainServe            // requests are served as before; a silent connection is closed
	drainCut              // requests that were taken in are answered, no more are taken in
)

// drain is how far a shutdown has come.
type drain struct {
	phase   drainPhase
	since   int64   // when it began
	letters []*mail // to be answered when no connection is left
}

// evictStalled closes connections without progress that others have been waiting for too long. A
// connection that waits for its export's share waits for connections of that export only.
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

// stalled reports whether a connection's payload or replies have made no progress for too long. A
// connection that has sent a part of a header only holds nothing.
func (l *loop) stalled(c *conn) bool {
	receives := c.body != none && c.receiving != receiveNone && c.bodySince != 0 &&
		l.now-c.bodySince > stallQuietNanos
	return receives || c.sending && l.now-c.sendSince > stallQuietNanos
}

// quiet reports whether a connection has nothing in flight and has been silent for a moment.
func (l *loop) quiet(c *conn) bool {
	between := c.body == none && !c.divided.open && c.start == c.end
	return between && c.inflight == 0 && l.now-c.heard > drainSilenceNanos
}

// drainTick closes the connections that have fallen silent, and after a while those that have not.
func (l *loop) drainTick() {
	if l.drain.phase == drainServe && l.now-l.drain.since > drainGraceNanos {
		l.drain.phase = drainCut
	}
	for i := range l.conns {
		c := &l.conns[i]
		switch {
		case c.state == connLeaving:
			l.touch(uint32(i)) // it may have lingered long enough
		case c.state == connOpen && (l.quiet(c) || l.drain.phase == drainCut && !c.owes()):
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
