// Views: exports that share a disk with others, as the partitions of a disk and the whole disk do.
//
// Invariant: a view lies inside its disk, and has the facts of it.

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

// drawViews adds views of some disks.
func (p *Plan) drawViews(r *rand.Rand) {
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
	if whole.ReadOnly() || r.IntN(4) != 0 {
		return v
	}
	v.Flags = (whole.Flags | flagReadOnly) &^ changing
	return v
}
