// A request as its client sees it, from its composition to the reply, and the moments that the
// checker needs: when its last byte was sent, which is when the engine can first know it, and when
// its reply was seen.
//
// Invariant: ticks are unique and grow, so that for any two requests before can tell which came
// first, or that their order is open.

package sim

import (
	"encoding/binary"
	"fmt"

	"ringnbd/proto"
)

const (
	flagReadOnly = proto.FlagReadOnly
	// changing are the flags that a read-only export does not have
	changing = proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagSendFastZero
)

// request is a request, and what became of it.
type request struct {
	proto.Request
	opening       *opening // of its disk
	base          uint64   // of its export: the first byte of it on the disk
	id            uint32   // of its content; 0: the initial content of the disk
	conn          uint32   // serial number of the connection; 0: the initial content of the disk
	order         uint32   // position on the connection
	zero          bool     // writes zeroes instead of its content
	blank         bool     // garbage or DISC: bytes in the stream that are never answered
	end           uint64   // position in the stream after its last byte
	begun         uint64   // tick at which its first byte was sent
	begunAt       uint64   // virtual time of begun
	pausedAtStart uint64   // how long loops had been paused by then
	sent          uint64   // tick at which its last byte was sent; 0: not yet
	sentAt        uint64   // virtual time of sent
	answered      uint64   // tick at which its reply was seen; 0: not yet
	errno         proto.Errno
	// answers that the protocol allows if there are no faults; Success first, if it is allowed
	allowed  []proto.Errno
	fatal    bool // the server closes instead of answering
	durable  bool
	punches  bool             // may leave holes
	contexts proto.ContextSet // of BLOCK_STATUS: which must be answered
	about    uint64           // how many bytes it is about: Length, unless its payload says it
	reply    *reply           // from the chunks that were received; nil: none
	payload  []byte           // of BLOCK_STATUS
	changes  bool             // the model knows that it may change the disk
}

// lo and hi return the ends of its range on the disk.
func (r *request) lo() uint64 { return r.base + r.Offset }
func (r *request) hi() uint64 { return r.base + r.Offset + r.Length }

// isChange reports whether the request, if it is valid, changes the disk.
func (r *request) isChange() bool {
	return r.Command == proto.CmdWrite || r.Command == proto.CmdWriteZeroes ||
		r.Command == proto.CmdTrim
}

// valid reports whether the request must succeed if there are no faults.
func (r *request) valid() bool { return !r.fatal && !r.blank && r.allowed[0] == proto.Success }

// overlaps reports whether two requests share a byte.
func (r *request) overlaps(o *request) bool {
	return r.Length > 0 && o.Length > 0 && r.lo() < o.hi() && o.lo() < r.hi()
}

func (r *request) String() string {
	name := map[uint16]string{0: "READ", 1: "WRITE", 2: "DISC", 3: "FLUSH", 4: "TRIM", 5: "CACHE",
		6: "WRITE_ZEROES", 7: "BLOCK_STATUS"}[r.Command]
	if name == "" {
		name = fmt.Sprintf("command %d", r.Command)
	}
	return fmt.Sprintf("request %d (%s flags %#x [%d, +%d) on connection %d number %d, sent at "+
		"%d, answered at %d %v)", r.id, name, r.Flags, r.Offset,
		r.Length, r.conn, r.order, r.sent, r.answered, r.errno)
}

// before reports whether v's effect on a byte that both write certainly comes before w's. On one
// connection the order of arrival decides; across connections, v must have been answered before w
// was sent completely.
func before(v, w *request) bool {
	if v.conn == w.conn {
		return v.order < w.order
	}
	return v.answered != 0 && v.answered < w.sent || v.conn == 0
}

// setExpected sets what the protocol says about a request ("Transmission phase" in the NBD
// specification; written independently of proto.Check).
func (r *request) setExpected(f *proto.Facts, s proto.Session, payload []byte) {
	limit := uint64(f.MaxPayload)
	if limit == 0 {
		limit = 32 << 20
	}
	r.contexts, r.about = s.Contexts, r.Length
	r.allowed = []proto.Errno{proto.Success}
	if refused := r.checkFlags(f, s); refused != proto.Success {
		r.allowed = []proto.Errno{refused}
	} else if r.filtered() {
		r.parseFilter(payload, s.Contexts, limit)
	}
	if r.allowed[0] == proto.Success && r.Command != proto.CmdFlush {
		r.checkRange(f, limit)
	}
	refused := r.allowed[0] != proto.Success
	if r.Extended {
		payload := r.Flags&proto.CmdFlagPayloadLen != 0 || r.Command == proto.CmdWrite
		r.fatal = refused && payload && r.Length > limit
	} else {
		r.fatal = refused && r.Command == proto.CmdWrite && r.Length > proto.MaxDrain
	}
	r.zero = r.Command != proto.CmdWrite
	r.punches = r.Command == proto.CmdTrim ||
		r.Command == proto.CmdWriteZeroes && r.Flags&proto.CmdFlagNoHole == 0
}

