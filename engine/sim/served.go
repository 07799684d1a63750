// Exports as the world knows them: what clients are told, and the stretch of a disk that is behind
// it. Several exports may lie on one disk, and overlap.
//
// Invariant: an export's place in World.exports is its own for ever.

package sim

// served is an export.
type served struct {
	index int // in World.exports
	plan  ExportPlan
	disk  *disk
	model *model
	base  uint64 // its first byte on the disk
}

// serve adds an export that begins at base of a disk.
func (w *World) serve(disk int, p ExportPlan, base uint64) *served {
	x := &served{index: len(w.exports), plan: p, disk: w.disks[disk], model: w.models[disk],
		base: base}
	w.exports = append(w.exports, x)
	return x
}

// pickExport draws the export that a client connects to.
func (w *World) pickExport(c *client) *served {
	switch n := len(w.exports); {
	case w.Plan.Hang && c.id%4 == 0:
		return w.exports[n-1]
	case w.Plan.Hang:
		return w.exports[c.rng.IntN(n-1)]
	default:
		return w.exports[c.rng.IntN(n)]
	}
}
