// Errors in words: the server refuses a request, violates the protocol, or is gone.
//
// Invariant: a text that came from the server is quoted, so that it cannot control a terminal.

package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"ringnbd/proto"
)

// ErrClosed is the error of requests on a connection that this side closed.
var ErrClosed = errors.New("the connection was closed by this side")

// ReplyError is an error with which the server answered a request. The connection goes on.
type ReplyError struct {
	Command uint16 // proto.Cmd...
	Offset  uint64 // bytes, of the request
	Length  uint64 // bytes, of the request
	Errno   proto.Errno
	Text    string // of the server, may be ""
	At      uint64 // offset of the failure, if the server told it
	Located bool   // the server told At
}

func (e *ReplyError) Error() string {
	text := fmt.Sprintf("the server answers %s to %s", e.Errno, CommandName(e.Command))
	if e.Command != proto.CmdFlush {
		text += fmt.Sprintf(" of %d bytes at offset %d", e.Length, e.Offset)
	}
	if e.Located {
		text += fmt.Sprintf(" (failed at %d)", e.At)
	}
	return text + quoteReason(e.Text)
}

// quoteReason returns a server's reason as the end of an error's text, or "" if the server gave
// none.
func quoteReason(text string) string {
	if text == "" {
		return ""
	}
	// longer than the protocol allows, and than a person reads
	if len(text) > proto.MaxString {
		text = strings.ToValidUTF8(text[:proto.MaxString], "") + "..."
	}
	return fmt.Sprintf(": %q", text)
}

// CommandName returns the spec's name of a command.
func CommandName(command uint16) string {
	if name := proto.CommandName(command); name != "" {
		return name
	}
	return fmt.Sprintf("command %d", command)
}

// AbsentError is the error of an export that the server does not have, or may not have, with the
// exports that it does have.
type AbsentError struct {
	Export string   // the name that was asked for
	Listed bool     // the server listed its exports, and did so soon
	Names  []string // some of those exports
	More   int      // how many exports there are in addition to Names
	Err    error    // of the negotiation
}

func (a *AbsentError) Error() string {
	switch {
	case !a.Listed:
		return a.Err.Error()
	case len(a.Names)+a.More == 0:
		return a.Err.Error() + "; it lists none"
	}
	names := make([]string, len(a.Names))
	for i, name := range a.Names {
		names[i] = fmt.Sprintf("%.*q", maxNameShown, name)
	}
	text := a.Err.Error() + "; it has " + strings.Join(names, ", ")
	if a.More > 0 {
		text += fmt.Sprintf(" and %d more", a.More)
	}
	return text
}

// Unwrap returns the error of the negotiation.
func (a *AbsentError) Unwrap() error { return a.Err }

// violation is the error of a server that sent what the protocol does not allow.
type violation struct{ what string }

func (v violation) Error() string { return "the server broke the protocol: " + v.what }

// violated returns a violation.
func violated(format string, values ...any) error {
	return violation{fmt.Sprintf(format, values...)}
}

// streamEnd puts the end of a stream into words.
func streamEnd(err error, when string) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New("the server closed the connection " + when)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil && !op.Timeout() {
		return op.Err
	}
	return err
}
