// A disk has two contents: what a read sees, and what would be left after a power cut. A write
// changes the first; fsync, or a write with RWF_DSYNC, makes the second agree. A failed fsync does
// what Linux does (and what PostgreSQL found out in 2018): it reports the error once and forgets
// that those sectors were ever dirty, so that a second fsync succeeds although they were never
// written.
//
// Invariant: durable and cache differ only in sectors that are dirty or were lost by a failed
// fsync.

package sim

import (
	"encoding/binary"
	"math/rand/v2"

	"ringnbd/engine/uring"
)

const sectorSize = 512

// disk is the file or block device of one export.
type disk struct {
	world     *World
	plan      *ExportPlan
	index     int
	length    uint64 // of the file now; less than plan.Size after it was truncated
	minLength uint64 // the smallest value of length so far
	unit      uint64 // what a write changes atomically: the logical block, at least a sector
	cache     []byte
	durable   []byte
	dirty     []uint64 // per sector: epoch of its first change since it was last durable, 0 = clean
	hole      []bool   // per sector: not allocated
	epoch     uint64
	faults    []fault

	above *disk         // the layered disk that it is below, or nil
	lower [lowers]*disk // of a layered disk

	hungUntil uint64 // instant until which the disk does nothing

	// memory is that of an export in memory; cache is then its content, and no other field is used
	memory *uring.Arena
}

// fault is an injected error, kept so that every error that a client sees can be traced to a fault.
type fault struct {
	tick   uint64
	lo, hi uint64
	res    int32
	opcode uint8
	dsync  bool // a write with RWF_DSYNC: the error may be that of its flush
	// dropped says that it was the error of its flush, and that what was dirty was dropped.
	dropped bool
}

// newDisk makes the disk of an export, with its initial content.
func (w *World) newDisk(index int, p *ExportPlan) *disk {
	d := &disk{world: w, plan: p, index: index, length: p.Size, minLength: p.Size,
		unit: max(sectorSize, uint64(p.Block))}
	if p.Backing == Null {
		return d
	}
	sectors := (p.Size + sectorSize - 1) / sectorSize
	d.cache, d.durable = make([]byte, p.Size), make([]byte, p.Size)
	d.dirty, d.hole = make([]uint64, sectors), make([]bool, sectors)
	data := p.Size - p.sparse
	if p.Backing == Memory {
		a, err := uring.NewArena(int(p.Size), false)
		if err != nil {
			panic(err)
		}
		d.memory, d.cache = a, a.Bytes(0, int(p.Size))
	}
	fill(d.cache[:data], 0, 0)
	copy(d.durable, d.cache)
	for s := range d.hole {
		d.hole[s] = uint64(s)*sectorSize >= data
	}
	return d
}

// fill writes the bytes that request id puts at offset. Every byte depends on the request and on
// its place, so that the origin of bytes on the disk can be told.
func fill(b []byte, id uint32, offset uint64) {
	if skip := offset & 7; skip != 0 {
		w := wordOf(id, offset>>3)
		n := copy(b, w[skip:])
		b, offset = b[n:], offset+uint64(n)
	}
	word := offset >> 3
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, mixed(id, word))
		word++
	}
	if len(b) > 0 {
		w := wordOf(id, word)
		copy(b, w[:])
	}
}

// wordOf returns the eight bytes that a request writes at a word.
func wordOf(id uint32, word uint64) (b [8]byte) {
	binary.LittleEndian.PutUint64(b[:], mixed(id, word))
	return b
}

// mixed is splitmix64's finaliser over the request and the word's place.
func mixed(id uint32, word uint64) uint64 {
	x := word ^ uint64(id)<<40 ^ 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// put changes what a read of [off, off+len(b)) sees.
func (d *disk) put(off uint64, b []byte) {
	if len(b) == 0 {
		return
	}
	copy(d.cache[off:], b)
	d.length = max(d.length, off+uint64(len(b)))
	d.markDirty(off, off+uint64(len(b)), false)
}

// zero makes [lo, hi) read as zeroes; as a hole, it frees the whole sectors in it.
func (d *disk) zero(lo, hi uint64, hole bool) {
	if lo < hi {
		clear(d.cache[lo:hi])
		d.markDirty(lo, hi, hole)
	}
}

// markDirty marks the sectors of [lo, hi) as changed, and as a hole or not.
func (d *disk) markDirty(lo, hi uint64, hole bool) {
	d.epoch++
	for s := lo / sectorSize; s*sectorSize < hi; s++ {
		if d.dirty[s] == 0 {
			d.dirty[s] = d.epoch
		}
		whole := s*sectorSize >= lo && (s+1)*sectorSize <= hi
		if !hole {
			d.hole[s] = false
		} else if whole {
			d.hole[s] = true
		}
	}
}

// persist makes the sectors that [lo, hi) touches durable.
func (d *disk) persist(lo, hi uint64) {
	for s := lo / sectorSize; s*sectorSize < hi; s++ {
		d.persistSector(s)
	}
}

// persistSector makes a sector durable.
func (d *disk) persistSector(s uint64) {
	end := min((s+1)*sectorSize, uint64(len(d.cache)))
	copy(d.durable[s*sectorSize:end], d.cache[s*sectorSize:end])
	d.dirty[s] = 0
}

// flush makes durable what was dirty at the given epoch, at which the fsync was submitted: it need
// not make later writes durable.
func (d *disk) flush(epoch uint64) {
	for s, first := range d.dirty {
		if first != 0 && first <= epoch {
			d.persistSector(uint64(s))
		}
	}
}

// failFlush writes back some of the dirty sectors and marks all as clean.
func (d *disk) failFlush(r *rand.Rand) {
	for s, first := range d.dirty {
		if first == 0 {
			continue
		}
		if r.IntN(3) == 0 {
			d.persistSector(uint64(s))
		}
		d.dirty[s] = 0
	}
}

// crashImage returns what a power cut would leave now: the durable content, and of each block that
// was not flushed the old or the new version.
func (d *disk) crashImage(r *rand.Rand) []byte {
	image := append([]byte(nil), d.durable...)
	keep := []int{0, 500, 500, 900}[r.IntN(4)]
	for lo := uint64(0); lo < uint64(len(image)); lo += d.unit {
		hi := min(lo+d.unit, uint64(len(image)))
		dirty := false
		for s := lo / sectorSize; s*sectorSize < hi; s++ {
			dirty = dirty || d.dirty[s] != 0
		}
		if dirty && chance(r, keep) {
			copy(image[lo:hi], d.cache[lo:hi])
		} else if dirty {
			d.world.mark(markCrashLost)
		}
	}
	return image
}

// truncate shortens the file. What was cut off is lost at once; if a write makes the file longer
// again, the gap is zeroes.
func (d *disk) truncate(length uint64) {
	d.zero(length, d.length, true)
	d.length, d.minLength = length, min(d.minLength, length)
}

// recordFault records a fault and returns its result.
func (d *disk) recordFault(o *op, lo, hi uint64, res int32) int32 {
	tick := d.world.note("fault", "disk op lo hi res", int64(d.index), int64(o.sqe.OpCode),
		int64(lo), int64(hi), int64(res))
	d.faults = append(d.faults, fault{tick: tick, lo: lo, hi: hi, res: res, opcode: o.sqe.OpCode,
		dsync: (o.sqe.OpCode == opWriteFixed || o.sqe.OpCode == opWrite) &&
			o.sqe.OpcodeFlags&rwfDsync != 0, dropped: o.dropped})
	return res
}
