// The configuration that is in force, whatever has changed since the start.
//
// Invariant: what is compared with the file is what is served, not what the file said before.

package main

import (
	"path/filepath"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine/backing"
)

// origins finds where exports are asked for.
type origins struct {
	config *config.Config // nil: on the command line
	byName map[string]*config.Export
}

func originsIn(c *config.Config) origins {
	o := origins{c, map[string]*config.Export{}}
	if c != nil {
		for _, e := range c.Exports {
			o.byName[e.Name] = e
		}
	}
	return o
}

// of returns where an export is asked for, and what the configuration says of it.
func (o origins) of(x *served) (from string, asked *config.Export) {
	name := x.name()
	if x.disk != nil {
		name = x.disk.name()
	}
	switch e := o.byName[name]; {
	case e != nil:
		return e.At.Where(), e
	case o.config != nil:
		return o.config.Path, nil
	}
	return fromFlags, nil
}

// configPath is the path of the configuration, or "".
func (s *server) configPath() string {
	path := s.options.config
	if whole, err := filepath.Abs(path); err == nil && path != "" {
		return whole
	}
	return path
}

// inForce is the configuration of what is served now.
func (s *server) inForce() *config.Config {
	s.mu.Lock()
	c := *s.options.flagged
	if s.options.file != nil {
		c = *s.options.file
	}
	s.mu.Unlock()
	s.fillAddress(&c)
	c.Exports = nil
	seen := map[*config.Export]bool{}
	for _, x := range s.live.views() {
		e := x.asked
		if e == nil || e.Name == x.name() && !sameSpec(e.Spec(), x.spec) {
			e = altered(e, &x.spec)
		}
		if !x.leaving && !seen[e] && x.disk == nil {
			seen[e] = true
			c.Exports = append(c.Exports, e)
		}
	}
	return &c
}

// altered is an export of a configuration as it is served now. A store that is the same is written
// as the configuration writes it.
func altered(asked *config.Export, now *backing.Spec) *config.Export {
	e := exportOf(now)
	if asked != nil && asked.Name == e.Name && sameStore(asked.Spec(), *now) {
		e.Path, e.Overlay = asked.Path, asked.Overlay
	}
	return e
}

// sameSpec reports whether two specs ask for the same.
func sameSpec(a, b backing.Spec) bool {
	same := sameStore(a, b)
	a.Path, a.Partition, a.Tree = "", "", nil
	b.Path, b.Partition, b.Tree = "", "", nil
	return same && a == b
}

// sameStore reports whether two specs are about the same path, or tree of paths.
func sameStore(a, b backing.Spec) bool { return wholeStore(a.Text()) == wholeStore(b.Text()) }
