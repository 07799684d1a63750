// Oldstyle: a listener for clients that cannot negotiate. They are told size and flags, and are in.
//
// Invariant: an oldstyle connection is counted, limited and closed like any other, and takes its
// place in the engine before it is told a word. What it cannot have is a reason: a client that may
// not come in finds its connection closed.

package gate

import (
	"net"

	"ringnbd/proto"
)

// ServeOldstyle is Serve for clients of the oldstyle handshake, all of which get one export, by its
// index in the catalog. There is no TLS, and whoever can connect is in: nothing else is known of
// the client. One that then stays silent keeps its place, as an idle disk would, so who can connect
// can also fill the server up.
func (g *Gate) ServeOldstyle(l net.Listener, export int) error {
	return g.serve(l, func(h *handshake) (proto.Event, error) { return h.greet(export) })
}

// greet lets a client in with an oldstyle banner, or not.
func (h *handshake) greet(export int) (proto.Event, error) {
	h.oldstyle = true
	if refusal := h.admit(export); refusal.Reply != 0 {
		return proto.Event{Kind: proto.EventClose, Reason: proto.CloseRefused}, nil
	}
	shown := h.gate.config.Catalog.At(export)
	var banner [proto.OldstyleBannerSize]byte
	proto.PutOldstyleBanner(banner[:], &shown)
	if _, err := h.conn.Write(banner[:]); err != nil {
		return proto.Event{}, err
	}
	return proto.Event{Kind: proto.EventTransmit, Export: export}, nil
}
