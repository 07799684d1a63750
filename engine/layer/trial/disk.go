// Disks with a volatile cache, which is lost by sectors.
//
// Invariant: of a sector's versions the first is durable, and the others are in the order in which
// they were asked for.

package trial

import (
	"math"
	"slices"

	"ringnbd/engine/layer"
	"ringnbd/proto"
)

// Sector is what a disk writes whole, in bytes.
const Sector = 512

// Disk is a leaf: what a file or block device is to a plan.
type Disk struct {
	Size     uint64
	Align    uint32              // of offsets and lengths, in bytes
	ReadOnly bool                // a plan that changes it has failed
	Front    uint64              // in a crash, what is before it may fare otherwise than the rest
	Initial  func(uint64) uint64 // the content of a sector that was never written, by its number
	NoPunch  bool                // a Zero that is Fast fails with ENOTSUP, and a Trim does nothing
	JunkTrim bool                // what was trimmed reads as anything

	cells   map[uint64]*cell
	pending []*cell // cells with more than one version, in the order of their first
	broken  bool    // a flush has failed
}

// cell is a sector that was written.
type cell struct {
	sector   uint64
	versions []version
	now      []byte // what a read returns
	listed   bool   // it is in pending
}

// version is one content of a sector.
type version struct {
	data []byte
	op   *op    // the write, while it is out
	done uint64 // when it was done
}

const never = math.MaxUint64

// op is an operation that is out.
type op struct {
	disk      *Disk // nil: Nowhere
	seg       layer.Segment
	row       *row
	part      int    // which segment of the row's wave
	memory    []byte // of a Read or Write
	source    []byte // of a Write: what memory held when it was asked for
	asked     uint64 // when
	landed    bool   // what it writes can be read
	errno     proto.Errno
	remaining int // turns before it may be done
}

// length is the bytes of the disk that an operation is about.
func (o *op) length() uint64 { return extent(&o.seg) }

func extent(s *layer.Segment) uint64 {
	switch s.Op {
	case layer.Read, layer.Write:
		return uint64(s.Len)
	case layer.Flush:
		return 0
	}
	return s.Range
}

// ReadAt reads what a disk holds, for plans that are made.
func (d *Disk) ReadAt(p []byte, off uint64) {
	for ; len(p) > 0; p, off = p[Sector:], off+Sector {
		d.readSector(p[:Sector], off/Sector)
	}
}

// WriteAt gives a disk content that is durable, before a run or between two plans.
func (d *Disk) WriteAt(p []byte, off uint64) {
	for ; len(p) > 0; p, off = p[Sector:], off+Sector {
		c := d.cell(off / Sector)
		c.now = slices.Clone(p[:Sector])
		c.versions = append(c.versions[:0], version{data: c.now})
	}
}

// Forget makes a disk as it was before anything was written.
func (d *Disk) Forget() { d.cells, d.pending, d.broken = nil, nil, false }

// Written tells the places in a range, by sectors, that were ever written, in order.
func (d *Disk) Written(off, length uint64) []uint64 {
	var places []uint64
	if length/Sector < uint64(len(d.cells)) {
		for at := off; at < off+length; at += Sector {
			if d.cells[at/Sector] != nil {
				places = append(places, at)
			}
		}
		return places
	}
	for sector := range d.cells {
		if at := sector * Sector; at >= off && at < off+length {
			places = append(places, at)
		}
	}
	slices.Sort(places)
	return places
}

func (d *Disk) readSector(p []byte, sector uint64) {
	if c := d.cells[sector]; c != nil {
		copy(p, c.now)
		return
	}
	Fill(p, d.initial(sector))
}

func (d *Disk) initial(sector uint64) uint64 {
	if d.Initial == nil {
		return 0
	}
	return d.Initial(sector)
}

// cell returns a sector's cell, made if it was never written.
func (d *Disk) cell(sector uint64) *cell {
	if d.cells == nil {
		d.cells = map[uint64]*cell{}
	}
	c := d.cells[sector]
	if c == nil {
		data := make([]byte, Sector)
		Fill(data, d.initial(sector))
		c = &cell{sector: sector, now: data, versions: []version{{data: data}}}
		d.cells[sector] = c
	}
	return c
}

// change adds a version, which from now on may be what a crash leaves.
func (d *Disk) change(c *cell, v version) {
	c.versions = append(c.versions, v)
	if !c.listed {
		c.listed = true
		d.pending = append(d.pending, c)
	}
}

