// How a connection at the gate ends.
//
// Invariant: every accepted connection ends for exactly one reason and is counted once, so that the
// counters add up to the number of connections accepted.

package gate

import (
	"ringnbd/proto"
)

// reason is how a connection at the gate ended. The numbers below reasonServed are those of
// proto.CloseReason.
type reason uint8

// The reasons besides those of the protocol; reasons is the number of all.
const (
	reasonServed   = firstReason + iota // handed over
	reasonSilent                        // the client hung up without a word, as port scans do
	reasonHangup                        // the client hung up while negotiating
	reasonTimeout                       // the handshake took too long
	reasonFull                          // no place to serve it: the client was told, and left
	reasonCrowded                       // too many connections at the gate: closed at once
	reasonShutdown                      // the server is shutting down
	reasonRejected                      // Adopt refused the connection
	reasonGone                          // its export was removed while it was let in
	reasonBroken                        // the socket failed in another way
	reasons        = int(proto.CloseReasons) + iota
)

const firstReason = reason(proto.CloseReasons)

// String returns a short text for logs and counters.
func (r reason) String() string {
	switch r {
	case reasonServed:
		return "served"
	case reasonSilent:
		return "hung up without a word"
	case reasonHangup:
		return "hung up"
	case reasonTimeout:
		return "handshake timeout"
	case reasonFull:
		return "server full"
	case reasonCrowded:
		return "too many handshakes"
	case reasonShutdown:
		return "shutting down"
	case reasonRejected:
		return "not adopted"
	case reasonGone:
		return "export removed"
	case reasonBroken:
		return "socket error"
	}
	return proto.CloseReason(r).String()
}

// unusual reports whether an operator should hear of it. A client that reads the list of exports
// and leaves, or scans ports, is not unusual.
func (r reason) unusual() bool {
	switch r {
	case reasonServed, reasonSilent, reasonHangup, reasonShutdown, reasonGone,
		reason(proto.CloseAbort):
		return false
	}
	return true
}

// count returns how many connections have ended for a reason.
func (g *Gate) count(r reason) uint64 { return g.ends[r].Load() }

// Counters are those of a gate since its start.
type Counters struct {
	Accepted uint64            // connections
	Ended    map[string]uint64 // connections that have ended at the gate, by the text of the reason
}

// Counters returns what was counted so far. Reasons that did not occur are left out.
func (g *Gate) Counters() Counters {
	c := Counters{Ended: map[string]uint64{}}
	for r := range reason(reasons) {
		if n := g.count(r); n > 0 {
			c.Ended[r.String()] += n
		}
	}
	c.Accepted = g.accepted.Load() // last: each connection that has ended was accepted before
	return c
}
