// A Device holds the bytes of an export: a descriptor or a mapping, and the few facts about it that
// the data path needs.
//
// Invariant: a Device's facts do not change while it is served, but for its size, which only the
// control plane looks at. Its failed word only ever goes from 0 to 1: a flush that failed stays
// failed until the device is opened again, because the kernel reports an error once and then
// forgets it. For the same reason only one fsync of a device is in flight at a time, of all loops:
// of two, the kernel would tell an error to one, and success to the other, which may be seen first.

package engine

import (
	"sync/atomic"

	"ringnbd/engine/layer"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// Kind says which family of operations reaches a Device.
type Kind uint8

const (
	File   Kind = iota // a regular file: reads, writes, fsync, fallocate
	Block              // a block device: as File, with discard
	Null               // reads zeroes, drops writes; measures the engine without a disk
	Memory             // an anonymous mapping
	// a Plan over other devices, see plan.go
	Planned
)

// Device describes one opened backing store. Offsets and lengths are bytes.
type Device struct {
	Kind Kind
	FD   int    // descriptor of a File or Block, else -1
	Name string // what it is called in reports, where it is not all of an export
	Size uint64 // bytes; a multiple of Block. See Alteration

	// Block is the granularity that I/O on FD must keep: the logical block size with O_DIRECT, 1
	// for buffered files and for Null and Memory.
	Block uint32

	Direct bool // opened with O_DIRECT
	// an operation may sleep until another process or machine answers: FUSE, NFS
	Waits bool
	// not O_DIRECT, and writing into the page cache waits for nothing but the local disk
	Cached bool
	// not 0: the file system, which fsfreeze(8) can stop, so that writers sleep; the same number
	// for all of its files
	Freezes   uint64
	ReadOnly  bool
	Punch     bool // fallocate(PUNCH_HOLE) works
	ZeroRange bool // fallocate(ZERO_RANGE) works
	FastZero  bool // zeroing is quicker than writing zeroes
	Discard   bool // a Block device that takes discards

	Memory *uring.Arena // the mapping of Kind Memory

	// Of Kind Planned: what it does, over which devices, in the order of Segment.Dev, and what the
	// plan said of itself. Block is Needs.Block. A plan belongs to one Device.
	Plan  layer.Plan
	Below []*Device
	Needs layer.Needs

	written atomic.Bool // a client has written to it since it was opened
	failed  atomic.Uint32
	syncing atomic.Bool   // an fsync is in flight, of any loop
	queued  atomic.Int32  // loops that wait for it to end
	syncer  atomic.Uint32 // the loop that flushed last, plus 1: it lets the waiting loops go first
	// operations in flight that may hold the file's lock for long: slices, fsyncs and lookups
	busy atomic.Int32
}

// Export is a Device under the facts that clients were told in the handshake.
type Export struct {
	proto.Facts
	Device   *Device
	Base     uint64    // where it begins on its device, in bytes: a partition's start, else 0
	Name     string    // for the texts of errors
	Contexts []Context // as the catalog's: proto.Export.Contexts

	id      ID
	dev     uint32 // place of Device in the table
	leaving bool   // it is being removed
}

// deviceRow is what one loop keeps about one device; each part of it is described in the file of
// its chapter.
type deviceRow struct {
	device     *Device // nil: the place is free
	file       uint32  // place of its descriptor in every ring; none: it has no descriptor
	generation uint16  // of the place
	staff              // workers.go
	slicer             // range.go
	flusher            // flush.go
	throttle           // pagecache.go
	readahead          // readahead.go
	branch             // rows.go
}

// freeDeviceRow is a row with nothing in flight.
func freeDeviceRow() deviceRow {
	return deviceRow{file: none, staff: staff{parked: empty}, slicer: slicer{slicing: empty},
		flusher: flusher{flushing: empty, waiting: empty},
		branch:  branch{due: empty, flushRow: none}}
}

// home reports whether nothing of a device is in flight or waits, in this loop.
func (q *deviceRow) home() bool {
	return q.flying == 0 && q.working == 0 && q.parked == empty && q.slices == 0 &&
		q.slicing == empty && !q.fsyncing && !q.blocked && q.flushing == empty &&
		q.waiting == empty && len(q.asked)+len(q.asking) == 0 && !q.caching &&
		q.held == 0 && q.due == empty
}

// deviceTable is the devices of a loop.
type deviceTable struct {
	devices []deviceRow // as in table.devices, by place
	blocked []uint32    // devices that wait for another loop's fsync, see flush.go
}

// deviceOf returns the device that a request is about.
func (l *loop) deviceOf(t *tag) *Device { return l.devices[t.dev].device }

// keeps reports whether what is written can be read again.
func (d *Device) keeps() bool { return d.Kind != Null }

// onDisk reports whether reads and writes are waves: operations of the ring on a descriptor, or
// rows of a plan.
func (d *Device) onDisk() bool { return d.Kind != Null && d.Kind != Memory }

// Failed reports whether a flush of this device, or of one below it, has failed since it was
// opened.
func (d *Device) Failed() bool {
	for _, below := range d.Below {
		if below.Failed() {
			return true
		}
	}
	return d.failed.Load() != 0
}

// dirty reports whether a device is to be flushed before it is closed.
func (d *Device) dirty() bool {
	return (d.FD >= 0 || d.Kind == Planned) && !d.ReadOnly && (d.written.Load() || d.Failed())
}

// fail makes the failure of a flush sticky.
func (d *Device) fail() { d.failed.Store(1) }

// down and up round an offset to the device's granularity (a power of two).
func (d *Device) down(off uint64) uint64 { return off &^ uint64(d.Block-1) }
func (d *Device) up(off uint64) uint64   { return (off + uint64(d.Block-1)) &^ uint64(d.Block-1) }
