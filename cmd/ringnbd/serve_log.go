// The log of serve: its levels, its two formats, and what it reports of a start.
//
// Invariant: a line is written by a goroutine of its own (backlog.go), so logging never waits
// for a reader.

package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/version"
)

// exportsShown is how many exports a start logs at the default level; with -v it logs all of them.
const exportsShown = 64

// serverLog is a log, its level, and the backlog that it writes to.
type serverLog struct {
	*slog.Logger
	level    *slog.LevelVar
	backlog  *backlog
	terminal bool
}

func newLog(o *options, w io.Writer) serverLog {
	l := serverLog{level: new(slog.LevelVar), backlog: newBacklog(w, logBacklog),
		terminal: isTerminal(w)}
	if o.verbose {
		l.level.Set(slog.LevelDebug)
	}
	format := func(w io.Writer) *slog.Logger {
		how := &slog.HandlerOptions{Level: l.level}
		if o.logFormat == "json" {
			return slog.New(slog.NewJSONHandler(visibleJSON{w}, how))
		}
		return slog.New(slog.NewTextHandler(w, how))
	}
	var line bytes.Buffer
	apart := format(&line)
	l.backlog.dropped = func(lines uint64) []byte {
		line.Reset()
		apart.Warn("lines of the log were dropped, because they were not read in time", "lines",
			lines)
		return line.Bytes()
	}
	l.Logger = format(l.backlog)
	return l
}

// setVerbose makes the log show debug lines, or not.
func (l *serverLog) setVerbose(on bool) {
	switch level := l.level.Level(); {
	case on:
		l.level.Set(slog.LevelDebug)
	case level == slog.LevelDebug:
		l.level.Set(slog.LevelInfo)
	}
}

// quietOnTerminal limits the log of a server that a client started for itself (nbdinfo [ ringnbd
// serve FILE ], by socket activation) to warnings and errors, if the log goes to a terminal: the
// terminal is for the client's output. If standard error is a file or the journal (systemd opens
// sockets, too), everything is logged, as it is with -v wherever the log goes.
func (l *serverLog) quietOnTerminal() {
	if l.terminal && l.level.Level() == slog.LevelInfo {
		l.level.Set(slog.LevelWarn)
	}
}

// report logs what a start has decided. It comes after everything that can fail, so that a failure
// is a single line.
func (s *server) report() {
	o := s.options
	s.log.Info("ringnbd "+version.Text(), "kernel", kernelRelease(), "loops", o.loops, "memory",
		o.memory, "max_connections", o.connections,
		"max_socket_memory", uint64(o.connections)*o.socketMemory())
	for _, line := range strings.Split(s.engine.Features(), "\n") {
		s.log.Debug(line)
	}
	if s.debug != nil {
		s.log.Info("debug endpoint", "address", s.debug.address)
	}
	if s.control != nil {
		s.log.Info("control socket", "address", string(o.control))
	}
	if err := s.engine.Unregistered(); err != nil {
		s.log.Warn("memory is not registered with io_uring: "+unregisteredCost, "reason", err)
	}
	for i, x := range s.opened {
		b := x.backing
		for _, note := range b.Notes {
			s.log.Warn(note)
		}
		if b.Encrypted {
			s.log.Warn(b.Path() +
				": holds a LUKS volume: clients see it encrypted, and open it themselves")
		}
		say := s.log.Info
		if i >= exportsShown {
			say = s.log.Debug
		}
		say("export", "name", b.Export.Name, "path", b.Path(), "size", b.Export.Size, "direct",
			b.Device.Direct, "granularity", b.Device.Block,
			"read_only", readOnly(&b.Export), "flags", fmt.Sprintf("%#x", b.Export.Flags))
	}
	if more := len(s.opened) - exportsShown; more > 0 {
		s.log.Info("and more exports, which -v shows", "more", more)
	}
	s.reportDoors()
}

// kernelRelease is the release of the kernel, as uname -r prints it.
func kernelRelease() string {
	var name unix.Utsname
	_ = unix.Uname(&name) // cannot fail
	return unix.ByteSliceToString(name.Release[:])
}

// reportDoors logs the addresses, and warns of those that may admit more clients, or fewer, than
// the user intended.
func (s *server) reportDoors() {
	var everywhere []string
	for _, d := range s.doors {
		everywhere = append(everywhere, d.Everywhere()...)
		if !d.oldstyle {
			s.log.Info("listening", "address", d.URI)
		} else {
			s.log.Warn("clients of the oldstyle handshake are served here: every client that can "+
				"connect, without TLS", "address", d.URI,
				"export", d.export)
		}
		for _, ip := range d.Missing {
			s.log.Info("not listening on an address of this name that this machine does not have",
				"address", d.URI, "missing", ip)
		}
	}
	if len(everywhere) > 0 {
		s.log.Warn("listening on all interfaces without access control: every client that can "+
			"reach this machine can use the exports; to serve this machine alone, listen on "+
			"localhost", "addresses",
			strings.Join(everywhere, " "))
	}
}

// printReady prints the ready line, unless all sockets were inherited: then the parent knows the
// addresses, and standard output may belong to it (nbdinfo's does). A full pipe delays the line
// alone, not the server.
func (s *server) printReady(stdout io.Writer) {
	if s.inherited == len(s.doors) {
		return
	}
	line := "ready " + strings.Join(s.exportURIs(), " ")
	go func() {
		late := time.AfterFunc(time.Second, func() {
			s.log.Warn("standard output is not read: the ready line waits")
		})
		defer late.Stop()
		if _, err := fmt.Fprintln(stdout, line); err != nil {
			s.log.Warn("the ready line could not be written to standard output", "error", err)
		}
	}()
}

// notifyPatience is how long to wait for systemd, which may be busy or stopped, with a full socket.
const notifyPatience = 200 * time.Millisecond

// notify sends a state to systemd, if systemd started the server.
func (s *server) notify(state string) {
	sent := make(chan error, 1)
	go func() {
		_, err := daemon.SdNotify(false, state)
		sent <- err
	}()
	var err error
	select {
	case err = <-sent:
	case <-time.After(notifyPatience):
		err = fmt.Errorf("it did not take the message within %v", notifyPatience)
	}
	if err != nil {
		s.log.Warn("systemd could not be notified", "state", state, "error", err)
	}
}
