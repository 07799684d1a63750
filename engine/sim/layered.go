// Layered exports: the device of such an export is made of two disks, an origin that is never
// written and a top that takes what is written. What the two mean together is the engine's
// business; the world sees two files, and the model a disk like any other, whose content after a
// crash is what the engine would find in the two.
//
// Invariant: the disks below belong to one layered disk, and no export shows them by themselves.

package sim

import (
	"math/rand/v2"

	"ringnbd/proto"
)

// The disks below a layered disk, in their order.
const (
	origin = iota
	top
	lowers
)

// topRoom is how much longer the top is than the origin.
const topRoom = 1 << 20

// drawLayered draws a layered export.
func drawLayered(r *rand.Rand) ExportPlan {
	e := ExportPlan{Backing: Layered, Block: 4096}
	e.Size = 4096 * []uint64{4, 16, 16, 64, 256}[r.IntN(5)]
	e.MaxPayload = []uint32{0, 64 << 10, 1 << 20}[r.IntN(3)]
	if r.IntN(3) == 0 {
		e.sparse = e.Size / 2 &^ 4095
	}
	e.Flags = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA |
		proto.FlagCanMultiConn | proto.FlagSendTrim | proto.FlagSendWriteZeroes
	drawContexts(r, &e)
	e.Contexts = e.Contexts[1:] // without the disk's own
	for i := range e.lower {
		p := &ExportPlan{Backing: File, Block: []uint32{1, 512, 4096}[r.IntN(3)],
			Punch: r.IntN(3) != 0, ZeroRange: r.IntN(3) != 0}
		p.Size, p.sparse = e.Size, e.sparse
		if p.Flags = proto.FlagHasFlags | flagReadOnly; i == top {
			p.Flags = proto.FlagHasFlags
			p.Size, p.sparse = topRoom+e.Size, topRoom+e.Size
		}
		e.lower[i] = p
	}
	return e
}

// layer makes a world one with a layered disk, sometimes. Its disks do not fail: which request an
// error is for, the engine alone knows.
func (p *Plan) layer(r *rand.Rand) {
	if !p.Live || p.Hang || p.siege || r.IntN(3) != 0 {
		return
	}
	if e := drawLayered(r); r.IntN(2) == 0 { // is added later
		p.Exports = append(p.Exports, e)
		p.idle++
	} else {
		p.Exports = append([]ExportPlan{e}, p.Exports...)
		for i := range p.Views {
			p.Views[i].Disk++
		}
	}
	p.Connections = 100 // all of them may be on one loop
	m := &p.mix
	m.readError, m.writeError, m.writeFull, m.fsyncError, m.truncate = 0, 0, 0, 0, 0
	m.unsupported, m.diskAgain = 0, 0
}

// addLower adds the disks below a layered disk.
func (d *disk) addLower() {
	for i, p := range d.plan.lower {
		if p != nil {
			d.lower[i] = d.world.newDisk(d.index, p)
			d.lower[i].above = d
		}
	}
}

// Below returns what the disks below a layered disk hold now.
func (w *World) Below(disk int) (base, over []byte) {
	d := w.disks[disk]
	return d.lower[origin].cache, d.lower[top].cache
}

// Formatted says that the top of a layered disk was given its first content, by writing to what
// Below returned.
func (w *World) Formatted(disk int) {
	d := w.disks[disk].lower[top]
	copy(d.durable, d.cache)
}

// crashContent returns what would be found on a disk after a power cut now.
func (w *World) crashContent(d *disk) []byte {
	if d.plan.Backing != Layered {
		return d.crashImage(w.rng)
	}
	w.mark(markLayeredCrash)
	content, err := w.Reopen(d.lower[origin].durable, d.lower[top].crashImage(w.rng))
	if err != nil {
		w.fail("after a crash disk %d cannot be opened: %v", d.index, err)
	}
	return content
}

// survives reports whether what was flushed is there after a power cut.
func (p *ExportPlan) survives() bool { return p.onDisk() || p.Backing == Layered }
