// Another size for an export: a file is made longer or shorter, and storage that has grown is
// looked at again.
//
// Invariant: the size that clients are told never goes beyond the store. It grows after the store,
// and shrinks before it.

package main

import (
	"context"
	"fmt"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine/backing"
	"ringnbd/engine/units"
)

// resize gives an export another size; 0 stands for the size that its store has now.
func (l *live) resize(ctx context.Context, by control.Caller, name string, size uint64,
	force bool) (control.Changed, error) {
	what := "being resized by " + by.String()
	return l.do(ctx, what, oneName(name), func(t *task) (control.Changed, error) {
		x := l.find(name)
		if x == nil {
			return control.Changed{}, l.unknown(name)
		}
		b, before := x.backing, x.backing.Export.Size
		there, err := b.Look()
		if err != nil {
			return control.Changed{}, err
		}
		to := size
		if to == 0 {
			to = there
		}
		if to == before && to == there {
			return control.Changed{}, nil
		}
		if err := b.MayResize(to); err != nil {
			return control.Changed{}, err
		}
		if n := l.journal.connections(x.id); to < before && n > 0 && !force {
			return control.Changed{}, control.Conflict("force", "%s has %s, and would lose its "+
				"end; wait until they have left, or say that it is to be forced",
				exportTitle(name), units.Plural(n, "connection"))
		}
		if err := t.commit(); err != nil {
			return control.Changed{}, err
		}
		if err := l.changeSize(x, to, there); err != nil {
			return control.Changed{}, err
		}
		text := fmt.Sprintf("size %d -> %d", before, to)
		l.log.Info("export resized", "name", name, "from", before, "to", to, "by", by.String())
		l.events.Tell(control.Event{Event: "export-resized", Export: name, By: by.String(),
			Text: text})
		return control.Changed{Changed: true}, nil
	})
}

// changeSize changes the size of a store, which is there now, and of what clients are told.
func (l *live) changeSize(x *served, to, there uint64) error {
	b, before := x.backing, x.backing.Export.Size
	if to > there {
		if err := b.Truncate(to); err != nil {
			return err
		}
	} else if to < there && b.Device.ReadOnly {
		return &backing.ResizeError{Path: b.Path(), Size: to,
			Why: "only a file that is served for writing can be made longer or shorter"}
	}
	shown := b.Resized(to)
	err := l.swap(&step{alter: []alteration{{of: x, shown: shown, spec: x.spec, before: x.spec,
		takes: to < before}}})
	switch {
	case err != nil && to > there:
		_ = b.Truncate(there)
	case err == nil && to < there:
		err = b.Truncate(to)
	}
	return err
}
