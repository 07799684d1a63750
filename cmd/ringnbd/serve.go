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
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/control"
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
			if o.flagged, err = o.configuration(c.Flags(), nil); err != nil {
				return visibleError{err}
			}
			if err := serve(&o, specs, c.OutOrStdout(), c.ErrOrStderr()); err != nil {
				return failure{visibleError{o.advice().about(err)}}
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
	started   time.Time
	stores    backing.Stores
	opened    []*served // at the start
	live      *live
	inherited int // how many of the doors have sockets that this process inherited
	engine    *engine.Engine
	journal   *journal // once the engine is started
	gate      *gate.Gate
	debug     *debugServer
	accepting chan error // the error that ended one of the accept loops

	events       *control.Events
	control      *control.Server // nil: none was asked for
	controlPlace *gate.Place

	reloading     sync.Mutex    // held by a reload
	loading       chan struct{} // is full while the file of the configuration is read
	mu            sync.Mutex    // guards what follows, and of the options what a reload changes
	doors         []door
	reloadedAt    time.Time
	reloadTrouble string
}

func serve(o *options, specs []backing.Spec, stdout, stderr io.Writer) error {
	signals, hangups := catchSignals(), (<-chan os.Signal)(nil)
	if o.config != "" {
		signals, hangups = catchReloads()
	}
	tuneRuntime(o.loops)
	if err := o.reserveRoom(); err != nil {
		return err
	}
	s := &server{options: o, log: newLog(o, stderr), started: time.Now(),
		events: control.NewEvents(), accepting: make(chan error, 1),
		loading: make(chan struct{}, 1)}
	defer s.log.backlog.close()
	if ended, err := s.start(specs, signals); ended || err != nil {
		return err
	}
	defer s.journal.close()
	s.report()
	s.printReady(stdout)
	s.notify(daemon.SdNotifyReady)
	go s.followHangups(hangups)
	err := s.wait(signals)
	s.notify(daemon.SdNotifyStopping)
	return errors.Join(err, s.down(signals))
}

// wait serves until a signal asks for an end, or an address accepts no more connections.
func (s *server) wait(signals <-chan os.Signal) error {
	for {
		select {
		case sig := <-signals:
			s.log.Info("shutting down", "signal", sig.String(), "connections",
				s.engine.Connections())
			return nil
		case err := <-s.accepting:
			s.log.Error("shutting down: an address accepts no more connections", "error", err)
			return err
		}
	}
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
	if err := s.openExports(specs); err != nil {
		return err
	}
	exports := make([]engine.Export, len(s.opened))
	for i, x := range s.opened {
		exports[i] = x.backing.Engine()
	}
	s.journal = newJournal(s.log.Logger, s.events)
	config.Reports = s.journal
	var err error
	if s.engine, err = engine.Start(config, exports); err != nil {
		return err
	}
	s.live = newLive(s.log.Logger, &s.stores, s.events)
	if err := s.live.begin(s.engine, s.journal, s.opened); err != nil {
		return err
	}
	if err := s.limitConnections(); err != nil {
		return err
	}
	s.gate = gate.New(gate.Config{
		Catalog:          func() proto.Catalog { return s.live.catalog.Load() },
		Gone:             func(id uint64) bool { return s.engine.Gone(engine.ID(id)) != nil },
		Prepare:          s.live.discards.prepare,
		Adopt:            s.adopt,
		Live:             s.engine.Connections,
		MaxConnections:   o.connections,
		SocketMemory:     int(o.socketMemory()),
		HandshakeTimeout: o.handshake,
		Log:              s.log.Logger,
	})
	for _, d := range s.doors {
		s.accept(d)
	}
	s.serveControl()
	if s.debug != nil {
		s.debug.gate = s.gate.Counters
	}
	s.debug.serve(s.engine, s.log.Logger)
	return nil
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

// openExports opens the exports of the start, makes missing images, and listens between the two.
func (s *server) openExports(specs []backing.Spec) error {
	backings, err := s.stores.Prepare(specs, s.begun.opening)
	if err != nil {
		return err
	}
	s.opened = servedFrom(backings, "")
	origins := originsIn(s.options.file)
	for _, x := range s.opened {
		x.from, x.asked = origins.of(x)
	}
	if err := s.listen(); err != nil {
		return err
	}
	for _, b := range backings {
		if !s.begun.opening(b.Path()) {
			return errInterrupted
		}
		if err := b.Create(); err != nil {
			return err
		}
	}
	s.begun.opened(backings)
	if !s.begun.step("taking memory and setting up io_uring") {
		return errInterrupted
	}
	return nil
}

func (s *server) listen() error {
	inherited, err := gate.Inherited()
	if err != nil {
		return err
	}
	for _, p := range inherited {
		s.doors = append(s.doors, door{Place: p})
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
		if err := s.open(door{text: address}); err != nil {
			return err
		}
	}
	for _, old := range s.options.oldstyle {
		err := s.open(door{text: old.address, oldstyle: true, export: old.export})
		if err != nil {
			return err
		}
	}
	if err := s.listenControl(); err != nil {
		return err
	}
	if !s.begun.step("listening at " + visible(string(s.options.debug))) {
		return errInterrupted
	}
	if s.debug, err = listenDebug(string(s.options.debug)); s.debug != nil {
		s.begun.listening(s.debug.place)
	}
	return err
}

// open listens on the address of a door.
func (s *server) open(d door) (err error) {
	if !s.begun.step("looking up and listening at " + visible(d.text)) {
		return errInterrupted
	}
	if path, ok := strings.CutPrefix(d.text, "unix:"); ok {
		backing.Reach(path)
	}
	if d.Place, err = gate.ListenWith(d.text, s.options.manner[d.text]); err == nil {
		s.doors = append(s.doors, d)
		s.begun.listening(d.Place)
	}
	return err
}

// abandon undoes a start that failed. Images that it created are removed.
func (s *server) abandon() {
	s.debug.close()
	s.closeControl()
	for _, d := range s.doors {
		d.Close()
	}
	if s.engine != nil {
		_ = s.engine.Close()
	}
	for _, x := range s.opened {
		x.backing.Abandon()
	}
}

// exportURIs are the URIs of each export at each address. The URIs of oldstyle doors name no
// export, because that handshake has no names; libnbd and qemu detect the handshake by themselves.
// Without exports, which may be added later, the addresses alone are listed.
func (s *server) exportURIs() []string {
	var list []string
	for _, d := range s.doors {
		if d.oldstyle || len(s.opened) == 0 {
			list = append(list, d.URI)
			continue
		}
		for _, x := range s.opened {
			list = append(list, exportURI(d.URI, x.name()))
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
