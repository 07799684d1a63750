// What the values of the server mean, alone and together.
//
// Invariant: every rule is checked whatever the others say; a mistake stands at the value that has
// to be changed, or at the header of the table that lacks a value.

package config

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine"
	"ringnbd/engine/gate"
	"ringnbd/engine/units"
)

const (
	// MaxLoops and MaxConnections catch typing errors; above them a start would fail with less
	// clear errors.
	MaxLoops       = 1024
	MaxConnections = 1 << 20
)

// checker collects what is wrong.
type checker struct {
	mistakes []Mistake
	bad      map[Pos]bool
}

func (c *checker) wrong(at Pos, field, format string, args ...any) {
	c.mistakes = append(c.mistakes, Mistake{at, field, fmt.Sprintf(format, args...)})
}

// lacks adds that a table lacks something, unless it has a mistake, which may be about just that.
func (k *checker) lacks(at Pos, field, text string) {
	if !k.bad[at] {
		k.wrong(at, field, "%s", text)
	}
}

func (c *Config) check() []Mistake {
	k := checker{bad: c.bad}
	k.server(c)
	k.control(c)
	k.listens(c)
	k.exports(c)
	return k.mistakes
}

// server checks the settings of the server as a whole.
func (k *checker) server(c *Config) {
	if n := c.Loops; n.IsSet() && (n.V < 1 || n.V > MaxLoops) {
		k.wrong(n.At, "loops", "loops %d: must be from 1 to %d", n.V, MaxLoops)
	}
	if n := c.MaxConnections; n.IsSet() && (n.V < 1 || n.V > MaxConnections) {
		k.wrong(n.At, "max-connections", "max-connections %d: must be from 1 to %d", n.V,
			MaxConnections)
	}
	if c.Memory.IsSet() && c.Loops.IsSet() && c.Loops.V > 0 && c.Loops.V <= MaxLoops {
		e := engine.Config{Loops: c.Loops.V, Memory: uint64(c.Memory.V),
			MaxConnections: min(max(c.MaxConnections.Or(1), 1), MaxConnections),
			Homed:          true} // a reload can add overlays
		if least := engine.MinMemory(e); e.Memory < least {
			k.wrong(c.Memory.At, "memory", "memory %v is too small: %s and %s need %s%s; give "+
				"that, or fewer loops or max-connections", c.Memory.V,
				units.Plural(e.Loops, "loop"), units.Plural(e.MaxConnections, "connection"),
				WholeMiB(least), WhyHomed(e))
		}
	}
	if c.Debug.IsSet() {
		if _, _, err := SplitDebug(c.Debug.V); err != nil {
			k.wrong(c.Debug.At, "debug", "debug %s: %v", c.Debug.V, err)
		}
	}
	if len(c.Exports) == 0 && c.Control == nil {
		k.lacks(Pos{c.Path, 1, 1}, "export", "nothing to serve; write [export.NAME] with a path, "+
			"or [control] with a socket, over which exports can be added")
	}
}

// WhyHomed says why an engine that serves overlays needs more memory.
func WhyHomed(c engine.Config) string {
	if !c.Homed || c.Loops == 1 {
		return ""
	}
	return ", because all clients of an overlay are in one loop, so that each loop has room for " +
		"all connections"
}

// WholeMiB is a number of bytes, rounded up to whole MiB.
func WholeMiB(n uint64) string { return units.Exact((n + 1<<20 - 1) >> 20 << 20) }

// control checks the table of the control socket.
func (k *checker) control(c *Config) {
	if c.Control == nil {
		return
	}
	socket := &c.Control.Socket
	switch {
	case !socket.IsSet():
		k.lacks(c.Control.At, "control", "the control socket has no path; write socket = \"PATH\"")
	case strings.HasPrefix(socket.V, "unix:"):
		k.wrong(socket.At, "control.socket", "the control socket is always a Unix socket; write "+
			"its path, %q", strings.TrimPrefix(socket.V, "unix:"))
	default:
		if err := gate.CheckAddress("unix:" + socket.V); err != nil {
			k.wrong(socket.At, "control.socket", "%v", err)
		}
	}
	for _, list := range []*Value[Strings]{&c.Control.Admins, &c.Control.Viewers} {
		for _, one := range list.V {
			if err := control.CheckPrincipal(one.V); err != nil && one.IsSet() {
				k.wrong(one.At, "control", "%v", err)
			}
		}
	}
}

