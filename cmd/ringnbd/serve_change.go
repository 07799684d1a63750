// Changes to the exports of a running server: add, alter, replace, remove, resize, flush.
//
// Invariant: what can fail without a trace comes first: everything new is open before anything is
// changed, and a change that fails leaves what was served. An export that is removed is answered,
// flushed and closed, in this order; it is answered for when its lock is free.

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/tree"
	"ringnbd/proto"
)

// step is what is to become of some exports at a time. Their names are taken.
type step struct {
	add    []*served // open
	alter  []alteration
	remove []*served
	force  bool // clients of what is removed are cut at once

	trouble error // with what was removed: it is not served any more all the same
}

// alteration is an export that stays open, and what clients are told of it from now on.
type alteration struct {
	of     *served
	shown  proto.Export
	spec   backing.Spec
	before backing.Spec
	facts  proto.Facts // as they were before; filled in by show
	takes  bool        // it takes something away, so that the catalog goes ahead
}

// open opens exports for a task, and makes images that are missing. leaving are exports that they
// replace.
func (l *live) open(t *task, specs []backing.Spec, from string,
	leaving ...*served) ([]*served, error) {
	room := 0
	for i := range specs {
		room += descriptors(&specs[i])
	}
	if err := l.takeRoom(room); err != nil {
		return nil, err
	}
	gone := make([]*backing.Backing, len(leaving))
	for i, x := range leaving {
		gone[i] = x.backing
	}
	opened, err := l.stores.PrepareInstead(gone, specs)
	if err != nil {
		l.room.Add(int64(room))
		return nil, err
	}
	list := servedFrom(opened, from)
	var names []string
	for _, x := range list {
		names = append(names, x.name())
		if err == nil {
			err = x.backing.Create()
		}
		if err == nil {
			err = x.backing.Export.Validate()
		}
	}
	if err == nil {
		err = l.claimMore(t, names)
	}
	if err != nil {
		l.abandon(list)
		return nil, err
	}
	return list, nil
}

// takeRoom takes descriptors for exports, and leaves those that connections were promised.
func (l *live) takeRoom(descriptors int) error {
	if l.room.Add(-int64(descriptors)) < 0 {
		l.room.Add(int64(descriptors))
		return control.Unavailable("the limit on open files leaves no room for a further export; " +
			"raise it (ulimit -n, LimitNOFILE= of a unit) or allow fewer connections, and " +
			"restart the server")
	}
	return nil
}

// descriptors is how many descriptors an export takes: one for each of its stores.
func descriptors(s *backing.Spec) (n int) {
	parsed, err := tree.Parse(s.Text())
	if err != nil {
		return 1 // it is not opened
	}
	parsed.Paths(func(*tree.Node) { n++ })
	return n
}

// abandon closes exports that were opened and are not served.
func (l *live) abandon(list []*served) {
	for i := range list { // partitions come after their disk
		list[len(list)-1-i].backing.Abandon()
	}
	l.giveRoom(list)
}

// giveRoom gives back what open has taken. A partition has the descriptor of its disk.
func (l *live) giveRoom(list []*served) {
	for _, x := range list {
		if x.disk == nil {
			l.room.Add(int64(descriptors(&x.spec)))
		}
	}
}

// swap carries a step out. On an error nothing was changed, and what was to be added is still open.
func (l *live) swap(s *step) error {
	grow := engine.Change{}
	for _, x := range s.add {
		grow.Add = append(grow.Add, x.backing.Engine())
	}
	shrink := engine.Change{Force: s.force}
	for _, a := range s.alter {
		to := engine.Alteration{ID: a.of.id, Facts: a.shown.Facts}
		if a.shown.Size != a.of.backing.Export.Size {
			to.DeviceSize = a.shown.Size // such an export is a whole device
		}
		if a.takes {
			shrink.Alter = append(shrink.Alter, to)
		} else {
			grow.Alter = append(grow.Alter, to)
		}
	}
	for _, x := range s.remove {
		shrink.Remove = append(shrink.Remove, x.id)
	}
	if len(grow.Add)+len(grow.Alter) > 0 {
		ids, err := l.engine.Apply(context.Background(), grow)
		if err != nil {
			return err
		}
		for i, x := range s.add {
			x.id = ids[i]
			l.journal.know(x.id, exportName{name: x.name(), path: x.backing.Path()})
		}
	}
	l.show(s)
	if len(shrink.Remove)+len(shrink.Alter) == 0 {
		return nil
	}
	err := l.shrink(&shrink)
	var lost *engine.NotFlushedError
	var remains *engine.RemainsError
	switch {
	case errors.As(err, &remains): // the engine has ended; the shutdown closes what is left
		s.trouble = err
	case err == nil || errors.As(err, &lost):
		s.trouble = errors.Join(err, l.finish(s.remove))
	default: // it was refused
		l.back(s)
		return err
	}
	if s.trouble != nil {
		l.log.Error("a change had trouble", "error", s.trouble)
	}
	return nil
}

