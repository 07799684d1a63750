// BLOCK_STATUS: what the meta contexts of an export say about a range. No answer to that comes
// through the ring (there is no SEEK_HOLE in io_uring), and some take milliseconds; so the request
// is handed out of the loop (offload.go), with memory for its answer, and comes back like a
// completion.
//
// Invariant: from beginStatus until takeTold finds it, a request's row and lease belong to who
// looks it up; the loop only says in gone that nobody may be waiting any more. An answer is what
// was true at some time between the request and the reply: it is looked up after the request came,
// so that no write answered before is missed.

package engine

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// Context is the source of one meta context of an export.
type Context interface {
	// Status calls emit with one extent after the other (length in bytes, status as the context
	// defines it), from off on without gaps, until it has covered length bytes, possibly more, or
	// emit returns false. On an error what has been emitted stands. It is called outside of the
	// loops, several times at once.
	Status(off, length uint64, emit func(length, status uint64) bool) error
}

const (
	// statusMost is what the answer to one context may take, in bytes, and with it how many
	// extents: some 8,000 in the compact form. The spec allows 2^20, but what may be answered must
	// be held. A client asks again for the rest.
	statusMost = 64 << 10
	statusUnit = 512 // bytes: no extent is expected to be shorter
	// statusUsed is where each answer begins: how long it is. Eight bytes keep what follows
	// aligned.
	statusUsed = 8
)

// statusMemory is how many bytes the answer to a BLOCK_STATUS may take.
func statusMemory(r *proto.Request, s proto.Session) uint64 {
	contexts := uint64(s.Contexts.Len())
	extents := r.Length/statusUnit + 2
	if r.Filtered() {
		extents = statusMost // not known yet
	} else if r.Flags&proto.CmdFlagReqOne != 0 {
		extents = 1
	}
	each := min(statusUsed+uint64(s.Framing.StatusHeadSize())+
		extents*uint64(s.Framing.ExtentSize()), statusMost, pieceSize/max(contexts, 1)&^7)
	return (each + 7) &^ 7 * contexts
}

// beginStatus gives a request to those who look its answer up.
func (l *loop) beginStatus(t uint32) {
	row := &l.tags[t]
	c := &l.conns[row.conn]
	row.contexts = c.session.Contexts
	if row.Filtered() && !l.readFilter(row) {
		l.answer(t)
		return
	}
	row.become(stepStatus)
	if l.push(&l.asked, t) {
		l.offload()
	}
}

// push puts a request onto asked or told, and says whether it is the first there.
func (l *loop) push(stack *atomic.Uint32, t uint32) (first bool) {
	for {
		head := stack.Load()
		l.tags[t].next = head - 1 // 0, the empty stack, becomes none
		if stack.CompareAndSwap(head, t+1) {
			return head == 0
		}
	}
}

// readFilter takes the payload, which says what the request is about, for the request that it would
// have been without one.
func (l *loop) readFilter(row *tag) bool {
	payload := l.pool.Bytes(l.leases.offset(row.memory), int(row.Length))
	length, contexts, errno := proto.ParseFilter(payload, row.contexts)
	row.filter = errno != proto.Success || contexts == 0
	row.Length, row.contexts = length, contexts
	row.Flags &^= proto.CmdFlagPayloadLen
	if errno, _ = proto.CheckRange(&row.Request,
		&l.table.exports[l.conns[row.conn].export].Facts); row.filter {
		errno = proto.EINVAL
	}
	row.errno = errno
	return errno == proto.Success
}

// takeAsked takes all requests that wait to be looked up, the one that has waited longest first,
// linked through next.
func (l *loop) takeAsked() uint32 {
	first := uint32(none)
	for t := l.asked.Swap(0) - 1; t != none; {
		next := l.tags[t].next
		l.tags[t].next = first
		first, t = t, next
	}
	return first
}

// lookUpOne writes the answers to one request, a part of its lease for each context, and gives it
// back to the loop. Not on the loop's thread.
func (l *loop) lookUpOne(t uint32) {
	row := &l.tags[t]
	c := &l.conns[row.conn]
	memory, each := l.answers(row)
	export := &l.table.exports[c.export]
	most := each // and no chunk has more than the export's maximum payload
	if export.MaxPayload != 0 {
		most = min(each, statusUsed+uint64(export.MaxPayload))
	}
	for i, source := range export.Contexts {
		if row.contexts&(1<<i) == 0 {
			continue
		}
		x := extents{framing: c.session.Framing, out: memory[statusUsed:most], left: row.Length,
			one: row.Flags&proto.CmdFlagReqOne != 0, gone: &l.gone[row.conn]}
		x.n = x.framing.StatusHeadSize()
		var err error
		if !l.gone[row.conn].Load() {
			l.deviceOf(row).busy.Add(1) // what asks a file for its holes may hold its lock for long
			err = source.Status(row.Offset, row.Length, x.add)
			l.deviceOf(row).busy.Add(-1)
		}
		// What was not looked up, because it cannot be or because its client has left (and may
		// still listen), is "allocated, and not known to be zero", which is always true enough.
		var errno unix.Errno
		if errors.As(err, &errno) {
			row.system = int32(errno)
		}
		if err != nil || x.count == 0 && x.length == 0 {
			x.add(x.left, 0)
		}
		x.end()
		x.framing.PutStatusHead(x.out, proto.ContextID(i), x.count)
		binary.NativeEndian.PutUint64(memory, uint64(x.n))
		memory = memory[each:]
	}
	if l.push(&l.told, t) {
		l.wake()
	}
}

// answers is the memory for the answers to a request, and how much of it each context has.
func (l *loop) answers(row *tag) (memory []byte, each uint64) {
	contexts := uint64(l.conns[row.conn].session.Contexts.Len())
	n := uint64(row.cost)
	return l.pool.Bytes(l.leases.offset(row.memory), int(n)), n / contexts &^ 7
}

// takeTold answers the requests that have been looked up.
func (l *loop) takeTold() {
	if l.told.Load() == 0 {
		return
	}
	for t := l.told.Swap(0) - 1; t != none; {
		next := l.tags[t].next
		if row := &l.tags[t]; row.system != 0 {
			l.incident(LookupFailed, row, row.system)
		}
		l.answer(t)
		t = next
	}
}

// extents gathers what a Context emits into the payload of a chunk: neighbours of the same status
// as one, and not more than there is room for.
type extents struct {
	framing proto.Framing
	out     []byte
	n       int    // bytes of out in use
	count   uint32 // extents in out
	left    uint64 // bytes of the range not covered yet
	length  uint64 // the extent that grows as long as the status stays
	status  uint64
	one     bool // REQ_ONE
	full    bool
	gone    *atomic.Bool
}

// add takes one extent, and says whether another is wanted.
func (x *extents) add(length, status uint64) bool {
	length = min(length, x.left)
	if length == 0 {
		return x.left > 0 && !x.gone.Load()
	}
	if x.length > 0 && status != x.status {
		x.put()
		if x.full = x.full || x.one || x.n+x.framing.ExtentSize() > len(x.out); x.full {
			x.length, x.left = 0, 0
			return false
		}
		x.length = 0
	}
	x.length, x.status = x.length+length, status
	x.left -= length
	return x.left > 0 && !x.gone.Load()
}

func (x *extents) put() {
	x.framing.PutExtent(x.out[x.n:], x.length, x.status)
	x.n += x.framing.ExtentSize()
	x.count++
}

// end puts the last one.
func (x *extents) end() {
	if x.length > 0 {
		x.put()
	}
}
