// The layout fixes, before anything runs, how much memory a loop has and where everything lies in
// it: all bounds follow from here.
//
// Invariant: controlLen and poolLen together are at most the loop's share of Config.Memory; nothing
// on the data path grows.

package engine

// MaxRequest is the longest READ or WRITE in bytes. The spec's default, and the most that the
// kernel's client and qemu send, is half of it; libnbd and the reference implementation's tester
// send requests of this length to servers that take them.
const MaxRequest = 64 << 20

const (
	// connPage holds what a connection's send needs, a msghdr, its iovecs and reply headers, and
	// its own stage. Pages that were never touched cost nothing.
	connPage  = 8192
	iovecsAt  = 64
	iovecSize = 16
	maxIovecs = 250
	headersAt = 4096
	ownAt     = 6144
	ownSize   = connPage - ownAt

	wakePage   = 4096 // the word that the eventfd is read into
	stageSize  = 256 << 10
	minStages  = 8
	zeroRegion = pieceSize // what READ of a null export and writing zeroes send

	minSmall = 8 << 20
	// scantyPool is the pool, with the zeroes, of a loop that serves long requests in parts.
	scantyPool = 6 << 20
	minLarge   = MaxRequest + 4*pieceSize  // one request of the longest kind, not aligned
	roomyLarge = MaxRequest + 16*pieceSize // and others of some megabytes beside it

	tagsPerLoop = 4096
	// firstTags and firstCredit are how many requests, and bytes of the small region, a connection
	// may have before it has taken a reply, see loop.earn.
	firstTags   = 64
	firstCredit = 1 << 20
	// tagsPerConn is how many requests a connection may ever have in flight; what a client sends
	// beyond waits in its socket.
	tagsPerConn = 256
)

type layout struct {
	conns    int
	stages   int
	smallLen uint64          // bytes of the small region
	largeLen uint64          // bytes of the large region
	maxWhole uint64          // bytes of a READ or WRITE that is not served in parts
	share    [regions]uint64 // bytes that one connection may hold; one request always fits
}

// layoutOf divides one loop's memory, in bytes, among its connections. ok is false when the memory
// is less than minLoopMemory.
func layoutOf(memory uint64, conns int) (y layout, ok bool) {
	y.conns, y.maxWhole = conns, MaxRequest
	if memory < minLoopMemory(conns) {
		return y, false
	}
	if memory < ampleLoopMemory(conns) {
		return scantyLayout(memory, conns), true
	}
	rest := memory - wakePage - uint64(conns)*connPage - zeroRegion
	// Large stages get a sixteenth, but no more than the smallest regions leave, nor than one for
	// each connection.
	y.stages = max(minStages,
		min(int(min(rest/16, rest-minSmall-minLarge-2*pieceSize)/stageSize), conns))
	rest -= uint64(y.stages) * stageSize
	y.largeLen = max(minLarge, min(rest*3/5, roomyLarge)&^(pieceSize-1), rest/4&^(pieceSize-1))
	y.smallLen = (rest - y.largeLen) &^ (pieceSize - 1)
	if y.poolLen()&(2*pieceSize-1) != 0 { // the pool is mapped in huge pages of 2 MiB
		y.smallLen -= pieceSize
	}
	y.share = [regions]uint64{small: max(2*pieceSize, y.smallLen/3),
		large: max(minLarge, y.largeLen/2)}
	return y, true
}

// scantyLayout is the layout of a loop without a large region: it serves long requests in parts,
// see parts.go.
func scantyLayout(memory uint64, conns int) layout {
	y := layout{conns: conns, maxWhole: pieceSize, stages: min(minStages, conns)}
	// whole huge pages, with the zeroes
	y.smallLen = (memory-y.controlLen())&^(2*pieceSize-1) - zeroRegion
	y.share = [regions]uint64{small: max(2*pieceSize, y.smallLen/3)}
	return y
}

// minLoopMemory is the least memory with which a loop serves anything, in bytes.
func minLoopMemory(conns int) uint64 {
	y := layout{conns: conns, stages: min(minStages, conns)}
	return y.controlLen() + scantyPool
}

// ampleLoopMemory is the least memory with which a loop serves a request of the longest kind as a
// whole, beside short requests.
func ampleLoopMemory(conns int) uint64 {
	return wakePage + uint64(conns)*connPage + zeroRegion + minStages*stageSize + minSmall +
		minLarge + 2*pieceSize
}

// connsPerLoop is the number of rows that always suffices: connections go to the loop with the
// fewest, but those of a planned device all go to its home.
func connsPerLoop(c Config) int {
	if c.Homed {
		return c.MaxConnections
	}
	return (c.MaxConnections + c.Loops - 1) / c.Loops
}

// MinMemory is the smallest Config.Memory, in bytes, for the loops and connections of c.
func MinMemory(c Config) uint64 {
	return uint64(c.Loops) * minLoopMemory(connsPerLoop(c))
}

// AmpleMemory is the smallest Config.Memory, in bytes, with which no request is served in parts.
func AmpleMemory(c Config) uint64 {
	return uint64(c.Loops) * ampleLoopMemory(connsPerLoop(c))
}

func (y layout) controlLen() uint64 {
	return wakePage + uint64(y.conns)*connPage + uint64(y.stages)*stageSize
}

func (y layout) poolLen() uint64 { return zeroRegion + y.smallLen + y.largeLen }

// wholeHuge rounds up to the huge pages of 2 MiB that the pool is mapped in.
func wholeHuge(n uint64) uint64 { return (n + 2*pieceSize - 1) &^ (2*pieceSize - 1) }

func (y layout) pageAt(c uint32) uint64 { return wakePage + uint64(c)*connPage }
func (y layout) stageAt(s uint32) uint64 {
	return wakePage + uint64(y.conns)*connPage + uint64(s)*stageSize
}