// shrink has the engine take something away, with the overlays of the clients of what it removes.
// No client gets another overlay now; but one may leave, and take its overlay along, between the
// list of them and the change, which the engine refuses as a whole then.
func (l *live) shrink(c *engine.Change) error {
	for before := -1; ; {
		all := *c
		for _, id := range c.Remove {
			all.Remove = append(all.Remove[:len(all.Remove):len(all.Remove)], l.discards.of(id)...)
		}
		_, err := l.engine.Apply(context.Background(), all)
		if !engine.IsGone(err) || len(all.Remove) == before {
			return err
		}
		before = len(all.Remove)
	}
}

// outcome is what went wrong in a step that was carried out all the same, or nil.
func (s *step) outcome(done string) error {
	if s.trouble == nil {
		return nil
	}
	return control.Unavailable("%s, but: %v", done, s.trouble)
}

// back shows again what a step has taken from the catalog, because the engine refused the step.
// That happens when the server ends; what was added is served until then.
func (l *live) back(s *step) {
	again := &step{}
	for _, a := range s.alter {
		before := a.of.backing.Export
		before.Facts = a.facts
		again.alter = append(again.alter, alteration{of: a.of, shown: before, spec: a.before})
	}
	l.show(again)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range s.remove {
		if l.byName[x.name()] == nil {
			x.leaving, l.byName[x.name()] = false, x
		}
	}
	_ = l.publish()
}

// show makes a step what clients see.
func (l *live) show(s *step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range s.alter {
		a := &s.alter[i]
		a.facts = a.of.backing.Export.Facts
		a.of.backing.Shows(a.shown)
		a.of.spec = a.spec
	}
	for _, x := range s.remove {
		x.leaving = true
		delete(l.byName, x.name())
	}
	for _, x := range s.add {
		l.byName[x.name()] = x
		l.list = append(l.list, x)
	}
	if err := l.publish(); err != nil {
		// the exports were checked, and each name is there once
		l.log.Error("the exports cannot be shown", "error", err)
	}
}

// finish closes exports that the engine has let go of. It flushed them before.
func (l *live) finish(list []*served) error {
	if len(list) == 0 {
		return nil
	}
	gone := make(map[*served]bool, len(list))
	var trouble []error
	for i := range list { // partitions come after their disk
		x := list[len(list)-1-i]
		trouble = append(trouble, x.backing.Close())
		l.journal.forget(x.id)
		l.discards.forget(x.id)
		gone[x] = true
	}
	l.giveRoom(list)
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.list[:0:0]
	for _, x := range l.list {
		if !gone[x] {
			kept = append(kept, x)
		}
	}
	l.list = kept
	return errors.Join(trouble...)
}

// put serves an export as a spec says, or makes it so.
func (l *live) put(ctx context.Context, by control.Caller, want backing.Spec, from string,
	replace bool) (control.Changed, error) {
	if err := backing.Check([]backing.Spec{want}); err != nil {
		return control.Changed{}, err
	}
	what := "being added or changed by " + by.String()
	return l.do(ctx, what, l.groupNames(want.Name), func(t *task) (control.Changed, error) {
		old := l.find(want.Name)
		if old == nil {
			return l.add(t, by, want, from)
		}
		if err := l.wholeGroup(t, old); err != nil {
			return control.Changed{}, err
		}
		want.Create = old.spec.Create
		if sameSpec(want, old.spec) {
			return control.Changed{}, nil
		}
		if !sameStore(want, old.spec) && !replace {
			return control.Changed{}, control.Conflict("replace", "%s serves %s; remove it first, "+
				"or say that it is to be replaced, which ends its connections",
				exportTitle(want.Name), visible(old.spec.Text()))
		}
		list, ok, err := l.alterations(old, want)
		switch {
		case err != nil:
			return control.Changed{}, control.Conflict("name", "%v", err)
		case ok:
			return l.alter(t, by, list, from)
		case !replace:
			return control.Changed{}, control.Conflict("replace", "%s has to be opened again for "+
				"that, which ends its connections; say that it is to be replaced",
				exportTitle(want.Name))
		}
		return l.replace(t, by, old, want, from)
	})
}

