// How a client leaves: by what it sends (DISC, rubbish, an endless payload), or by ending its
// stream (half-close, close, reset), after the last request or at any byte.
//
// Invariant: a client that has parted sends nothing more.

package sim

import (
	"ringnbd/proto"
)

// farewell leaves after the last request.
func (c *client) farewell() {
	w := c.world
	if w.calm && c.habit.parting != partDisc {
		c.habit.parting = partHalfClose // what is in flight must still be answered
	}
	if w.calm || len(c.inFlight) == 0 || c.rng.IntN(2) == 0 {
		c.leave()
		return
	}
	// closing would cut off its own replies
	if c.habit.parting == partClose || c.habit.parting == partReset {
		c.habit.parting = partDisc
	}
	c.leave()
}

// leave leaves in the way of the client's habit.
func (c *client) leave() {
	w := c.world
	inside := len(c.unsent) > 0 && c.unsent[0].begun != 0
	switch c.habit.parting {
	case partDisc:
		if inside {
			return // DISC cannot be sent inside a request
		}
		c.abandon()
		c.compose(draft{Request: proto.Request{Command: proto.CmdDisc,
			Extended: c.habit.session.Framing == proto.Extended}})
		if len(c.inFlight) > 0 {
			w.mark(markDisconnected)
		}
	case partGarbage:
		if inside {
			return
		}
		w.mark(markBadMagic)
		c.abandon()
		c.excuse("sent rubbish")
		c.blank(func(b []byte) {
			rubbish(b, c.rng.Uint64())
			if c.rng.IntN(3) == 0 { // a good request of the other form
				other := proto.Request{Extended: c.habit.session.Framing != proto.Extended}
				copy(b, putHeader(nil, &other))
			}
		})
	case partOversize:
		if inside {
			return
		}
		c.abandon()
		q := proto.Request{Command: proto.CmdWrite, Offset: ^uint64(0),
			Length: proto.MaxDrain + 1 + c.rng.Uint64N(1<<30), Cookie: c.rng.Uint64()}
		if q.Extended = c.habit.session.Framing == proto.Extended; q.Extended {
			q.Flags = []uint16{0, proto.CmdFlagPayloadLen}[c.rng.IntN(2)]
		}
		c.compose(draft{Request: q})
	case partHalfClose:
		w.mark(markHalfClosed)
		if inside {
			c.excuse("ended its side inside a request")
		}
		c.abandon()
		c.sock.in.ended = true
		c.parted = true
		w.note("half-close", "connection sent", int64(c.conn), int64(c.sent))
		return
	default:
		c.vanish(inside)
		return
	}
	c.partEnd = c.sent + uint64(len(c.out))
}

// abandon drops the requests that are not sent completely.
func (c *client) abandon() {
	for _, r := range c.unsent {
		for i, f := range c.inFlight {
			if f == r {
				c.inFlight = append(c.inFlight[:i], c.inFlight[i+1:]...)
				break
			}
		}
	}
	c.unsent, c.out = c.unsent[:0], nil
}

// blank appends bytes of the length of a request that are not a request.
func (c *client) blank(write func([]byte)) {
	c.order++
	at := len(c.out)
	c.out = append(c.out, make([]byte, c.habit.session.Framing.HeaderSize())...)
	write(c.out[at:])
	c.unsent = append(c.unsent,
		&request{blank: true, conn: c.conn, order: c.order, end: c.sent + uint64(len(c.out))})
}

// vanish closes or resets the connection, whatever is going on.
func (c *client) vanish(inside bool) {
	w := c.world
	switch {
	case inside && c.unsent[0].end-c.sent > c.unsent[0].Payload():
		w.mark(markHangupHeader)
	case inside:
		w.mark(markHangupPayload)
	}
	if len(c.sock.out.data) > 0 {
		w.mark(markHangupReply)
	}
	w.note("vanish", "connection sent how", int64(c.conn), int64(c.sent), int64(c.habit.parting))
	if c.habit.parting == partReset {
		c.sock.breakOff(eCONNRESET)
	}
	c.drop()
}
