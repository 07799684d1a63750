// The operator of a live world: at moments of his choice he adds exports, changes their facts,
// removes them, with patience or at once, adds them again in the same place, and ends connections.
//
// Invariant: what a change may do is known before it is begun: its exports leave, and its facts may
// be in force, from that moment on. What it must have done is checked when the engine says that it
// is done, and holds from then on.

package sim

import (
	"math/rand/v2"
	"slices"

	"ringnbd/proto"
)

// Table is the engine's control plane. None of its calls waits.
type Table interface {
	// Apply begins a change. outcome tells how it went, once it is done.
	Apply(c Change) (outcome func() (o Outcome, done bool))
	// Adopt gives a negotiated socket to a loop, for an export by its ID. gone says that the export
	// is not served any more, so that the socket is still the caller's.
	Adopt(loop int, fd int32, id uint64, s proto.Session) (client any, gone bool)
	// Retire ends the connection of a client that was adopted.
	Retire(client any) (ended func() bool)
	// Settle lets the engine's own goroutines do what they can do now.
	Settle()
}

// Change is what Table.Apply is to do.
type Change struct {
	Remove []uint64
	Force  bool
	Alter  []Alteration
	Add    []Offer
}

// Alteration is other facts for an export.
type Alteration struct {
	ID    uint64
	Facts proto.Facts
}

// Outcome is how a change went.
type Outcome struct {
	Added   []Place
	Refused error // nothing was changed
	// Unflushed are the exports, by their index in the world, whose data was not brought to the
	// disk, as far as the engine knows.
	Unflushed []int
}

// Place is where an export is served.
type Place struct {
	ID    uint64
	Place int
}

// operator is what the world knows of changes.
type operator struct {
	table    Table
	openings int
	pending  []*pending
	retiring []*retirement
	operates uint64       // tick of the next change
	places   map[int]bool // in which there was an export
}

// pending is a change that the engine has not said to be done.
type pending struct {
	begunAt     uint64 // virtual time
	pausedAt    uint64
	bad         bool // asks for what cannot be
	remove, add []*served
	alter       []revision
	outcome     func() (Outcome, bool)
}

// revision is an export whose facts a change alters: those of that version are the new ones.
type revision struct {
	x       *served
	version int
}

// retirement is a connection that the operator ends.
type retirement struct {
	sock     *socket
	begunAt  uint64
	pausedAt uint64
	ended    func() bool
}

// maxChangeNanos limits how long a change may take, while no disk hangs: the engine cuts a
// connection that resists after some seconds.
const maxChangeNanos = uint64(20e9)

// operate lets the operator act, if it is time.
func (w *World) operate() {
	if !w.Plan.Live || w.tick < w.operates || w.draining || w.calm {
		return
	}
	w.operates = w.tick + 20 + w.rng.Uint64N([]uint64{100, 1000, 4000}[w.rng.IntN(3)])
	if w.rng.IntN(5) == 0 {
		w.retireSome()
		return
	}
	if len(w.pending) < 2 {
		w.begin(w.drawChange())
	}
}

// retireSome ends the connection of one of the clients.
func (w *World) retireSome() {
	c := w.clients[w.rng.IntN(len(w.clients))]
	if c.sock == nil || c.sock.closed {
		return
	}
	w.mark(markRetired)
	w.note("retire", "connection", int64(c.conn))
	c.retired = true
	c.excuse("the operator ended it")
	w.retiring = append(w.retiring, &retirement{sock: c.sock, begunAt: w.clock,
		pausedAt: w.pausedSoFar(), ended: w.table.Retire(c.handle)})
	w.table.Settle()
}

// drawChange draws a change of up to three exports.
func (w *World) drawChange() *pending {
	p := &pending{}
	for range 1 + w.rng.IntN(3) {
		switch x := w.drawServing(p); {
		case x == nil || w.rng.IntN(3) == 0:
			p.add = append(p.add, w.drawOffer(p)...)
		case w.rng.IntN(2) == 0:
			p.alter = append(p.alter, revision{x: x})
		default:
			p.remove = append(p.remove, x)
		}
	}
	if len(p.remove) > 0 && len(p.add) == 0 && w.drawServing(p) == nil {
		p.remove = p.remove[1:] // one export stays
	}
	return p
}