// wholeGroup makes sure that a task holds the names of an export and its partitions, and that the
// export is not a partition of another.
func (l *live) wholeGroup(t *task, x *served) error {
	if x.disk != nil {
		return control.Conflict("name", "%s is a partition of %s; change that",
			exportTitle(x.name()), exportTitle(x.disk.name()))
	}
	for _, name := range l.groupNames(x.name()) {
		if !slices.Contains(t.names, name) {
			return control.Conflict("name", "%s was being changed; try again",
				exportTitle(x.name()))
		}
	}
	return nil
}

// add serves an export whose name is free.
func (l *live) add(t *task, by control.Caller, want backing.Spec,
	from string) (control.Changed, error) {
	list, err := l.open(t, []backing.Spec{want}, from)
	if err != nil {
		return control.Changed{}, err
	}
	if err = t.commit(); err == nil {
		err = l.swap(&step{add: list})
	}
	if err != nil {
		l.abandon(list)
		return control.Changed{}, err
	}
	return l.added(by, list), nil
}

// added tells of exports that were added.
func (l *live) added(by control.Caller, list []*served) (answer control.Changed) {
	for _, x := range list {
		for _, note := range x.backing.Notes {
			l.log.Warn(note)
		}
		l.log.Info("export added", "name", x.name(), "path", x.spec.Text(), "size",
			x.backing.Export.Size, "read_only", readOnly(&x.backing.Export), "by", by.String())
		l.events.Tell(control.Event{Event: "export-added", Export: x.name(), By: by.String(),
			Text: x.spec.Text()})
		answer.Notes = append(answer.Notes, x.backing.Notes...)
	}
	answer.Changed = true
	return answer
}

// readOnly reports whether clients are told that an export is read-only.
func readOnly(e *proto.Export) bool { return e.Flags&proto.FlagReadOnly != 0 }

// alterations returns how an export, and the partitions that are served with it, become what a spec
// wants while they stay open, and others leave. ok is false if that cannot be.
func (l *live) alterations(x *served, want backing.Spec, leaving ...*served) (list []alteration,
	ok bool, err error) {
	gone := make([]*backing.Backing, len(leaving))
	for i, other := range leaving {
		gone[i] = other.backing
	}
	for _, each := range l.group(x) {
		to := want
		if each != x {
			to = each.spec
			to.ReadOnly = want.ReadOnly
		}
		shown, ok, err := each.backing.Altered(to, gone...)
		if err != nil || !ok {
			l.unalter(list)
			return nil, false, err
		}
		list = append(list, alteration{of: each, shown: shown, spec: to, before: each.spec,
			takes: to.ReadOnly && !each.spec.ReadOnly})
	}
	return list, true, nil
}

// unalter takes back alterations that are not made.
func (l *live) unalter(list []alteration) {
	for _, a := range list {
		_, _, _ = a.of.backing.Altered(a.before)
	}
}

// alter changes what an export that stays open shows, and whether its partitions are served as
// well. The first of the list is the export.
func (l *live) alter(t *task, by control.Caller, list []alteration,
	from string) (control.Changed, error) {
	x, want := list[0].of, list[0].spec
	s := &step{alter: list}
	var err error
	switch {
	case want.Partitions && !x.spec.Partitions:
		s.add, err = l.openPartitions(t, x, want, from)
	case !want.Partitions && x.spec.Partitions:
		s.remove = l.group(x)[1:]
		s.alter = list[:1]
		l.unalter(list[1:])
	}
	if err == nil {
		if err = t.commit(); err == nil {
			err = l.swap(s)
		}
		if err != nil {
			l.abandon(s.add)
		}
	}
	if err != nil {
		l.unalter(s.alter)
		return control.Changed{}, err
	}
	l.told(by, s, false)
	return control.Changed{Changed: true}, nil
}

// told tells of a step that was carried out.
func (l *live) told(by control.Caller, s *step, force bool) {
	for _, x := range s.remove {
		l.removed(by, x, force)
	}
	l.added(by, s.add)
	for _, a := range s.alter {
		if text := difference(a.before, a.spec); text != "" {
			l.altered(by, a.of, text)
		}
	}
}

// openPartitions opens the partitions of an export that is served.
func (l *live) openPartitions(t *task, x *served, want backing.Spec,
	from string) ([]*served, error) {
	list, err := l.open(t, []backing.Spec{want}, from, l.group(x)...)
	if err != nil {
		return nil, err
	}
	parts := list[1:]
	for _, part := range parts {
		part.disk = x
	}
	_ = list[0].backing.Close() // the disk is open already; this is another user of it
	l.giveRoom(list[:1])
	return parts, nil
}

