// Package gate is the door of the server: it listens, negotiates with every client, and hands over
// the socket of each client that got through. It is ordinary Go (net, goroutines, deadlines)
// because nothing here is on the path of a request, and because a slow or hostile handshake must
// cost the event loops nothing.
//
//	listen.go     turns "HOST:PORT" and "unix:PATH" into listeners and the URI for clients
//	unix.go       is the file of a Unix socket: replaces a stale one, removes its own
//	options.go    says how an address is listened on: keepalive, freebind, mode and group
//	lacks.go      says what a machine lacks for an address
//	inherit.go    takes the listening sockets that the parent process has opened
//	gate.go       accepts, decides who may come in, and closes
//	admit.go      decides, immediately before a client is told that it is served, whether it is
//	handshake.go  is one connection: a socket around a proto.Negotiator
//	oldstyle.go   is one connection of a client that cannot negotiate
//	pause.go      prolongs handshakes by the time in which the process was stopped
//	socket.go     takes the descriptor out of net.Conn, and sets its options
//	peer.go       names the remote end for the log
//	reason.go     has the reasons for which a connection at the gate ends
//	notice.go     limits warnings to one of a kind every ten seconds
//
// A connection is accepted, is given one deadline for its whole handshake, and ends for exactly one
// counted reason (Counters). If it is served, its descriptor goes to Config.Adopt, and no byte
// after the negotiation has been read: what a client sent ahead waits in the socket.
//
// Exports may come, go and change at any time. A handshake goes by the catalog of its beginning;
// what has been removed since is refused when the client chooses it (ERR_UNKNOWN; EXPORT_NAME and
// oldstyle can only close), or, in the moment between that answer and Config.Adopt, closed. IDs of
// exports, which are not used again, are all that leaves a handshake.
//
// Listeners too may come and go: each Serve is on its own, and closing a listener ends it alone.
//
// Bounds: connections served and connections at the gate are together at most MaxConnections and a
// few more, which are there so that a full server can still say that it is full. When the gate
// itself is full, the oldest handshake gives way once it has had a second. One handshake holds a
// goroutine and some 20 KiB.
package gate
