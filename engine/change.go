// Changes of what is served, as the control plane makes them: exports are added, altered and
// removed while others are served. The loops' side is in changeover.go.
//
// Invariant: the newest table is published and posted to the loops under one lock, the same under
// which clients are adopted; so a loop opens the letters of tables in order, and that of a client
// never after the letter of a table in which its export has gone. Nothing waits under the lock. A
// place is free again when every loop has said that nothing of its export, or device, is left, and
// the kernel has let go of its file.
//
// The way out of an export: it is marked as leaving, and every loop ends its connections; when the
// last loop has none, and it was the last on its device, what was written is flushed; then the
// export, and the device if no other export has it, are taken out of the table, the loops empty the
// places of its file, and its ID has gone. Storage that hangs can stop that anywhere. Then Apply
// returns when its context ends, and the rest is done when the storage answers.

package engine

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"ringnbd/proto"
)

// Change is what Apply does, all or nothing as far as it can be known before.
type Change struct {
	// Remove has the exports that are no longer served. What was taken in is answered, what comes
	// in is refused for a while; then their connections are closed. Force: they are cut at once.
	Remove []ID
	Force  bool
	Alter  []Alteration
	Add    []Export
}

// Alteration gives an export other facts. Its connections stay, and keep to the facts from their
// next request on.
type Alteration struct {
	ID       ID
	Facts    proto.Facts
	Contexts []Context // nil: as before
	// DeviceSize is how many bytes the device has now; 0: as many as before.
	DeviceSize uint64
}

// ErrGone says that an export is not served any more.
var ErrGone = errors.New("the export is not served any more")

// IsGone reports whether an error says that an export is not served any more.
func IsGone(err error) bool { return errors.Is(err, ErrGone) }

// RoomError says that no more exports, or devices, can be added until the server starts anew.
type RoomError struct {
	Devices bool // devices with a descriptor, else exports
	Room    int  // how many there may be
}

func (e *RoomError) Error() string {
	what := " exports"
	if e.Devices {
		what = " open files and devices"
	}
	return "there is room for " + strconv.Itoa(e.Room) + what + " until the server starts again"
}

// BoundsError says that an export does not fit on its device.
type BoundsError struct {
	Name               string
	Base, Size, Device uint64 // bytes
}

func (e *BoundsError) Error() string {
	return "export " + strconv.Quote(e.Name) + ": " + strconv.FormatUint(e.Size, 10) +
		" bytes from " + strconv.FormatUint(e.Base, 10) + " on do not fit on a device of " +
		strconv.FormatUint(e.Device, 10) + " bytes"
}

// RemainsError says that Apply did not wait until the end of a change: it is in force, but
// something of before it is left, which goes on by itself.
type RemainsError struct {
	Name        string
	ID          ID
	Connections int  // of a removed export that have not ended
	Flushing    bool // of a removed export the written data is being flushed
	Altered     bool // requests of before an alteration have not ended
	Added       bool // it is added, and cannot be served before all loops have it
}

func (e *RemainsError) Error() string {
	text := "export " + strconv.Quote(e.Name)
	switch {
	case e.Added:
		return text + " is added, but not every loop has it yet"
	case e.Altered:
		return text + " is altered, but requests of before have not ended"
	case e.Connections > 0:
		return text + " is removed, but requests of " + strconv.Itoa(e.Connections) +
			" connections are still with its storage"
	case e.Flushing:
		return text + " is removed, but its storage has not answered the flush of what was written"
	}
	return text + " is removed, but the kernel still has its file open"
}

// NotFlushedError says that what clients wrote to an export may be lost.
type NotFlushedError struct {
	Name string
	Err  error
}

func (e *NotFlushedError) Error() string {
	return "export " + strconv.Quote(e.Name) + " was not flushed (" + e.Err.Error() +
		"): data that clients wrote may be lost"
}

func (e *NotFlushedError) Unwrap() error { return e.Err }

