// Reload: the file of the configuration is read again, and what it says is done, on SIGHUP and for
// `ringnbd ctl reload`.
//
// Invariant: everything that the new configuration needs is read, checked, and opened before
// anything is changed. A configuration with a mistake, or that needs what is not there, changes
// nothing, and the log has a line for each mistake.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/go-systemd/v22/daemon"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine/backing"
)

// comparison is a configuration that was read, and how it differs from what is in force.
type comparison struct {
	next        *config.Config
	differences []config.Difference
}

// lines are the differences as people read them.
func (c *comparison) lines() []string {
	list := make([]string, len(c.differences))
	for i := range c.differences {
		list[i] = c.differences[i].String()
	}
	return list
}

// errNoFile says that there is nothing to read again.
var errNoFile = control.Conflict("", "the server was started without a configuration file, so "+
	"there is nothing to read again; start it with --config FILE")

// readTime is how long the files of the configuration may take to be read.
const readTime = 10 * time.Second

// load reads the file of the configuration while the server runs. Storage that hangs, or a pipe
// without a writer, keeps one goroutine and its thread, however often it is asked for.
func (s *server) load(most time.Duration) (*config.Config, []config.Mistake, error) {
	late := time.NewTimer(most)
	defer late.Stop()
	hangs := control.Unavailable("%s could not be read in %v: its storage does not answer, or it "+
		"is a pipe that nobody writes to; nothing was changed", s.configPath(), most)
	select {
	case s.loading <- struct{}{}:
	case <-late.C:
		return nil, nil, hangs
	}
	type result struct {
		config   *config.Config
		mistakes []config.Mistake
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-s.loading }()
		backing.Reach(s.options.config)
		c, mistakes := config.Load(s.options.config)
		done <- result{c, mistakes}
	}()
	select {
	case r := <-done:
		return r.config, r.mistakes, nil
	case <-late.C:
		return nil, nil, hangs
	}
}

// compare reads the file of the configuration, and compares it with what is in force.
func (s *server) compare() (*comparison, error) {
	if s.configPath() == "" {
		return nil, errNoFile
	}
	next, mistakes, err := s.load(readTime)
	if err != nil {
		return nil, err
	}
	if len(mistakes) > 0 {
		return nil, config.MistakesError(mistakes)
	}
	if err := backing.Check(next.Specs()); err != nil {
		return nil, err
	}
	s.fillAddress(next)
	list := config.Diff(s.inForce(), next, s.groupConnections)
	for i := range list {
		d := &list[i]
		if d.OldExport == nil || d.NewExport == nil || d.Ends() {
			continue
		}
		x := s.live.find(d.Name)
		switch {
		case x == nil:
		case !x.backing.MayAlter(d.NewExport.Spec()):
			d.Reopens(s.groupConnections(d.Name))
		case !d.NewExport.Partitions.V:
			d.PartsEnd(s.groupConnections(d.Name) - s.journal.connections(x.id))
		}
	}
	return &comparison{next, list}, nil
}

// groupConnections is how many connections an export, and the partitions that are served with it,
// have now.
func (s *server) groupConnections(name string) (n int) {
	if x := s.live.find(name); x != nil {
		for _, each := range s.live.group(x) {
			n += s.journal.connections(each.id)
		}
	}
	return n
}

// reloaded says when the configuration was read last, and what is wrong with it.
func (s *server) reloaded() (at *time.Time, trouble string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reloadedAt.IsZero() {
		return nil, ""
	}
	return &s.reloadedAt, s.reloadTrouble
}

// followHangups reloads for each signal, one after another. Signals that come while one waits mean
// no more than that one does; but one that comes during a reload, which may have read the file
// already, is not lost.
func (s *server) followHangups(hangups <-chan os.Signal) {
	for range hangups {
		s.hangUp()
	}
}

// hangUp reloads because of a signal. systemd (Type=notify-reload) is told when it begins and ends.
func (s *server) hangUp() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail
	s.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
	_, _, _ = s.reload(context.Background(), control.Caller{Signal: "SIGHUP"}, false)
	s.notify(daemon.SdNotifyReady)
}

// reload reads the configuration again and does what it says, or tells what that would be. A signal
// cannot be told to try again, so it waits for its turn.
func (s *server) reload(ctx context.Context, by control.Caller, dry bool) (lines []string,
	changed bool, err error) {
	if by.Signal != "" {
		s.reloading.Lock()
	} else if !s.reloading.TryLock() {
		return nil, false, control.Conflict("", "another reload is under way; try again when it "+
			"is done")
	}
	defer s.reloading.Unlock()
	c, err := s.compare()
	if err == nil && !dry {
		changed, err = s.adoptConfig(ctx, by, c)
	}
	if c != nil {
		lines = c.lines()
	}
	if !dry {
		s.tellReload(by, c, changed, err)
	}
	return lines, changed, err
}

