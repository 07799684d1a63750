// What can go wrong, in words: the server refuses a request, breaks the rules, or is gone.
//
// Invariant: a text that came from the server is quoted, so that it cannot write on a terminal what
// it likes.

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

// ReplyError is an error that the server answered a request with. The connection goes on.
type ReplyError struct {
	Command uint16 // proto.Cmd...
	Offset  uint64 // bytes, of the request
	Length  uint64 // bytes, of the request
	Errno   proto.Errno
	Text    string // of the server, may be ""
	At      uint64 // offset of the failure, if the server told it
	Located bool   // it did
}

func (e *ReplyError) Error() string {
	text := fmt.Sprintf("the server answers %s to %s", e.Errno, CommandName(e.Command))
	if e.Command != proto.CmdFlush {
		text += fmt.Sprintf(" of %d bytes at offset %d", e.Length, e.Offset)
	}
	if e.Located {
		text += fmt.Sprintf(" (failed at %d)", e.At)
	}
	return text + said(e.Text)
}

// said is a server's reason, to be put behind what it did; nothing if it gave none.
func said(text string) string {
	if text == "" {
		return ""
	}
	// which the protocol does not allow: and whoever reads it is a person
	if len(text) > proto.MaxString {
		text = strings.ToValidUTF8(text[:proto.MaxString], "") + "..."
	}
	return fmt.Sprintf(": %q", text)
}

// CommandName is the protocol's word for a command.
func CommandName(command uint16) string {
	if name := proto.CommandName(command); name != "" {
		return name
	}
	return fmt.Sprintf("command %d", command)
}

// absent is the error of an export that the server does not have, or may not have.
type absent struct{ error }

func (a absent) Unwrap() error { return a.error }

// violation is what a server said that the protocol does not allow.
type violation struct{ what string }

func (v violation) Error() string { return "the server broke the protocol: " + v.what }

func violated(format string, values ...any) error {
	return violation{fmt.Sprintf(format, values...)}
}

// hungUp puts the end of a stream into words.
func hungUp(err error, when string) error {
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
