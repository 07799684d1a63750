// Overlays in the pure world: trees of them, made from a seed.

package overlay

import (
	"fmt"
	"math/rand/v2"

	"ringnbd/engine/layer/trial"
)

// originSource stamps what the origin holds.
const originSource = 1 << 62

// shape is what a rig is made of.
type shape struct {
	kind   Kind
	nested bool // over an overlay that was written before
	wrap   func(*Overlay) planWithRows
	load   func(d *trial.Disk) (Super, *Map, error)
}

// planWithRows is what a plan that a test puts in front of an overlay has.
type planWithRows interface {
	trial.Plan
	Owns(rows uint32, own []trial.Own)
}

// draw draws a shape.
func draw(rng *rand.Rand) shape {
	s := shape{nested: rng.IntN(4) == 0}
	if rng.IntN(6) == 0 {
		s.kind = ThrowAway
	}
	return s
}

// drawSize draws the size of an origin, for any block, with several pages of the map at times.
func drawSize(rng *rand.Rand) uint64 {
	block := uint64(512) << rng.IntN(4)
	blocks := uint64(64 + rng.IntN(4000))
	switch rng.IntN(4) {
	case 0:
		blocks = uint64(pageBlocks*(1+rng.IntN(3)) + rng.IntN(100))
	case 1:
		blocks = uint64(pageBlocks*rng.IntN(130) + 100 + rng.IntN(100))
	}
	if rng.IntN(2) == 0 {
		blocks |= 1 // so that this is the block
	}
	return blocks * block
}

// stack is an origin and the tops over it.
type stack struct {
	shape
	size   uint64
	shift  uint64 // where on its disk the origin begins
	origin Origin
	disks  []*trial.Disk
	top    *Overlay
}

// rig makes a rig of a shape.
func (s shape) rig(rng *rand.Rand) trial.Rig {
	k := &stack{shape: s, size: drawSize(rng)}
	k.origin = Origin{Size: k.size, Name: "base.img"}
	k.origin.Identity[0] = byte(rng.Uint64())
	holes := rng.Uint64() | 1
	l, err := Lay(k.size)
	if err != nil {
		panic(err)
	}
	if rng.IntN(4) == 0 {
		k.shift = uint64(l.Block) * rng.Uint64N(5000)
	}
	k.disks = []*trial.Disk{{Size: k.shift + k.size, Align: l.Block, ReadOnly: true,
		Initial: func(sector uint64) uint64 {
			if trial.Stamp(holes, sector/64)%4 == 1 {
				return 0
			}
			return trial.Stamp(originSource, sector)
		}}}
	tops := 1
	if s.nested {
		tops = 2
	}
	noPunch, junk := rng.IntN(4) == 0, rng.IntN(4) == 0
	for range tops {
		d := &trial.Disk{Size: l.FileLen, Align: l.Block, Front: l.DataAt, NoPunch: noPunch,
			JunkTrim: junk}
		k.disks = append(k.disks, d)
		k.format(d)
	}
	edges := []uint64{0, k.size - uint64(l.Block)}
	for at := uint64(pageBlocks * int(l.Block)); at < k.size; at += pageBlocks * uint64(l.Block) {
		edges = append(edges, at)
	}
	initial := k.below
	if s.nested {
		initial = k.write(rng, k.disks[1], l, edges)
		k.disks[1].ReadOnly = true
	}
	return trial.Rig{Disks: k.disks, Boot: k.boot, Initial: initial, Whole: k.whole,
		Check: k.check, Forgets: s.kind == ThrowAway, JunkTrim: junk, OriginFirst: true,
		Edges: edges}
}

func (k *stack) format(d *trial.Disk) {
	head, err := Format([16]byte{1}, k.origin)
	if err != nil {
		panic(err)
	}
	d.WriteAt(head, 0)
}

