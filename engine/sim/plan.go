// A Plan is what a seed builds: how many loops, which disks, how many clients, how much memory. The
// test that runs the engine in the simulation reads the plan and opens an engine of that shape.
//
// Invariant: a plan is drawn before its world runs, and does not change while it runs.

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"ringnbd/proto"
)

// Backing is what holds the bytes of an export.
type Backing uint8

const (
	File  Backing = iota // a regular file on a simulated disk
	Block                // a block device on a simulated disk
	// Memory is memory of the engine's process, used without the kernel except for MADVISE.
	Memory
	Null    // nothing: reads zeroes, drops writes
	Layered // two files, see layered.go
)

// ExportPlan describes an export and its disk.
type ExportPlan struct {
	proto.Facts
	Backing   Backing
	Block     uint32 // granularity of I/O in bytes; 1 = buffered
	Punch     bool   // fallocate(PUNCH_HOLE) works
	ZeroRange bool   // fallocate(ZERO_RANGE) works
	Discard   bool   // URING_CMD discard works
	FastZero  bool
	Waits     bool   // reads and writes put the caller to sleep: FUSE, NFS
	Frozen    bool   // when it hangs, it is like a frozen file system: reads go on
	sparse    uint64 // bytes at the end that are a hole initially
	Contexts  []ContextPlan
	lower     [lowers]*ExportPlan // of a layered export
}

// ReadOnly reports whether the export is served read-only.
func (p *ExportPlan) ReadOnly() bool { return p.Flags&flagReadOnly != 0 }

// onDisk reports whether the export has a simulated disk, with everything that can happen to a
// disk.
func (p *ExportPlan) onDisk() bool { return p.Backing == File || p.Backing == Block }

// Plan is everything about a world that does not change while it runs.
type Plan struct {
	Loops       int
	Entries     uint32       // submission queue
	Completions uint32       // completion queue
	Memory      uint64       // bytes per loop beyond the minimum of the engine
	Connections int          // limit of one loop
	Exports     []ExportPlan // one for each disk: the whole of it
	Views       []ViewPlan   // further exports of the same disks
	clients     int          // at the same time
	requests    int          // over the whole run
	siege       bool         // many clients hold memory and stall
	// some clients need all memory for long requests, and are slow; others need a little of it
	jam bool
	// many small requests in flight on every connection, and slow loops
	deep bool
	// writes and flushes from all loops to one disk whose fsync fails sometimes
	flushes      bool
	Scanty       bool // the minimum of memory: long requests are served in parts
	Unregistered bool // the pools are not registered with io_uring
	// the disks of all exports except the last hang sometimes, and their clients hold all that they
	// can
	Hang bool
	// Live says that exports come, change and go: an operator is at work.
	Live  bool
	idle  int // exports at the end of Exports that are not served at first
	drain bool
	cut   bool // the shutdown timeout runs out
	mix   mix
}

func (p *Plan) String() string {
	s := fmt.Sprintf("loops=%d sq=%d cq=%d memory=%d connections=%d clients=%d requests=%d "+
		"siege=%t jam=%t deep=%t flushes=%t scanty=%t hang=%t unregistered=%t drain=%t cut=%t "+
		"live=%t idle=%d",
		p.Loops, p.Entries, p.Completions, p.Memory, p.Connections, p.clients, p.requests,
		p.siege, p.jam, p.deep, p.flushes, p.Scanty, p.Hang, p.Unregistered, p.drain, p.cut,
		p.Live, p.idle)
	for _, e := range p.Exports {
		s += fmt.Sprintf("\n  export %+v", e)
	}
	for _, v := range p.Views {
		s += fmt.Sprintf("\n  view %+v", v)
	}
	return s + fmt.Sprintf("\n  mix %+v", p.mix)
}

// IsLayered reports whether one of the exports is layered.
func (p *Plan) IsLayered() bool {
	return slices.ContainsFunc(p.Exports, func(e ExportPlan) bool { return e.Backing == Layered })
}

// Costly reports whether the world takes a second or more to run.
func (p *Plan) Costly() bool {
	for _, e := range p.Exports {
		if e.Backing != Null && e.Size > 16<<20 {
			return true
		}
	}
	return p.siege || p.Hang || p.deep || p.clients > 40
}

// pieceSize is the longest piece of memory that the engine leases; longer requests are marked as
// large.
const pieceSize = 1 << 20

