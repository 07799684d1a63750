// BLOCK_STATUS: what the metadata contexts of an export say about a range. io_uring has no
// operation for that (no SEEK_HOLE), and some answers take milliseconds. So the request is handed
// to workers outside of the loop (lookup_workers.go), with memory for its answer, and comes back
// like a completion.
//
// Invariant: from beginStatus until takeAnswered finds it, a request's row and lease belong to the
// worker that looks it up; the loop only says in gone that the answer may have no reader. An answer
// is what was true at some time between the request and the reply: it is looked up after the
// request was received, so that no write answered before it is missed.

package engine

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// Context is the source of one metadata context of an export.
type Context interface {
	// Status calls emit with one extent after the other (length in bytes, status as the context
	// defines it), from off on without gaps, until it has covered length bytes, possibly more, or
	// emit returns false. On an error what has been emitted stands. It is called outside of the
	// loops, several times at once. off is on the device: where the export's base is not 0, the
	// client asked for less.
	Status(off, length uint64, emit func(length, status uint64) bool) error
}

const (
	// maxStatus is what the answer to one context may take, in bytes, and with it how many extents:
	// some 8,000 in the compact form. The spec allows 2^20, but what may be answered must be held.
	// A client asks again for the rest.
	maxStatus = 64 << 10
	minExtent = 512 // bytes: no extent is expected to be shorter
	// answerHead is the space before each answer, for its length. Eight bytes keep the answer
	// aligned.
	answerHead = 8
)

// lookups is what a loop and its lookup workers share.
type lookups struct {
	// asked and answered are stacks of BLOCK_STATUS requests, linked through tag.next; each holds
	// tag+1, or 0 when it is empty: requests to be looked up, and requests that have been.
	asked    atomic.Uint32
	answered atomic.Uint32
	gone     []atomic.Bool // by connection: its answers may have no reader
	ask      func()        // tells the workers that asked is no longer empty, or about gone
}

// statusMemory is how many bytes the answer to a BLOCK_STATUS may take.
func statusMemory(r *proto.Request, s proto.Session) uint64 {
	contexts := uint64(s.Contexts.Len())
	extents := r.Length/minExtent + 2
	if r.Filtered() {
		extents = maxStatus // not known yet
	} else if r.Flags&proto.CmdFlagReqOne != 0 {
		extents = 1
	}
	each := min(answerHead+uint64(s.Framing.StatusHeadSize())+
		extents*uint64(s.Framing.ExtentSize()), maxStatus, pieceSize/max(contexts, 1)&^7)
	return (each + 7) &^ 7 * contexts
}

// beginStatus gives a request to the lookup workers.
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
		l.ask()
	}
}

// push puts a request onto asked or answered, and reports whether it is the first there.
func (l *loop) push(stack *atomic.Uint32, t uint32) (first bool) {
	for {
		head := stack.Load()
		l.tags[t].next = head - 1 // 0, the empty stack, becomes none
		if stack.CompareAndSwap(head, t+1) {
			return head == 0
		}
	}
}

// readFilter turns a request whose payload says what it is about into the request that it would
// have been without a payload. False means that the payload is wrong, and errno is set.
func (l *loop) readFilter(row *tag) bool {
	payload := l.pool.Bytes(l.leases.offset(row.memory), int(row.Length))
	length, contexts, errno := proto.ParseFilter(payload, row.contexts)
	row.filter = errno != proto.Success || contexts == 0
	row.Length, row.contexts = length, contexts
	row.Flags &^= proto.CmdFlagPayloadLen
	if errno, _ = proto.CheckRange(&row.Request,
		&l.exports[l.conns[row.conn].export].Facts); row.filter {
		errno = proto.EINVAL
	}
	row.errno = errno
	return errno == proto.Success
}

// takeAsked takes all requests that wait to be looked up, the oldest first, linked through next.
func (l *loop) takeAsked() uint32 {
	first := uint32(none)
	for t := l.asked.Swap(0) - 1; t != none; {
		next := l.tags[t].next
		l.tags[t].next = first
		first, t = t, next
	}
	return first
}

// lookUp writes the answers to one request, a part of its lease for each context, and gives it back
// to the loop. A worker calls it, not the loop's thread.
func (l *loop) lookUp(t uint32) {
	row := &l.tags[t]
	c := &l.conns[row.conn]
	memory, each := l.answers(row)
	export := l.table.Load().exports[c.export]
	end := each // no chunk is longer than the export's maximum payload
	if export.MaxPayload != 0 {
		end = min(each, answerHead+uint64(export.MaxPayload))
	}
	for i, source := range export.Contexts {
		if row.contexts&(1<<i) == 0 {
			continue
		}
		x := extents{framing: c.session.Framing, out: memory[answerHead:end], left: row.Length,
			one: row.Flags&proto.CmdFlagReqOne != 0, gone: &l.gone[row.conn]}
		x.n = x.framing.StatusHeadSize()
		var err error
		if !l.gone[row.conn].Load() {
			export.Device.busy.Add(1) // what asks a file for its holes may hold its lock for long
			err = source.Status(row.at, row.Length, x.add)
			export.Device.busy.Add(-1)
		}
		// What was not looked up, because that failed or because the client has left (and may
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
	if l.push(&l.answered, t) {
		l.wake()
	}
}

// answers finds the memory for the answers to a request; each context has each bytes of it.
func (l *loop) answers(row *tag) (memory []byte, each uint64) {
	contexts := uint64(l.conns[row.conn].session.Contexts.Len())
	n := uint64(row.cost)
	return l.pool.Bytes(l.leases.offset(row.memory), int(n)), n / contexts &^ 7
}

// takeAnswered replies to the requests that have been looked up.
func (l *loop) takeAnswered() {
	if l.answered.Load() == 0 {
		return
	}
	for t := l.answered.Swap(0) - 1; t != none; {
		next := l.tags[t].next
		if row := &l.tags[t]; row.system != 0 {
			l.incident(LookupFailed, row, row.system)
		}
		l.answer(t)
		t = next
	}
}

// extents gathers what a Context emits into the payload of a chunk. It joins neighbours of the same
// status, and ends when there is no more room.
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

// add takes one extent, and reports whether another is wanted.
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

// put writes the extent that has grown.
func (x *extents) put() {
	x.framing.PutExtent(x.out[x.n:], x.length, x.status)
	x.n += x.framing.ExtentSize()
	x.count++
}

// end writes the last extent.
func (x *extents) end() {
	if x.length > 0 {
		x.put()
	}
}
