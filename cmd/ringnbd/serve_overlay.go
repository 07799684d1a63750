// What a persistent overlay holds, written into its origin (commit) or thrown away (drop) while
// other exports are served.
//
// Invariant: the export is out of the catalog and out of the engine while its files are changed,
// and comes back under a new ID, whatever came of it. Clients that are connected are in the way:
// nothing is changed then. A commit that is cut, by a crash or by an error, can be done again.

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/units"
)

// The verbs.
const (
	verbCommit = "commit"
	verbDrop   = "drop"
)

// overlay commits or drops what the overlay of an export holds. Unlike other changes it takes as
// long as it takes: who asked may leave, and the change goes on.
func (l *live) overlay(ctx context.Context, by control.Caller, name,
	verb string) (control.Changed, error) {
	what := map[string]string{verbCommit: "being committed by ",
		verbDrop: "being emptied by "}[verb] + by.String()
	names := oneName(name)
	if err := l.claim(ctx, what, names); err != nil {
		return control.Changed{}, err
	}
	done := make(chan result, 1)
	go func() {
		answer, err := l.empty(name, verb, what)
		l.release(names)
		if err == nil && answer.Changed {
			l.emptied(by, name, verb, answer.Notes)
		}
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.Changed, r.err
	case <-ctx.Done():
		return control.Changed{}, ctx.Err()
	}
}

// empty does the work. The name is taken.
func (l *live) empty(name, verb, what string) (control.Changed, error) {
	x := l.find(name)
	if x == nil {
		return control.Changed{}, l.unknown(name)
	}
	if _, _, ok := x.backing.Held(); !ok {
		return control.Changed{}, control.Wrong("name", "%s is not an overlay with a file of its "+
			"own", exportTitle(name))
	}
	if err := l.lockOut(x); err != nil {
		return control.Changed{}, err
	}
	// Only now nothing can be written any more.
	data, zeroes, _ := x.backing.Held()
	if data+zeroes == 0 && !x.backing.Unfinished() {
		return control.Changed{}, l.unlock(x)
	}
	_, err := l.engine.Apply(context.Background(), engine.Change{Remove: []engine.ID{x.id}})
	if err == nil && verb == verbCommit {
		var told atomic.Uint64
		err = x.backing.Commit(context.Background(), func(done, total uint64) {
			if at := done * 100 / max(total, 1); at != told.Swap(at) {
				l.say(oneName(name), fmt.Sprintf("%s: %d %% of %s", what, at, units.Size(total)))
			}
		})
	} else if err == nil {
		err = x.backing.Drop()
	}
	if again := l.letIn(x, err != nil); again != nil {
		err = errors.Join(err, again)
	}
	if err != nil {
		return control.Changed{}, err
	}
	return control.Changed{Changed: data+zeroes > 0, Notes: []string{fmt.Sprintf("%s of data and "+
		"%s of zeroes", units.Size(data), units.Size(zeroes))}}, nil
}

// lockOut takes an export out of the catalog, unless it has clients.
func (l *live) lockOut(x *served) error {
	l.mu.Lock()
	x.leaving = true
	err := l.publish()
	l.mu.Unlock()
	if n := l.journal.connections(x.id); err == nil && n > 0 {
		if err := l.unlock(x); err != nil {
			return err
		}
		return control.Conflict("name", "%s has %s; it can be emptied when they have left",
			exportTitle(x.name()), units.Plural(n, "connection"))
	}
	return err
}

// unlock undoes lockOut.
func (l *live) unlock(x *served) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	x.leaving = false
	return l.publish()
}

// letIn serves an export again that was taken out of the engine. After trouble its overlay is read
// from the disk again.
func (l *live) letIn(x *served, trouble bool) error {
	var err error
	if trouble {
		err = x.backing.Renew()
	}
	var ids []engine.ID
	if err == nil {
		ids, err = l.engine.Apply(context.Background(),
			engine.Change{Add: []engine.Export{x.backing.Engine()}})
	}
	l.journal.forget(x.id)
	if err != nil {
		err = fmt.Errorf("%s is not served any more: %w", exportTitle(x.name()), err)
		l.log.Error("an export is not served any more", "name", x.name(), "error", err)
		l.mu.Lock()
		delete(l.byName, x.name())
		l.mu.Unlock()
		return errors.Join(err, l.finish([]*served{x}))
	}
	l.journal.know(ids[0], exportName{name: x.name(), path: x.backing.Path()})
	l.mu.Lock()
	defer l.mu.Unlock()
	again := *x // others may be reading x
	again.id, again.leaving = ids[0], false
	l.list[slices.Index(l.list, x)] = &again
	l.byName[x.name()] = &again
	return l.publish()
}

// emptied tells of an overlay that was committed or dropped.
func (l *live) emptied(by control.Caller, name, verb string, notes []string) {
	l.log.Info("overlay "+map[string]string{verbCommit: "committed into its origin",
		verbDrop: "dropped"}[verb], "name", name, "held", notes[0], "by", by.String())
	l.events.Tell(control.Event{Event: "overlay-" + verb, Export: name, By: by.String(),
		Text: notes[0]})
}

// emptyStatus is the answer to what stands in the way of emptying an overlay.
func emptyStatus(err error) error {
	var empty *backing.EmptyError
	if errors.As(err, &empty) {
		return control.Conflict("name", "%v", err)
	}
	return statusOf(err)
}
