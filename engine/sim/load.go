// The load: a habit is drawn for each client, and its requests are drawn from the habit.
//
// Invariant: what a client does follows from its own generator, so that a seed replays it.

package sim

import (
	"math/rand/v2"

	"ringnbd/proto"
)

// parting is how a connection ends from the client's side.
type parting uint8

const (
	partDisc      parting = iota // NBD_CMD_DISC with requests in flight, then waits for the end
	partHalfClose                // ends its sending side and reads on
	partClose                    // closes, at whatever byte
	partReset                    // resets, at whatever byte
	partGarbage                  // sends something that is not a request
	partOversize                 // announces a payload that is longer than any server drains
	partings
)

// habit is how a client behaves on one connection.
type habit struct {
	depth        int // requests in flight
	requests     int // on this connection
	segment      int // limit of the bytes it sends at once; 0: none
	sip          int // limit of the bytes it reads at once; 0: none
	sendNapNanos uint64
	readNapNanos uint64 // longest pause between two reads
	unaligned    int    // 1/1000
	wild         int    // 1/1000: invalid requests
	lull         int    // 1/1000: a long silence before a request, when nothing is in flight
	small        bool   // a sector at most
	large        int    // 1/1000: of the maximum length
	medium       int    // 1/1000: some megabytes
	window       uint64 // bytes that most requests fall into; 0: the whole disk
	start        uint64 // of the window
	commands     [4]int // weights of READ, WRITE, FLUSH, and TRIM or WRITE_ZEROES
	parting      parting
	// stream position of the parting, if it happens inside; 0: after the last request
	partAt     uint64
	partHeader bool   // inside a header
	stallAt    uint64 // stream position at which it stops for stallNanos; 0: never
	stallNanos uint64
	sulkAt     uint64 // bytes of replies after which it reads nothing for stallNanos; 0: never
	twins      bool   // uses one cookie for all flushes
	// restless says that it sends READs without waiting for answers while the server shuts down.
	restless bool
	// drips says that it sends byte by byte while the server shuts down, so that a payload takes
	// for ever.
	drips   bool
	status  int // 1/1000: BLOCK_STATUS
	caches  int // 1/1000: CACHE
	session proto.Session
}

// drawHabit draws the habit of a client for a connection with up to that many requests.
func drawHabit(r *rand.Rand, e *ExportPlan, s proto.Session, requests int) habit {
	h := habit{
		depth:     []int{1, 2, 4, 8, 16, 64, 300}[r.IntN(7)],
		requests:  1 + r.IntN(max(1, requests)),
		unaligned: []int{0, 200, 900}[r.IntN(3)],
		wild:      []int{0, 30, 300}[r.IntN(3)],
		large:     []int{0, 10, 300}[r.IntN(3)],
		commands:  [4]int{r.IntN(10), r.IntN(10), r.IntN(3), r.IntN(3)},
		parting:   parting(r.IntN(int(partings))),
		twins:     r.IntN(10) == 0,
		lull:      []int{0, 0, 0, 100}[r.IntN(4)],
	}
	h.commands[r.IntN(2)]++
	h.session = s
	if s.Contexts != 0 {
		h.status = []int{50, 300, 800}[r.IntN(3)]
	}
	h.caches = []int{0, 30, 300}[r.IntN(3)]
	if r.IntN(6) == 0 { // mostly long TRIM and WRITE_ZEROES, with writes in their way
		h.commands, h.large = [4]int{2, 5, 1, 10}, 500
	}
	if r.IntN(3) == 0 {
		h.segment = 1 + r.IntN([]int{2, 40, 5000}[r.IntN(3)])
	}
	if r.IntN(4) == 0 {
		h.sip = 1 + r.IntN([]int{20, 5000, 100000}[r.IntN(3)])
		h.readNapNanos = uint64(r.IntN(1e6))
	}
	if r.IntN(2) == 0 {
		h.window = min(e.Size, []uint64{4096, 16384, 100000}[r.IntN(3)])
		if r.IntN(2) == 0 { // half of these share the same place
			h.start = r.Uint64N(e.Size - h.window + 1)
		}
	}
	if r.IntN(2) == 0 {
		h.partAt, h.partHeader = 1+r.Uint64N(uint64(h.requests)*2000), r.IntN(3) == 0
	} else {
		h.parting = []parting{partDisc, partHalfClose, partClose}[r.IntN(3)]
	}
	if r.IntN(10) == 0 {
		h.stallAt, h.stallNanos = 1+r.Uint64N(uint64(h.requests)*2000), uint64(60e9)
	}
	return h
}