// tellReload logs how a reload ended, with a line for each mistake.
func (s *server) tellReload(by control.Caller, c *comparison, changed bool, err error) {
	s.mu.Lock()
	s.reloadedAt, s.reloadTrouble = time.Now(), ""
	if err != nil {
		s.reloadTrouble = oneLine(visibleText(err))
	}
	s.mu.Unlock()
	event := control.Event{Event: "reloaded", By: by.String()}
	var mistakes config.MistakesError
	var part *partError
	switch {
	case errors.As(err, &mistakes):
		for _, m := range mistakes {
			s.log.Error("the configuration has a mistake; nothing was changed", "at",
				m.At.String(), "error", m.Text)
		}
	case errors.As(err, &part):
		s.log.Error("a part of the configuration could not be loaded again", "file",
			s.configPath(), "by", by.String(), "error", oneLine(visibleText(err)))
		s.warnOfRestart(c)
	case err != nil:
		s.log.Error("the configuration could not be loaded again", "file", s.configPath(), "by",
			by.String(), "error", oneLine(visibleText(err)))
	default:
		s.log.Info("configuration loaded again", "file", s.configPath(), "differences",
			len(c.differences), "by", by.String())
		s.warnOfRestart(c)
	}
	if err != nil {
		event.Event, event.Text = "reload-failed", oneLine(visibleText(err))
	}
	s.events.Tell(event)
}

// warnOfRestart logs the differences that are not in force before a restart.
func (s *server) warnOfRestart(c *comparison) {
	for i := range c.differences {
		if d := &c.differences[i]; d.Sign() == "!" {
			s.log.Warn("a change of the configuration needs a restart", "change",
				strings.TrimPrefix(d.String(), "! "))
		}
	}
}

// turn is what a reload will do.
type turn struct {
	by      control.Caller
	next    *config.Config
	access  control.Access
	options options
	names   []string
	add     []backing.Spec // with the new stores of exports that change
	parts   []*served      // partitions of disks that are served already, opened
	leave   []*served      // removed or replaced
	alter   []alteration
	again   []backing.Spec   // exports whose store is opened again, in another way
	late    []backing.Spec   // new exports of stores that others have open differently
	doors   []door           // opened
	shut    []string         // addresses
	listens []*config.Listen // that are in force afterwards
}

// adoptConfig does what a configuration says.
func (s *server) adoptConfig(ctx context.Context, by control.Caller,
	c *comparison) (changed bool, err error) {
	t := &turn{by: by, next: c.next}
	t.options.allowance, t.options.loops = s.options.allowance, s.options.loops
	t.options.connections, t.options.verbose = s.options.connections, s.options.loud
	if _, err = t.options.configure(c.next); err != nil {
		return false, err
	}
	if t.access, err = t.options.access(); err != nil {
		return false, err
	}
	for i := range c.differences {
		if d := &c.differences[i]; d.Subject == config.OfExport {
			t.names = append(t.names, s.live.groupNames(d.Name)...)
		}
	}
	answer, err := s.live.do(ctx, "being changed by a reload", t.names,
		func(k *task) (control.Changed, error) {
			err := s.carryOut(k, t, c)
			return control.Changed{Changed: err == nil && len(c.differences) > 0}, err
		})
	return answer.Changed, err
}

// carryOut carries out a reload whose names are taken.
func (s *server) carryOut(k *task, t *turn, c *comparison) (err error) {
	defer func() {
		if err != nil {
			for _, d := range t.doors {
				d.Close()
			}
		}
	}()
	added, err := s.plan(k, t, c)
	if err != nil {
		s.unplan(t)
		return err
	}
	added = append(added, t.parts...)
	origins := originsIn(t.next)
	for _, x := range added {
		x.from, x.asked = origins.of(x)
	}
	step := &step{add: added, alter: t.alter, remove: t.leave}
	if err = k.commit(); err == nil {
		err = s.live.swap(step)
	}
	if err != nil {
		t.parts = nil // which are among the added
		s.unplan(t)
		s.live.abandon(added)
		return err
	}
	s.live.told(t.by, step, false)
	trouble := s.settle(t)
	t.doors = nil // which serve now, whatever follows
	if err := errors.Join(step.outcome("what was to be removed is"), trouble, s.openAgain(k, t),
		s.openLate(k, t)); err != nil {
		return &partError{err}
	}
	return nil
}

