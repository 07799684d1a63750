// A second plan in the world: stripes over two disks. It shows that the world knows nothing of
// overlays, and its faults are those of the contract, which the world must name.

package trial

import (
	"strings"
	"testing"

	"ringnbd/engine/layer"
)

const (
	stripeLen  = 4096
	stripeSize = 64 * stripeLen
)

// stripe is a plan over two disks, which take stripes in turn. A request that does not end within
// a wave goes on in further ones. It has an own row that is named once and does nothing.
type stripe struct {
	own   layer.Own
	named bool
	spoil func(s *stripe, r *layer.Row, w *layer.Wave, then layer.Then) layer.Then
	next  func() (uint32, bool)
}

func (s *stripe) Owns(_ uint32, own []layer.Own) { s.own = own[0] }

func (s *stripe) Cancel(uint32) bool { return false }

func (s *stripe) Next() (uint32, bool) {
	if s.next != nil {
		return s.next()
	}
	if s.named {
		return 0, false
	}
	s.named = true
	return s.own.ID, true
}

func (s *stripe) Step(r *layer.Row, w *layer.Wave) layer.Then {
	then := s.step(r, w)
	if s.spoil != nil {
		return s.spoil(s, r, w, then)
	}
	return then
}

func (s *stripe) step(r *layer.Row, w *layer.Wave) layer.Then {
	w.N = 0
	switch {
	case r.Own != 0:
		return layer.Done
	case r.Bad != 0:
		r.Errno = r.Cause
		return layer.Done
	case r.Op == layer.Flush && r.State == 0:
		r.State = 1
		w.N = 2
		w.Seg[0] = layer.Segment{Dev: 0, Op: layer.Flush}
		w.Seg[1] = layer.Segment{Dev: 1, Op: layer.Flush}
		return layer.Go
	}
	length := max(uint64(r.Len), r.Range)
	for r.Word[0] < length && w.N < layer.WaveMost {
		off := r.Off + r.Word[0]
		n := min(stripeLen-off%stripeLen, length-r.Word[0])
		seg := layer.Segment{Dev: uint8(off / stripeLen % 2), Op: r.Op, Flags: r.Flags,
			Off: off/stripeLen/2*stripeLen + off%stripeLen}
		if r.Range > 0 {
			seg.Range = n
		} else {
			seg.Len, seg.At = uint32(n), r.At+r.Word[0]
		}
		w.Seg[w.N] = seg
		w.N++
		r.Word[0] += n
	}
	if w.N == 0 {
		return layer.Done
	}
	return layer.Go
}

// stripes is a rig of it.
func stripes(rng *Rand, make func() *stripe) Rig {
	junk := rng.IntN(2) == 0
	disks := []*Disk{{Size: stripeSize / 2, Align: 512, JunkTrim: junk},
		{Size: stripeSize / 2, Align: 512, JunkTrim: junk}}
	return Rig{Disks: disks, JunkTrim: junk, JunkReads: true,
		Initial: func(uint64) uint64 { return 0 },
		Boot: func() ([]Part, error) {
			return []Part{{Plan: make(), Size: stripeSize, Below: []Ref{DiskRef(0), DiskRef(1)},
				Needs: layer.Needs{Block: 512, Own: []uint32{4096}}}}, nil
		}}
}

func TestStripes(t *testing.T) {
	var all Seen
	for seed := uint64(1); seed <= 300; seed++ {
		seen, err := Run(seed, func(rng *Rand) Rig {
			return stripes(rng, func() *stripe { return &stripe{} })
		})
		if err != nil {
			t.Fatal(err)
		}
		all.Add(seen)
	}
	if all.Failures == 0 || all.Crashes < 300 {
		t.Errorf("%+v", all)
	}
}

type spoil = func(s *stripe, r *layer.Row, w *layer.Wave, then layer.Then) layer.Then