// resist gives some clients a habit with which a shutdown that waits for silence, or for a payload,
// would never end.
func (h *habit) resist(r *rand.Rand) {
	switch r.IntN(6) {
	case 0:
		h.restless = true
		h.sip, h.readNapNanos, h.sulkAt = 0, 0, 0 // taking no replies is another case
	case 1:
		h.drips = true
		h.commands[1] += 5
	}
}

// besiege makes most clients take memory and keep it: they send most of a long payload, or do not
// read long replies.
func (h *habit) besiege(r *rand.Rand) {
	if r.IntN(3) == 0 {
		return
	}
	h.large, h.partAt, h.stallNanos = 800, 0, 600e9
	if r.IntN(2) == 0 {
		h.commands, h.stallAt = [4]int{1, 9, 0, 0}, 1+r.Uint64N(3<<20)
	} else {
		h.commands, h.sulkAt, h.depth = [4]int{9, 1, 0, 0}, 1+r.Uint64N(1<<20), 8
	}
}

// jam makes a client read as much as it may at once and slowly, or read some megabytes.
func (h *habit) jam(r *rand.Rand) {
	h.commands, h.window, h.status, h.caches, h.depth = [4]int{9, 1, 0, 0}, 0, 0, 0, 2
	if r.IntN(2) == 0 {
		h.large, h.sip, h.readNapNanos = 900, 1+r.IntN(1<<20), uint64(r.IntN(50e6))
	} else {
		h.large, h.medium = 0, 900
	}
}

// hang makes a client hold as much of a loop as it can: it has many requests on a disk that hangs,
// or takes no replies.
func (h *habit) hang(r *rand.Rand) {
	h.depth, h.wild, h.lull = []int{4, 64, 300}[r.IntN(3)], 0, 0
	h.partAt, h.stallAt, h.readNapNanos, h.sip = 0, 0, 0, 0
	h.commands, h.large, h.status, h.caches = [4]int{5, 5, 1, 1}, []int{0, 800}[r.IntN(2)], 0, 0
	if r.IntN(3) == 0 {
		h.sulkAt, h.stallNanos = 1+r.Uint64N(1<<20), 60e9
	}
}

// modest makes a client send few small requests and take the replies at once.
func (h *habit) modest(r *rand.Rand) {
	h.depth, h.wild, h.partAt, h.stallAt, h.sulkAt = 1+r.IntN(4), 0, 0, 0, 0
	h.readNapNanos, h.sendNapNanos, h.sip = 0, 0, 0
	h.small, h.large, h.medium, h.caches, h.status, h.segment = r.IntN(2) == 0, 0, 0, 0, 0, 0
	h.commands, h.requests, h.parting = [4]int{5, 5, 1, 0}, 30, partDisc
}

