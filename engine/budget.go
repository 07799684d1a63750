// The budget of a turn: how much a loop does before it looks again who has come. What a request
// costs is not what it sends: a READ of 4 MiB of zeroes is answered by 44 bytes, and yet 4 MiB are
// filled by the kernel, inside the submission, and 4 MiB are looked at. So bytes that are read,
// written, copied or looked at are counted, whoever does it on the loop's thread, and what is
// beyond the budget waits for the next turn.
//
// Invariant: a turn does maxWork and a little: the first short request of each connection is
// always taken in and answered, and of what waits in backlog at least one part is done. What waits
// keeps the turn after from sleeping. Nothing waits twice while others wait once: of what waits for
// a turn the first is served in any case, connections that had nothing of the last one before those
// that had something, and the backlog in order; of the starved one at least is fed.

package engine

import "ringnbd/proto"

const (
	// maxWork is the budget in bytes. Measured, two cores, 4 KiB reads beside reads of a hole in 4
	// MiB requests: a MiB takes about 0.1 ms.
	maxWork = 1 << 20
	// smallWork is what is done although the budget is spent, in bytes: once for each connection.
	smallWork = 64 << 10
	// requestWork is what taking in and answering a request costs beside its data: as much as so
	// many bytes.
	requestWork = 1 << 10
	// maxStore is what one turn copies of a long WRITE to memory, in bytes. It counts storeWeight
	// times, for memory that is touched for the first time is cleared before.
	maxStore    = 256 << 10
	storeWeight = 2
)

// budget is what this turn has done, and what the last ones left to it.
type budget struct {
	work    uint64  // of this turn, in bytes
	later   [2]list // connections to settle in the next turn, see laterOf
	owed    uint32  // the connection whose turn this is, having had none in the last
	backlog backlog // requests to go on with
	unfed   bool    // connections that wait for memory are still to be fed
}

func newBudget(tags int) budget {
	return budget{later: [2]list{empty, empty}, owed: none,
		backlog: backlog{rows: make([]uint32, tags)}}
}

// spent: what is not short has to wait.
func (l *loop) spent() bool { return l.work >= maxWork }

// postpone has a connection settled again in the next turn: first, or, when it had something of
// this one, behind those that had not.
func (l *loop) postpone(i uint32, served bool) {
	if c := &l.conns[i]; !c.links[linkLater].in {
		c.served = served
		l.enlist(l.laterOf(c), linkLater, i)
	}
}

// laterOf is the list that a postponed connection is in.
func (l *loop) laterOf(c *conn) *list {
	if c.served {
		return &l.later[1]
	}
	return &l.later[0]
}

// tooMuch says whether a request has to wait for the next turn: the budget is spent, and it is not
// short, or not the first of its connection in this turn. One that is fed has waited already.
func (l *loop) tooMuch(i uint32, r *proto.Request, taken int) bool {
	long := r.Length > smallWork && (r.Command == proto.CmdRead || r.Command == proto.CmdWrite)
	return l.spent() && (taken > 0 || long && l.queue.trying != i && l.owed != i)
}

// leftOver: a turn has left something to do: the next does not sleep.
func (l *loop) leftOver() bool {
	return l.later[0].head != none || l.later[1].head != none || l.backlog.n > 0 || l.unfed
}

// beginTurn gives the loop a new budget, and those that the last one left out their turn. The first
// of them is owed it, though what has come since may have spent the budget: payloads that are
// complete, say.
func (l *loop) beginTurn() {
	l.work, l.unfed, l.owed = 0, false, l.later[0].head
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

// catchUp does something of what waits in the backlog, as much as the budget allows but one part at
// least. It comes last in a turn, so that what others have sent and asked goes to the kernel
// before.
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

// forsake drops what is left to begin of a request whose client has gone.
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