// listens checks all addresses, with those of the control socket and of debug.
func (k *checker) listens(c *Config) {
	names := make(map[string]bool, len(c.Exports))
	for _, e := range c.Exports {
		names[e.Name] = true
	}
	seen := map[string]Pos{}
	taken := func(address string, at Pos, field string) {
		key := addressKey(address)
		if before, found := seen[key]; found && key != "" {
			k.wrong(at, field, "%s is listened on already, at %s; choose another address, or "+
				"remove one of the two", address, before.Where())
			return
		}
		seen[key] = at
	}
	if c.Debug.IsSet() {
		taken(c.Debug.V, c.Debug.At, "debug")
	}
	if c.Control != nil && c.Control.Socket.IsSet() {
		taken("unix:"+strings.TrimPrefix(c.Control.Socket.V, "unix:"), c.Control.Socket.At,
			"control.socket")
	}
	for _, l := range c.Listen {
		k.listen(l, names)
		if l.Address.IsSet() {
			taken(l.Address.V, l.Address.At, "listen.address")
		}
	}
}

// addressKey is the same for addresses that are certainly the same; "" for a port that is free.
func addressKey(address string) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix:" + filepath.Clean(path)
	}
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return strings.ToLower(address) + ":10809"
	case port == "0":
		return ""
	}
	return strings.ToLower(host) + ":" + port
}

// listen checks an address.
func (k *checker) listen(l *Listen, names map[string]bool) {
	if !l.Address.IsSet() {
		k.lacks(l.At, "listen", "this address has none; write address = \"HOST:PORT\", or "+
			"\"unix:PATH\"")
		return
	}
	address, at := l.Address.V, l.Address.At
	check := checkListen
	if l.Oldstyle.IsSet() {
		check = CheckOldstyle
	}
	if err := check(address); err != nil {
		k.wrong(at, "listen.address", "address %s: %v", address, err)
	} else if l.Oldstyle.IsSet() {
		if err := gate.CheckAddress(address); err != nil {
			k.wrong(at, "listen.address", "%v", err)
		}
	}
	if l.Oldstyle.IsSet() && !names[l.Oldstyle.V] {
		k.wrong(l.Oldstyle.At, "listen.oldstyle", "there is no export %q; name one of this "+
			"configuration", l.Oldstyle.V)
	}
	isUnix := strings.HasPrefix(address, "unix:")
	for _, v := range []struct {
		key  string
		at   Pos
		unix bool
	}{
		{"freebind", l.Freebind.At, false}, {"keepalive", l.Keepalive.Idle.At, false},
		{"keepalive", l.Keepalive.Interval.At, false},
		{"keepalive", l.Keepalive.UserTimeout.At, false},
		{"mode", l.Mode.At, true}, {"group", l.Group.At, true},
	} {
		if v.at.IsSet() && v.unix != isUnix {
			k.wrong(v.at, "listen."+v.key, "%s is for %s; remove it", v.key,
				map[bool]string{true: "Unix sockets", false: "addresses of TCP"}[v.unix])
		}
	}
	if isUnix && l.Group.IsSet() && !l.Mode.IsSet() {
		k.wrong(l.Group.At, "listen.group", "a group needs a mode that lets it connect; add "+
			"mode = \"0660\"")
	}
	k.keepalive(&l.Keepalive)
}

func (k *checker) keepalive(l *Keepalive) {
	for _, v := range []struct {
		of  *Value[Time]
		one gate.Keepalive
	}{
		{&l.Idle, gate.Keepalive{Idle: time.Duration(l.Idle.V)}},
		{&l.Interval, gate.Keepalive{Interval: time.Duration(l.Interval.V)}},
		{&l.UserTimeout, gate.Keepalive{UserTimeout: time.Duration(l.UserTimeout.V)}},
	} {
		if err := v.one.Check(); err != nil && v.of.IsSet() {
			k.wrong(v.of.At, "listen.keepalive", "keepalive %v", err)
		}
	}
}

// Options are how the address is listened on.
func (l *Listen) Options() gate.Options {
	o := gate.Options{Freebind: l.Freebind.V, Group: l.Group.V, Keepalive: gate.Keepalive{
		Idle:        time.Duration(l.Keepalive.Idle.Or(0)),
		Interval:    time.Duration(l.Keepalive.Interval.Or(0)),
		UserTimeout: time.Duration(l.Keepalive.UserTimeout.Or(0))}}
	if l.Mode.IsSet() {
		mode := uint32(l.Mode.V)
		o.Mode = &mode
	}
	return o
}
