// A request as its client sees it, from the moment it is composed to the reply, and the moments in between that the checker needs: when its last byte was sent,
// which is when the engine can first know it, and when its reply was seen.
//
// Invariant: ticks are unique and grow, so that before can say of any two requests which came first, or that nobody can know.

package sim

import (
	"fmt"

	"ringnbd/proto"
)

const flagReadOnly = proto.FlagReadOnly

type request struct {
	proto.Request
	id       uint32 // of its content; 0 is what the disk was made with
	conn     uint32 // serial number of the connection; 0 for what the disk was made with
	order    uint32 // position on the connection
	zero     bool   // writes zeroes instead of its content
	blank    bool   // only sits in the line of bytes: garbage or DISC, never answered
	end      uint64 // position in the stream after its last byte
	begun    uint64 // tick: its first byte was handed to the wire
	begunAt  uint64 // virtual time of that
	sent     uint64 // tick: its last byte was; 0: not yet
	sentAt   uint64 // virtual time of that
	answered uint64 // tick: its reply was seen; 0: not yet
	errno    proto.Errno
	want     []proto.Errno // answers that the protocol allows, before faults are considered; success first where it is one
	fatal    bool          // the server closes instead of answering
	durable  bool
	punches  bool // may leave holes behind
}

func (r *request) hi() uint64 { return r.Offset + r.Length }

// changes: a request that, if it is valid, changes the disk.
func (r *request) changes() bool {
	return r.Command == proto.CmdWrite || r.Command == proto.CmdWriteZeroes || r.Command == proto.CmdTrim
}

func (r *request) valid() bool { return !r.fatal && !r.blank && r.want[0] == proto.Success }

func (r *request) overlaps(o *request) bool {
	return r.Length > 0 && o.Length > 0 && r.Offset < o.hi() && o.Offset < r.hi()
}

func (r *request) String() string {
	name := map[uint16]string{0: "READ", 1: "WRITE", 2: "DISC", 3: "FLUSH", 4: "TRIM", 5: "CACHE", 6: "WRITE_ZEROES", 7: "BLOCK_STATUS"}[r.Command]
	if name == "" {
		name = fmt.Sprintf("command %d", r.Command)
	}
	return fmt.Sprintf("request %d (%s flags %#x [%d, +%d) on connection %d number %d, sent at %d, answered at %d %v)", r.id, name, r.Flags, r.Offset,
		r.Length, r.conn, r.order, r.sent, r.answered, r.errno)
}

// before: v's effect on a byte that both write comes before w's, whatever else happens. On one connection the order of arrival decides, across connections only
// an answer seen before the other request was complete.
func before(v, w *request) bool {
	if v.conn == w.conn {
		return v.order < w.order
	}
	return v.answered != 0 && v.answered < w.sent || v.conn == 0
}

// rule fills in what the protocol says about a request ("Transmission phase" in the NBD specification; written independently of proto.Check).
func (r *request) rule(f *proto.Facts) {
	r.want = []proto.Errno{proto.Success}
	refuse := func(e ...proto.Errno) { r.want = e }
	has := func(flag uint16) bool { return f.Flags&flag != 0 }
	limit := uint64(f.MaxPayload)
	if limit == 0 {
		limit = 32 << 20
	}
	known, ranged := uint16(0), false
	switch r.Command {
	case proto.CmdRead, proto.CmdWrite, proto.CmdTrim:
		ranged = true
	case proto.CmdWriteZeroes:
		ranged = true
		known = proto.CmdFlagNoHole
		if has(proto.FlagSendFastZero) {
			known |= proto.CmdFlagFastZero
		}
	case proto.CmdBlockStatus:
		known = proto.CmdFlagReqOne
	}
	if has(proto.FlagSendFUA) {
		known |= proto.CmdFlagFUA
	}
	beyond := proto.EINVAL
	if r.Command == proto.CmdWrite || r.Command == proto.CmdWriteZeroes {
		beyond = proto.ENOSPC
	}
	block := uint64(max(f.MinBlock, 1))
	switch {
	case r.Flags&^known != 0:
		refuse(proto.EINVAL)
	case r.changes() && has(proto.FlagReadOnly):
		refuse(proto.EPERM)
	case r.Command == proto.CmdFlush && has(proto.FlagSendFlush):
		if r.Offset != 0 || r.Length != 0 {
			refuse(proto.EINVAL)
		}
	case !ranged, r.Command == proto.CmdTrim && !has(proto.FlagSendTrim), r.Command == proto.CmdWriteZeroes && !has(proto.FlagSendWriteZeroes):
		refuse(proto.EINVAL)
	case r.Offset > f.Size || r.Length > f.Size-r.Offset:
		refuse(beyond)
	case r.Offset%block != 0 || r.Length%block != 0:
		refuse(proto.EINVAL)
	case r.Command == proto.CmdRead && r.Length > limit:
		refuse(proto.EOVERFLOW, proto.EINVAL)
	case r.Command == proto.CmdWrite && r.Length > limit:
		refuse(proto.EINVAL)
	}
	r.fatal = r.Command == proto.CmdWrite && r.want[0] != proto.Success && r.Length > proto.DrainLimit
	r.zero = r.Command != proto.CmdWrite
	r.punches = r.Command == proto.CmdTrim || r.Command == proto.CmdWriteZeroes && r.Flags&proto.CmdFlagNoHole == 0
}
