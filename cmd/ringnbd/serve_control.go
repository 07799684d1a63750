// --control: the running server as the control socket sees it.
//
// Invariant: the socket exists only if it was asked for. Its file keeps all users out but root and
// the server's own, unless others are named.

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/cmd/ringnbd/control"
	"ringnbd/cmd/ringnbd/version"
	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/gate"
)

// controlFlag is the path of a Unix socket, written unix:PATH.
type controlFlag string

func (f *controlFlag) Type() string   { return "unix:PATH" }
func (f *controlFlag) String() string { return string(*f) }
func (f *controlFlag) Set(text string) error {
	path, ok := strings.CutPrefix(text, "unix:")
	if !ok || path == "" {
		return errors.New("a control socket is a Unix socket; write unix:PATH")
	}
	*f = controlFlag(text)
	return nil
}

// The modes of the socket's file.
const (
	narrowMode = 0o600
	wideMode   = 0o666
)

// access looks up who may use the control socket.
func (o *options) access() (control.Access, error) {
	a := control.Access{Admins: control.DefaultAdmins()}
	for _, list := range []struct {
		names []string
		to    *[]control.Principal
	}{{o.admins, &a.Admins}, {o.viewers, &a.Viewers}} {
		for _, name := range list.names {
			p, err := control.ParsePrincipal(name)
			if err != nil {
				return a, err
			}
			*list.to = append(*list.to, p)
		}
	}
	return a, nil
}

// listenControl makes the control socket. It changes the umask of the process for a moment, so it
// must run before other goroutines create files.
func (s *server) listenControl() error {
	o := s.options
	access, err := o.access()
	if err != nil || o.control == "" {
		return err
	}
	mode := narrowMode
	if !access.Narrow() {
		mode = wideMode
	}
	mask := unix.Umask(0o777 &^ mode)
	s.controlPlace, err = gate.Listen(string(o.control))
	unix.Umask(mask)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	s.begun.listening(s.controlPlace)
	s.control = control.New(steering{s}, s.events, access, s.log.Logger)
	return nil
}

// setAccess changes who may use the control socket.
func (s *server) setAccess(a control.Access) {
	if s.control == nil {
		return
	}
	mode := os.FileMode(narrowMode)
	if !a.Narrow() {
		mode = wideMode
	}
	s.control.SetAccess(a)
	path, _ := strings.CutPrefix(string(s.options.control), "unix:")
	if err := os.Chmod(path, mode); err != nil {
		s.log.Warn("the mode of the control socket could not be changed", "error", err)
	}
}

// serveControl starts answering at the control socket.
func (s *server) serveControl() {
	if s.control == nil {
		return
	}
	for _, l := range s.controlPlace.Listeners {
		go func() {
			if err := s.control.Serve(l); err != nil {
				s.log.Warn("the control socket ended", "error", err)
			}
		}()
	}
}

// closeControl ends the control socket.
func (s *server) closeControl() {
	if s.control != nil {
		s.control.Close()
		s.controlPlace.Close()
	}
}

// vanishControl removes the socket's file if the process ends without closing the socket.
func (s *server) vanishControl() {
	if s.controlPlace != nil {
		s.controlPlace.Close()
	}
}

// steering is the server as the control socket sees it.
type steering struct{ *server }

var _ control.Running = steering{}

// Status says what the server is doing.
func (s steering) Status() control.Status {
	o := s.options
	t := control.Status{Version: version.Text(), PID: os.Getpid(), Started: s.started,
		Loops: o.loops, Memory: o.memory, MaxConnections: o.connections, Config: s.configPath(),
		Listen: s.uris(), Exports: s.live.catalog.Load().Len(),
		Connections: s.engine.Connections(), Changes: s.live.changes()}
	if c, ok := s.engine.Counters(); ok {
		for _, n := range c.Requests {
			t.Requests += n
		}
		for i := range c.Exports {
			t.Requests += c.Exports[i].Traffic.Requests()
		}
		t.Errors, t.BytesRead, t.BytesWritten = c.Errors, c.BytesRead, c.BytesWrite
	}
	t.Reloaded, t.Trouble = s.reloaded()
	return t
}

// Exports lists all exports.
func (s steering) Exports() ([]control.Export, error) {
	counted, err := s.counted()
	if err != nil {
		return nil, err
	}
	list := []control.Export{}
	for _, x := range s.live.views() {
		list = append(list, s.shown(&x, counted[x.id]))
	}
	return list, nil
}

