// What a connection agreed on: the form of its requests and replies, and the meta contexts that it
// selected.
//
// Invariant: a Session is a small value without pointers, fixed when the transmission phase begins.

package proto

import "math/bits"

// Framing is the form of requests and replies on a connection.
type Framing uint8

// The forms; each can say all that the form before it can.
const (
	Simple     Framing = iota // requests of 28 bytes, replies of 16
	Structured                // replies to READ, and all others that have data, come in chunks
	Extended                  // requests and chunks have lengths of 64 bits
)

// Session is what a connection agreed on for its transmission phase. The zero value is what every
// client and server understands.
type Session struct {
	Framing  Framing
	Contexts ContextSet // selected for the connection's export
}

// Mode is all that a connection agreed on, except its export; Event carries it.
type Mode struct {
	FixedNewstyle bool
	NoZeroes      bool
	Session
}

// negotiated has the transmission flags that depend on what a connection agreed on, and so are not
// an export's own.
const negotiated = FlagSendDF | FlagSendResize | FlagBlockStatusPayload

// flags returns the transmission flags that a session adds to those of its export.
func (s Session) flags() uint16 {
	var flags uint16
	if s.Framing >= Structured {
		flags |= FlagSendDF
	}
	if s.Framing == Extended && s.Contexts != 0 {
		flags |= FlagBlockStatusPayload
	}
	return flags
}

// MaxContexts limits the meta contexts of an export, so that a set of them fits in a word.
const MaxContexts = 32

// ContextSet is a set of meta contexts of one export: bit i stands for Export.Contexts[i].
type ContextSet uint32

// Len returns how many contexts are in the set.
func (s ContextSet) Len() int { return bits.OnesCount32(uint32(s)) }