// filtered reports whether the payload says what the request is about.
func (r *request) filtered() bool {
	return r.Command == proto.CmdBlockStatus && r.Extended && r.Flags&proto.CmdFlagPayloadLen != 0
}

// checkFlags returns what the protocol says about command and flags.
func (r *request) checkFlags(f *proto.Facts, s proto.Session) proto.Errno {
	has := func(flag uint16) bool { return f.Flags&flag != 0 }
	known, served := uint16(0), true
	switch r.Command {
	case proto.CmdRead:
		if s.Framing != proto.Simple {
			known = proto.CmdFlagDF
		}
	case proto.CmdWrite, proto.CmdFlush:
	case proto.CmdTrim:
		served = has(proto.FlagSendTrim)
	case proto.CmdCache:
		served = has(proto.FlagSendCache)
	case proto.CmdWriteZeroes:
		served = has(proto.FlagSendWriteZeroes)
		known = proto.CmdFlagNoHole
		if has(proto.FlagSendFastZero) {
			known |= proto.CmdFlagFastZero
		}
	case proto.CmdBlockStatus:
		known, served = proto.CmdFlagReqOne, s.Contexts != 0
	default:
		served = false
	}
	if has(proto.FlagSendFUA) {
		known |= proto.CmdFlagFUA
	}
	payload := r.Flags&proto.CmdFlagPayloadLen != 0
	if r.Extended {
		known |= proto.CmdFlagPayloadLen
	}
	switch {
	case r.Flags&^known != 0,
		r.Extended && r.Command != proto.CmdWrite && r.Command != proto.CmdBlockStatus && payload:
		return proto.EINVAL
	case r.isChange() && has(proto.FlagReadOnly):
		return proto.EPERM
	case !served,
		r.Command == proto.CmdFlush &&
			(!has(proto.FlagSendFlush) || r.Offset != 0 || r.Length != 0):
		return proto.EINVAL
	}
	return proto.Success
}

// parseFilter parses the payload of a BLOCK_STATUS: 8 bytes, then 4 for each context.
func (r *request) parseFilter(b []byte, selected proto.ContextSet, limit uint64) {
	r.allowed, r.contexts = []proto.Errno{proto.EINVAL}, 0
	if uint64(len(b)) > limit || len(b) <= 8 || len(b)%4 != 0 {
		return
	}
	for ids := b[8:]; len(ids) > 0; ids = ids[4:] {
		id := binary.BigEndian.Uint32(ids)
		if id < 1 || id > 32 || selected>>(id-1)&1 == 0 || r.contexts>>(id-1)&1 != 0 {
			return
		}
		r.contexts |= 1 << (id - 1)
	}
	r.allowed, r.about = []proto.Errno{proto.Success}, binary.BigEndian.Uint64(b)
}

// checkRange sets what the protocol says about offset and length.
func (r *request) checkRange(f *proto.Facts, limit uint64) {
	beyond := proto.EINVAL
	if r.Command == proto.CmdWrite || r.Command == proto.CmdWriteZeroes {
		beyond = proto.ENOSPC
	}
	block := uint64(max(f.MinBlock, 1))
	switch {
	case r.Offset > f.Size || r.about > f.Size-r.Offset:
		r.allowed = []proto.Errno{beyond}
	case r.Offset%block != 0 || r.about%block != 0:
		r.allowed = []proto.Errno{proto.EINVAL}
	case r.Command == proto.CmdRead && r.Length > limit:
		r.allowed = []proto.Errno{proto.EOVERFLOW, proto.EINVAL}
	case r.Command == proto.CmdWrite && r.Length > limit,
		r.Command == proto.CmdBlockStatus && r.about == 0:
		r.allowed = []proto.Errno{proto.EINVAL}
	}
}