// counted asks the engine what it has counted of each export.
func (s steering) counted() (map[engine.ID]engine.ExportCounters, error) {
	c, ok := s.engine.Counters()
	if !ok {
		return nil, control.Unavailable("a loop of the engine did not answer in time; ask again")
	}
	counted := make(map[engine.ID]engine.ExportCounters, len(c.Exports))
	for _, e := range c.Exports {
		counted[e.ID] = e
	}
	s.live.discards.count(counted)
	return counted, nil
}

// shown describes an export.
func (s steering) shown(x *view, c engine.ExportCounters) control.Export {
	state := s.live.doing(x.name())
	if state == "" {
		state = control.StateServed
	}
	return control.Export{Name: x.name(), Path: x.spec.Text(), Description: x.spec.Description,
		State: state, Size: x.shown.Size, ReadOnly: readOnly(&x.shown),
		Direct: x.backing.Device.Direct, Block: x.backing.Device.Block, From: x.from,
		Asked: wantedOf(x.spec), Connections: c.Connections, Requests: c.Traffic.Requests(),
		Reads: c.Reads, Writes: c.Writes, Errors: c.Errors, BytesRead: c.BytesRead,
		BytesWrite: c.BytesWrite, DiskErrors: c.DiskErrors, FlushFailed: c.FlushFailed}
}

// Export describes one export.
func (s steering) Export(name string) (control.Export, error) {
	x, ok := s.live.view(name)
	if !ok {
		return control.Export{}, s.live.unknown(name)
	}
	counted, err := s.counted()
	if err != nil {
		return control.Export{}, err
	}
	return s.shown(&x, counted[x.id]), nil
}

// wantedOf is a spec in the words of the control socket.
func wantedOf(s backing.Spec) control.Wanted {
	w := control.Wanted{Path: s.Text(), Description: s.Description, ReadOnly: s.ReadOnly,
		Partitions: s.Partitions, Create: control.Size(s.Create), Force: s.Force}
	if s.Direct != backing.DirectAuto {
		w.Direct = directNames[s.Direct]
	}
	if s.Raw {
		w.Format = "raw"
	}
	return w
}

// specOf is what a client of the control socket asks for.
func specOf(name string, w control.Wanted) (backing.Spec, error) {
	s := backing.Spec{Name: name, Description: w.Description, ReadOnly: w.ReadOnly,
		Partitions: w.Partitions, Create: uint64(w.Create), Force: w.Force}
	switch {
	case w.Direct != "" && (*directFlag)(&s.Direct).Set(w.Direct) != nil:
		return s, control.Wrong("direct", "direct %q: must be one of %s", w.Direct,
			strings.Join(directNames, ", "))
	case w.Format != "" && w.Format != "auto" && w.Format != "raw":
		return s, control.Wrong("format", "format %q: images are served as they are, so the only "+
			"formats are raw and auto", w.Format)
	case w.Create > 0 && w.ReadOnly:
		return s, control.Wrong("create", "create and read-only exclude each other: a new image "+
			"that cannot be written has no use")
	}
	s.Raw = w.Format == "raw"
	s.SetPath(w.Path)
	return s, nil
}

// fromControl is where exports come from that were asked for over the control socket.
func fromControl(by control.Caller) string { return "control, " + by.String() }

// Put serves an export, or changes one.
func (s steering) Put(ctx context.Context, by control.Caller, name string, want control.Wanted,
	replace bool) (control.Changed, error) {
	spec, err := specOf(name, want)
	if err != nil {
		return control.Changed{}, err
	}
	answer, err := s.live.put(ctx, by, spec, fromControl(by), replace)
	return s.with(name, answer, err)
}

// with adds the export to the answer of a change.
func (s steering) with(name string, answer control.Changed,
	err error) (control.Changed, error) {
	if err != nil {
		return answer, statusOf(err)
	}
	if e, failed := s.Export(name); failed == nil {
		answer.Export = &e
	}
	return answer, nil
}

