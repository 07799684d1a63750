// What BLOCK_STATUS says of an overlay: base:allocation, true through to the holes of its origin,
// and qemu:allocation-depth, which layer has the data.
//
// Invariant: the map is read while its loop changes it. A block that a write has changed is changed
// in the map before the write is answered, so an answer is never older than that.

package backing

import (
	"ringnbd/engine"
	"ringnbd/engine/layer/overlay"
)

// contextDepth is QEMU's context (docs/interop/nbd.txt): 0 is not allocated, 1 the top, 2 what is
// below it, and so on. As in QEMU, a store at the bottom has all of its bytes, holes too.
const contextDepth = "qemu:allocation-depth"

// layerContexts are those of a layer, in the order of Export.Contexts.
func (b *Backing) layerContexts() []engine.Context {
	return []engine.Context{layerAllocation{b}, layerDepth{b}}
}

// extents tells the states of a range of a layer; without a map of its own all is the origin's.
func (b *Backing) extents(off, length uint64,
	yield func(off, length uint64, s overlay.State) bool) {
	if b.laid.plan == nil {
		yield(off, length, overlay.FromOrigin)
		return
	}
	b.laid.plan.Extents(off, length, yield)
}

// allocationContext is the base:allocation of what a Backing shows, by offsets on its device.
func (b *Backing) allocationContext() engine.Context {
	if b.tree != nil {
		return layerAllocation{b}
	}
	return allocationOf(b.Device)
}

// layerAllocation is the engine.Context for base:allocation of a layer.
type layerAllocation struct{ b *Backing }

// Status implements engine.Context.
func (a layerAllocation) Status(off, length uint64,
	emit func(length, status uint64) bool) (err error) {
	origin := a.b.parts[0]
	below := origin.allocationContext()
	a.b.extents(off, length, func(at, n uint64, s overlay.State) bool {
		switch s {
		case overlay.Data:
			return emit(n, data)
		case overlay.Zeroes:
			return emit(n, hole)
		}
		more := true
		left := n
		err = below.Status(origin.window.base+at, n, func(length, status uint64) bool {
			length = min(length, left)
			left -= length
			more = emit(length, status)
			return more && left > 0
		})
		return more && err == nil
	})
	return err
}

// layerDepth is the engine.Context for qemu:allocation-depth of a layer.
type layerDepth struct{ b *Backing }

// Status implements engine.Context.
func (d layerDepth) Status(off, length uint64, emit func(length, status uint64) bool) error {
	origin := d.b.parts[0]
	d.b.extents(off, length, func(at, n uint64, s overlay.State) bool {
		if s != overlay.FromOrigin {
			return emit(n, 1)
		}
		if origin.tree == nil {
			return emit(n, 2)
		}
		more := true
		_ = layerDepth{origin}.Status(at, n, func(length, depth uint64) bool {
			more = emit(length, depth+1)
			return more
		})
		return more
	})
	return nil
}
