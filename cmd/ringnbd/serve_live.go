// The exports of a running server: which there are, who is changing which, and the catalog that
// clients see. What changes them is in serve_change.go.
//
// Invariant: an export is changed by one task at a time, which holds its name from the first look
// to the last step; others wait their turn for turnTime and are then told what is in the way. No
// lock is held while storage is asked. The catalog has an export exactly while the engine's table
// has it: it follows the table when something is added, and goes ahead when something is taken
// away.

package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/proto"
)

const (
	// turnTime is how long a change waits for another change of the same export.
	turnTime = 5 * time.Second
	// changeTime is how long a change may take, before who asked for it is told that storage or
	// clients keep it waiting.
	changeTime = 20 * time.Second
	eachTime   = 20 * time.Millisecond // for each export more
)

// served is an export that is served.
type served struct {
	spec    backing.Spec
	backing *backing.Backing
	id      engine.ID
	from    string         // where it was asked for
	asked   *config.Export // as the configuration has it; nil: it was asked for in another way
	leaving bool           // it is not in the catalog any more
	disk    *served        // the whole disk, if this is a partition that is served with it
}

// servedFrom makes exports of what was opened.
func servedFrom(opened []*backing.Backing, from string) []*served {
	list := make([]*served, len(opened))
	disks := make(map[*backing.Backing]*served, len(opened))
	for i, b := range opened {
		list[i] = &served{spec: b.Spec(), backing: b, from: from}
		disks[b] = list[i]
	}
	for _, x := range list {
		if x.backing.Disk != nil {
			x.disk = disks[x.backing.Disk]
		}
	}
	return list
}

// group returns an export, and the partitions that are served with it.
func (l *live) group(x *served) []*served {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []*served{x}
	if x.spec.Partitions {
		for _, part := range l.list {
			if part.disk == x && !part.leaving {
				list = append(list, part)
			}
		}
	}
	return list
}

// groupNames returns the names that a change of an export concerns.
func (l *live) groupNames(name string) (names []string) {
	x := l.find(name)
	if x == nil {
		return []string{name}
	}
	for _, each := range l.group(x) {
		names = append(names, each.name())
	}
	return names
}

func (x *served) name() string { return x.spec.Name }

// live is the exports of a running server.
type live struct {
	log     *slog.Logger
	events  *control.Events
	stores  *backing.Stores
	engine  *engine.Engine
	journal *journal
	room    atomic.Int64 // how many more descriptors exports may take
	doubled bool         // each connection has one more descriptor, for an overlay of its own
	catalog atomic.Pointer[proto.Exports]
	// overlays of clients that throw away what they write
	discards *discards

	mu      sync.Mutex
	list    []*served // in the order in which clients see them
	byName  map[string]*served
	busy    map[string]string // names that are being changed, and what is done with them
	freed   chan struct{}     // closed, and replaced, when a name is not busy any more
	closing bool
}

// newLive takes over the exports of a start.
func newLive(log *slog.Logger, stores *backing.Stores, events *control.Events) *live {
	return &live{log: log, events: events, stores: stores, byName: map[string]*served{},
		busy: map[string]string{}, freed: make(chan struct{})}
}

// begin makes the exports of a start those that are served.
func (l *live) begin(e *engine.Engine, j *journal, list []*served) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.engine, l.journal = e, j
	l.discards = newDiscards(l.log, e, j, l.backingOf)
	l.discards.take = func() error {
		if l.doubled {
			return nil
		}
		return l.takeRoom(1)
	}
	l.discards.give = func() {
		if !l.doubled {
			l.room.Add(1)
		}
	}
	j.mu.Lock()
	j.after = l.discards.ended
	j.mu.Unlock()
	for i, id := range e.IDs() {
		list[i].id = id
		l.byName[list[i].name()] = list[i]
		j.know(id, exportName{name: list[i].name(), path: list[i].backing.Path()})
	}
	l.list = list
	return l.publish()
}

// publish makes the catalog what the list says. l.mu is held.
func (l *live) publish() error {
	shown := make([]proto.Export, 0, len(l.list))
	for _, x := range l.list {
		if !x.leaving {
			e := x.backing.Export
			e.ID = uint64(x.id)
			shown = append(shown, e)
		}
	}
	// the default export is the one named "", if there is one
	catalog, err := proto.NewExports(shown, -1)
	if err == nil {
		l.catalog.Store(catalog)
	}
	return err
}

// all returns the exports, those that are leaving included.
func (l *live) all() []*served {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// view is an export as it was at one moment.
type view struct {
	served
	shown proto.Export
}

// views returns all exports as they are now, those that are leaving included.
func (l *live) views() []view {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]view, len(l.list))
	for i, x := range l.list {
		list[i] = view{*x, x.backing.Export}
	}
	return list
}

// view returns the export of a name as it is now.
func (l *live) view(name string) (v view, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.byName[name]
	if x == nil {
		return view{}, false
	}
	return view{*x, x.backing.Export}, true
}

