// serve --config: the flags of serve from a file, and the file from the flags.
//
// Invariant: the two ways are the same: what a command line says, and what the file says that is
// made of it, give equal options and specs. A file says everything: no flag that has a key stands
// beside it, so that there is never a question which of the two is in force.

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/gate"
	"ringnbd/engine/tree"
)

// flagKeys are the keys that say in a file what the flags of serve say.
var flagKeys = map[string]string{
	"export": "export.NAME", "create": "create", "read-only": "read-only", "format": "format",
	"partitions": "export.NAME.partitions",
	"force":      "force", "listen": "listen", "port": "listen", "oldstyle": "listen.oldstyle",
	"max-connections": "max-connections", "memory": "memory",
	"handshake-timeout": "handshake-timeout", "shutdown-timeout": "shutdown-timeout",
	"loops": "loops", "direct": "direct", "register": "register", "poll": "poll",
	"verbose": "log.level", "log-format": "log.format", "debug": "debug",
	"control": "control.socket",
}

// besideConfig are the flags that go together with --config.
var besideConfig = []string{"config", "verbose", "help", "version"}

// read reads a command line, or the file that it names.
func (o *options) read(flags *pflag.FlagSet, args []string) ([]backing.Spec, error) {
	if !flags.Changed("config") {
		return o.arguments(args)
	}
	var err error
	flags.Visit(func(f *pflag.Flag) {
		if err == nil && !slices.Contains(besideConfig, f.Name) {
			err = fmt.Errorf("--config says everything, so --%s cannot stand beside it: write %s "+
				"into %s", f.Name, flagKeys[f.Name], o.config)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case len(args) > 0:
		return nil, fmt.Errorf("--config says everything, so %s cannot stand beside it: write "+
			"[export.NAME] with path = %q into %s", args[0], args[0], o.config)
	case o.config == "":
		return nil, errors.New("--config needs the path of a file")
	}
	c, err := loadConfig(o.config)
	if err != nil {
		return nil, failure{visibleError{err}}
	}
	o.loud = o.verbose
	return o.configure(c)
}

// loadConfig reads a configuration. An error has the first mistake, and how many there are.
func loadConfig(path string) (*config.Config, error) {
	awaitPath(path)
	c, mistakes := config.Load(path)
	switch more := len(mistakes) - 1; {
	case more == 0:
		return nil, mistakes[0]
	case more > 0:
		return nil, fmt.Errorf("%w; and %d more: ringnbd config check %s", mistakes[0], more,
			backing.ShellQuote(path))
	}
	return c, nil
}

// configure takes what a file says. All that the file leaves out stays as flags leave it.
func (o *options) configure(c *config.Config) ([]backing.Spec, error) {
	o.file = c
	o.loops = c.Loops.Or(o.loops)
	o.connections = c.MaxConnections.Or(o.connections)
	o.memory = uint64(c.Memory.V)
	o.handshake = time.Duration(c.HandshakeTimeout.V)
	o.shutdown = time.Duration(c.ShutdownTimeout.V)
	o.registered = engine.Registration(slices.Index(registerNames, string(c.Register.V)))
	o.poll = pollFlag(c.Poll.V)
	if c.Poll.V == config.PollAuto {
		o.poll = pollFlag(engine.PollAuto)
	}
	o.verbose = o.verbose || c.Log.Level.V == "debug"
	o.logFormat = string(c.Log.Format.V)
	o.debug = debugFlag(c.Debug.V)
	o.listen, o.oldstyle, o.manner = nil, nil, map[string]gate.Options{}
	for _, l := range c.Listen {
		if l.Oldstyle.IsSet() {
			o.oldstyle = append(o.oldstyle, oldstyle{address: l.Address.V, export: l.Oldstyle.V})
		} else {
			o.listen = append(o.listen, l.Address.V)
		}
		o.manner[l.Address.V] = l.Options()
	}
	if c.Control != nil {
		o.control = controlFlag("unix:" + c.Control.Socket.V)
		if c.Control.Admins.IsSet() {
			o.admins = c.Control.Admins.V.Texts()
		}
		o.viewers = c.Control.Viewers.V.Texts()
	}
	specs := c.Specs()
	if err := o.findOldstyle(specs); err != nil {
		return nil, err
	}
	return specs, o.check(specs)
}

// advice is what the user can do about an error, in flags or in keys.
func (o *options) advice() adviser {
	if o.file != nil {
		return configAdvice
	}
	return serveAdvice
}

// fromFlags is where values come from that a command line has.
const fromFlags = "the command line"

// given makes a value of a configuration from a flag.
func given[T any](v T) config.Value[T] { return config.Given(fromFlags, v) }

// configuration is the file that says what the options say. flags has those that were given; specs
// are what o.arguments returned.
func (o *options) configuration(flags *pflag.FlagSet, specs []backing.Spec) (*config.Config,
	error) {
	c := &config.Config{}
	for name, set := range map[string]func(){
		"loops":             func() { c.Loops = given(o.loops) },
		"memory":            func() { c.Memory = given(config.Size(o.memory)) },
		"max-connections":   func() { c.MaxConnections = given(o.connections) },
		"handshake-timeout": func() { c.HandshakeTimeout = given(config.Time(o.handshake)) },
		"shutdown-timeout":  func() { c.ShutdownTimeout = given(config.Time(o.shutdown)) },
		"register": func() {
			c.Register = given(config.Choice(registerNames[o.registered]))
		},
		"poll": func() {
			c.Poll = given(config.Poll(o.poll))
			if time.Duration(o.poll) == engine.PollAuto {
				c.Poll.V = config.PollAuto
			}
		},
		"debug": func() { c.Debug = given(wholeAddress(string(o.debug))) },
		"control": func() {
			path, _ := strings.CutPrefix(string(o.control), "unix:")
			c.Control = &config.Control{Socket: given(wholePath(path))}
		},
		"log-format": func() { c.Log.Format = given(config.Choice(o.logFormat)) },
		"verbose":    func() { c.Log.Level = given(config.Choice("debug")) },
	} {
		if flags.Changed(name) {
			set()
		}
	}
	if flags.Changed("verbose") && !o.verbose {
		c.Log.Level = config.Value[config.Choice]{}
	}
	for _, address := range o.listen {
		c.Listen = append(c.Listen, &config.Listen{Address: given(wholeAddress(address))})
	}
	for _, old := range o.oldstyle {
		c.Listen = append(c.Listen, &config.Listen{Address: given(wholeAddress(old.address)),
			Oldstyle: given(old.export)})
	}
	for i := range specs {
		c.Exports = append(c.Exports, exportOf(&specs[i]))
	}
	return c, nil
}

// exportOf is an export of a file that says what a spec says.
func exportOf(s *backing.Spec) *config.Export {
	e := &config.Export{Name: s.Name, Path: given(wholeStore(s.Text()))}
	if s.Description != "" {
		e.Description = given(s.Description)
	}
	if s.ReadOnly {
		e.ReadOnly = given(true)
	}
	if s.Create > 0 {
		e.Create = given(config.Size(s.Create))
	}
	if s.Direct != backing.DirectAuto {
		e.Direct = given(config.Choice(directNames[s.Direct]))
	}
	if s.Force {
		e.Force = given(true)
	}
	if s.Partitions {
		e.Partitions = given(true)
	}
	if s.Raw {
		e.Format = given(config.Choice("raw"))
	}
	return e
}

// wholeStore makes the paths of a store whole: a relative path in a file is relative to the file.
func wholeStore(text string) string {
	n, err := tree.Parse(text)
	if err != nil {
		return text
	}
	n.Paths(func(leaf *tree.Node) {
		if !backing.Synthetic(leaf.Path) {
			leaf.Path = wholePath(leaf.Path)
		}
	})
	for i := range n.Options {
		if n.Options[i].Key == tree.OptionDir {
			n.Options[i].Value = wholePath(n.Options[i].Value)
		}
	}
	return n.String()
}

// wholeAddress makes the path of a Unix socket whole.
func wholeAddress(address string) string {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok || path == "" {
		return address
	}
	return "unix:" + wholePath(path)
}

// wholePath is a path from the root. Nothing else in it is changed: what looks like a detour may
// lead through a link.
func wholePath(path string) string {
	here, err := filepath.Abs(".")
	if err != nil || filepath.IsAbs(path) {
		return path
	}
	return strings.TrimSuffix(here, "/") + "/" + path
}
