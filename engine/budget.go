// The budget of a turn: how much a loop does before it looks for new completions. What a request
// costs is not what its reply sends: a READ of 4 MiB of zeroes is answered by 44 bytes, and yet the
// kernel fills 4 MiB, inside the submission, and the loop compares 4 MiB. So all bytes that are
// read, written, copied or compared on the loop's thread are counted, and what is beyond the budget
// waits for the next turn.
//
// Invariant: a turn does maxWork and a little more: the first short request of each connection is
// always taken in and answered, and at least one part of the backlog is done. Waiting work keeps
// the next turn from sleeping. No connection waits twice while others wait once: the first one that
// waits for a turn is served in any case; connections that had nothing of the last turn come before
// those that had something; the backlog is served in order; and of the connections that wait for
// memory at least one is fed.

package engine

import "ringnbd/proto"

const (
	// maxWork is the budget in bytes. Measured on two cores, 4 KiB reads beside reads of a hole in
	// 4 MiB requests: a MiB takes about 0.1 ms.
	maxWork = 1 << 20
	// smallWork is the size in bytes of a request that is served although the budget is spent: one
	// for each connection.
	smallWork = 64 << 10
	// requestWork is what taking in and answering a request costs beside its data, in bytes of
	// work.
	requestWork = 1 << 10
	// maxStore is how much of a long WRITE to memory one turn copies, in bytes. It counts
	// storeWeight times: memory that is touched for the first time is cleared before.
	maxStore    = 256 << 10
	storeWeight = 2
)

// budget is what this turn has done, and what earlier turns left to it.
type budget struct {
	work  uint64  // of this turn, in bytes
	later [2]list // connections to settle in the next turn, see laterOf
	// the connection that was passed over in the last turn, and is served in this one
	owed    uint32
	backlog backlog // requests to go on with
}

func newBudget(tags int) budget {
	return budget{later: [2]list{empty, empty}, owed: none,
		backlog: backlog{rows: make([]uint32, tags)}}
}

// spent reports whether the budget is used up: then only short requests are served.
func (l *loop) spent() bool { return l.work >= maxWork }

// postpone has a connection settled again in the next turn: first, or, when it was served in this
// turn, after those that were not.
func (l *loop) postpone(i uint32, served bool) {
	if c := &l.conns[i]; !c.links[linkLater].in {
		c.served = served
		l.enlist(l.laterOf(c), linkLater, i)
	}
}

// laterOf returns the list that a postponed connection is in.
func (l *loop) laterOf(c *conn) *list {
	if c.served {
		return &l.later[1]
	}
	return &l.later[0]
}

// tooMuch reports whether a request has to wait for the next turn: the budget is spent, and the
// request is not short, or not the first of its connection in this turn. A connection that is fed,
// or was passed over in the last turn, has waited already.
func (l *loop) tooMuch(i uint32, r *proto.Request, taken int) bool {
	long := r.Length > smallWork && (r.Command == proto.CmdRead || r.Command == proto.CmdWrite)
	return l.spent() && (taken > 0 || long && l.queue.trying != i && l.owed != i)
}

// leftOver reports whether a turn has left something to do: then the next does not sleep.
func (l *loop) leftOver() bool {
	return l.later[0].head != none || l.later[1].head != none || l.backlog.n > 0 ||
		l.queue.offering() || l.planned()
}

// beginTurn gives the loop a new budget, and marks the connections that the last turn left out. The
// first of them is owed this turn, though what was received since may have spent the budget:
// payloads that are complete, say.
func (l *loop) beginTurn() {
	l.work, l.owed = 0, l.later[0].head
	l.steps, l.copied = 0, 0
	if l.planned() {
		l.counters.RowsLeft++
	}
	if l.owed == none {
		l.owed = l.later[1].head
	}
	for q := range l.later {
		for i := l.later[q].head; i != none; i = l.later[q].head {
			l.delist(&l.later[q], linkLater, i)
			l.touch(i)
		}
	}
}

// catchUp works on the backlog, as much as the budget allows but one part at least. It comes last
// in a turn, so that new requests go to the kernel before.
func (l *loop) catchUp() {
	for first := true; l.backlog.n > 0 && (first || !l.spent()); first = false {
		t := l.backlog.pop()
		switch row := &l.tags[t]; {
		case l.deserted(t):
			l.forsake(t)
		case row.step == stepStore:
			l.storePart(t)
		default:
			l.issuePart(t)
			l.issueParts(t)
		}
	}
}

// forsake drops the segments that are still to be issued of a request whose client has gone.
func (l *loop) forsake(t uint32) {
	row := &l.tags[t]
	n := uint16(row.parts - row.part)
	row.part = row.parts
	l.segmentsOver(t, n, proto.EIO)
}

// backlog is a queue of tags, each in it once at most.
type backlog struct {
	rows    []uint32
	head, n int
}

func (q *backlog) push(t uint32) {
	must(q.n < len(q.rows), "a request waits twice")
	q.rows[(q.head+q.n)%len(q.rows)] = t
	q.n++
}

func (q *backlog) pop() uint32 {
	t := q.rows[q.head]
	q.head = (q.head + 1) % len(q.rows)
	q.n--
	return t
}
