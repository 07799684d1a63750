// LIST: which exports a server has.
//
// Invariant: the list is bounded, whatever the server sends.

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"ringnbd/proto"
)

// Limits of a list: how many exports a server may name, and how much memory the exports that are
// kept may take, in bytes.
const (
	maxExports    = 1 << 20
	maxListMemory = 64 << 20
	listingSize   = 64 // of a Listing, without its texts
)

// Listing is one export of a server.
type Listing struct {
	Name        string
	Description string
}

// List asks a server for its exports; the target's own export does not matter. Servers may refuse.
// left is how many further exports it named for which there was no memory (64 MiB).
func List(ctx context.Context, t *Target, o Options) (all []Listing, left int, err error) {
	return list(ctx, t, o, maxListMemory)
}

// list is List with another limit of the memory, in bytes.
func list(
	ctx context.Context, t *Target, o Options, maxMemory int,
) (all []Listing, left int, err error) {
	sock, err := dialAndNegotiate(ctx, t, o.complete(), func(sock net.Conn) error {
		h := &handshake{sock: sock}
		flags, err := h.readBanner()
		if err != nil {
			return err
		}
		if h.agreed.Oldstyle {
			return fmt.Errorf("%w: it has one export, and no list", errOldstyle)
		}
		if flags&proto.FlagClientFixedNewstyle == 0 {
			return errors.New("the server is too old to list its exports")
		}
		if all, left, err = h.list(maxMemory); err != nil {
			return err
		}
		return h.send(proto.AppendOption(nil, proto.OptAbort, ""))
	})
	if err != nil {
		return nil, 0, err
	}
	return all, left, sock.Close()
}

// Limits of AbsentError.
const (
	maxNames       = 5
	maxNameShown   = 80       // bytes of a name in its text
	maxNamesMemory = 64 << 10 // bytes
	maxNamesTime   = 5 * time.Second
)

// addNames adds the names of the exports that the server has, if it lists them soon.
func (a *AbsentError) addNames(ctx context.Context, t *Target, o Options) {
	o.Timeout = min(o.Timeout, maxNamesTime)
	all, left, err := list(ctx, t, o, maxNamesMemory)
	if err != nil {
		return
	}
	a.Listed = true
	for _, l := range all[:min(len(all), maxNames)] {
		a.Names = append(a.Names, l.Name)
	}
	a.More = left + len(all) - len(a.Names)
}

// list keeps exports up to maxMemory bytes, and counts the others.
func (h *handshake) list(maxMemory int) (all []Listing, left int, err error) {
	size := 0
	final, text, err := h.exchange(proto.OptList, proto.AppendOption(nil, proto.OptList, ""),
		func(r proto.OptionReply, data []byte) error {
			if r.Type != proto.RepServer {
				return nil
			}
			name, description, err := proto.ParseServer(data)
			if err == nil && (!proto.ValidString(name) || !proto.ValidString(description)) {
				err = violated("the name or description of an export is not text of at most %d "+
					"bytes", proto.MaxString)
			}
			if size += len(name) + len(description) + listingSize; size > maxMemory {
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
		return nil, 0, fmt.Errorf("the server does not list its exports%s", quoteReason(text))
	case final.Failed():
		return nil, 0, refusal(final.Type, "", text)
	}
	return all, left, nil
}
