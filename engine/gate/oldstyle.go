// Oldstyle: a listener for clients that cannot negotiate. They are sent size and flags, and then
// the transmission phase begins.
//
// Invariant: an oldstyle connection is counted, limited and closed like any other, and takes its
// place in the engine before anything is sent. Its client cannot be told a reason: a client that
// may not come in finds its connection closed.

package gate

import (
	"net"

	"ringnbd/proto"
)

// ServeOldstyle is Serve for clients of the oldstyle handshake, all of which get one export, by its
// index in the catalog. There is no TLS, and every client that can connect is served: nothing else
// is known about it. A client that then stays silent keeps its place, as an idle disk would, so
// clients can fill the server up.
func (g *Gate) ServeOldstyle(l net.Listener, export int) error {
	return g.serve(l, func(h *handshake) (proto.Event, error) { return h.greet(export) })
}

// greet sends the oldstyle banner, if the client may come in.
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
