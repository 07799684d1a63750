// Writes and flushes.
//
// Invariant: a block is marked as data after its data was written. A write that failed marks
// nothing.

package overlay

import (
	"ringnbd/engine/layer"
	"ringnbd/proto"
)

// write puts a row's bytes into the top.
func (o *Overlay) write(r *layer.Row, w *layer.Wave) layer.Then {
	if r.State != begun {
		if r.Bad != 0 {
			r.Errno = r.Cause
			return layer.Done
		}
		if r.State == plain {
			return layer.Done
		}
		o.set(r.Off/o.block, uint64(r.Len)/o.block, Data)
		return o.durable(r)
	}
	seg := layer.Segment{Dev: Top, Op: layer.Write, Len: r.Len, Off: o.data + r.Off, At: r.At}
	r.State = writing
	if r.Flags&layer.FUA != 0 && o.kind == Persistent && o.all(r) &&
		!o.save.pending(r.Off/o.block/pageBlocks, (r.Off+uint64(r.Len)-1)/o.block/pageBlocks) {
		// The map on the device already says data: the write alone has to be durable.
		seg.Flags = layer.FUA
		r.State = plain
	}
	add(w, seg)
	return layer.Go
}

// flush makes durable what was done before. Where the map has not changed, and no round of saving
// is under way, a flush of the top is all.
func (o *Overlay) flush(r *layer.Row, w *layer.Wave) layer.Then {
	switch {
	case o.kind == ThrowAway:
		return layer.Done
	case r.State == flushing:
		if r.Bad != 0 {
			o.save.failed.Store(true)
			r.Errno = r.Cause
		}
		return layer.Done
	case o.save.failed.Load():
		r.Errno = proto.EIO
		return layer.Done
	case o.save.busy():
		return o.join(r)
	}
	r.State = flushing
	add(w, layer.Segment{Dev: Top, Op: layer.Flush})
	return layer.Go
}

// join has a row wait for the next round of saving.
func (o *Overlay) join(r *layer.Row) layer.Then {
	if o.save.failed.Load() {
		r.Errno = proto.EIO
		return layer.Done
	}
	r.State = joined
	o.save.joined.add(r.ID)
	return layer.Wait
}
