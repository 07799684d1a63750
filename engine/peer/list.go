// LIST: which exports a server has.
//
// Invariant: the list is bounded, whatever the server sends.

package peer

import (
	"context"
	"errors"
	"fmt"
	"net"

	"ringnbd/proto"
)

// exportsMost bounds a list of exports: a server with more is not asked for all of them at once.
const exportsMost = 1 << 20

// Listing is one export of a server.
type Listing struct {
	Name        string
	Description string
}

// List asks a server for its exports; the target's own export does not matter. Servers may refuse.
func List(ctx context.Context, t *Target, o Options) ([]Listing, error) {
	var all []Listing
	sock, err := converse(ctx, t, o.complete(), func(sock net.Conn) error {
		talk := &talk{sock: sock}
		flags, err := talk.greet()
		if err != nil {
			return err
		}
		if flags&proto.FlagClientFixedNewstyle == 0 {
			return errors.New("the server is too old to list its exports")
		}
		if all, err = talk.list(); err != nil {
			return err
		}
		return talk.send(proto.AppendOption(nil, proto.OptAbort, ""))
	})
	if err != nil {
		return nil, err
	}
	return all, sock.Close()
}

func (t *talk) list() ([]Listing, error) {
	var all []Listing
	final, text, err := t.exchange(proto.OptList, proto.AppendOption(nil, proto.OptList, ""), func(r proto.OptionReply, data []byte) error {
		if r.Type != proto.RepServer {
			return nil
		}
		name, description, err := proto.ParseServer(data)
		if err == nil && (!proto.ValidString(name) || !proto.ValidString(description)) {
			err = violated("the name or description of an export is no text of at most %d bytes", proto.MaxString)
		}
		all = append(all, Listing{Name: name, Description: description})
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case final.Type == proto.RepErrUnsup || final.Type == proto.RepErrPolicy:
		return nil, fmt.Errorf("the server does not tell which exports it has: %q", text)
	case final.Failed():
		return nil, refusal(final.Type, "", text)
	}
	return all, nil
}
