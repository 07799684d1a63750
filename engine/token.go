// A token is the 64-bit user_data of a submission: which row its completion belongs to, and what
// kind of operation has completed.
//
// Invariant: a row is never given back while an operation that names it is in flight, so a
// completion whose generation does not match its row is our bug.

package engine

import "ringnbd/engine/uring"

// kind says what has completed, see loop.record.
type kind uint8

const (
	onReceive kind = iota + 1 // bytes from a socket; slot = connection
	onSend                    // a batch of replies was sent; slot = connection
	onDisk                    // a segment of a request's wave; slot = tag, part = segment
	onFlush                   // an fsync for all flushes that waited for it; slot = device
	onWake                    // the eventfd: mail, or claims granted by another loop
	// the answer to a cancellation; the cancelled operation has a completion of its own
	onCancel
	// the kernel has let go of a registered file; slot = its place. The kind is the ring's choice.
	onReleased kind = uring.ReleasedKind
)

// token packs kind:8, part:8, generation:16, slot:32.
type token uint64

func tokenOf(k kind, part uint8, generation uint16, slot uint32) token {
	return token(k)<<56 | token(part)<<48 | token(generation)<<32 | token(slot)
}

func (t token) kind() kind         { return kind(t >> 56) }
func (t token) part() uint8        { return uint8(t >> 48) }
func (t token) generation() uint16 { return uint16(t >> 32) }
func (t token) slot() uint32       { return uint32(t) }

// none is the index of no row, in every table of this package.
const none = ^uint32(0)
