// Package activation starts an NBD server for as long as a command needs it, by systemd's socket
// activation: the server inherits a socket that is bound and listens already, as descriptor 3. So a
// client need not wait for the server, nor choose a port or a path.
//
//	activation.go  a server: its start, its end, its last words in errors
//	tail.go        the end of what a program printed
package activation
