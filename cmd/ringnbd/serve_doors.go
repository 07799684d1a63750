// The addresses of a running server: they are opened at the start and by a reload, and closed by a
// reload. Connections do not depend on the address that they came in by.
//
// Invariant: an address that was closed on purpose does not end the server; any other end of an
// accept loop does.

package main

import (
	"errors"
	"fmt"
	"slices"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine/gate"
)

// door is an address that the server listens on, with the URI of the default export, or of the one
// export that an oldstyle door leads to.
type door struct {
	*gate.Place
	text     string // the address as it was asked for, "" for a socket that was inherited
	oldstyle bool   // its clients cannot name an export
	export   string // the name of the only export of an oldstyle door
}

// openDoor opens an address of a configuration.
func (s *server) openDoor(l *config.Listen) (door, error) {
	p, err := gate.ListenWith(l.Address.V, l.Options())
	if err != nil {
		return door{}, err
	}
	return door{p, l.Address.V, l.Oldstyle.IsSet(), l.Oldstyle.V}, nil
}

// accept starts accepting connections at a door.
func (s *server) accept(d door) {
	for _, l := range d.Listeners {
		go func() {
			var err error
			if d.oldstyle {
				err = s.gate.ServeOldstyle(l, d.export)
			} else {
				err = s.gate.Serve(l)
			}
			if err != nil {
				select {
				case s.accepting <- err:
				default: // the server ends already
				}
			}
		}()
	}
}

// uris lists the addresses that the server listens on.
func (s *server) uris() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []string{}
	for _, d := range s.doors {
		list = append(list, d.URI)
	}
	return list
}

// fillAddress gives a configuration without an address the one that the server listens on then.
func (s *server) fillAddress(c *config.Config) {
	if s.inherited == 0 {
		c.Fill(config.Defaults{Listen: gate.DefaultListen})
	}
}

// openDoorAgain opens an address that was closed, because it is to be listened on in another way;
// if that fails, as it was before. It returns what is in force then; nil: nothing.
func (s *server) openDoorAgain(t *turn, l *config.Listen) (*config.Listen, error) {
	d, err := s.openDoor(l)
	if err == nil {
		t.doors = append(t.doors, d)
		return l, nil
	}
	for _, before := range s.options.file.Listen {
		if before.Address.V != l.Address.V {
			continue
		}
		if d, again := s.openDoor(before); again == nil {
			t.doors = append(t.doors, d)
			return before, fmt.Errorf("%w; the address is listened on as before", err)
		}
	}
	return nil, fmt.Errorf("%w; the address is not listened on any more", err)
}

// changeDoors closes and opens the addresses of a reload. An error is about addresses that could
// not be opened again; the others are open.
func (s *server) changeDoors(t *turn) error {
	s.mu.Lock()
	var closed []door
	s.doors = slices.DeleteFunc(s.doors, func(d door) bool {
		gone := d.text != "" && slices.Contains(t.shut, d.text)
		if gone {
			closed = append(closed, d)
		}
		return gone
	})
	s.mu.Unlock()
	for _, d := range closed {
		d.Close()
		s.log.Info("not listening any more; connections stay", "address", d.URI, "by",
			t.by.String())
		s.events.Tell(control.Event{Event: "address-closed", Text: d.URI, By: t.by.String()})
	}
	var trouble []error
	for _, l := range t.next.Listen {
		if slices.Contains(t.shut, l.Address.V) { // it had to be closed first
			var err error
			l, err = s.openDoorAgain(t, l)
			trouble = append(trouble, err)
		}
		if l != nil {
			t.listens = append(t.listens, l)
		}
	}
	s.mu.Lock()
	s.doors = append(s.doors, t.doors...)
	for _, l := range t.listens {
		for _, d := range s.doors {
			if d.text == l.Address.V {
				d.SetKeepalive(l.Options().Keepalive)
			}
		}
	}
	s.mu.Unlock()
	for _, d := range t.doors {
		s.accept(d)
		s.log.Info("listening", "address", d.URI, "by", t.by.String())
		s.events.Tell(control.Event{Event: "address-opened", Text: d.URI, By: t.by.String()})
	}
	return errors.Join(trouble...)
}
