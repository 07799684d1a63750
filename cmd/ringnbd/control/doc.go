// Package control is the control socket of a running server: HTTP/1.1 and JSON on a Unix socket,
// for users of this machine whom the server's configuration names.
//
//	api.go      what goes over the socket: the types of questions, answers and errors
//	access.go   who is at the other end, and what that user may do
//	accept.go   bounds for connections
//	server.go   the server: limits, and answers that are written in time or not at all
//	route.go    the table of routes, and the checks of a request before its route is called
//	call.go     the parameters and the body of a request
//	serving.go  what each route does
//	size.go     sizes in JSON
//	schema.go   the routes and their types as JSON schemas
//	events.go   what happens in the server, for clients that listen
//	client.go   a client, for ringnbd ctl
//
// The package knows nothing of exports but what Running tells it.
//
// Invariants:
//   - Who may do what is decided by what the kernel says of the client when it connects, before a
//     byte of it is read. A user who may nothing costs one of few connections, for a moment.
//   - What a client sends is bounded before it is read: header, body, parameters, and the time for
//     each. A client that does not read its answer loses its connection, and costs nothing else.
//   - An answer is whole or an error; a request that is not understood to the last parameter
//     changes nothing.
package control
