// Reads: a segment for each run of blocks of one state, as many as a wave holds, and the rest in
// further waves.
//
// Invariant: a segment is about one state, as it is when the wave is made. A write that is done
// later may or may not be seen.

package overlay

import "ringnbd/engine/layer"

// read asks for the next runs of a row.
func (o *Overlay) read(r *layer.Row, w *layer.Wave) layer.Then {
	if r.State == reading && r.Bad != 0 {
		r.Errno = r.Cause
		return layer.Done
	}
	r.State = reading
	done := r.Word[0]
	for length := uint64(r.Len); done < length && w.N < layer.WaveMost; {
		off := r.Off + done
		s, n := o.m.run(off/o.block, (r.Off+length)/o.block)
		seg := layer.Segment{Dev: Below, Op: layer.Read, Len: uint32(n * o.block),
			Off: o.below + off, At: r.At + done}
		switch s {
		case Data:
			seg.Dev, seg.Off = Top, o.data+off
		case Zeroes:
			seg.Dev = layer.Nowhere
		}
		add(w, seg)
		done += n * o.block
	}
	r.Word[0] = done
	if w.N == 0 {
		return layer.Done
	}
	return layer.Go
}
