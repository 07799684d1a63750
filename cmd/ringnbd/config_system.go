// What a machine lacks for a configuration: storage, addresses, groups, memory, rings.
//
// Invariant: looking disturbs no server that runs on the same files: nothing is locked, nothing is
// written, no port of the configuration is taken, and the one ring that is opened is small.

package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/gate"
)

// lacking says, at the place of each value, what the machine lacks for it.
func lacking(file *config.Config) (list []config.Mistake) {
	wrong := func(at config.Pos, err error) {
		if err != nil {
			list = append(list, config.Mistake{At: at, Text: err.Error()})
		}
	}
	specs := file.Specs()
	for i, seen := range backing.Glance(specs) {
		e := file.Exports[i]
		wrong(e.StoreAt(), adviser(configAdvice).about(seen.Err))
		for _, note := range seen.Notes {
			file.Notes = append(file.Notes, config.Mistake{At: e.StoreAt(), Text: note})
		}
	}
	for _, l := range file.Listen {
		wrong(l.Address.At, gate.Lacks(l.Address.V, l.Options()))
	}
	if c := file.Control; c != nil {
		wrong(c.Socket.At, gate.Lacks("unix:"+c.Socket.V, gate.Options{}))
		for _, who := range append(append(config.Strings{}, c.Admins.V...), c.Viewers.V...) {
			if _, err := control.ParsePrincipal(who.V); who.IsSet() {
				wrong(who.At, err)
			}
		}
	}
	list = append(list, lackingOfServer(file)...)
	config.SortMistakes(list, file.Files)
	return list
}

// lackingOfServer says what the machine lacks for the server as a whole.
func lackingOfServer(file *config.Config) (list []config.Mistake) {
	a := readAllowance()
	o := options{allowance: a, loops: a.loops(), connections: a.connections()}
	if _, err := o.configure(file); err != nil {
		return []config.Mistake{{At: config.Pos{File: file.Path}, Text: keys(err.Error())}}
	}
	tuneRuntime(o.loops)
	for _, check := range []struct {
		at  config.Pos
		err error
	}{
		{file.Memory.At, a.check(o.engine())},
		{file.Memory.At, checkAddressSpace(o.memory)},
		{file.Register.At, checkLockable(o.engine())},
		{file.MaxConnections.At, lackingDescriptors(file, o.connections)},
		{file.Loops.At, tryRing()},
	} {
		if check.err != nil {
			if !check.at.IsSet() {
				check.at = config.Pos{File: file.Path}
			}
			list = append(list, config.Mistake{At: check.at, Text: keys(check.err.Error())})
		}
	}
	return list
}

// lackingDescriptors says whether the limit on open files has no room for the connections; that it
// has room for some of them only is a note.
func lackingDescriptors(file *config.Config, connections int) error {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > maxConnections*2 {
		return nil
	}
	const own = 32 // standard streams, rings, wake-ups
	room := int(limit.Cur) - own - len(file.Exports) - gate.Descriptors(2*len(file.Listen), 0)
	switch {
	case room < 1:
		return fmt.Errorf("the limit on open files (%d) leaves no room for connections; raise it "+
			"(ulimit -n, LimitNOFILE= of a unit) to at least %d", limit.Cur,
			int(limit.Cur)-room+connections)
	case room < connections:
		file.Notes = append(file.Notes, config.Mistake{At: config.Pos{File: file.Path},
			Text: fmt.Sprintf("the limit on open files (%d) leaves room for some %d of %d "+
				"connections; raise it (ulimit -n, LimitNOFILE= of a unit)", limit.Cur, room,
				connections)})
	}
	return nil
}

// tryRing starts a small engine with a ring, and ends it.
func tryRing() error {
	c := engine.Config{Loops: 1, MaxConnections: 1, Register: engine.RegisterOff}
	c.Memory = engine.MinMemory(c)
	e, err := engine.Start(c, nil)
	if err != nil {
		return err
	}
	return e.Close()
}

// configAdvice is what the user of a configuration can do about an error.
func configAdvice(err error) string { return keys(serveAdvice(err)) }

// keys turns an advice for the command line into one for a configuration.
func keys(text string) string { return asKeys.Replace(text) }

// asKeys has the flags that advice names, as keys.
var asKeys = strings.NewReplacer(
	"--format raw (format=raw in --export)", "format = \"raw\"",
	"let --create SIZE make a new image", "let create = \"SIZE\" make a new image",
	"drop --create to serve", "remove create to serve",
	"with --export NAME=PATH", "in [export.NAME]",
	"--shutdown-timeout gives", "shutdown-timeout gives",
	"--direct auto or off", "direct = \"auto\" or \"off\"",
	"serve the export with --read-only", "add read-only = true",
	"serve it with --read-only", "add read-only = true",
	"say --force", "say force = true",
	"--create ", "create = ", "--memory", "memory", "--loops", "loops",
	"--max-connections", "max-connections", "--register on", "register = \"on\"",
	"--register", "register")
