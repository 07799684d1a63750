// How a connection at the gate ends. Invariant: every accepted connection ends in exactly one
// reason and is counted once, so that the counters add up to the number of connections accepted.

package gate

import (
	"ringnbd/proto"
)

// Reason is how a connection at the gate ended. The numbers below Transmit are those of
// proto.CloseReason.
type Reason uint8

// The reasons beside those of the protocol. Reasons is the number of all, to walk the counters.
const (
	Transmit Reason = Reason(proto.CloseReasons) + iota // handed over
	// the client hung up without a word: a port scan, a health check
	Silent
	Hangup  // the client hung up while negotiating
	Timeout // the handshake took too long
	// no more connections can be served: refused, and then gone
	Full
	// too many at the gate: closed without a word
	Crowded
	Shutdown // the server is shutting down
	Rejected // Adopt refused it
	Broken   // the socket failed in another way
	Reasons  = int(proto.CloseReasons) + iota
)

// String is a short text for logs and counters.
func (r Reason) String() string {
	switch r {
	case Transmit:
		return "served"
	case Silent:
		return "hung up without a word"
	case Hangup:
		return "hung up"
	case Timeout:
		return "handshake timeout"
	case Full:
		return "server full"
	case Crowded:
		return "too many handshakes"
	case Shutdown:
		return "shutting down"
	case Rejected:
		return "not adopted"
	case Broken:
		return "socket error"
	}
	return proto.CloseReason(r).String()
}

// unusual says whether an operator should hear of it. Who looks at the list and leaves, or scans
// ports, is no news.
func (r Reason) unusual() bool {
	switch r {
	case Transmit, Silent, Hangup, Shutdown, Reason(proto.CloseAbort):
		return false
	}
	return true
}

// Count is how many connections ended for this reason so far.
func (g *Gate) Count(r Reason) uint64 {
	return g.ends[r].Load()
}
