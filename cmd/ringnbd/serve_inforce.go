// The configuration that is in force, whatever has changed since the start.
//
// Invariant: what is compared with the file is what is served, not what the file said before.

package main

import (
	"path/filepath"
	"strings"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine/backing"
)

// origin is where an export was asked for at the start.
func (o *options) origin(name string) (from string, asked *config.Export) {
	if o.file == nil {
		return fromFlags, nil
	}
	return originIn(o.file, name)
}

// originIn is where a configuration has an export.
func originIn(c *config.Config, name string) (from string, asked *config.Export) {
	for _, e := range c.Exports {
		if e.Name == name || e.Partitions.V && strings.HasPrefix(name, e.Name+"/") {
			return e.At.Where(), e
		}
	}
	return c.Path, nil
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
	c.Exports = nil
	seen := map[*config.Export]bool{}
	for _, x := range s.live.views() {
		e := x.asked
		if e == nil || e.Name == x.name() && !sameSpec(e.Spec(), x.spec) {
			e = exportOf(&x.spec)
		}
		if !x.leaving && !seen[e] && x.disk == nil {
			seen[e] = true
			c.Exports = append(c.Exports, e)
		}
	}
	return &c
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
