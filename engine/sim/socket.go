// Sockets: two byte streams with small buffers between a client and the kernel's end. A byte is
// sent, then it is on the wire, then it has arrived, then it is taken; the world decides how long
// each step lasts.
//
// Invariant of a stream: taken <= arrived <= sent, and sent - taken <= limit.

package sim

// stream is one direction of a connection.
type stream struct {
	data    []byte // sent and not yet taken
	arrived int    // bytes at the beginning of data that the receiver can take
	limit   int    // of the bytes in data
	ended   bool   // the sender has ended the stream
	endSeen bool   // the end has arrived at the receiver
	due     uint64 // nothing arrives before this instant
}

// room returns how many bytes can be sent now.
func (s *stream) room() int { return max(0, s.limit-len(s.data)) }

// take moves n arrived bytes out.
func (s *stream) take(n int) []byte {
	b := s.data[:n:n]
	s.data = s.data[n:]
	s.arrived -= n
	return b
}

// atEnd reports whether the receiver has taken everything and the end has arrived.
func (s *stream) atEnd() bool { return s.endSeen && len(s.data) == 0 }

// lose drops the bytes that have not arrived yet.
func (s *stream) lose() { s.data = s.data[:s.arrived] }

// socket is a connection; in and out are named from the server's side.
type socket struct {
	world   *World
	fd      int32
	in, out stream
	client  *client
	x       *served // the export of its connection

	reset int32 // error that the next operation of the server reports, once; 0: none
	// dead says that the connection is gone: after reset was reported, reads end and sends fail
	// with EPIPE.
	dead bool
	// clientClosed says that the client closed its end: its kernel answers further data with a
	// reset.
	clientClosed bool
	shut         bool // the server called shutdown
	closed       bool // the server closed its descriptor
	clientReset  bool // the client's end was reset: it receives nothing more
	pending      int  // sends to a closed client that still succeed
	polled       int  // polls that reported data to read, since the last receive
	unarmed      int  // turns of the loop with data here and no operation to take it
}

// newSocket makes a connection for a client.
func (w *World) newSocket(c *client) *socket {
	r := w.rng
	minLimit := 0 // buffers are small, but must not make the longest request take for ever
	if e := c.plan(); e.MaxPayload == 0 {
		minLimit = int(min(e.Size, 32<<20) / 64)
	} else {
		minLimit = int(min(e.Size, uint64(e.MaxPayload)) / 64)
	}
	limit := func() int { return max(minLimit, []int{200, 4096, 64 << 10, 256 << 10}[r.IntN(4)]) }
	s := &socket{world: w, client: c, x: c.x, pending: r.IntN(3)}
	s.in.limit, s.out.limit = limit(), limit()
	s.fd = w.openFD(&node{sock: s})
	w.socks = append(w.socks, s)
	return s
}

// deliver lets some bytes arrive at the end of a wire, and reports whether there was anything to
// deliver.
func (w *World) deliver(s *stream) bool {
	waiting := len(s.data) - s.arrived
	if waiting == 0 && (!s.ended || s.endSeen) || s.due > w.clock {
		return false
	}
	if waiting == 0 {
		s.endSeen = true
		return true
	}
	n := waiting
	if w.mix.segment > 0 {
		n = min(n, 1+w.rng.IntN(max(w.mix.segment, waiting/32)))
	}
	s.arrived += n
	if w.rng.IntN(4) == 0 {
		s.due = w.clock + w.delay(w.mix.wireDelayNanos)
	}
	if s.arrived == len(s.data) && s.ended && w.rng.IntN(2) == 0 {
		s.endSeen = true
	}
	return true
}

// send puts bytes on the wire; the caller has checked the room.
func (s *stream) send(w *World, b []byte) {
	if s.arrived == len(s.data) {
		s.due = w.clock + w.delay(w.mix.wireDelayNanos)
	}
	s.data = append(s.data, b...)
}

// breakOff ends the connection as a reset from the client or from the network does: bytes that have
// not arrived are lost.
func (s *socket) breakOff(err int32) {
	if s.dead {
		return
	}
	s.dead, s.reset = true, err
	s.in.lose()
	s.in.ended, s.in.endSeen = true, true
	s.out.data, s.out.arrived = nil, 0
}

// clientClose is close(2) on the client's side. Unread replies make it a reset, as in Linux.
func (s *socket) clientClose() {
	if len(s.out.data) > 0 {
		s.breakOff(eCONNRESET)
		return
	}
	s.in.ended, s.clientClosed = true, true
}

// serverShutdown is shutdown(SHUT_RDWR) by the engine: the bytes that it sent still arrive, and its
// receives end after the bytes that have arrived.
func (s *socket) serverShutdown() {
	s.shut = true
	s.in.lose()
	s.in.ended, s.in.endSeen = true, true
	s.out.ended = true
}

// serverClose is close(2) by the engine. Unread requests make it a reset, which may destroy replies
// that the client has not received yet.
func (s *socket) serverClose() {
	s.closed = true
	s.out.ended = true
	if len(s.in.data) > 0 && !s.shut && s.world.rng.IntN(2) == 0 {
		s.out.lose()
		s.clientReset = true
	}
	s.in.data, s.in.arrived = nil, 0
}

// gone reports whether neither side can see anything of the other any more.
func (s *socket) gone() bool { return s.closed && s.client == nil }