// plan plans all differences, those first that are in the way of none, and opens what is new.
func (s *server) plan(k *task, t *turn, c *comparison) ([]*served, error) {
	var rest []*config.Difference
	for i := range c.differences {
		d := &c.differences[i]
		var err error
		switch {
		case d.Subject == config.OfListen:
			err = s.planDoor(t, d)
		case d.Subject == config.OfExport && d.NewExport == nil:
			err = s.planExport(k, t, d)
		case d.Subject == config.OfExport:
			rest = append(rest, d)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, d := range rest {
		if err := s.planExport(k, t, d); err != nil {
			return nil, err
		}
	}
	for {
		added, err := s.live.open(k, t.add, "", t.leave...)
		var shared *backing.SharedError
		if !errors.As(err, &shared) || shared.Mode == "" {
			return added, err
		}
		name, other := shared.Name, shared.Other
		at := slices.IndexFunc(t.add, func(w backing.Spec) bool { return w.Name == name })
		leaves := slices.ContainsFunc(t.leave, func(x *served) bool { return x.name() == other })
		if at < 0 || !leaves {
			return nil, err
		}
		t.late = append(t.late, t.add[at])
		t.add = slices.Delete(t.add, at, at+1)
	}
}

// openLate opens exports of stores that others, which have left now, had open in another way.
func (s *server) openLate(k *task, t *turn) error {
	var trouble []error
	origins := originsIn(t.next)
	for _, want := range t.late {
		list, err := s.live.open(k, []backing.Spec{want}, "")
		if err == nil {
			for _, x := range list {
				x.from, x.asked = origins.of(x)
			}
			if err = s.live.swap(&step{add: list}); err != nil {
				s.live.abandon(list)
			}
		}
		if err != nil {
			trouble = append(trouble, fmt.Errorf("%s is not served: %w", exportTitle(want.Name),
				err))
			continue
		}
		s.live.added(t.by, list)
	}
	return errors.Join(trouble...)
}

// partError is about a reload of which a part failed when the rest was in force already.
type partError struct{ of error }

func (e *partError) Error() string { return oneLine(e.of.Error()) + "; all else is in force" }
func (e *partError) Unwrap() error { return e.of }

// planExport plans a difference of an export.
func (s *server) planExport(k *task, t *turn, d *config.Difference) error {
	x := s.live.find(d.Name)
	if x != nil {
		if err := s.live.wholeGroup(k, x); err != nil {
			return err
		}
	}
	if d.NewExport == nil {
		if x != nil {
			t.leave = append(t.leave, s.live.group(x)...)
		}
		return nil
	}
	want := d.NewExport.Spec()
	if x == nil {
		t.add = append(t.add, want)
		return nil
	}
	list, ok, err := s.live.alterations(x, want, t.leave...)
	switch {
	case err != nil:
		return err
	case ok && want.Partitions == x.spec.Partitions:
		t.alter = append(t.alter, list...)
	case ok && want.Partitions:
		t.alter = append(t.alter, list...)
		parts, err := s.live.openPartitions(k, x, want, "")
		t.parts = append(t.parts, parts...)
		return err
	case ok:
		t.alter = append(t.alter, list[0])
		s.live.unalter(list[1:])
		t.leave = append(t.leave, s.live.group(x)[1:]...)
	case sameStore(want, x.spec):
		t.again = append(t.again, want)
	default:
		t.add, t.leave = append(t.add, want), append(t.leave, s.live.group(x)...)
	}
	return nil
}

// unplan takes back what planExport has done.
func (s *server) unplan(t *turn) {
	s.live.unalter(t.alter)
	s.live.abandon(t.parts)
}

// planDoor opens an address that is new, and notes one that is to be closed.
func (s *server) planDoor(t *turn, d *config.Difference) error {
	if d.OldListen != nil && (d.NewListen == nil || reopens(d)) {
		t.shut = append(t.shut, d.Name)
	}
	if d.NewListen == nil || d.OldListen != nil {
		return nil
	}
	opened, err := s.openDoor(d.NewListen)
	if err == nil {
		t.doors = append(t.doors, opened)
	}
	return err
}

// reopens reports whether an address is to be closed and opened again.
func reopens(d *config.Difference) bool {
	for _, c := range d.Changes {
		if c.Effect == config.Again {
			return true
		}
	}
	return false
}

// settle finishes a reload whose exports are in force: addresses and settings. An address that
// cannot be opened again does not keep the rest from coming into force.
func (s *server) settle(t *turn) error {
	s.live.mu.Lock()
	origins := originsIn(t.next)
	for _, x := range s.live.list {
		if from, asked := origins.of(x); asked != nil {
			x.from, x.asked = from, asked
		}
	}
	s.live.mu.Unlock()
	err := s.changeDoors(t)
	s.mu.Lock()
	s.options.file = config.InForce(s.options.file, t.next)
	s.options.file.Listen = t.listens
	s.options.shutdown = t.options.shutdown
	s.mu.Unlock()
	s.log.setVerbose(t.options.verbose)
	s.setAccess(t.access)
	return err
}

// openAgain opens stores again that could not be open in two ways at a time. An export for which
// that fails is served as before.
func (s *server) openAgain(k *task, t *turn) error {
	var trouble []error
	origins := originsIn(t.next)
	for _, want := range t.again {
		from, asked := origins.of(&served{spec: want})
		_, err := s.live.reopen(k, t.by, s.live.find(want.Name), want, from)
		trouble = append(trouble, err)
		s.live.mu.Lock()
		if x := s.live.byName[want.Name]; err == nil && x != nil {
			x.asked = asked
		}
		s.live.mu.Unlock()
	}
	return errors.Join(trouble...)
}