// Apply changes what is served, and returns when the change is done in every loop: what was added
// can be adopted, what was altered is served as it is now, and nothing of what was removed is left,
// so that its descriptors may be closed. What was written to it has been flushed, if no other
// export has its device.
//
// A change that cannot be made as a whole is refused, and nothing has changed (ErrGone, RoomError,
// BoundsError). Only a loop can know that it cannot serve what is added (HomeError, or the kernel's
// reason): then nothing was added or altered, but what was to be removed is removed.
//
// When the context ends before the change is done, or data could not be flushed, the change is in
// force all the same, and the errors say what remains (RemainsError) and what is lost
// (NotFlushedError); see also Gone. What was added is the caller's to remove then: its IDs are
// returned with the error.
func (e *Engine) Apply(ctx context.Context, c Change) (added []ID, err error) {
	w, err := e.publish(&c)
	if err != nil {
		return nil, err
	}
	if w.leaving > 0 {
		go e.seeOff(w.home, w.leaving)
	}
	late := false
	for _, m := range w.letters {
		late = !e.answered(ctx, m.done) || late
		if !late && m.err != nil { // the kernel did not take a file
			slices.Reverse(w.before)
			_, _ = e.Apply(ctx, Change{Remove: w.added, Force: true})
			for i := range w.before { // each alone: it may be one that is removed
				_, _ = e.Apply(ctx, Change{Alter: w.before[i : i+1]})
			}
			return nil, errors.Join(m.err, e.departed(ctx, w))
		}
	}
	if late {
		return w.added, errors.Join(w.remains(&c), e.departed(ctx, w))
	}
	return w.added, e.departed(ctx, w)
}

// remains says of a change that not every loop has answered what may not be in force yet.
func (w *work) remains(c *Change) error {
	var all []error
	for _, a := range c.Alter {
		all = append(all, &RemainsError{Name: w.names[a.ID], ID: a.ID, Altered: true})
	}
	for i, id := range w.added {
		all = append(all, &RemainsError{Name: c.Add[i].Name, ID: id, Added: true})
	}
	return errors.Join(all...)
}

// departed waits until what a change removes has gone, and says what of it is left, or lost.
func (e *Engine) departed(ctx context.Context, w *work) error {
	var all []error
	for _, d := range w.departures {
		if e.answered(ctx, d.gone) {
			all = append(all, d.err)
		} else {
			all = append(all, d.remains())
		}
	}
	return errors.Join(all...)
}

// answered waits until something is done. False means that the context, or the engine, has ended
// before.
func (e *Engine) answered(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-e.ended:
	}
	return false
}

// Gone returns a channel that is closed when an export that is being removed has gone from every
// loop, and its file from every ring; of an export that has gone it is closed already, and of one
// that is served it is nil.
func (e *Engine) Gone(id ID) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := e.shared.register.leaving[id]; d != nil {
		return d.gone
	}
	if e.shared.table.find(id) != nil {
		return nil
	}
	gone := make(chan struct{})
	close(gone)
	return gone
}

// FlushExport brings to the disk what was written to an export: a flush as a client's, with what
// that says of earlier failures.
func (e *Engine) FlushExport(ctx context.Context, id ID) error {
	e.mu.Lock()
	x := e.shared.table.find(id)
	if x == nil || x.leaving {
		e.mu.Unlock()
		return ErrGone
	}
	m := e.postFlush(x.dev)
	e.mu.Unlock()
	return e.flushResult(ctx, m, x.Name)
}

// postFlush has a loop flush a device. The caller holds the lock.
func (e *Engine) postFlush(dev uint32) *mail {
	if e.down {
		return nil
	}
	m := &mail{kind: mailFlush, dev: dev, generation: e.shared.table.devices[dev].generation,
		done: make(chan struct{})}
	to := e.shared.loops[0]
	if home := e.shared.table.devices[dev].home; home != none {
		to = e.shared.loops[home]
	}
	to.post(m)
	return m
}

