// The traffic of each client, asked for while it is connected.
//
// Invariant: the room for the answer is made by the control plane; a loop copies into it, and
// allocates nothing.

package engine

import "time"

// ClientTraffic is what one client has done so far.
type ClientTraffic struct {
	Client *Client
	Traffic
}

// spareClients is room for clients that come between the question and the answer.
const spareClients = 64

// Clients returns the traffic of every client that AdoptClient was given. False means that a loop
// did not answer within a second, and its clients are not in the list, or that the engine is
// closed.
func (e *Engine) Clients() (list []ClientTraffic, ok bool) {
	sent, _ := e.send(mail{kind: mailClients})
	ok = allDone(sent, time.Second, func(m *mail) { list = append(list, m.clients...) })
	return list, ok
}

// roomForClients is where a loop can put the traffic of its clients.
func (l *loop) roomForClients() []ClientTraffic {
	return make([]ClientTraffic, 0, min(int(l.live.Load())+spareClients, l.layout.conns))
}

// clientsOut copies the traffic of a loop's clients to a letter, as far as there is room.
func (l *loop) clientsOut(m *mail) {
	for i := range l.conns {
		c := &l.conns[i]
		if c.state != connFree && l.clients[i] != nil && len(m.clients) < cap(m.clients) {
			m.clients = append(m.clients, ClientTraffic{l.clients[i], c.traffic})
		}
	}
}