// faults are breaches of the contract, by a word of what the world says about them.
var faults = map[string]spoil{
	"a wave of 0 segments": func(_ *stripe, _ *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		w.N = 0
		return then
	},
	"a wave of 9 segments": func(_ *stripe, _ *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		w.N = layer.WaveMost + 1
		return then
	},
	"segments of a wave overlap": func(_ *stripe, r *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		if r.Op == layer.Write && w.N > 1 {
			w.Seg[1] = w.Seg[0]
		}
		return then
	},
	"share memory": func(_ *stripe, r *layer.Row, w *layer.Wave, then layer.Then) layer.Then {
		if r.Op == layer.Read && w.N > 1 {
			w.Seg[1].At = w.Seg[0].At
		}
		return then
	},
	"is not in its row's memory": func(_ *stripe, r *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		if r.Op == layer.Write && w.N > 0 {
			w.Seg[w.N-1].At += 512
		}
		return then
	},
	"does not exist": func(_ *stripe, _ *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		w.Seg[0].Dev = 2
		return then
	},
	"does not fit its device": func(_ *stripe, _ *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		w.Seg[0].Off += 100
		return then
	},
	"nowhere is asked": func(_ *stripe, r *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		if r.Op == layer.Write {
			w.Seg[0].Dev = layer.Nowhere
		}
		return then
	},
	"changed what row": func(_ *stripe, r *layer.Row, _ *layer.Wave,
		then layer.Then) layer.Then {
		r.Flags ^= layer.FUA
		return then
	},
	"never ends": func(_ *stripe, r *layer.Row, _ *layer.Wave, then layer.Then) layer.Then {
		if r.Op == layer.Flush {
			return layer.Wait
		}
		return then
	},
	"answers 9": func(*stripe, *layer.Row, *layer.Wave, layer.Then) layer.Then { return 9 },
	"writes of one place at once": func(s *stripe, r *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		if then == layer.Go && r.Op == layer.Write {
			w.Seg[0].Off = 0
			w.N = 1
		}
		return then
	},
	"changed while it was written": func(s *stripe, r *layer.Row, w *layer.Wave,
		then layer.Then) layer.Then {
		s.own.Memory[0]++
		if r.Own == 0 {
			return then
		}
		w.N = 1
		w.Seg[0] = layer.Segment{Op: layer.Write, Len: 512, At: r.At, Off: stripeSize/2 - 512}
		r.State++
		return min(layer.Then(2-r.State), layer.Go)
	},
	"although nothing has failed below": func(_ *stripe, r *layer.Row, _ *layer.Wave,
		then layer.Then) layer.Then {
		if r.Op == layer.Trim && then == layer.Done {
			r.Errno = 5
		}
		return then
	},
	"allowed is": func(_ *stripe, r *layer.Row, w *layer.Wave, then layer.Then) layer.Then {
		if r.Op == layer.Flush && then == layer.Go {
			w.N = 1 // only one of the disks
		}
		return then
	},
}

// TestFaults checks that each breach is found, and named.
func TestFaults(t *testing.T) {
	catch := func(name string, make func() *stripe) {
		t.Helper()
		found := ""
		for seed := uint64(1); seed < 200; seed++ {
			_, err := Run(seed, func(rng *Rand) Rig { return stripes(rng, make) })
			if err == nil {
				continue
			}
			found, _, _ = strings.Cut(err.Error(), "\n")
			if strings.Contains(found, name) {
				return
			}
		}
		t.Errorf("%q is not found; the last that was: %s", name, found)
	}
	for name, spoil := range faults {
		catch(name, func() *stripe { return &stripe{spoil: spoil} })
	}
	catch("which does not wait", func() *stripe {
		return &stripe{next: func() (uint32, bool) { return 3, true }}
	})
	catch("names row 4000", func() *stripe {
		return &stripe{next: func() (uint32, bool) { return 4000, true }}
	})
	catch("without end", func() *stripe {
		s := &stripe{}
		s.next = func() (uint32, bool) {
			s.named = !s.named
			return s.own.ID, s.named
		}
		return s
	})
}