// drawPlan decides the shape of a world. One in 32 is large: real 32 MiB requests, few of them. One
// in 12 is crowded: more clients than there are receive buffers, with requests that together need
// more memory than there is. One in 24 is deep: small requests fill queues and batches.
func drawPlan(r *rand.Rand) Plan {
	large, crowd, deep := r.IntN(32) == 0, r.IntN(12) == 0, r.IntN(24) == 0
	p := Plan{
		Loops:       1 + r.IntN(3),
		Entries:     []uint32{2, 8, 32, 256}[r.IntN(4)],
		Memory:      []uint64{0, 0, 32 << 20}[r.IntN(3)],
		Connections: 16,
		clients:     1 + r.IntN(6),
		requests:    50 + r.IntN(400),
		drain:       r.IntN(6) == 0,
		cut:         r.IntN(2) == 0,
		mix:         drawMix(r),
	}
	p.Completions = p.Entries * []uint32{1, 2, 8}[r.IntN(3)]
	exports := 1 + r.IntN(2)
	if large {
		p.Loops, p.clients, p.requests, exports = 1+r.IntN(2), 1+r.IntN(3), 12+r.IntN(20), 1
		p.Memory = []uint64{0, 96 << 20}[r.IntN(2)]
		p.mix.segment = []int{0, 256 << 10}[r.IntN(2)]
	}
	if deep && !large && !crowd {
		p.deep, p.Loops, p.requests = true, 1, 2000
		p.Entries, p.Completions, p.mix.lag = 256, 2048, 20
	}
	if crowd && !large {
		p.Loops, p.clients = 1+r.IntN(2), 20+r.IntN(60)
		p.Connections, p.requests = 100, 200+r.IntN(400)
	}
	if !large && !crowd && !deep && r.IntN(12) == 0 {
		exports, p.flushes = 1, true
		p.Loops, p.clients = 2+r.IntN(2), 3+r.IntN(4)
		p.mix.lag, p.mix.fsyncError = 20, []int{0, 100, 300}[r.IntN(3)]
	}
	hang := !large && !crowd && !deep && !p.flushes && r.IntN(8) == 0
	if hang {
		exports = 2 + r.IntN(3)
		p.Loops, p.clients = 1+r.IntN(2), 12+r.IntN(30)
		p.Connections, p.requests = 100, 300+r.IntN(400)
		p.Hang, p.drain, p.Memory, p.mix.pause = true, false, 0, 0
	}
	for i := range exports {
		p.Exports = append(p.Exports, drawExport(r, large))
		if hang {
			p.Exports[i].makeHang(i == exports-1)
		}
	}
	if large && r.IntN(2) == 0 {
		p.jam, p.Loops, p.clients, p.requests, p.Memory = true, 1, 3+r.IntN(10), 6+r.IntN(12), 0
		e := &p.Exports[0]
		if e.Size, e.MaxPayload = 70<<20, 64<<20; e.Backing == Null {
			e.sparse = e.Size
		}
	}
	if crowd && !large {
		e := &p.Exports[0]
		p.siege = r.IntN(3) != 0
		e.Size, e.MaxPayload = 3<<20, []uint32{0, 1 << 20}[r.IntN(2)]
		if e.sparse = min(e.sparse, e.Size); e.Backing == Null {
			e.sparse = e.Size
		}
	}
	if !large {
		p.drawViews(r)
		p.drawLive(r)
		p.layer(r)
	}
	p.Scanty, p.Unregistered = !p.jam && !p.IsLayered() && r.IntN(3) == 0, r.IntN(4) == 0
	p.mix.unpinnable = rarely(r, 700)
	return p
}

// makeHang fits an export to a world in which disks hang: its disk hangs, or it is the healthy one.
func (p *ExportPlan) makeHang(healthy bool) {
	if !p.onDisk() {
		p.Backing = File
	}
	p.Size, p.sparse, p.MaxPayload = 3<<20, min(p.sparse, 3<<20), 1<<20
	if healthy {
		p.Waits, p.Size, p.sparse, p.MaxPayload = false, 256<<10, 0, 64<<10
	}
}

// drawExport draws an export; large exports have requests of 32 MiB.
func drawExport(r *rand.Rand, large bool) ExportPlan {
	e := ExportPlan{Block: []uint32{1, 512, 512, 4096}[r.IntN(4)]}
	e.Backing = []Backing{File, File, File, File, File, File, File, Block, Block, Block, Memory,
		Null}[r.IntN(12)]
	e.Size = []uint64{16 << 10, 64 << 10, 64 << 10, 256 << 10, 256 << 10, 1 << 20, 3 << 20,
		10 << 20}[r.IntN(8)]
	e.MaxPayload = []uint32{0, 64 << 10, 1 << 20}[r.IntN(3)]
	if large {
		e.Size, e.MaxPayload = 40<<20, 0
		if r.IntN(4) == 0 {
			e.Size, e.MaxPayload = 70<<20, 64<<20
		}
	}
	switch {
	case e.Backing == Block:
		e.Block = max(e.Block, 512)
	case !e.onDisk():
		e.Block = 1
	}
	if r.IntN(3) == 0 {
		// a size that is not a multiple of larger units
		e.Size += uint64(e.Block) * uint64(1+r.IntN(7))
	}
	if r.IntN(4) == 0 {
		e.MinBlock = max(512, e.Block)
		e.Size -= e.Size % uint64(e.MinBlock)
	}
	e.Punch, e.ZeroRange = r.IntN(3) != 0, r.IntN(3) != 0
	e.Discard = e.Backing == Block && r.IntN(2) == 0
	e.FastZero = e.Punch || e.Backing == Block && e.ZeroRange || !e.onDisk()
	if r.IntN(3) == 0 {
		e.sparse = e.Size / 2 &^ 4095
	}
	e.Waits = e.Backing == File && r.IntN(4) == 0
	e.Frozen = !e.Waits && r.IntN(2) == 0
	if e.Backing == Null {
		if r.IntN(2) == 0 { // a size that only lengths of 64 bits can cover
			e.Size, e.MaxPayload = 1<<40, 64<<10
		}
		e.sparse = e.Size
	}
	drawContexts(r, &e)
	e.Flags = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA | proto.FlagCanMultiConn
	if r.IntN(2) == 0 {
		e.Flags |= proto.FlagSendCache
	}
	if r.IntN(10) == 0 {
		e.Flags |= proto.FlagReadOnly
		return e
	}
	e.Flags |= proto.FlagSendTrim | proto.FlagSendWriteZeroes
	if e.FastZero {
		e.Flags |= proto.FlagSendFastZero
	}
	if r.IntN(8) == 0 {
		e.Flags &^= proto.FlagSendTrim
	}
	return e
}
