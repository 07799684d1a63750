// Planted bugs: overlays that are wrong in one thing each, which the pure world must catch. A world
// that has never seen a failure proves nothing.

package overlay

import (
	"strings"
	"testing"

	"ringnbd/engine/layer"
	"ringnbd/engine/layer/trial"
)

// wrong is an overlay with a bug: a Step in place of its own.
type wrong struct {
	*Overlay
	step func(o *Overlay, r *layer.Row, w *layer.Wave) layer.Then
	next func(o *Overlay) (uint32, bool)
}

func (b *wrong) Step(r *layer.Row, w *layer.Wave) layer.Then {
	if b.step == nil {
		return b.Overlay.Step(r, w)
	}
	return b.step(b.Overlay, r, w)
}

func (b *wrong) Next() (uint32, bool) {
	if b.next == nil {
		return b.Overlay.Next()
	}
	return b.next(b.Overlay)
}

type step = func(o *Overlay, r *layer.Row, w *layer.Wave) layer.Then

// writeBugs are about the order of writes, marks and answers.
var writeBugs = map[string]step{
	"a block is marked before its data is written": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op == layer.Write && r.Own == 0 && r.State == begun {
			o.set(r.Off/o.block, uint64(r.Len)/o.block, Data)
		}
		return o.Step(r, w)
	},
	"a write that failed marks its blocks": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op == layer.Write && r.Own == 0 && r.State == writing && r.Bad != 0 {
			o.set(r.Off/o.block, uint64(r.Len)/o.block, Data)
		}
		return o.Step(r, w)
	},
	"a write does not mark its last block": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op != layer.Write || r.Own != 0 || r.State != writing || r.Bad != 0 {
			return o.Step(r, w)
		}
		o.set(r.Off/o.block, uint64(r.Len)/o.block-1, Data)
		return o.durable(r)
	},
	"a durable write is answered before the map is saved": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if r.Op == layer.Write && then == layer.Wait {
			o.save.joined.remove(r.ID)
			return layer.Done
		}
		return then
	},
	"a durable write relies on a map that is not saved yet": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		fresh := r.Op == layer.Write && r.Own == 0 && r.State == begun
		then := o.Step(r, w)
		if fresh && r.Flags&layer.FUA != 0 && o.all(r) {
			w.Seg[0].Flags = layer.FUA
			r.State = plain
		}
		return then
	},
	"a rewrite with FUA is not durable": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if then == layer.Go && r.Own == 0 && r.State == plain {
			w.Seg[0].Flags = 0
		}
		return then
	},
	"a flush does not wait for the round that is under way": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op == layer.Flush && r.State == begun && o.save.phase != idle &&
			o.save.dirty.n == 0 {
			r.State = flushing
			w.N = 0
			add(w, layer.Segment{Dev: Top, Op: layer.Flush})
			return layer.Go
		}
		return o.Step(r, w)
	},
	"a round that failed is told as a success": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if r.State == joined && r.Own == 0 {
			r.Errno = 0
		}
		return then
	},
	"a write goes to the origin": func(o *Overlay, r *layer.Row, w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if then == layer.Go && r.Op == layer.Write && r.Own == 0 {
			w.Seg[0].Dev, w.Seg[0].Off = Below, o.below+r.Off
		}
		return then
	},
}

