// Where everything is in a loop's arena: payload buffers, the data that all writes share, and with
// sockets a page area and a stage per connection.
//
// Invariant: buffers have a size that is a power of two and begin at multiples of it, so that none
// straddles a registered buffer of 1 GiB.

package load

import (
	"fmt"
	"math/bits"

	"ringnbd/engine/units"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

const (
	pageSize   = 4096
	msghdrSize = 64 // 56, rounded up
	iovecsAt   = msghdrSize
	iovecSize  = 16
	maxIovecs  = 1024 // UIO_MAXIOV

	// A stage takes the replies of a whole connection in, if they are not more than that: larger
	// ones do not stay in a core's cache.
	minStage = 16 << 10
	maxStage = 256 << 10
	// maxMemory bounds the arenas of all loops, in bytes.
	maxMemory = 8 << 30
)

type layout struct {
	buffers   uint64 // where the slots' buffers begin
	stride    uint64 // from one buffer to the next; 0: slots have none
	shared    uint64 // data of every write that is not stamped
	pages     uint64
	page      uint64 // bytes of a connection's page area
	headersAt uint64
	stages    uint64
	stage     uint32 // bytes
	iovecs    uint32 // of a batch
	size      uint64
	progress  []uint32 // by slot: bytes that a transfer on a file has done
}

// layoutOf lays out a loop's arena.
func layoutOf(p *plan, conns int) layout {
	o := p.options
	var y layout
	largest := p.largest
	stride := uint64(pageSize)
	if largest > pageSize {
		stride = 1 << bits.Len64(largest-1)
	}
	file := p.subject.file != nil
	if file && o.does(kindRead) || p.table != nil {
		y.stride = stride
		y.size += uint64(conns*o.Depth) * stride
	}
	y.shared = y.size
	if o.Writes() && p.table == nil {
		y.size += stride
	}
	if file {
		y.progress = make([]uint32, conns*o.Depth)
		y.size = max(y.size, pageSize)
		return y
	}
	requests := uint64(o.Depth) + 1 // and the DISC
	y.iovecs = uint32(min(2*requests, maxIovecs))
	y.headersAt = iovecsAt + uint64(y.iovecs)*iovecSize
	y.page = roundUp(y.headersAt+requests*proto.RequestSize, pageSize)
	y.pages = y.size
	y.size += uint64(conns) * y.page
	reply := uint64(proto.SimpleReplySize)
	if o.does(kindRead) {
		reply += largest
	}
	y.stage = uint32(min(max(roundUp(reply*uint64(o.Depth), pageSize), minStage), maxStage))
	y.stages = y.size
	y.size += uint64(conns) * uint64(y.stage)
	return y
}

func roundUp(n, unit uint64) uint64 { return (n + unit - 1) / unit * unit }

func (y *layout) bufferAt(row uint32) uint64 { return y.buffers + uint64(row)*y.stride }
func (y *layout) pageAt(c uint32) uint64     { return y.pages + uint64(c)*y.page }
func (y *layout) stageAt(c uint32) uint64    { return y.stages + uint64(c)*uint64(y.stage) }

// checkMemory checks that the loops together do not need too much memory, and decides what of it is
// locked.
func checkMemory(p *plan) (err error) {
	var total uint64
	for id := range p.options.Threads {
		from, to := loopSpan(id, p.options.Connections, p.options.Threads)
		y := layoutOf(p, to-from)
		total += y.size
	}
	o := p.options
	if total > maxMemory {
		return fmt.Errorf("%d connections at depth %d with requests of %s need %s of buffers, "+
			"more than the bound of %s: use fewer or smaller ones", o.Connections, o.Depth,
			units.Exact(p.largest), units.Size(total), units.Exact(maxMemory))
	}
	share := (o.Connections + o.Threads - 1) / o.Threads
	if p.ring, err = ringConfig(o, share).Within(o.Threads); err != nil {
		return fmt.Errorf("io_uring: %w", err)
	}
	if p.subject.file != nil {
		p.unregistered = uring.CheckMemlock(total + uint64(o.Threads)*p.ring.Memory())
	}
	return nil
}

// ringConfig sizes a ring: one send and one receive per connection, or one operation per slot.
func ringConfig(o *Options, conns int) uring.Config {
	inflight := 2 * conns
	if o.Target.File() {
		inflight = conns * o.Depth
	}
	return uring.Config{Entries: uint32(min(max(inflight, 64), 4096)),
		Completions: uint32(min(max(2*inflight, 256), 65536))}
}
