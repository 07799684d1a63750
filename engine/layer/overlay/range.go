// TRIM and WRITE_ZEROES.
//
// Invariant: a block is marked as zeroes before its data is punched, and the row goes on when the
// punch is back. A block is marked as data after zeroes were written into the top.

package overlay

import "ringnbd/engine/layer"

// stride is how much of a range a step looks at, in blocks: some microseconds.
const stride = 16 * pageBlocks

// punch marks blocks as zeroes, and gives back the space of those that were in the top. Whether the
// top can do that does not matter: what the blocks read as is in the map.
func (o *Overlay) punch(r *layer.Row, w *layer.Wave) layer.Then {
	r.State = punching
	at, end := (r.Off+r.Word[0])/o.block, (r.Off+r.Range)/o.block
	op, flags := layer.Trim, uint8(0)
	if r.Op == layer.Zero {
		// As long as the map on the device says data, the place must read as the data or as zeroes.
		op, flags = layer.Zero, layer.Fast
	}
	for until := min(at+stride, end); at < until && w.N < layer.WaveMost; {
		s, n := o.m.run(at, until)
		if s != Zeroes {
			o.set(at, n, Zeroes)
		}
		if s == Data {
			add(w, layer.Segment{Dev: Top, Op: op, Flags: flags, Off: o.data + at*o.block,
				Range: n * o.block})
		}
		at += n
	}
	r.Word[0] = at*o.block - r.Off
	switch {
	case w.N > 0:
		return layer.Go
	case at < end: // others first
		o.ready.add(r.ID)
		return layer.Wait
	}
	return o.durable(r)
}

// fill writes zeroes into the top, which takes the space.
func (o *Overlay) fill(r *layer.Row, w *layer.Wave) layer.Then {
	if r.State == zeroing {
		if r.Bad != 0 {
			r.Errno = r.Cause
			return layer.Done
		}
		from := r.Off + r.Word[0]
		n := min(stride*o.block, r.Range-r.Word[0])
		o.set(from/o.block, n/o.block, Data)
		r.Word[0] += n
	}
	r.State = zeroing
	if r.Word[0] == r.Range {
		return o.durable(r)
	}
	add(w, layer.Segment{Dev: Top, Op: layer.Zero, Flags: r.Flags &^ layer.FUA,
		Off: o.data + r.Off + r.Word[0], Range: min(stride*o.block, r.Range-r.Word[0])})
	return layer.Go
}