// readBugs are about reads and ranges.
var readBugs = map[string]step{
	"zeroes are read from the top": func(o *Overlay, r *layer.Row, w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		for i := range w.N {
			if s := &w.Seg[i]; then == layer.Go && s.Dev == layer.Nowhere {
				s.Dev, s.Off = Top, o.data+r.Off+(s.At-r.At)
			}
		}
		return then
	},
	"the ninth run is dropped": func(o *Overlay, r *layer.Row, w *layer.Wave) layer.Then {
		if r.Op == layer.Read && r.State == reading && r.Bad == 0 {
			return layer.Done
		}
		return o.Step(r, w)
	},
	"an error of a read is lost": func(o *Overlay, r *layer.Row, w *layer.Wave) layer.Then {
		if r.Op == layer.Read {
			r.Bad = 0
		}
		return o.Step(r, w)
	},
	"runs are read as if they were from the origin": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if then == layer.Go && r.Op == layer.Read && w.N == 2 && w.Seg[1].Dev == Top {
			w.Seg[1].Dev, w.Seg[1].Off = Below, w.Seg[1].Off-o.data+o.below
		}
		return then
	},
	"trim punches, and marks nothing": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op != layer.Trim || r.State != begun {
			return o.Step(r, w)
		}
		s, n := o.m.run(r.Off/o.block, (r.Off+r.Range)/o.block)
		then := o.Step(r, w)
		if s == Data {
			o.set(r.Off/o.block, n, Data)
		}
		return then
	},
	"trim looks at eight runs and no further": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op == layer.Trim && r.State == punching && r.Word[0] < r.Range {
			return layer.Done
		}
		return o.Step(r, w)
	},
	"zeroes that keep space are marked before they are written": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op == layer.Zero && r.Flags&layer.NoHole != 0 && r.State == begun {
			o.set(r.Off/o.block, min(stride, r.Range/o.block), Data)
		}
		return o.Step(r, w)
	},
	"zeroes that keep space are marked although they failed": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op == layer.Zero && r.State == zeroing {
			r.Bad = 0
		}
		return o.Step(r, w)
	},
	"zeroes that keep space rely on what is in the top": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Op == layer.Zero && r.Flags&layer.NoHole != 0 {
			o.set(r.Off/o.block, r.Range/o.block, Data)
			return o.durable(r)
		}
		return o.Step(r, w)
	},
	"a long range forgets its last stride": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Own == 0 && r.Op >= layer.Zero && r.State == punching &&
			r.Range-r.Word[0] <= stride*o.block && r.Word[0] > 0 {
			return o.durable(r)
		}
		return o.Step(r, w)
	},
}

// saveBugs are about rounds of saving.
var saveBugs = map[string]step{
	"pages are copied after the flush": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Own != 0 && o.save.phase == settling && r.Bad == 0 {
			copyAgain(o)
		}
		return o.Step(r, w)
	},
	"pages are copied while they are written": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Own == 0 && o.save.phase == storing {
			copyAgain(o)
		}
		return o.Step(r, w)
	},
	"pages are written without the flush before them": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if r.Own != 0 && o.save.phase == settling && len(o.save.batch) > 0 {
			return o.Step(r, w)
		}
		return then
	},
	"rows go on without the last flush": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if r.Own != 0 && o.save.phase == ending {
			return o.saved()
		}
		return then
	},
	"the only page is not written durably": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if r.Own != 0 && then == layer.Go {
			w.Seg[0].Flags = 0
		}
		return then
	},
	"a page that fails is taken as written": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Own != 0 && o.save.phase == storing {
			r.Bad = 0
		}
		return o.Step(r, w)
	},
	"a round that failed for want of space loses its pages": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		if r.Own != 0 && o.save.phase == storing && r.Bad != 0 {
			o.save.due.clear()
		}
		return o.Step(r, w)
	},
	"what changes during a round is taken as saved": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		before := o.save.rounds.Load()
		then := o.Step(r, w)
		if o.save.rounds.Load() != before {
			o.save.dirty.clear()
		}
		return then
	},
	"only one batch is saved": func(o *Overlay, r *layer.Row, w *layer.Wave) layer.Then {
		if r.Own != 0 && o.save.phase == storing && o.save.stored == len(o.save.batch) {
			o.save.due.clear()
		}
		return o.Step(r, w)
	},
	"a page is written to the place of the next": func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if r.Own != 0 && then == layer.Go && w.N > 1 && w.Seg[1].Op == layer.Write {
			w.Seg[1].Off += pageLen
		}
		return then
	},
	"a failed flush is forgotten": func(o *Overlay, r *layer.Row, w *layer.Wave) layer.Then {
		if r.Own != 0 && (o.save.phase == settling || o.save.phase == ending) {
			r.Bad = 0
		}
		return o.Step(r, w)
	},
}