// find returns the export of a name, or nil. Who holds the name may rely on it.
func (l *live) find(name string) *served {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byName[name]
}

// backingOf returns what is behind an export that clients can choose, or nil.
func (l *live) backingOf(id engine.ID) *backing.Backing {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.list {
		if x.id == id && !x.leaving {
			return x.backing
		}
	}
	return nil
}

// changes lists what is being done.
func (l *live) changes() (list []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, what := range l.busy {
		list = append(list, exportTitle(name)+" is "+what)
	}
	slices.Sort(list)
	return list
}

// doing returns what is being done with a name, or "".
func (l *live) doing(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy[name]
}

// exportTitle names an export in a sentence.
func exportTitle(name string) string {
	if name == "" {
		return "the default export"
	}
	return "export " + visible(name)
}

// claim takes all of some names for a change, as soon as no other change has one of them.
func (l *live) claim(ctx context.Context, what string, names []string) error {
	late := time.NewTimer(turnTime)
	defer late.Stop()
	for {
		l.mu.Lock()
		at := slices.IndexFunc(names, func(n string) bool { return l.busy[n] != "" })
		switch {
		case l.closing:
			l.mu.Unlock()
			return control.Unavailable("the server is shutting down")
		case at < 0:
			for _, n := range names {
				l.busy[n] = what
			}
			l.mu.Unlock()
			return nil
		}
		freed, name, other := l.freed, names[at], l.busy[names[at]]
		l.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return control.Conflict("name", "%s is %s; try again when that is done",
				exportTitle(name), other)
		}
	}
}

// claimMore takes further names for a task, which are known only now: those of partitions. It does
// not wait, because the task holds names already.
func (l *live) claimMore(t *task, names []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		switch {
		case slices.Contains(t.names, n):
		case l.busy[n] != "":
			return control.Conflict("name", "%s is %s; try again when that is done",
				exportTitle(n), l.busy[n])
		case l.byName[n] != nil:
			return control.Conflict("name", "there is an %s already, whose name a partition would "+
				"have", exportTitle(n))
		default:
			l.busy[n] = l.busy[t.names[0]]
			t.names = append(t.names, n)
		}
	}
	return nil
}

// release gives names back.
func (l *live) release(names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		delete(l.busy, n)
	}
	close(l.freed)
	l.freed = make(chan struct{})
}

// say changes what is said of names that a change holds.
func (l *live) say(names []string, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		l.busy[n] = what
	}
}

// close lets no further change begin, and waits a moment for those that are under way.
func (l *live) close() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	late := time.After(time.Second)
	for {
		l.mu.Lock()
		left, freed := len(l.busy), l.freed
		l.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-freed:
		case <-late:
			return
		}
	}
}

// task is a change under way. As long as it has only looked and opened it can be given up.
type task struct {
	names     []string // that it holds
	mu        sync.Mutex
	committed bool
	given     bool
}

// errGivenUp is the end of a task whose client was told that it took too long.
var errGivenUp = errors.New("given up")

// commit returns an error if the task was given up. Afterwards it will not be.
func (t *task) commit() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.given {
		return errGivenUp
	}
	t.committed = true
	return nil
}

// giveUp gives a task up, unless it has committed.
func (t *task) giveUp() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.given = !t.committed
	return t.given
}

// result is what a change answers.
type result struct {
	control.Changed
	err error
}

// do makes a change to some exports. It returns when the change is done; if that takes too long,
// the change is given up, or goes on if it has begun to change something. Until it ends the names
// stay taken, so that storage that hangs delays changes of its own exports only.
func (l *live) do(ctx context.Context, what string, names []string,
	change func(*task) (control.Changed, error)) (control.Changed, error) {
	if err := l.claim(ctx, what, names); err != nil {
		return control.Changed{}, err
	}
	t, done := &task{names: names}, make(chan result, 1)
	go func() {
		answer, err := change(t)
		l.release(t.names)
		done <- result{answer, err}
	}()
	late := time.NewTimer(changeTime + time.Duration(len(names))*eachTime)
	defer late.Stop()
	select {
	case r := <-done:
		return r.Changed, r.err
	case <-late.C:
	}
	title := "an export"
	if len(names) == 1 {
		title = exportTitle(names[0])
	}
	if t.giveUp() {
		return control.Changed{}, control.Unavailable("%s: its storage has not answered for %v; "+
			"nothing was changed", title, changeTime)
	}
	return control.Changed{}, control.Unavailable("%s: its storage has not answered for %v; the "+
		"change goes on, and ends when it does", title, changeTime)
}

// oneName is the list of a change to one export.
func oneName(name string) []string { return []string{name} }

// unknown is the error about an export that is not there.
func (l *live) unknown(name string) error {
	var near []string
	for _, x := range l.all() {
		if strings.EqualFold(x.name(), name) {
			near = append(near, visible(x.name()))
		}
	}
	advice := ""
	if len(near) > 0 {
		advice = "; there is " + near[0]
	}
	return control.NotFound("name", "there is no %s%s", exportTitle(name), advice)
}
