// What each route does: it reads what was asked for and hands it to Running.
//
// Invariant: nothing is decided here but the form of a question.

package control

import (
	"strconv"
)

func (q *call) name() string { return q.params.Get("name") }

func (q *call) status() (any, error) { return q.server.running.Status(), nil }

func (q *call) exports() (any, error) {
	list, err := q.server.running.Exports()
	return Exports{list}, err
}

func (q *call) export() (any, error) { return q.server.running.Export(q.name()) }

func (q *call) put() (any, error) {
	replace, err := q.flag("replace")
	if err != nil {
		return nil, err
	}
	var want Wanted
	if err := q.decode(&want); err != nil {
		return nil, err
	}
	if want.Path == "" {
		return nil, Wrong("path", "the path is missing: what is to be served?")
	}
	return q.server.running.Put(q.request.Context(), q.caller, q.name(), want, replace)
}

func (q *call) remove() (any, error) {
	force, err := q.flag("force")
	if err != nil {
		return nil, err
	}
	return q.server.running.Remove(q.request.Context(), q.caller, q.name(), force)
}

func (q *call) flush() (any, error) {
	return q.server.running.Flush(q.request.Context(), q.caller, q.name())
}

func (q *call) resize() (any, error) {
	var to Resize
	if err := q.decode(&to); err != nil {
		return nil, err
	}
	return q.server.running.Resize(q.request.Context(), q.caller, q.name(), to)
}

func (q *call) overlayCommit() (any, error) { return q.overlay("commit") }

func (q *call) overlayDrop() (any, error) { return q.overlay("drop") }

func (q *call) overlay(verb string) (any, error) {
	return q.server.running.Overlay(q.request.Context(), q.caller, q.name(), verb)
}

func (q *call) connections() (any, error) {
	return Connections{q.server.running.Connections()}, nil
}

func (q *call) kick() (any, error) {
	text := q.params.Get("id")
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil, Wrong("id", "id=%s: must be the number of a connection, see /v1/connections",
			text)
	}
	return q.server.running.Kick(q.request.Context(), q.caller, id)
}

func (q *call) config() (any, error) { return q.server.running.Config() }

func (q *call) diff() (any, error) { return q.server.running.Diff() }

func (q *call) reload() (any, error) {
	dry, err := q.flag("dry-run")
	if err != nil {
		return nil, err
	}
	return q.server.running.Reload(q.request.Context(), q.caller, dry)
}
