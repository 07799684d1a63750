// Package peer is the client of NBD servers: it finds them by URI, negotiates with any server from
// the oldstyle handshake to extended headers, and keeps requests in flight on a connection. ringnbd
// info and ringnbd copy stand on it. (The load generator, bench/load, has loops of its own; it
// shares the URIs and the negotiation.)
//
//	uri.go        where an export is
//	dial.go       a socket, and a deadline over the negotiation
//	negotiate.go  EXTENDED_HEADERS, else STRUCTURED_REPLY; SET_META_CONTEXT; GO, else EXPORT_NAME; or the oldstyle handshake, which says all at once
//	list.go       LIST
//	conn.go       a connection in transmission, from its first request to its loss
//	request.go    Request -> Start -> Wait, and what may be asked
//	send.go       the writer: requests leave in batches, data straight from the caller's memory
//	receive.go    the reader: replies in any order, data straight into the caller's memory
//	chunk.go      chunks of structured replies
//	span.go       which parts of a READ have come
//	status.go     the map of an export, however long
//	errors.go     refusals, violations, loss
//
// A server is not trusted: what it says is compared with what it was asked and with the protocol's
// limits before it is believed, no memory is set aside by its word, and after a violation the
// connection is closed, for nothing on it means anything any more. Whatever ends a connection is
// told once, as the error of every request that was in flight and of every later one.
//
// A Conn has two goroutines, a reader and a writer, and neither runs code of the caller. Nothing is
// allocated for a request: the caller brings it and uses it again.
package client