// flushResult waits for the flush of a letter.
func (e *Engine) flushResult(ctx context.Context, m *mail, name string) error {
	switch {
	case m == nil:
		return errClosing
	case !e.answered(ctx, m.done):
		return &NotFlushedError{Name: name, Err: errLate}
	case m.err != nil && !IsGone(m.err):
		return &NotFlushedError{Name: name, Err: m.err}
	}
	return m.err
}

// update is what a letter brings of a table: which places are to be looked at.
type update struct {
	table      *table
	exports    []uint32
	devices    []uint32
	departures []*departure // of exports that leave from now on
	cut        []uint32     // places of exports whose connections are cut
	// settle has the places of exports that may do less than before: the letter is answered when
	// what they were asked before is over.
	settle []uint32
}

// work is a change that the loops have been told of.
type work struct {
	letters    []*mail
	added      []ID
	departures []*departure // of all that it removes
	leaving    int          // how many of them leave because of it
	home       chan *departure
	names      map[ID]string
	before     []Alteration // what its exports were, in the order of its alterations
}

// publish makes the table of a change and posts it to the loops, or refuses it.
func (e *Engine) publish(c *Change) (*work, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return nil, errClosing
	}
	r, old := &e.shared.register, e.shared.table
	if err := r.check(old, c); err != nil {
		return nil, err
	}
	t, w := old.copy(), &work{names: map[ID]string{}, home: make(chan *departure, len(c.Remove))}
	u := &update{table: t}
	for i := range c.Alter {
		a := &c.Alter[i]
		x := t.find(a.ID)
		w.names[a.ID] = x.Name
		w.before = append(w.before, Alteration{ID: a.ID, Facts: x.Facts, Contexts: x.Contexts,
			DeviceSize: x.Device.Size})
		u.alter(a)
	}
	for _, id := range c.Remove {
		d := r.leaving[id]
		if d == nil {
			d = newDeparture(t.find(id), len(e.shared.loops), w.home)
			r.leaving[id] = d
			u.leave(d)
			w.leaving++
		}
		if c.Force {
			u.cut = append(u.cut, id.place())
		}
		w.departures = append(w.departures, d)
	}
	for i := range c.Add {
		place, devs := r.add(t, e.shared.guard, &c.Add[i])
		u.exports, u.devices = append(u.exports, place), append(u.devices, devs...)
		w.added = append(w.added, t.exports[place].id)
	}
	w.letters = e.postTable(u)
	return w, nil
}

// postTable makes the table of an update the newest, and posts it to the loops. The caller holds
// the lock.
func (e *Engine) postTable(u *update) (letters []*mail) {
	u.table.settle()
	e.shared.table = u.table
	for _, l := range e.shared.loops {
		m := &mail{kind: mailTable, update: u, done: make(chan struct{})}
		letters = append(letters, m)
		l.post(m)
	}
	return letters
}

// alter gives an export other facts.
func (u *update) alter(a *Alteration) {
	place := a.ID.place()
	x := *u.table.exports[place]
	const readOnly = proto.FlagReadOnly
	if a.Facts.Size < x.Size || a.Facts.Flags&^x.Flags&readOnly != 0 {
		u.settle = append(u.settle, place)
	}
	x.Facts = a.Facts
	if a.Contexts != nil {
		x.Contexts = a.Contexts
	}
	if a.DeviceSize > 0 {
		x.Device.Size = a.DeviceSize
	}
	u.table.exports[place] = &x
	u.exports = append(u.exports, place)
}

// leave marks an export as leaving.
func (u *update) leave(d *departure) {
	place := d.id.place()
	x := *u.table.exports[place]
	x.leaving = true
	u.table.exports[place] = &x
	u.exports = append(u.exports, place)
	u.departures = append(u.departures, d)
}
