// What a connection agreed on, and which requests that allows in addition to reads and writes:
// BLOCK_STATUS with and without a payload, DF, REQ_ONE, lengths of 64 bits, payloads where none
// belongs.
//
// Invariant: how a request must be answered is not decided here but in request.go (setExpected), so
// a habit may spoil any request.

package sim

import (
	"encoding/binary"
	"math/rand/v2"

	"ringnbd/proto"
)

// Magics of the protocol, written down a second time ("Transmission phase").
const (
	magicRequest    = 0x25609513
	magicRequestExt = 0x21e41c71
	magicSimple     = 0x67446698
	magicChunk      = 0x668e33ef
	magicChunkExt   = 0x6e8a278c
)

// drawSession draws what a connection agrees on.
func drawSession(r *rand.Rand, e *ExportPlan) (s proto.Session) {
	s.Framing = []proto.Framing{proto.Simple, proto.Structured, proto.Structured, proto.Extended,
		proto.Extended, proto.Extended}[r.IntN(6)]
	if s.Framing == proto.Simple || r.IntN(4) == 0 {
		return s
	}
	many := r.IntN(2) == 0
	for i := range e.Contexts {
		if (many || r.IntN(3) == 0) && (s.Framing == proto.Extended || !e.Contexts[i].Wide) {
			s.Contexts |= 1 << i
		}
	}
	return s
}

// draft is a request that is not sent yet, with its payload; the data of a WRITE is made later.
type draft struct {
	proto.Request
	payload []byte
}

// dress adds flags of the session to a request, and the payload to a BLOCK_STATUS.
func (h *habit) dress(r *rand.Rand, e *ExportPlan, a *draft) {
	framing := h.session.Framing
	wrong := chance(r, h.wild)
	if a.Command == proto.CmdRead && r.IntN(4) == 0 && (framing != proto.Simple || wrong) {
		a.Flags |= proto.CmdFlagDF
	}
	if a.Command == proto.CmdBlockStatus && r.IntN(3) == 0 {
		a.Flags |= proto.CmdFlagReqOne
	}
	if a.Extended = framing == proto.Extended; !a.Extended {
		a.Length = min(a.Length, 1<<32-1)
		return
	}
	switch {
	case a.Command == proto.CmdWrite:
		if r.IntN(3) != 0 { // the others are sent without the flag, as QEMU does
			a.Flags |= proto.CmdFlagPayloadLen
		}
	case a.Command == proto.CmdBlockStatus && r.IntN(3) == 0:
		a.Flags |= proto.CmdFlagPayloadLen
		a.payload = h.filter(r, e, a.Length, wrong)
		a.Length = uint64(len(a.payload))
	}
	if wrong && r.IntN(8) == 0 && (a.Length <= 1<<20 || r.IntN(8) == 0) && a.payload == nil &&
		a.Command != proto.CmdWrite {
		a.Flags ^= proto.CmdFlagPayloadLen
		a.Cookie = r.Uint64() // requests that share a cookie must be valid
	}
	if wrong && r.IntN(6) == 0 && a.Flags&proto.CmdFlagPayloadLen == 0 &&
		a.Command != proto.CmdWrite {
		a.Length = []uint64{1 << 32, 1<<32 + 512, 1 << 63, ^uint64(0), e.Size + 1<<32,
			-a.Offset}[r.IntN(6)]
		a.Cookie = r.Uint64()
	}
}

// filter makes the payload of a BLOCK_STATUS: the length, and some of the selected contexts.
func (h *habit) filter(r *rand.Rand, e *ExportPlan, length uint64, wrong bool) []byte {
	b := binary.BigEndian.AppendUint64(nil, length)
	for i := range uint32(proto.MaxContexts) {
		if h.session.Contexts&(1<<i) != 0 && r.IntN(3) != 0 {
			b = binary.BigEndian.AppendUint32(b, i+1)
		}
	}
	if !wrong {
		return b
	}
	switch r.IntN(8) {
	case 0:
		return b[:8]
	case 1:
		return b[:r.IntN(len(b))]
	case 2:
		b = binary.BigEndian.AppendUint32(b,
			[]uint32{0, 1, 2, 33, 1 << 31, ^uint32(0), uint32(len(e.Contexts)) + 1}[r.IntN(7)])
	case 3:
		b = append(b, b[8:]...)
	case 4:
		b = append(b, make([]byte, r.IntN(300))...)
	case 5:
		binary.BigEndian.PutUint64(b,
			[]uint64{0, e.Size + 1, 1 << 63, ^uint64(0), length + 1}[r.IntN(5)])
	}
	return b
}

// putHeader appends a request's header in the form of its session.
func putHeader(b []byte, q *proto.Request) []byte {
	magic := uint32(magicRequest)
	if q.Extended {
		magic = magicRequestExt
	}
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, q.Flags)
	b = binary.BigEndian.AppendUint16(b, q.Command)
	b = binary.BigEndian.AppendUint64(b, q.Cookie)
	b = binary.BigEndian.AppendUint64(b, q.Offset)
	if q.Extended {
		return binary.BigEndian.AppendUint64(b, q.Length)
	}
	return binary.BigEndian.AppendUint32(b, uint32(q.Length))
}
