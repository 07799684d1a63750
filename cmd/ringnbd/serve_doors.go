// The addresses of a running server: they are opened at the start and by a reload, and closed by a
// reload. Connections do not depend on the address that they came in by.
//
// Invariant: an address that was closed on purpose does not end the server; any other end of an
// accept loop does.

package main

import (
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
func (s *server) openDoor(o *options, l *config.Listen) (door, error) {
	p, err := gate.ListenWith(l.Address.V, o.manner[l.Address.V])
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

// changeDoors closes and opens the addresses of a reload.
func (s *server) changeDoors(t *turn) {
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
	for _, l := range t.next.Listen { // those that had to be closed first
		if slices.Contains(t.shut, l.Address.V) {
			d, err := s.openDoor(&t.options, l)
			if err != nil {
				s.log.Error("an address could not be listened on again", "error", err)
				continue
			}
			t.doors = append(t.doors, d)
		}
	}
	s.mu.Lock()
	s.doors = append(s.doors, t.doors...)
	for _, l := range t.next.Listen {
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
}
