// Admission: whether a client that has chosen an export may come in, decided immediately before it
// is told.
//
// Invariant: what a client is told is granted has been set aside: a place in the engine, and with
// Config.Prepare whatever that made for it. What was set aside is either adopted or given back,
// once. Prepare and its undo are never called under the lock of the gate.

package gate

import (
	"context"
	"fmt"
	"net"
	"time"

	"ringnbd/proto"
)

var (
	shuttingDown = proto.Refusal{Reply: proto.RepErrShutdown,
		Message: "the server is shutting down"}
	exportGone = proto.Refusal{Reply: proto.RepErrUnknown,
		Message: "the export has been removed meanwhile"}
	exportUnprepared = proto.Refusal{Reply: proto.RepErrUnknown,
		Message: "the export cannot be opened now"}
)

// admit decides whether the client may come in, once it wants to.
func (h *handshake) admit(export *proto.Export) proto.Refusal {
	switch g := h.gate; {
	case g.isClosing():
		return shuttingDown
	case g.config.Gone(export.ID):
		return exportGone
	case !g.reserve():
		h.refused = true
		return proto.Refusal{
			Reply: proto.RepErrPolicy,
			Message: fmt.Sprintf("the server is full: it serves at most %d connections; try "+
				"again when another client has left", g.config.MaxConnections),
		}
	}
	h.reserved, h.refused = true, false
	refusal := h.prepare(export)
	if refusal.Reply != 0 {
		h.reserved = false
		h.gate.release()
	}
	return refusal
}

// prepare has Config.Prepare make what the client needs.
func (h *handshake) prepare(export *proto.Export) proto.Refusal {
	h.id = export.ID
	g := h.gate
	if g.config.Prepare == nil {
		return proto.Refusal{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !g.mayCancel(h.conn, cancel) {
		return g.late()
	}
	id, undo, err := g.config.Prepare(ctx, *export, h.peer)
	g.mayCancel(h.conn, nil)
	switch {
	case err != nil && ctx.Err() != nil:
		return g.late()
	case err != nil && g.config.Gone(export.ID):
		return exportGone
	case err != nil:
		g.notices.warn(time.Now(), "cannot prepare an export for a client", "export", export.Name,
			"peer", h.peer, "error", err)
		return exportUnprepared
	}
	h.id, h.undo = id, undo
	if ctx.Err() != nil {
		h.giveBack()
		return g.late()
	}
	return proto.Refusal{}
}

// late is the answer to a client whose time ran out while its export was prepared.
func (g *Gate) late() proto.Refusal {
	if g.isClosing() {
		return shuttingDown
	}
	return exportUnprepared
}

// mayCancel records how to end what a handshake waits for in Prepare, nil once it has returned. It
// reports whether the handshake may wait at all: not if its time is over.
func (g *Gate) mayCancel(c net.Conn, cancel context.CancelFunc) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, here := g.handshakes[c]
	if here {
		s.cancel = cancel
	}
	return here && !g.isClosing()
}

// giveBack undoes what was prepared for a client that is not served.
func (h *handshake) giveBack() {
	if h.undo != nil {
		h.undo()
		h.undo = nil
	}
}

// stay is what the gate knows of a handshake.
type stay struct {
	began  time.Time
	cancel context.CancelFunc // ends its Prepare, nil if it does not wait for one
}

// end ends what the handshake waits for, if that is Prepare. Whoever calls it ends reads and writes
// with a deadline.
func (s *stay) end() {
	if s.cancel != nil {
		s.cancel()
	}
}