// copyAgain copies the pages of the batch that is under way as they are now.
func copyAgain(o *Overlay) {
	for i, page := range o.save.batch {
		o.m.copyPage(o.save.own.Memory[i*pageLen:], uint64(page))
	}
}

// bugShapes are the bugs as shapes.
func bugShapes() map[string]shape {
	shapes := map[string]shape{}
	for _, bugs := range []map[string]step{writeBugs, readBugs, saveBugs} {
		for name, step := range bugs {
			shapes[name] = shape{wrap: func(o *Overlay) planWithRows {
				return &wrong{Overlay: o, step: step}
			}}
		}
	}
	shapes["a row that may go on is not named"] = shape{wrap: func(o *Overlay) planWithRows {
		n := 0
		return &wrong{Overlay: o, next: func(o *Overlay) (uint32, bool) {
			id, ok := o.Next()
			if n++; ok && n%7 == 0 && id != o.save.own.ID {
				return o.Next()
			}
			return id, ok
		}}
	}}
	shapes["a row is named twice"] = shape{wrap: func(o *Overlay) planWithRows {
		last := uint32(0)
		return &wrong{Overlay: o, next: func(o *Overlay) (uint32, bool) {
			id, ok := o.Next()
			if !ok && last != 0 {
				id, last = last, 0
				return id, true
			}
			last = id
			return id, ok
		}}
	}}
	shapes["trim is done before its punch"] = shape{wrap: latePunch}
	shapes["the map is loaded without its last sector"] = shape{load: loadBut(func(m *Map) {
		last := int(m.blocks-1) / wordBlocks * 8 / trial.Sector * trial.Sector / 8
		clear(m.words[last:])
	})}
	shapes["zeroes are loaded as from the origin"] = shape{load: loadBut(func(m *Map) {
		for i, w := range m.words {
			m.words[i] = w & low
		}
	})}
	shapes["a page is loaded of which no bit is looked at"] = shape{load: loadBut(func(m *Map) {
		m.touched[0] &^= 1
	})}
	return shapes
}

// latePunch has the punches of a trim done with the next request that asks for anything.
func latePunch(o *Overlay) planWithRows {
	var late layer.Wave
	return &wrong{Overlay: o, step: func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		then := o.Step(r, w)
		if r.Op == layer.Trim && then == layer.Go {
			late = *w
			for then == layer.Go {
				then = o.Step(r, w)
			}
			return then
		}
		if then == layer.Go && r.Own == 0 && r.Op == layer.Read && late.N > 0 &&
			w.N < layer.WaveMost {
			add(w, late.Seg[0])
			late.N = 0
		}
		return then
	}}
}

// loadBut loads a map, and spoils it.
func loadBut(spoil func(*Map)) func(*trial.Disk) (Super, *Map, error) {
	return func(d *trial.Disk) (Super, *Map, error) {
		s, m, err := load(d)
		if err == nil {
			spoil(m)
		}
		return s, m, err
	}
}

// TestTrialCatches plants each bug, and runs seeds until one fails.
func TestTrialCatches(t *testing.T) {
	if raced {
		t.Skip("nothing in it is concurrent")
	}
	const most = 1500
	for name, bug := range bugShapes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= most; seed++ {
				_, err := trial.Run(seed, func(rng *trial.Rand) trial.Rig {
					s := draw(rng)
					s.wrap, s.load, s.kind = bug.wrap, bug.load, Persistent
					return s.rig(rng)
				})
				if err != nil {
					what, _, _ := strings.Cut(err.Error(), "\n")
					t.Logf("%.150s", what)
					return
				}
			}
			t.Errorf("%d seeds did not catch it", most)
		})
	}
}
