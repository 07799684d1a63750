// The seam: what a plan is asked, and what it asks of the devices below it.
//
// Invariant: nothing here does anything. A Row is given to a plan by the engine and belongs to the
// plan, but for its first five fields, until Step has said Done; a Wave is filled by the plan in
// Step and read by the engine when Step has said Go.

package layer

import "ringnbd/proto"

const (
	// Most is the longest Read or Write, in bytes.
	Most = 1 << 20
	// WaveMost is how many segments a wave may have.
	WaveMost = 8
	// Nowhere is the device of a Read that no device has to answer: its memory is cleared.
	Nowhere = 0xff
)

// Op is what a row or a segment is to do.
type Op uint8

const (
	Read  Op = iota // into the pool
	Write           // from the pool
	Zero            // make it read as zeroes (NBD_CMD_WRITE_ZEROES)
	Trim            // what it reads as afterwards does not matter (NBD_CMD_TRIM)
	Flush           // all that was Done before is durable when it ends well
)

// Flags of a row or a segment.
const (
	FUA    uint8 = 1 << iota // durable when it is done; of Write, Zero and Trim
	NoHole                   // Zero: keep the space allocated
	Fast                     // Zero: fail with ENOTSUP rather than write zeroes
)

// Row is one thing that a plan is busy with: a request from above, or a row of its own. It holds no
// pointers.
type Row struct {
	ID    uint32 // place in the loop's table; a plan may index tables of its own by it
	Op    Op
	Flags uint8
	Own   uint8  // 0: a request from above; else which of the plan's own rows, from 1
	Len   uint32 // bytes of a Read or Write, and of an own row's memory
	// Off is the place on the device, and At the place in the loop's pool, in bytes.
	Off, At uint64
	Range   uint64 // bytes of a Zero or Trim

	Errno proto.Errno // what it ends with
	Bad   uint8       // segments of the last wave that failed, a bit each
	Cause proto.Errno // of the last wave's first segment that failed
	State uint8       // the plan's own, 0 at first
	Word  [3]uint64   // the plan's own, 0 at first
}

// Segment is one operation on a device below.
type Segment struct {
	Dev     uint8 // among the plan's devices, in the order of the configuration; or Nowhere
	Op      Op
	Flags   uint8
	Len     uint32 // bytes of a Read or Write
	Off, At uint64 // bytes; At 0 is the start of a region of zeroes, Most bytes long
	Range   uint64 // bytes of a Zero or Trim
}

// Wave is the segments that a row asks for at the same time.
type Wave struct {
	N   int // segments, 1 to WaveMost
	Seg [WaveMost]Segment
}

// Then is what becomes of a row after a step.
type Then uint8

const (
	Done Then = iota // it ends with Row.Errno
	Go               // the wave is issued, and Step called again when all of it is back
	Wait             // Next will name it
)

// Plan is a device made of devices.
type Plan interface {
	// Step begins a row (State is 0 and no wave of it was issued), or goes on with it after its
	// wave, or after Next named it.
	Step(r *Row, w *Wave) Then
	// Next names a row that waited and may go on. It is asked until there is none.
	Next() (id uint32, ok bool)
	// Cancel tells that the client of a row that waits has gone. True: the plan has forgotten the
	// row, and will not name it. False: Next will name it as ever.
	Cancel(id uint32) bool
}

// Needs is what a plan says about itself once, before it is asked anything.
type Needs struct {
	Block uint32 // granularity of what it is asked for: bytes, a power of two from 512 to 4096
	// Own is the bytes of memory of each of its own rows, at most Most each. The engine has a Row
	// for each, with ID, Own, At and Len filled in, and calls Step for it when Next names it. An
	// own row that is Done may be named again: it begins anew, but for its Word.
	Own []uint32
}

// Own is an own row as its plan knows it: under which ID Next is to name it, and its memory, which
// is the part of the loop's pool that begins at the row's At. The plan may write there while no
// segment that names a part of it is out.
type Own struct {
	ID     uint32
	Memory []byte
}

// Owner is implemented by a plan that has rows wait, or has own rows.
type Owner interface {
	// Owns tells, once, before any Step, that the ID of every row is below rows, and the own rows,
	// in the order of Needs.Own. A plan may make its tables here.
	Owns(rows uint32, own []Own)
}