// drawServing draws an export that a change has not yet to do with, or nil.
func (w *World) drawServing(p *pending) *served {
	var list []*served
	for _, x := range w.exports {
		if x.stage == serving && !w.keepsWell(x) && !slices.Contains(p.remove, x) &&
			!slices.ContainsFunc(p.alter, func(r revision) bool { return r.x == x }) {
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[w.rng.IntN(len(list))]
}

// mostServed is how many exports the operator has at a time.
const mostServed = 6

// drawOffer draws an export to be added, if there is room: a disk, or a part of one.
func (w *World) drawOffer(p *pending) []*served {
	n := len(p.add)
	for _, x := range w.exports {
		if x.stage != removed {
			n++
		}
	}
	if n >= mostServed {
		return nil
	}
	d := w.disks[w.rng.IntN(len(w.disks))]
	if w.Plan.Hang && d.index == w.healthyDisk() {
		return nil
	}
	v := ViewPlan{ExportPlan: *d.plan}
	if w.rng.IntN(2) == 0 && d.plan.Backing != Layered {
		v = drawView(w.rng, d.index, d.plan)
	}
	o := w.openingOf(d)
	if o == nil {
		o = w.open(d)
	} else {
		for _, x := range w.exports {
			if x.opening == o && x.stage == leaving {
				w.mark(markAddedWhileLeaving)
			}
		}
	}
	x := w.serve(o, v.ExportPlan, v.Base)
	x.stage = offered
	return []*served{x}
}

// openingOf returns the opening of a disk that the engine has, or nil.
func (w *World) openingOf(d *disk) *opening {
	for _, x := range w.exports {
		if x.disk == d && x.stage != removed {
			return x.opening
		}
	}
	return nil
}

// begin begins a change.
func (w *World) begin(p *pending) {
	if len(p.remove)+len(p.add)+len(p.alter) == 0 {
		return
	}
	c := Change{Force: w.rng.IntN(4) == 0}
	p.begunAt, p.pausedAt = w.clock, w.pausedSoFar()
	if p.bad = w.addGone(&c); !p.bad {
		tick := w.note("change", "remove force alter add", int64(len(p.remove)), flag(c.Force),
			int64(len(p.alter)), int64(len(p.add)))
		w.mark(markTableChanged)
		for _, x := range p.remove {
			w.beginRemoval(x, tick, c.Force)
		}
		for i := range p.alter {
			w.beginRevision(&p.alter[i], tick)
		}
	}
	for _, x := range p.remove {
		c.Remove = append(c.Remove, x.id)
	}
	for _, r := range p.alter {
		c.Alter = append(c.Alter, Alteration{ID: r.x.id, Facts: r.x.facts()})
	}
	for _, x := range p.add {
		c.Add = append(c.Add, x.offer())
	}
	p.outcome = w.table.Apply(c)
	w.pending = append(w.pending, p)
	w.hear()
}

// addGone sometimes adds an export that has gone to what a change is to remove or alter, and
// reports whether it did: the engine must refuse all of that change.
func (w *World) addGone(c *Change) bool {
	if w.rng.IntN(10) != 0 {
		return false
	}
	x := w.exports[w.rng.IntN(len(w.exports))]
	if x.stage != removed {
		return false
	}
	if w.rng.IntN(2) == 0 {
		c.Remove = []uint64{x.id}
	} else {
		c.Alter = []Alteration{{ID: x.id, Facts: x.facts()}}
	}
	return true
}

// beginRemoval records that an export leaves.
func (w *World) beginRemoval(x *served, tick uint64, force bool) {
	x.stage, x.leavingAt, x.forced = leaving, tick, force
	w.note("remove", "export force", int64(x.index), flag(force))
	if force {
		w.mark(markRemovedForced)
	}
	for _, c := range w.clients {
		if c.sock == nil || c.x != x {
			continue
		}
		if c.heard = c.sent - uint64(len(c.sock.in.data)); len(c.inFlight) > 0 {
			w.mark(markRemovedInFlight)
		}
	}
	for _, y := range w.exports {
		if y != x && y.opening == x.opening && y.stage == serving {
			w.mark(markSharedStays)
		}
	}
}

// beginRevision draws other facts for an export, which may be in force from now on.
func (w *World) beginRevision(r *revision, tick uint64) {
	x := r.x
	f := x.facts()
	switch room := x.disk.plan.Size - x.base; {
	case w.rng.IntN(2) == 0 && !x.disk.plan.ReadOnly():
		if f.Flags ^= flagReadOnly; f.Flags&flagReadOnly != 0 {
			f.Flags &^= changing
		} else {
			f.Flags |= x.disk.plan.Flags & changing
		}
	default:
		unit := max(uint64(f.MinBlock), 512)
		size := min(4096+w.rng.Uint64N(room), room)
		if size -= size % unit; size == 0 {
			return
		}
		if size > f.Size {
			w.mark(markGrown)
		} else if size < f.Size {
			w.mark(markShrunk)
		}
		f.Size = size
	}
	w.note("alter", "export size flags", int64(x.index), int64(f.Size), int64(f.Flags))
	x.versions = append(x.versions, version{Facts: f, from: tick})
	r.version = len(x.versions) - 1
	for _, c := range w.clients {
		if c.sock == nil || c.x != x {
			continue
		}
		if len(c.inFlight) > 0 {
			w.mark(markAlteredInFlight)
		}
		for _, q := range c.inFlight {
			if q.sent != 0 {
				c.change(q)
			}
		}
	}
}

// hear lets the engine's goroutines go on, and hears which changes are done.
func (w *World) hear() {
	w.table.Settle()
	w.pending = slices.DeleteFunc(w.pending, func(p *pending) bool {
		o, done := p.outcome()
		if done {
			w.conclude(p, o)
		} else if w.late(p.begunAt, p.pausedAt) {
			w.fail("a change does not end: %s; %s", p, w.describeWaiting())
		}
		return done
	})
	w.retiring = slices.DeleteFunc(w.retiring, func(r *retirement) bool {
		ended := r.ended()
		if ended && !r.sock.closed {
			w.fail("the engine says that the connection of descriptor %d has ended; it has not",
				r.sock.fd)
		}
		if !ended && w.late(r.begunAt, r.pausedAt) {
			w.fail("the connection of descriptor %d does not end; %s", r.sock.fd,
				w.describeWaiting())
		}
		return ended
	})
}

// late reports whether what was begun at an instant should have ended. A disk that hangs may keep
// it up.
func (w *World) late(begunAt, pausedAt uint64) bool {
	return w.ranSince(begunAt, pausedAt) > maxChangeNanos && (!w.Plan.Hang || w.calm)
}

// conclude checks what a change must have done.
func (w *World) conclude(p *pending, o Outcome) {
	tick := w.note("changed", "remove alter add", int64(len(p.remove)), int64(len(p.alter)),
		int64(len(p.add)))
	switch {
	case p.bad && o.Refused == nil:
		w.fail("a change of an export that has gone was done")
	case p.bad:
		w.mark(markChangeRefused)
		for _, x := range p.add {
			x.stage = removed
			w.closeUnused(x.opening)
		}
		return
	case o.Refused != nil:
		w.fail("a change was refused: %v", o.Refused)
	}
	for _, r := range p.alter {
		for i := range r.version {
			if v := &r.x.versions[i]; v.to == 0 {
				v.to = tick
			}
		}
	}
	for i, x := range p.add {
		x.id, x.stage = o.Added[i].ID, serving
		if at := o.Added[i].Place; w.places[at] {
			w.mark(markPlaceReused)
		} else {
			w.places[at] = true
		}
		for _, y := range w.exports {
			if y != x && y.id == x.id && y.id != 0 {
				w.fail("two exports have the ID %#x", x.id)
			}
		}
	}
	for _, i := range o.Unflushed { // the flush is that of whichever export was the last
		w.exports[i].opening.unflushed = true
	}
	for _, x := range p.remove {
		w.concludeRemoval(x, tick)
	}
}

// concludeRemoval checks that nothing is left of an export.
func (w *World) concludeRemoval(x *served, tick uint64) {
	if x.stage == removed {
		return // two changes removed it
	}
	for _, s := range w.socks {
		if s.x == x && !s.closed {
			w.fail("export %d has gone, but the connection of descriptor %d is open", x.index, s.fd)
		}
	}
	x.stage, x.leftAt = removed, tick
	for _, y := range w.exports {
		if y.opening == x.opening && y.stage != removed {
			return
		}
	}
	if x.disk.plan.survives() && !x.disk.plan.ReadOnly() {
		x.model.putAway(x.opening, tick)
	}
	w.closeUnused(x.opening)
}

// closeUnused closes the descriptor of an opening whose exports have gone. No ring may have it.
func (w *World) closeUnused(o *opening) {
	for _, y := range w.exports {
		if y.opening == o && y.stage != removed {
			return
		}
	}
	o.closed = true
	for _, fd := range o.fds {
		n := w.node(fd)
		for _, k := range w.kernels {
			if k.has(n) {
				w.fail("disk %d has gone, but ring %d still has its file", o.disk.index, k.id)
			}
		}
		w.note("close disk", "disk fd", int64(o.disk.index), int64(fd))
		w.nodes[fd-firstFD] = nil
	}
}

// settled reports whether the operator waits for nothing.
func (w *World) settled() bool { return len(w.pending)+len(w.retiring) == 0 }

func (p *pending) String() string {
	text := "remove"
	for _, x := range p.remove {
		text += " " + x.String()
	}
	text += ", alter"
	for _, r := range p.alter {
		text += " " + r.x.String()
	}
	text += ", add"
	for _, x := range p.add {
		text += " " + x.String()
	}
	return text
}

// drawLive makes a world live, sometimes: its operator has more disks than are served at first.
func (p *Plan) drawLive(r *rand.Rand) {
	if p.Live = !p.deep && r.IntN(3) == 0; !p.Live {
		return
	}
	for range 1 + r.IntN(2) {
		e := drawExport(r, false)
		if p.Hang {
			e.makeHang(false)
		}
		p.Exports = append(p.Exports, e)
		p.idle++
	}
}
