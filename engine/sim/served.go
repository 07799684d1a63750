// Exports as the world knows them: what clients are told, and the stretch of a disk that is behind
// it. Several exports may lie on one disk, and overlap. In a live world they come, change and go
// (operator.go).
//
// Invariant: an export's place in World.exports is its own for ever. Of its facts those are in
// force that the operator gave it last; from the moment at which he began to, until the engine said
// that it is done, those before may be in force as well, and each request goes by either.

package sim

import (
	"fmt"

	"ringnbd/proto"
)

// stage is how far an export has come.
type stage uint8

const (
	offered stage = iota // the engine has not heard of it, or has not said that it serves it
	serving
	leaving // the operator has begun to remove it
	removed // and the engine has said that nothing of it is left
)

// served is an export.
type served struct {
	index     int // in World.exports
	plan      ExportPlan
	disk      *disk
	model     *model
	base      uint64 // its first byte on the disk
	opening   *opening
	id        uint64 // by which the engine knows it
	stage     stage
	forced    bool      // its connections were cut
	leavingAt uint64    // tick at which it began to leave
	leftAt    uint64    // tick at which the last of it was gone
	versions  []version // of its facts, the newest last
}

// version is facts of an export, and when requests may have gone by them.
type version struct {
	proto.Facts
	from uint64 // tick
	to   uint64 // tick; 0: they are the newest, or the engine has not said that it is done
}

// opening is a disk that is open for the engine: a descriptor, and a device of its own.
type opening struct {
	serial int
	disk   *disk
	fds    []int32 // of the disk, or of the disks below; none if it is memory, or nothing
	failed uint64  // tick of the first flush that a client saw failing
	// closed says that the engine has let go of it; unflushed, that it could not bring to the disk
	// what was written.
	closed, unflushed bool
}

// Offer is an export that the engine is to serve.
type Offer struct {
	*ExportPlan
	Index   int           // of the export in this world
	Disk    int           // Plan.Exports has the facts of the disk
	Opening int           // exports of one opening of a disk have one device
	FDs     []int32       // of the opening: the disk, or the disks below
	Lower   []*ExportPlan // the disks below
	Base    uint64
}

// offer is what the engine must know of an export.
func (x *served) offer() Offer {
	p := x.plan
	p.Facts = x.facts()
	return Offer{ExportPlan: &p, Index: x.index, Disk: x.disk.index, Opening: x.opening.serial,
		FDs: x.opening.fds, Base: x.base, Lower: x.plan.lower[:]}
}

// Offers are the exports with which the engine starts.
func (w *World) Offers() (list []Offer) {
	for _, x := range w.exports {
		list = append(list, x.offer())
	}
	return list
}

// Serving says by which IDs the engine knows the exports with which it starts.
func (w *World) Serving(ids []uint64) {
	for i, x := range w.exports {
		x.id = ids[i]
		w.places[i] = true
	}
}

// open opens a disk.
func (w *World) open(d *disk) *opening {
	w.openings++
	o := &opening{serial: w.openings, disk: d}
	if d.plan.onDisk() {
		o.fds = append(o.fds, w.openFD(&node{disk: d}))
	}
	for _, below := range d.lower {
		if below != nil {
			o.fds = append(o.fds, w.openFD(&node{disk: below}))
		}
	}
	return o
}

// serve adds an export that begins at base of a disk that is open.
func (w *World) serve(o *opening, p ExportPlan, base uint64) *served {
	x := &served{index: len(w.exports), plan: p, disk: o.disk, model: w.models[o.disk.index],
		base: base, opening: o, stage: serving, versions: []version{{Facts: p.Facts}}}
	w.exports = append(w.exports, x)
	return x
}

func (x *served) String() string {
	return fmt.Sprintf("export %d (disk %d from %d, ID %#x, stage %d)", x.index, x.disk.index,
		x.base, x.id, x.stage)
}

// facts returns the newest facts.
func (x *served) facts() proto.Facts { return x.versions[len(x.versions)-1].Facts }

// maybe calls visit with the facts that a request which began at a tick may go by, until it returns
// false; the newest come first.
func (x *served) maybe(begun uint64, visit func(*proto.Facts) bool) {
	for i := len(x.versions) - 1; i >= 0; i-- {
		if v := &x.versions[i]; (v.to == 0 || v.to > begun) && !visit(&v.Facts) {
			return
		}
	}
}

// changing reports whether a change of the export's facts is not done: requests of before may be
// under way, whatever facts were given to it since.
func (x *served) changing() bool {
	for _, p := range x.disk.world.pending {
		for _, r := range p.alter {
			if r.x == x {
				return true
			}
		}
	}
	return false
}

// writable reports whether a write of now may have been allowed.
func (x *served) writable() (yes bool) {
	if x.changing() {
		return true
	}
	x.maybe(x.disk.world.tick, func(f *proto.Facts) bool {
		yes = yes || f.Flags&flagReadOnly == 0
		return !yes
	})
	return yes
}

// reach returns the end, on the disk, of what a request of now may be about.
func (x *served) reach() (end uint64) {
	if x.changing() {
		return x.disk.plan.Size
	}
	x.maybe(x.disk.world.tick, func(f *proto.Facts) bool {
		end = max(end, x.base+f.Size)
		return true
	})
	return end
}

// writable reports whether some export allows the disk to be changed. Memory of the engine needs no
// export for that.
func (d *disk) writable() bool {
	if d.above != nil {
		return true
	}
	for _, x := range d.world.exports {
		if x.disk == d && x.stage != removed && x.writable() {
			return true
		}
	}
	return len(d.world.exports) == 0
}

// reach returns the end of what exports allow to be used of the disk, in whole blocks.
func (d *disk) reach() (end uint64) {
	if d.above != nil {
		return d.plan.Size
	}
	for _, x := range d.world.exports {
		if x.disk == d && x.stage != removed {
			end = max(end, x.reach())
		}
	}
	block := uint64(max(d.plan.Block, 1))
	return min((end+block-1)/block*block, d.plan.Size)
}

// healthyDisk returns the disk that never hangs, of a world in which the others do; its export has
// the same index, and stays.
func (w *World) healthyDisk() int { return len(w.Plan.Exports) - 1 - w.Plan.idle }

// keepsWell reports whether an export is that of the disk that never hangs.
func (w *World) keepsWell(x *served) bool {
	return w.Plan.Hang && x.disk.index == w.healthyDisk()
}

// pickExport draws the export that a client connects to: in a live world also one that has gone, of
// which the client has heard before.
func (w *World) pickExport(c *client) *served {
	if w.Plan.Hang && c.id%4 == 0 {
		return w.exports[w.healthyDisk()]
	}
	old := w.Plan.Live && c.rng.IntN(8) == 0
	var list []*served
	for _, x := range w.exports {
		if !w.keepsWell(x) && (x.stage == serving || old && x.stage >= serving) {
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[c.rng.IntN(len(list))]
}