// begin asks a disk for an operation.
func (w *World) begin(o *op) {
	d := o.disk
	switch o.seg.Op {
	case layer.Write:
		o.source = w.keep(o.memory)
		first := o.seg.Off / Sector
		for i := 0; i < len(o.source); i += Sector {
			data := o.source[i : i+Sector : i+Sector]
			d.change(d.cell(first+uint64(i/Sector)), version{data: data, op: o, done: never})
		}
	case layer.Zero, layer.Trim:
		if o.errno == proto.Success {
			w.beginRange(o)
		}
	}
	if w.chance(0.3) {
		w.land(o)
	}
}

// beginRange adds versions for a range that is zeroed or trimmed. Sectors that were never written
// read as zeroes on a disk that may be written.
func (w *World) beginRange(o *op) {
	d := o.disk
	if o.seg.Op == layer.Trim && d.NoPunch {
		return
	}
	for _, at := range d.Written(o.seg.Off, o.seg.Range) {
		data := w.zero
		if o.seg.Op == layer.Trim && d.JunkTrim {
			data = w.keep(w.zero)
			Fill(data, w.junk())
		}
		d.change(d.cell(at/Sector), version{data: data, op: o, done: never})
	}
}

// each calls f for each sector that an operation has given a version, and the version's place.
func (o *op) each(f func(c *cell, i int)) {
	visit := func(c *cell) {
		for i := len(c.versions) - 1; i > 0; i-- {
			if c.versions[i].op == o {
				f(c, i)
				return
			}
		}
	}
	if o.seg.Op == layer.Write {
		for at := o.seg.Off; at < o.seg.Off+o.length(); at += Sector {
			visit(o.disk.cells[at/Sector])
		}
		return
	}
	for _, at := range o.disk.Written(o.seg.Off, o.seg.Range) {
		visit(o.disk.cells[at/Sector])
	}
}

// land makes readable what an operation writes. Of one that fails, any part.
func (w *World) land(o *op) {
	if o.landed || o.seg.Op == layer.Read || o.seg.Op == layer.Flush {
		return
	}
	o.landed = true
	part := w.portion()
	o.each(func(c *cell, i int) {
		if o.errno == proto.Success || w.chance(part) {
			c.now = c.versions[i].data
		}
	})
}

// end ends an operation on its disk.
func (w *World) end(o *op) {
	d := o.disk
	switch o.seg.Op {
	case layer.Read:
		if o.errno == proto.Success {
			for i := 0; i < len(o.memory); i += Sector {
				d.readSector(o.memory[i:i+Sector], (o.seg.Off+uint64(i))/Sector)
			}
		}
	case layer.Flush:
		if d.broken {
			o.errno = proto.EIO
		}
		if o.errno != proto.Success {
			d.broken = true
			return
		}
		d.settle(o.asked)
	default:
		w.endWrite(o)
	}
}

// endWrite ends an operation that changes a disk.
func (w *World) endWrite(o *op) {
	fua := o.seg.Flags&layer.FUA != 0
	if fua && o.disk.broken {
		o.errno = proto.EIO
	}
	w.land(o)
	o.each(func(c *cell, i int) {
		v := &c.versions[i]
		v.op, v.done = nil, w.now
		switch {
		case o.errno == proto.Success && fua:
			c.versions = append(c.versions[:0], c.versions[i:]...)
		case o.errno != proto.Success && &c.now[0] != &v.data[0]:
			c.versions = slices.Delete(c.versions, i, i+1)
		}
	})
}

// settle makes durable what was done before a time.
func (d *Disk) settle(before uint64) {
	left := d.pending[:0]
	for _, c := range d.pending {
		last := 0
		for i, v := range c.versions {
			if i > 0 && v.op == nil && v.done <= before {
				last = i
			}
		}
		c.versions = append(c.versions[:0], c.versions[last:]...)
		if c.listed = len(c.versions) > 1; c.listed {
			left = append(left, c)
		}
	}
	d.pending = left
}

// crash leaves of each sector the durable content or any later one.
func (w *World) crash(d *Disk) {
	front, rest := w.portion(), w.portion()
	for _, c := range d.pending {
		p := rest
		if c.sector*Sector < d.Front {
			p = front
		}
		i := 0
		if n := len(c.versions); n > 1 && w.chance(p) {
			if i = n - 1; w.chance(0.2) {
				i = 1 + w.below(n-1)
			}
		}
		c.now = c.versions[i].data
		c.versions = append(c.versions[:0], version{data: c.now})
		c.listed = false
	}
	d.pending = d.pending[:0]
	d.broken = false
}