// statusOf gives an error of the floors below the status that fits.
func statusOf(err error) error {
	var ours *control.Error
	var held *backing.HeldError
	var shared *backing.SharedError
	var access *backing.AccessError
	var name *backing.NameError
	var room *engine.RoomError
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &room), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE),
		errors.Is(err, unix.ENOMEM):
		return control.Unavailable("%v", err)
	case errors.As(err, &held), errors.As(err, &shared):
		return control.Conflict("path", "%v", adviser(controlAdvice).about(err))
	case errors.As(err, &access):
		return control.Wrong("path", "%v", adviser(controlAdvice).about(err))
	case errors.As(err, &name):
		return control.Wrong("name", "%v", err)
	}
	return &control.Error{Status: http.StatusBadRequest,
		Text: oneLine(adviser(controlAdvice).about(err).Error())}
}

// Remove ends an export.
func (s steering) Remove(ctx context.Context, by control.Caller, name string,
	force bool) (control.Changed, error) {
	answer, err := s.live.remove(ctx, by, name, force)
	if err != nil {
		err = statusOf(err)
	}
	return answer, err
}

// Resize gives an export another size.
func (s steering) Resize(ctx context.Context, by control.Caller, name string,
	to control.Resize) (control.Changed, error) {
	answer, err := s.live.resize(ctx, by, name, uint64(to.Size), to.Force)
	return s.with(name, answer, err)
}

// Flush flushes an export.
func (s steering) Flush(ctx context.Context, by control.Caller,
	name string) (control.Changed, error) {
	answer, err := s.live.flush(ctx, by, name)
	return s.with(name, answer, err)
}

// Connections lists the clients that are served.
func (s steering) Connections() []control.Connection {
	traffic, _ := s.engine.Clients() // a loop that does not answer leaves its clients without
	return s.journal.sessions(traffic)
}

// kickTime is how long a client may take to leave.
const kickTime = 10 * time.Second

// Kick ends a connection.
func (s steering) Kick(ctx context.Context, by control.Caller,
	id uint64) (control.Changed, error) {
	client, session := s.journal.find(id)
	if client == nil {
		return control.Changed{}, control.NotFound("id", "there is no connection %d", id)
	}
	late, cancel := context.WithTimeout(ctx, kickTime)
	defer cancel()
	select {
	case <-s.engine.Retire(client):
	case <-late.Done():
		return control.Changed{}, control.Unavailable("connection %d has a request that its "+
			"storage has not answered for %v; it ends when that is answered", id, kickTime)
	}
	s.log.Info("connection ended on request", "session", id, "peer", client.Peer, "export",
		session.export, "by", by.String())
	s.events.Tell(control.Event{Event: "connection-kicked", Connection: id, Peer: client.Peer,
		Export: session.export, By: by.String()})
	return control.Changed{Changed: true}, nil
}

// Overlay writes what an overlay holds to its origin, or drops it.
func (s steering) Overlay(ctx context.Context, by control.Caller, name,
	verb string) (control.Changed, error) {
	answer, err := s.live.overlay(ctx, by, name, verb)
	if err != nil {
		return control.Changed{}, emptyStatus(err)
	}
	return s.with(name, answer, nil)
}

// Config returns what is in force.
func (s steering) Config() (control.Configuration, error) {
	text, err := s.inForce().Text()
	return control.Configuration{File: s.configPath(), Text: text}, err
}

// Diff compares the file of the configuration with what is in force.
func (s steering) Diff() (control.Differences, error) {
	d, err := s.compare()
	if err != nil {
		return control.Differences{}, statusOfMistakes(err)
	}
	return control.Differences{Differences: d.lines()}, nil
}

// Reload does what the file of the configuration says.
func (s steering) Reload(ctx context.Context, by control.Caller,
	dry bool) (control.Differences, error) {
	lines, changed, err := s.reload(ctx, by, dry)
	if err != nil {
		return control.Differences{}, statusOfMistakes(err)
	}
	return control.Differences{Changed: changed, DryRun: dry, Differences: lines}, nil
}

// statusOfMistakes gives the mistakes of a configuration their places.
func statusOfMistakes(err error) error {
	var mistakes config.MistakesError
	if !errors.As(err, &mistakes) || len(mistakes) == 0 {
		return statusOf(err)
	}
	var list []control.Error
	for _, m := range mistakes {
		list = append(list, control.Error{Text: m.Text, Field: m.Field, File: m.At.File,
			Line: max(m.At.Line, 0), Column: m.At.Column})
	}
	first := list[0]
	first.Status, first.More = http.StatusBadRequest, list[1:]
	return &first
}
