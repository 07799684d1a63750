// ringnbd serve: it brings up a server as the command line describes it, waits, and takes the
// server down in order.
//
// Invariant: every step that can fail without leaving a trace comes before the first step that
// leaves one. The order up is: open and lock, listen, create missing images, start the engine,
// accept. If a step fails, all steps before it are undone. The order down is the reverse.

package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"runtime"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/gate"
	"ringnbd/proto"
)

func newServe() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "serve [flags] [PORT] PATH... | --config FILE",
		Short: "Serve disk images and block devices",
		RunE: func(c *cobra.Command, args []string) error {
			specs, err := o.read(c.Flags(), args)
			if err != nil {
				return visibleError{adviser(serveAdvice).about(err)}
			}
			if err := serve(&o, specs, c.OutOrStdout(), c.ErrOrStderr()); err != nil {
				return failure{visibleError{adviser(serveAdvice).about(err)}}
			}
			return nil
		},
	}
	o.register(c.Flags())
	complete(c)
	return c
}

// unregisteredCost is for log lines: the median of 16 alternating runs with --register on and off,
// O_DIRECT on ext4, 4 connections: CPU time per request 1.10 times as much at 4 KiB, 1.07 (reads)
// and 1.13 (writes) at 64 KiB, the same at 1 MiB.
const unregisteredCost = "disk requests of up to 64 KiB take some 10 % more CPU time"

// server has all parts of a running server. They are filled in one after another; abandon and down
// take down the parts that exist.
type server struct {
	options   *options
	log       serverLog
	begun     begun
	stores    backing.Stores
	backings  []*backing.Backing
	doors     []door
	inherited int // how many of the doors have sockets that this process inherited
	engine    *engine.Engine
	journal   *journal // once the engine is started
	gate      *gate.Gate
	debug     *debugServer
	accepting chan error // the error that ended one of the accept loops
}

// door is an address that the server listens on, with the URI of the default export, or of the one
// export that an oldstyle door leads to.
type door struct {
	*gate.Place
	export int // index of the only export of an oldstyle door, else allExports
}

// allExports is the export of a door whose clients name the export that they want.
const allExports = -1

func serve(o *options, specs []backing.Spec, stdout, stderr io.Writer) error {
	signals := catchSignals()
	tuneRuntime(o.loops)
	if err := o.reserveRoom(); err != nil {
		return err
	}
	s := &server{options: o, log: newLog(o, stderr)}
	defer s.log.backlog.close()
	if ended, err := s.start(specs, signals); ended || err != nil {
		return err
	}
	defer s.journal.close()
	s.report()
	s.printReady(stdout)
	s.notify(daemon.SdNotifyReady)

	var err error
	select {
	case sig := <-signals:
		s.log.Info("shutting down", "signal", sig.String(), "connections", s.engine.Connections())
	case err = <-s.accepting:
		s.log.Error("shutting down: an address accepts no more connections", "error", err)
	}
	s.notify(daemon.SdNotifyStopping)
	return errors.Join(err, s.down(signals))
}

// tune sets up the process. Two processors more than loops, so that a loop that comes back from its
// system call finds one free while the control plane or the collector is busy; with none to spare
// it waits for milliseconds.
func tuneRuntime(loops int) {
	runtime.GOMAXPROCS(loops + 2)
	// Raise the soft limit on locked memory to the hard limit: the arenas are locked for the disk,
	// and the user has allowed that much.
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		// if this fails, the engine names the limit that is too small
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit)
	}
}

// checkLockable returns an error, before anything is opened, if the memory that all loops lock
// together cannot be locked.
func checkLockable(c engine.Config) error {
	must := c.Register == engine.RegisterOn
	_, err := c.Settle()
	switch {
	case err != nil && must:
		return fmt.Errorf("--register on: %w; or let --register be auto", err)
	case err != nil:
		return fmt.Errorf("for the rings of io_uring alone, %w; or give fewer --loops", err)
	}
	return nil
}

// up brings up one part of the server after another.
func (s *server) up(specs []backing.Spec) error {
	o := s.options
	config := o.engine()
	if err := o.allowance.check(config); err != nil {
		return err
	}
	if err := checkLockable(config); err != nil {
		return err
	}
	var err error
	if s.backings, err = s.stores.Prepare(specs, s.begun.opening); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	for _, b := range s.backings {
		if !s.begun.opening(b.Path()) {
			return errInterrupted
		}
		if err := b.Create(); err != nil {
			return err
		}
	}
	s.begun.opened(s.backings)
	if !s.begun.step("taking memory and setting up io_uring") {
		return errInterrupted
	}
	catalog, err := s.startEngine(config)
	if err != nil {
		return err
	}
	if err := s.limitConnections(); err != nil {
		return err
	}
	s.gate = gate.New(gate.Config{
		Catalog:          func() proto.Catalog { return catalog },
		Adopt:            s.adopt,
		Live:             s.engine.Connections,
		MaxConnections:   o.connections,
		SocketMemory:     int(o.socketMemory()),
		HandshakeTimeout: o.handshake,
		Log:              s.log.Logger,
	})
	s.accept()
	if s.debug != nil {
		s.debug.gate = s.gate.Counters
	}
	s.debug.serve(s.engine, s.log.Logger)
	return nil
}

