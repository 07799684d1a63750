// Package client is the client of NBD servers: it finds a server by URI, negotiates with any server
// from the oldstyle handshake to extended headers, and keeps requests in flight on a connection.
// ringnbd info and ringnbd copy are built on it. (The load generator, bench/load, has loops of its
// own; it shares the URIs and the negotiation.)
//
//	uri.go        where an export is
//	dial.go       a socket, and a deadline for the negotiation
//	negotiate.go  EXTENDED_HEADERS, else STRUCTURED_REPLY; SET_META_CONTEXT; GO, else EXPORT_NAME;
//	              or the oldstyle handshake, which says everything at once
//	list.go       LIST
//	conn.go       a connection in transmission, from its first request to its loss
//	request.go    Request -> Start -> Wait, and which requests may be sent
//	send.go       the writer: requests leave in batches, data straight from the caller's memory
//	receive.go    the reader: replies in any order, data straight into the caller's memory
//	chunk.go      chunks of structured replies
//	span.go       which parts of a READ have been received
//	status.go     the map of an export, however long
//	errors.go     refusals, violations, loss
//
// A server is not trusted. What it says is compared with the request and with the protocol's limits
// before it is believed, no memory is allocated on its word alone, and after a violation the
// connection is closed, because nothing on it can be interpreted any more. The first reason for
// which a connection ends is the error of every request in flight and of every later request.
//
// A Conn has two goroutines, a reader and a writer, and neither runs the caller's code. Nothing is
// allocated for a request: the caller brings it and may use it again.
package client