// altered tells of an export that was altered.
func (l *live) altered(by control.Caller, x *served, what string) {
	l.log.Info("export changed", "name", x.name(), "what", what, "by", by.String())
	l.events.Tell(control.Event{Event: "export-changed", Export: x.name(), By: by.String(),
		Text: what})
}

// difference says what is different between two specs of an export that stays open.
func difference(from, to backing.Spec) string {
	text := ""
	if from.ReadOnly != to.ReadOnly {
		text = fmt.Sprintf("read-only %s -> %s", onOff(from.ReadOnly), onOff(to.ReadOnly))
	}
	if from.Partitions != to.Partitions {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("partitions %s -> %s", onOff(from.Partitions), onOff(to.Partitions))
	}
	if from.Description != to.Description {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("description %q -> %q", from.Description, to.Description)
	}
	return text
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// replace serves an export from another store, or from the same store, opened in another way.
func (l *live) replace(t *task, by control.Caller, old *served, want backing.Spec,
	from string) (control.Changed, error) {
	leave := l.group(old)
	list, err := l.open(t, []backing.Spec{want}, from, leave...)
	var shared *backing.SharedError
	if errors.As(err, &shared) && shared.Mode != "" {
		return l.reopen(t, by, old, want, from)
	}
	if err != nil {
		return control.Changed{}, err
	}
	s := &step{add: list, remove: leave}
	if err = t.commit(); err == nil {
		err = l.swap(s)
	}
	if err != nil {
		l.abandon(list)
		return control.Changed{}, err
	}
	l.told(by, s, false)
	return control.Changed{Changed: true, Notes: list[0].backing.Notes},
		s.outcome(exportTitle(want.Name) + " is served as it is now")
}

// reopen closes an export and opens its store in another way. If that fails it is served as before.
func (l *live) reopen(t *task, by control.Caller, old *served, want backing.Spec,
	from string) (control.Changed, error) {
	if err := t.commit(); err != nil {
		return control.Changed{}, err
	}
	gone := &step{remove: l.group(old)}
	if err := l.swap(gone); err != nil {
		return control.Changed{}, err
	}
	l.told(by, gone, false)
	serve := func(spec backing.Spec, from string) error {
		list, err := l.open(t, []backing.Spec{spec}, from)
		if err != nil {
			return err
		}
		if err = l.swap(&step{add: list}); err != nil {
			l.abandon(list)
			return err
		}
		l.added(by, list)
		return nil
	}
	err := serve(want, from)
	if err == nil {
		return control.Changed{Changed: true}, nil
	}
	if again := serve(old.spec, old.from); again != nil {
		err = fmt.Errorf("%w; and it could not be served as before: %w", err, again)
		l.log.Error("an export is not served any more", "name", old.name(), "error", err)
	}
	return control.Changed{}, err
}

// remove ends an export.
func (l *live) remove(ctx context.Context, by control.Caller, name string,
	force bool) (control.Changed, error) {
	what := "being removed by " + by.String()
	return l.do(ctx, what, l.groupNames(name), func(t *task) (control.Changed, error) {
		x := l.find(name)
		if x == nil {
			return control.Changed{}, l.unknown(name)
		}
		err := l.wholeGroup(t, x)
		if err == nil {
			err = t.commit()
		}
		if err != nil {
			return control.Changed{}, err
		}
		s := &step{remove: l.group(x), force: force}
		if err := l.swap(s); err != nil {
			return control.Changed{}, err
		}
		l.told(by, s, force)
		return control.Changed{Changed: true},
			s.outcome(exportTitle(name) + " is not served any more")
	})
}

// removed tells of an export that was removed.
func (l *live) removed(by control.Caller, x *served, force bool) {
	l.log.Info("export removed", "name", x.name(), "path", x.spec.Text(), "force", force, "by",
		by.String())
	l.events.Tell(control.Event{Event: "export-removed", Export: x.name(), By: by.String(),
		Text: x.spec.Text()})
}

// flush flushes an export to its disk.
func (l *live) flush(ctx context.Context, by control.Caller, name string) (control.Changed,
	error) {
	what := "being flushed by " + by.String()
	return l.do(ctx, what, oneName(name), func(t *task) (control.Changed, error) {
		x := l.find(name)
		if x == nil {
			return control.Changed{}, l.unknown(name)
		}
		if err := t.commit(); err != nil {
			return control.Changed{}, err
		}
		if err := l.engine.FlushExport(context.Background(), x.id); err != nil {
			return control.Changed{}, control.Unavailable("%s: it was not flushed: %v",
				exportTitle(name), err)
		}
		return control.Changed{Changed: true}, nil
	})
}
