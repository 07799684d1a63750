// LIST: which exports a server has.
//
// Invariant: the list is bounded, whatever the server sends.

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"ringnbd/proto"
)

// Bounds of a list: how many exports a server may name at all, and how much memory those that are
// kept may take, in bytes.
const (
	exportsMost = 1 << 20
	listMost    = 64 << 20
	listingSize = 64 // of a Listing beside its texts
)

// Listing is one export of a server.
type Listing struct {
	Name        string
	Description string
}

// List asks a server for its exports; the target's own export does not matter. Servers may refuse.
// left is how many it named beside those that are given, as there was no memory for them (64 MiB).
func List(ctx context.Context, t *Target, o Options) (all []Listing, left int, err error) {
	return list(ctx, t, o, listMost)
}

// list is List with room for so many bytes.
func list(
	ctx context.Context, t *Target, o Options, most int,
) (all []Listing, left int, err error) {
	sock, err := converse(ctx, t, o.complete(), func(sock net.Conn) error {
		talk := &talk{sock: sock}
		flags, err := talk.greet()
		if err != nil {
			return err
		}
		if talk.session.Oldstyle {
			return fmt.Errorf("%w: it has one, and no list", errOldstyle)
		}
		if flags&proto.FlagClientFixedNewstyle == 0 {
			return errors.New("the server is too old to list its exports")
		}
		if all, left, err = talk.list(most); err != nil {
			return err
		}
		return talk.send(proto.AppendOption(nil, proto.OptAbort, ""))
	})
	if err != nil {
		return nil, 0, err
	}
	return all, left, sock.Close()
}

// Bounds of alternatives.
const (
	namesMost    = 5 // that are written out
	nameMost     = 80
	namesMemory  = 64 << 10 // bytes
	namesTimeout = 5 * time.Second
)

// AbsentError is about an export that a server does not have, and names exports that it has.
type AbsentError struct {
	Err  error
	More int // exports that the server has and the text does not name
	text string
}

func (e *AbsentError) Error() string { return e.Err.Error() + e.text }
func (e *AbsentError) Unwrap() error { return e.Err }

// alternatives adds to the error about an absent export the exports that the server has; nothing if
// the server does not tell them, or not soon.
func alternatives(ctx context.Context, t *Target, o Options, absent error) error {
	o.Timeout = min(o.Timeout, namesTimeout)
	all, left, err := list(ctx, t, o, namesMemory)
	if err != nil {
		return absent
	}
	e := &AbsentError{Err: absent}
	if len(all)+left == 0 {
		e.text = "; it lists none"
		return e
	}
	var names []string
	for _, l := range all[:min(len(all), namesMost)] {
		names = append(names, fmt.Sprintf("%.*q", nameMost, l.Name))
	}
	e.text = "; it has " + strings.Join(names, ", ")
	if e.More = left + len(all) - len(names); e.More > 0 {
		e.text += fmt.Sprintf(" and %d more", e.More)
	}
	return e
}

// list keeps exports up to a size in bytes, and counts the others.
func (t *talk) list(most int) (all []Listing, left int, err error) {
	size := 0
	final, text, err := t.exchange(proto.OptList, proto.AppendOption(nil, proto.OptList, ""),
		func(r proto.OptionReply, data []byte) error {
			if r.Type != proto.RepServer {
				return nil
			}
			name, description, err := proto.ParseServer(data)
			if err == nil && (!proto.ValidString(name) || !proto.ValidString(description)) {
				err = violated("the name or description of an export is not text of at most %d "+
					"bytes", proto.MaxString)
			}
			if size += len(name) + len(description) + listingSize; size > most {
				left++
				return err
			}
			all = append(all, Listing{Name: name, Description: description})
			return err
		})
	switch {
	case err != nil:
		return nil, 0, err
	case final.Type == proto.RepErrUnsup || final.Type == proto.RepErrPolicy:
		return nil, 0, fmt.Errorf("the server does not tell which exports it has%s", said(text))
	case final.Failed():
		return nil, 0, refusal(final.Type, "", text)
	}
	return all, left, nil
}