// draw makes the next request, valid or not.
func (h *habit) draw(r *rand.Rand, e *ExportPlan) draft {
	q := proto.Request{Cookie: r.Uint64()}
	switch n := r.IntN(h.commands[0] + h.commands[1] + h.commands[2] + h.commands[3]); {
	case chance(r, h.status):
		q.Command = proto.CmdBlockStatus
	case chance(r, h.caches):
		q.Command = proto.CmdCache
	case n < h.commands[0]:
		q.Command = proto.CmdRead
	case n < h.commands[0]+h.commands[1]:
		q.Command = proto.CmdWrite
	case n < h.commands[0]+h.commands[1]+h.commands[2]:
		q.Command = proto.CmdFlush
	case r.IntN(2) == 0:
		q.Command = proto.CmdTrim
	default:
		q.Command = proto.CmdWriteZeroes
		q.Flags |= []uint16{0, 0, proto.CmdFlagNoHole}[r.IntN(3)]
		if e.Flags&proto.FlagSendFastZero != 0 && r.IntN(3) == 0 {
			q.Flags |= proto.CmdFlagFastZero
		}
	}
	if r.IntN(5) == 0 {
		q.Flags |= proto.CmdFlagFUA
	}
	if q.Command != proto.CmdFlush {
		h.place(r, e, &q)
	}
	if chance(r, h.wild) {
		spoil(r, e, &q)
	} else if h.twins && q.Command == proto.CmdFlush {
		q.Cookie = 0
	}
	a := draft{Request: q}
	h.dress(r, e, &a)
	return a
}

// place chooses offset and length inside the export.
func (h *habit) place(r *rand.Rand, e *ExportPlan, q *proto.Request) {
	lo, hi := uint64(0), e.Size
	if h.window > 0 && r.IntN(10) != 0 {
		lo, hi = h.start, h.start+h.window
	}
	q.Offset = lo + r.Uint64N(hi-lo)
	room := e.Size - q.Offset
	if q.Command == proto.CmdRead || q.Command == proto.CmdWrite {
		limit := uint64(e.MaxPayload)
		if limit == 0 {
			limit = 32 << 20
		}
		room = min(room, limit)
	}
	if h.session.Framing != proto.Extended {
		room = min(room, 1<<32-4096)
	}
	switch n := r.IntN(10); {
	case chance(r, h.large):
		q.Offset = r.Uint64N(max(1, e.Size-min(e.Size, room))+1) / 4096 * 4096
		q.Length = min(room, e.Size-q.Offset)
	case chance(r, h.medium):
		q.Length = pieceSize + r.Uint64N(6*pieceSize)
	case n == 0:
		q.Length = uint64(r.IntN(3))
	case n < 4:
		q.Length = 1 + r.Uint64N(700)
	case n < 8:
		q.Length = 512 << r.IntN(6)
	default:
		q.Length = 1 + r.Uint64N(70000)
	}
	if h.small {
		q.Length = min(q.Length, sectorSize)
		// long enough for a hole between data
		if h.session.Framing != proto.Simple && q.Command == proto.CmdRead && r.IntN(2) == 0 {
			q.Length = 4 * sectorSize
		}
	}
	q.Length = min(q.Length, room)
	unit := uint64(max(e.MinBlock, 1))
	if !chance(r, h.unaligned) {
		unit = max(unit, uint64([]int{512, 4096}[r.IntN(2)]))
	}
	if e.Size%unit == 0 || unit == uint64(e.MinBlock) {
		q.Offset -= q.Offset % unit
		q.Length = min((q.Length+unit-1)/unit*unit, room/unit*unit)
	}
}

// spoil makes a request invalid, or unusual.
func spoil(r *rand.Rand, e *ExportPlan, q *proto.Request) {
	switch r.IntN(9) {
	case 0:
		q.Offset = e.Size - min(e.Size, r.Uint64N(100))
	case 1:
		q.Offset = []uint64{e.Size, e.Size + 1, 1 << 63, 1<<64 - 1, 1<<64 - 512}[r.IntN(5)]
	case 2:
		q.Flags |= 1 << r.IntN(16)
	case 3:
		q.Command = []uint16{5, 7, 8, 9, 100, 0xffff}[r.IntN(6)]
	case 4:
		q.Length += 1 + r.Uint64N(9)
	case 5:
		q.Offset++
	case 6:
		q.Length = 0
	case 7:
		if q.Command == proto.CmdRead || q.Command > proto.CmdWrite {
			q.Length = []uint64{1<<32 - 1, 32<<20 + 1, 1 << 31}[r.IntN(3)]
		} else {
			q.Length = min(e.Size+1, 1<<32-1) // a payload that must be drained
		}
	default:
		q.Flags |= proto.CmdFlagFUA
	}
}
