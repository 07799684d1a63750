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

// ServeOldstyle is Serve for clients of the oldstyle handshake, all of which get the export that
// has this name as they come; while there is none, their connections are closed. There is no TLS,
// and every client that can connect is served: nothing else is known about it. A client that then
// stays silent keeps its place, as an idle disk would, so clients can fill the server up.
func (g *Gate) ServeOldstyle(l net.Listener, export string) error {
	return g.serve(l, func(h *handshake) (proto.Event, error) { return h.greet(export) })
}

// greet sends the oldstyle banner, if the client may come in.
func (h *handshake) greet(export string) (proto.Event, error) {
	h.oldstyle = true
	catalog := h.gate.config.Catalog()
	i, ok := catalog.Lookup(export)
	if !ok {
		return proto.Event{Kind: proto.EventClose, Reason: proto.CloseExportUnknown}, nil
	}
	shown := catalog.At(i)
	if refusal := h.admit(&shown); refusal.Reply != 0 {
		return proto.Event{Kind: proto.EventClose, Reason: proto.CloseRefused}, nil
	}
	var banner [proto.OldstyleBannerSize]byte
	proto.PutOldstyleBanner(banner[:], &shown)
	if _, err := h.conn.Write(banner[:]); err != nil {
		return proto.Event{}, err
	}
	return proto.Event{Kind: proto.EventTransmit, Export: shown}, nil
}
