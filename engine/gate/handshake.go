// One connection at the gate: a socket around a proto.Negotiator (in oldstyle.go, without one).
//
// Invariant: never more is read than the negotiator asks for, so that the first byte of the
// transmission phase is still in the socket when it is handed over.

package gate

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// speech is a kind of handshake, from the first byte to the event that ends it.
type speech func(*handshake) (proto.Event, error)

// handshake is one connection at the gate.
type handshake struct {
	gate     *Gate
	conn     net.Conn
	peer     string
	kept     Keepalive
	spare    int // the descriptor that it will have in the engine
	began    time.Time
	speak    speech
	oldstyle bool // the client cannot negotiate
	spoke    bool // the client has sent something
	refused  bool // the client wanted to come in and was told that the server is full
	reserved bool // a place in the engine is reserved for the connection
	id       uint64
	undo     func() // of what was prepared for the client, nil if there is nothing to undo
}

// run negotiates and hands the socket over or closes it. Close waits for it.
func (h *handshake) run() {
	g := h.gate
	event, err := h.speak(h)
	why := h.reason(event, err)
	if why == reasonServed {
		why, err = h.handOver(event)
	} else {
		unix.Close(h.spare)
		h.conn.Close()
	}
	h.giveBack()
	if h.reserved {
		g.release()
	}
	g.leave(h.conn)
	attributes := []any{"took", time.Since(h.began)}
	if event.Kind == proto.EventTransmit {
		attributes = append(attributes, "export", event.Export.Name)
	}
	if h.oldstyle {
		attributes = append(attributes, "oldstyle", true)
	}
	g.ended(h.peer, why, err, attributes...)
}

// negotiate conducts the newstyle handshake.
func (h *handshake) negotiate() (proto.Event, error) {
	return h.converse(proto.NewNegotiator(h.gate.config.Catalog(), proto.Policy{Admit: h.admit}))
}

// converse carries bytes between the socket and the negotiator until one of them ends it.
func (h *handshake) converse(n *proto.Negotiator) (proto.Event, error) {
	buffer := make([]byte, 4096)
	for {
		if out := n.Out(); len(out) > 0 {
			k, err := h.conn.Write(out)
			n.Sent(k)
			if err != nil && !h.gate.forgiven(h.conn, err) {
				return proto.Event{}, err
			}
			continue
		}
		if e := n.Event(); e.Kind != proto.EventNone {
			return e, nil
		}
		k, err := h.conn.Read(buffer[:min(n.Need(), len(buffer))])
		h.spoke = h.spoke || k > 0
		if h.gate.isClosing() {
			n.Refuse(shuttingDown)
		}
		n.Feed(buffer[:k])
		if err != nil && !h.gate.forgiven(h.conn, err) {
			return proto.Event{}, err
		}
	}
}

// reason returns how the conversation ended.
func (h *handshake) reason(e proto.Event, err error) reason {
	switch {
	case e.Kind == proto.EventTransmit:
		return reasonServed
	case h.refused:
		return reasonFull // whatever the client did next
	case h.gate.isClosing():
		return reasonShutdown
	case e.Kind == proto.EventClose:
		return reason(e.Reason)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reasonTimeout
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		if h.spoke {
			return reasonHangup
		}
		return reasonSilent
	}
	return reasonBroken
}

// handOver gives the socket to the engine.
func (h *handshake) handOver(event proto.Event) (reason, error) {
	if err := detach(h.conn, h.spare, h.gate.config.SocketMemory, h.kept); err != nil {
		return reasonBroken, err
	}
	if err := h.adopt(h.spare, event); err != nil {
		unix.Close(h.spare)
		if h.gate.config.Gone(h.id) {
			return reasonGone, nil
		}
		return reasonRejected, err
	}
	h.undo = nil
	return reasonServed, nil
}

// adopt gives the socket to the engine, and at the same moment its reservation back: if both
// counted for a while, another client would be told that the server is full when it is not.
func (h *handshake) adopt(fd int, event proto.Event) error {
	g, export := h.gate, event.Export
	export.ID = h.id
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.config.Adopt(fd, export, event.Mode.Session, h.peer)
	if h.reserved {
		h.reserved = false
		g.reserved--
	}
	return err
}