// write gives a top content, as if it had been written before, and returns what it holds then.
func (k *stack) write(rng *rand.Rand, d *trial.Disk, l Layout,
	edges []uint64) func(uint64) uint64 {
	m := NewMap(l, nil)
	const source = originSource + 1
	block := uint64(l.Block)
	for range 40 {
		b := edges[rng.IntN(len(edges))] / block
		b -= min(b, uint64(rng.IntN(20)))
		n := 1 + rng.Uint64N(10)
		n = min(n, m.blocks-b, (b/pageBlocks+1)*pageBlocks-b)
		m.set(b, n, State(1+rng.IntN(2)))
	}
	page := make([]byte, pageLen)
	for p := range l.MapLen / pageLen {
		if m.touched[p/64]>>(p%64)&1 != 0 {
			m.copyPage(page, p)
			d.WriteAt(page, l.MapAt+p*pageLen)
		}
	}
	data := make([]byte, trial.Sector)
	m.Extents(0, k.size, func(off, length uint64, s State) bool {
		for at := off; s == Data && at < off+length; at += trial.Sector {
			trial.Fill(data, trial.Stamp(source, at/trial.Sector))
			d.WriteAt(data, l.DataAt+at)
		}
		return true
	})
	return func(sector uint64) uint64 {
		switch s, _ := m.run(sector*trial.Sector/block, sector*trial.Sector/block+1); s {
		case Data:
			return trial.Stamp(source, sector)
		case Zeroes:
			return 0
		}
		return k.below(sector)
	}
}

// below is what the origin holds.
func (k *stack) below(sector uint64) uint64 {
	return k.disks[0].Initial(k.shift/trial.Sector + sector)
}

// load reads a top as an opener does.
func load(d *trial.Disk) (Super, *Map, error) {
	head := make([]byte, HeadLen)
	d.ReadAt(head, 0)
	s, err := Parse(head)
	if err != nil {
		return s, nil, err
	}
	l, _ := Lay(s.Origin.Size)
	m := NewMap(l, nil)
	part := make([]byte, trial.Sector)
	for _, at := range d.Written(l.MapAt, l.MapLen) {
		d.ReadAt(part, at)
		if err := m.Load(at-l.MapAt, part); err != nil {
			return s, nil, err
		}
	}
	return s, m, s.CheckLength(d.Size)
}

// boot makes the plans, the root first.
func (k *stack) boot() ([]trial.Part, error) {
	var parts []trial.Part
	for i := len(k.disks) - 1; i > 0; i-- {
		kind, read := k.kind, load
		last := i == len(k.disks)-1
		if last && kind == ThrowAway {
			k.disks[i].Forget()
			k.format(k.disks[i])
		}
		if last && k.load != nil {
			read = k.load
		}
		s, m, err := read(k.disks[i])
		if err != nil {
			return nil, err
		}
		if err := s.Check(k.origin); err != nil {
			return nil, err
		}
		o := New(m, kind)
		part := trial.Part{Plan: o, Needs: o.Needs(), Size: k.size,
			Below: []trial.Ref{trial.SubRef(len(parts) + 1), trial.DiskRef(i)}}
		if i == 1 {
			part.Below[0] = trial.DiskRef(0)
			o.Shift(k.shift)
		}
		if last {
			k.top = o
			if k.wrap != nil {
				part.Plan = k.wrap(o)
			}
		}
		parts = append(parts, part)
	}
	return parts, nil
}

func (k *stack) whole(off uint64) bool {
	s, _ := k.top.m.run(off/k.top.block, off/k.top.block+1)
	return s != Data
}

// check compares what the map says with what is there.
func (k *stack) check(off uint64, data []byte) error {
	var wrong error
	k.top.Extents(off, uint64(len(data)), func(at, length uint64, s State) bool {
		for i := at; i < at+length; i++ {
			if s == Zeroes && data[i-off] != 0 {
				wrong = fmt.Errorf("byte %d is not zero, as the map says", i)
				return false
			}
		}
		return true
	})
	return wrong
}
