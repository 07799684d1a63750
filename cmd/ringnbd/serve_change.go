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

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine"
	"ringnbd/engine/backing"
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
func (l *live) open(specs []backing.Spec, from string, leaving ...*served) ([]*served, error) {
	if err := l.takeRoom(len(specs)); err != nil {
		return nil, err
	}
	gone := make([]*backing.Backing, len(leaving))
	for i, x := range leaving {
		gone[i] = x.backing
	}
	opened, err := l.stores.PrepareInstead(gone, specs)
	if err != nil {
		l.room.Add(int64(len(specs)))
		return nil, err
	}
	list := make([]*served, len(specs))
	for i, b := range opened {
		list[i] = &served{spec: specs[i], backing: b, from: from}
		if err == nil {
			err = b.Create()
		}
		if err == nil {
			err = b.Export.Validate()
		}
	}
	if err != nil {
		l.abandon(list)
		return nil, err
	}
	return list, nil
}

// takeRoom takes descriptors for exports, and leaves those that connections were promised.
func (l *live) takeRoom(exports int) error {
	if l.room.Add(-int64(exports)) < 0 {
		l.room.Add(int64(exports))
		return control.Unavailable("the limit on open files leaves no room for a further export; " +
			"raise it (ulimit -n, LimitNOFILE= of a unit), and restart the server")
	}
	return nil
}

// abandon closes exports that were opened and are not served.
func (l *live) abandon(list []*served) {
	for _, x := range list {
		x.backing.Abandon()
	}
	l.room.Add(int64(len(list)))
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
	for _, x := range s.remove { // not before: no client gets another overlay now
		shrink.Remove = append(shrink.Remove, l.discards.of(x.id)...)
	}
	if len(shrink.Remove)+len(shrink.Alter) == 0 {
		return nil
	}
	_, err := l.engine.Apply(context.Background(), shrink)
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
	for _, x := range list {
		trouble = append(trouble, x.backing.Close())
		l.journal.forget(x.id)
		l.discards.forget(x.id)
		gone[x] = true
	}
	l.room.Add(int64(len(list)))
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
	return l.do(ctx, what, oneName(want.Name), func(t *task) (control.Changed, error) {
		old := l.find(want.Name)
		if old == nil {
			return l.add(t, by, want, from)
		}
		want.Create = old.spec.Create
		if wholeStore(want.Path) == wholeStore(old.spec.Path) {
			want.Path = old.spec.Path
		}
		if want == old.spec {
			return control.Changed{}, nil
		}
		if want.Path != old.spec.Path && !replace {
			return control.Changed{}, control.Conflict("replace", "%s serves %s; remove it "+
				"first, or say that it is to be replaced, which ends its connections",
				exportTitle(want.Name), visible(old.spec.Path))
		}
		shown, ok, err := old.backing.Altered(want)
		switch {
		case err != nil:
			return control.Changed{}, control.Conflict("name", "%v", err)
		case ok:
			return l.alter(t, by, old, want, shown)
		case !replace:
			return control.Changed{}, control.Conflict("replace", "%s has to be opened again "+
				"for that, which ends its connections; say that it is to be replaced",
				exportTitle(want.Name))
		}
		return l.replace(t, by, old, want, from)
	})
}

// add serves an export whose name is free.
func (l *live) add(t *task, by control.Caller, want backing.Spec,
	from string) (control.Changed, error) {
	list, err := l.open([]backing.Spec{want}, from)
	if err == nil {
		if err = t.commit(); err == nil {
			err = l.swap(&step{add: list})
		}
		if err != nil {
			l.abandon(list)
		}
	}
	if err != nil {
		return control.Changed{}, err
	}
	l.added(by, list[0])
	return control.Changed{Changed: true, Notes: list[0].backing.Notes}, nil
}

// added tells of an export that was added.
func (l *live) added(by control.Caller, x *served) {
	for _, note := range x.backing.Notes {
		l.log.Warn(note)
	}
	l.log.Info("export added", "name", x.name(), "path", x.backing.Path(), "size",
		x.backing.Export.Size, "read_only", x.readOnly(), "by", by.String())
	l.events.Tell(control.Event{Event: "export-added", Export: x.name(), By: by.String(),
		Text: x.backing.Path()})
}

// readOnly reports whether clients are told that the export is read-only.
func (x *served) readOnly() bool { return x.backing.Export.Flags&proto.FlagReadOnly != 0 }

// alter changes what an export that stays open shows. Its backing has the new spec already.
func (l *live) alter(t *task, by control.Caller, x *served, want backing.Spec,
	shown proto.Export) (control.Changed, error) {
	before := x.spec
	takes := shown.Flags&proto.FlagReadOnly != 0
	err := t.commit()
	if err == nil {
		err = l.swap(&step{alter: []alteration{{of: x, shown: shown, spec: want,
			before: before, takes: takes}}})
	}
	if err != nil {
		_, _, _ = x.backing.Altered(before)
		return control.Changed{}, err
	}
	l.altered(by, x, difference(before, want))
	return control.Changed{Changed: true}, nil
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
	list, err := l.open([]backing.Spec{want}, from, old)
	var shared *backing.SharedError
	if errors.As(err, &shared) && shared.Mode != "" {
		return l.reopen(t, by, old, want, from)
	}
	if err != nil {
		return control.Changed{}, err
	}
	if err = t.commit(); err == nil {
		err = l.swap(&step{add: list, remove: []*served{old}})
	}
	if err != nil {
		l.abandon(list)
		return control.Changed{}, err
	}
	l.removed(by, old, false)
	l.added(by, list[0])
	return control.Changed{Changed: true, Notes: list[0].backing.Notes}, nil
}

// reopen closes an export and opens its store in another way. If that fails it is served as before.
func (l *live) reopen(t *task, by control.Caller, old *served, want backing.Spec,
	from string) (control.Changed, error) {
	if err := t.commit(); err != nil {
		return control.Changed{}, err
	}
	if err := l.swap(&step{remove: []*served{old}}); err != nil {
		return control.Changed{}, err
	}
	l.removed(by, old, false)
	serve := func(spec backing.Spec, from string) error {
		list, err := l.open([]backing.Spec{spec}, from)
		if err != nil {
			return err
		}
		if err = l.swap(&step{add: list}); err != nil {
			l.abandon(list)
			return err
		}
		l.added(by, list[0])
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
	return l.do(ctx, what, oneName(name), func(t *task) (control.Changed, error) {
		x := l.find(name)
		if x == nil {
			return control.Changed{}, l.unknown(name)
		}
		if err := t.commit(); err != nil {
			return control.Changed{}, err
		}
		s := &step{remove: []*served{x}, force: force}
		if err := l.swap(s); err != nil {
			return control.Changed{}, err
		}
		l.removed(by, x, force)
		if s.trouble != nil {
			return control.Changed{}, control.Unavailable("%s is not served any more, but: %v",
				exportTitle(name), s.trouble)
		}
		return control.Changed{Changed: true}, nil
	})
}

// removed tells of an export that was removed.
func (l *live) removed(by control.Caller, x *served, force bool) {
	l.log.Info("export removed", "name", x.name(), "path", x.backing.Path(), "force", force, "by",
		by.String())
	l.events.Tell(control.Event{Event: "export-removed", Export: x.name(), By: by.String(),
		Text: x.backing.Path()})
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
