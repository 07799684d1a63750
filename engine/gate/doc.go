/*
Package gate is the door of the server: it listens, negotiates with whoever comes, and hands over the socket of each
client that got through. It is ordinary Go (net, goroutines, deadlines) because nothing here is on the path of a request,
and because a slow or hostile handshake must not cost the event loops a thing.

	listen.go     "HOST:PORT" and "unix:PATH" to listeners and the URI that clients use
	unix.go       the file of a Unix socket: taking a stale one's place, removing one's own
	inherit.go    sockets that whoever started us listens on already
	gate.go       the accept loop, who may come in, and closing
	handshake.go  one connection: sockets around a proto.Negotiator
	oldstyle.go   one connection of a client that cannot negotiate: told, not asked
	socket.go     the descriptor taken out of net.Conn, and its options
	peer.go       who a client is, for the log
	reason.go     how a connection at the gate can end, counted
	notice.go     warnings, no more than one of a kind every ten seconds

A connection is accepted, is given one deadline for everything it has to say, and ends in exactly one counted Reason. With
Transmit its descriptor goes to Config.Adopt, and no byte behind the negotiation has been read: what a client sent ahead
waits in the socket.

Bounds: connections served and connections at the gate are together at most MaxConnections and a few more, which
are there so that a full server can still say that it is full. When the gate itself is full, the oldest handshake gives
way once it has had a second. One handshake holds a goroutine and some 20 KiB.
*/
package gate
