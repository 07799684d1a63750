// Lists of rows, linked by index: connections through conn.links, tags through tag.next.
//
// Invariant: a row is in a list at most once. For a connection its link says whether it is; for a
// tag, its step.

package engine

type list struct{ head, tail uint32 }

var empty = list{none, none}

// The lists that a connection can be in at the same time. Each has its own pair of links.
const (
	linkDirty = iota
	linkLater
	linkStage
	connLinks
)

type connLink struct {
	next, prev uint32
	in         bool
}

// enlist appends a connection to one of the loop's lists, unless it is there.
func (l *loop) enlist(q *list, kind int, c uint32) {
	row := &l.conns[c].links[kind]
	if row.in {
		return
	}
	*row = connLink{next: none, prev: q.tail, in: true}
	if q.tail == none {
		q.head = c
	} else {
		l.conns[q.tail].links[kind].next = c
	}
	q.tail = c
}

// delist takes a connection out of a list, if it is there.
func (l *loop) delist(q *list, kind int, c uint32) {
	row := &l.conns[c].links[kind]
	if !row.in {
		return
	}
	if row.prev == none {
		q.head = row.next
	} else {
		l.conns[row.prev].links[kind].next = row.next
	}
	if row.next == none {
		q.tail = row.prev
	} else {
		l.conns[row.next].links[kind].prev = row.prev
	}
	*row = connLink{next: none, prev: none}
}

// touch marks a connection for settling at the end of this turn.
func (l *loop) touch(c uint32) { l.enlist(&l.dirty, linkDirty, c) }

// appendTag, prependTag and popTag keep first-in first-out lists of tags.
func (l *loop) appendTag(q *list, t uint32) {
	l.tags[t].next = none
	if q.tail == none {
		q.head = t
	} else {
		l.tags[q.tail].next = t
	}
	q.tail = t
}

func (l *loop) prependTag(q *list, t uint32) {
	l.tags[t].next = q.head
	q.head = t
	if q.tail == none {
		q.tail = t
	}
}

func (l *loop) popTag(q *list) uint32 {
	t := q.head
	if t == none {
		return none
	}
	q.head = l.tags[t].next
	if q.head == none {
		q.tail = none
	}
	return t
}