// startEngine starts the engine with what was opened, and returns what clients are shown of it.
func (s *server) startEngine(config engine.Config) (*proto.Exports, error) {
	exports := make([]engine.Export, len(s.backings))
	shown := make([]proto.Export, len(s.backings))
	for i, b := range s.backings {
		exports[i] = b.Engine()
		shown[i] = b.Export
	}
	// the default export is the one named "", if there is one
	if _, err := proto.NewExports(shown, -1); err != nil {
		return nil, err
	}
	names := make([]exportName, len(s.backings))
	for i, b := range s.backings {
		names[i] = exportName{b.Export.Name, b.Path()}
	}
	s.journal = newJournal(s.log.Logger, names)
	config.Reports = s.journal
	var err error
	if s.engine, err = engine.Start(config, exports); err != nil {
		return nil, err
	}
	for i, id := range s.engine.IDs() {
		shown[i].ID = uint64(id)
	}
	return proto.NewExports(shown, -1)
}

// adopt hands a client to the engine.
func (s *server) adopt(fd int, export proto.Export, session proto.Session, peer string) error {
	id := engine.ID(export.ID)
	c := s.journal.sessionBegins(id, session, peer)
	err := s.engine.AdoptClient(fd, id, session, c)
	if err != nil {
		s.journal.sessionRefused(c, err)
	}
	return err
}

// accept starts accepting connections at all doors.
func (s *server) accept() {
	loops := 0
	for _, d := range s.doors {
		loops += len(d.Listeners)
	}
	s.accepting = make(chan error, loops)
	for _, d := range s.doors {
		for _, l := range d.Listeners {
			go func() {
				if d.export == allExports {
					s.accepting <- s.gate.Serve(l)
				} else {
					s.accepting <- s.gate.ServeOldstyle(l, s.backings[d.export].Export.Name)
				}
			}()
		}
	}
}

func (s *server) listen() error {
	inherited, err := gate.Inherited()
	if err != nil {
		return err
	}
	for _, p := range inherited {
		s.doors = append(s.doors, door{p, allExports})
	}
	if s.inherited = len(inherited); s.inherited > 0 &&
		len(s.options.listen)+len(s.options.oldstyle) == 0 {
		s.log.quietOnTerminal()
	}
	addresses := s.options.listen
	if len(addresses)+s.inherited == 0 {
		addresses = []string{gate.DefaultListen}
	}
	for _, address := range addresses {
		if err := s.open(address, allExports); err != nil {
			return err
		}
	}
	for _, old := range s.options.oldstyle {
		if err := s.open(old.address, old.index); err != nil {
			return err
		}
	}
	if !s.begun.step("listening at " + visible(string(s.options.debug))) {
		return errInterrupted
	}
	if s.debug, err = listenDebug(string(s.options.debug)); s.debug != nil {
		s.begun.listening(s.debug.place)
	}
	return err
}

// open listens on an address.
func (s *server) open(address string, export int) error {
	if !s.begun.step("looking up and listening at " + visible(address)) {
		return errInterrupted
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		backing.Reach(path)
	}
	p, err := gate.ListenWith(address, s.options.manner[address])
	if err == nil {
		s.doors = append(s.doors, door{p, export})
		s.begun.listening(p)
	}
	return err
}

// abandon undoes a start that failed. Images that it created are removed.
func (s *server) abandon() {
	s.debug.close()
	for _, d := range s.doors {
		d.Close()
	}
	if s.engine != nil {
		_ = s.engine.Close()
	}
	for _, b := range s.backings {
		b.Abandon()
	}
}

// exportURIs are the URIs of each export at each address. The URIs of oldstyle doors name no
// export, because that handshake has no names; libnbd and qemu detect the handshake by themselves.
func (s *server) exportURIs() []string {
	var list []string
	for _, d := range s.doors {
		if d.export != allExports {
			list = append(list, d.URI)
			continue
		}
		for _, b := range s.backings {
			list = append(list, exportURI(d.URI, b.Export.Name))
		}
	}
	return list
}

// exportURI adds an export's name to an address (NBD URI spec, "Export name": the path without its
// first slash).
func exportURI(address, name string) string {
	u, err := url.Parse(address)
	if err != nil || name == "" {
		return address
	}
	u.Path, u.RawPath = "/"+name, ""
	return u.String()
}
