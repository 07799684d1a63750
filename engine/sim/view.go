// Views: exports that share a disk with others, as the partitions of a disk and the whole disk do.
//
// Invariant: a view lies inside its disk, and says of it what is true.

package sim

import (
	"math/rand/v2"
)

// ViewPlan is an export that lies on the disk of another.
type ViewPlan struct {
	ExportPlan
	Disk int    // the export in Plan.Exports whose disk it is
	Base uint64 // its first byte on that disk
}

// drawViews adds views of some disks, in some worlds.
func (p *Plan) drawViews(r *rand.Rand) {
	if r.IntN(4) != 0 || p.Hang {
		return
	}
	for range 1 + r.IntN(3) {
		disk := r.IntN(len(p.Exports))
		p.Views = append(p.Views, drawView(r, disk, &p.Exports[disk]))
	}
}

// drawView draws a view of a disk: often at a place that is not a multiple of the disk's block, as
// the partitions of old tables are.
func drawView(r *rand.Rand, disk int, whole *ExportPlan) ViewPlan {
	v := ViewPlan{ExportPlan: *whole, Disk: disk}
	v.Contexts = append([]ContextPlan(nil), whole.Contexts...)
	if r.IntN(4) != 0 && whole.Size > 2*(64<<9) {
		half := whole.Size / 2
		v.Base = min(half, []uint64{63 << 9, 63 << 9, 1 << 9 * (1 + r.Uint64N(64)),
			4096 * r.Uint64N(16), r.Uint64N(half)}[r.IntN(5)])
		v.Size = 1 + r.Uint64N(whole.Size-v.Base)
		if r.IntN(2) == 0 {
			v.Size = whole.Size - v.Base
		}
	}
	if unit := uint64(max(v.MinBlock, 512)); v.Size > unit {
		v.Size -= v.Size % unit
	}
	v.Size = max(v.Size, min(whole.Size, 4096))
	if v.Base+v.Size > whole.Size {
		v.Base = whole.Size - v.Size
	}
	if whole.ReadOnly() || r.IntN(4) != 0 {
		return v
	}
	v.Flags |= flagReadOnly
	v.Flags &^= changing
	return v
}
