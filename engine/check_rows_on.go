//go:build invariants

// What is checked after a turn of the rows of plans (check_on.go).
//
// Invariant: as of check_on.go.

package engine

// checkRows checks every row of a loop, and counts those that are in the backlog.
func (l *loop) checkRows() (inBacklog int) {
	if l.rows == nil {
		return 0
	}
	k := &l.check
	l.checkTagList(&l.runnable, placeRunnable, stepRow, none)
	l.agree(!l.mayStep() || l.runnable == empty && len(l.stirred) == 0, l.runnable.head,
		"plans are to be asked, and were not")
	for dev := range l.devices {
		l.checkTagList(&l.devices[dev].due, placeDue, stepRow, none)
	}
	free := uint32(0)
	used := tagsPerLoop + l.rowsUsed // those never lent are the last, in their order
	for t := l.freeRow; t != none && t < used; t = l.tags[t].next {
		l.agree(k.tags[t] == placeUnknown && l.origins[rowOf(t)].state == rowFree, t,
			"a free row is in use, or free twice")
		k.tags[t] = placeFree
		free++
	}
	l.agree(free+uint32(len(l.rows))-l.rowsUsed == l.rowsFree, none,
		"other rows are free than are counted")
	if k.children == nil {
		k.children = make([]int, len(l.tags))
	}
	children, kept := k.children[:used], uint32(0)
	clear(children)
	for id := range l.origins[:l.rowsUsed] {
		if o := &l.origins[id]; o.state != rowFree && o.parent != none && o.errand == forWave {
			children[o.parent]++
		}
	}
	for id := range l.origins[:l.rowsUsed] {
		t := uint32(id) + tagsPerLoop
		if k.tags[t] != placeFree {
			inBacklog += l.checkRow(t, children[t])
			if l.origins[id].errand.stays() {
				kept++
			}
		}
	}
	l.agree(kept == l.kept, none, "other rows are always there than are counted")
	l.checkBranches(children)
	return inBacklog
}

// checkRow checks one row that is in use. It is 1 if the row is in the backlog.
func (l *loop) checkRow(t uint32, children int) (inBacklog int) {
	k, row, o := &l.check, &l.tags[t], &l.origins[rowOf(t)]
	l.agree(row.conn == none && row.memory == none && row.scratch == none && !row.claimed, t,
		"a row has what only requests have")
	l.agree(row.portion == portionRow, t, "a row is taken for a request")
	if !o.errand.stays() {
		k.devices[row.dev].held++
		l.agree(o.parent != none, t, "a row is for nothing")
	}
	at := k.tags[t]
	switch o.state {
	case rowRunnable:
		l.agree(at == placeRunnable, t, "a row is to be asked about, and will not be")
	case rowOut:
		l.agree(int(row.left) == children+int(row.parts-row.part) && row.left > 0, t,
			"a row's wave has other segments than are out")
		l.agree((at == placeDue) == (row.part < row.parts), t,
			"a row has more to issue, and does not wait for that")
	case rowWaits:
		l.agree(at == placeUnknown && o.errand != forItself || o.began, t,
			"a row waits that its plan has not heard of")
	case rowAsleep:
		l.agree(at == placeUnknown && o.errand.stays(), t, "a row sleeps that may not")
	case rowBelow:
		l.checkStep(t)
		if row.step == stepStore || row.part < row.parts {
			return 1
		}
	default:
		l.agree(false, t, "a row is neither free nor in use")
	}
	return 0
}

// checkBranches checks what loops keep about devices of trees.
func (l *loop) checkBranches(children []int) {
	rowless, branches, lacking := uint32(0), uint32(0), 0
	for dev := range l.devices {
		q, d := &l.devices[dev], &l.check.devices[dev]
		l.agree(int(q.held) == d.held, uint32(dev), "a device counts other rows than it has")
		if q.trees > 0 {
			branches++
		}
		if q.trees > 0 && q.held == 0 {
			rowless++
		}
		if q.lacks {
			lacking++
		}
		l.agree(q.due.head == none || q.lacks, uint32(dev), "rows wait and will not be tried again")
		for _, piece := range q.ownMemory {
			if piece != none {
				l.check.pieces++
			}
		}
	}
	l.agree(rowless == l.rowless && rowless <= l.rowsFree, none,
		"devices without a row are not sure of one")
	l.agree(branches == l.branches, none, "other devices are part of trees than are counted")
	l.agree(lacking == len(l.shorts), none, "a device lacks rows and is not in the list")
	for t := range l.check.used {
		if row := &l.tags[t]; children[t] > 0 {
			l.agree(int(row.left) >= children[t], t, "a request has more rows than segments")
		}
	}
}
