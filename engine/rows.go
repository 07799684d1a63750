// Rows: the tags of what plans are busy with. A loop that is home to a planned device has a table
// of them after the tags of requests, and beside it what the plan sees of each.
//
// Invariant: a row belongs to one device, from takeRow to giveRow. Every device of a tree that is
// at home in the loop has a row whenever it needs its first one: rowsFree is never less than
// rowless, the devices of trees that have none. More than one it may have as long as as many stay
// free, so that a device whose storage hangs leaves rows to all others. What finds no row waits in
// a line of its device: segments of requests in parked, those of rows in due, slices in slicing. A
// device with such a line is in shorts, and tried again when a row is given back. The flush of a
// planned device has a row that is always there, and so has each of a plan's own.
//
// That is why nothing waits for ever. A segment on a leaf ends when the disk speaks, and needs
// nothing else. A row of a plan needs rows of the devices below it only, one at a time at least,
// and those are never all taken by the plan's own kind.

package engine

import "ringnbd/engine/layer"

// rowsPerLoop is how many rows a loop has that is home to a planned device.
const rowsPerLoop = 16384

// rowState says what a row waits for.
type rowState uint8

const (
	rowFree     rowState = iota
	rowRunnable          // its plan is to be asked, in the list runnable
	rowOut               // its wave is out, or still to be issued
	rowWaits             // the plan will name it
	rowAsleep            // a plan's own row, with nothing to do; the plan may name it
	rowBelow             // a segment that is on a leaf, or in the flush line of any device
)

// errand says what the end of a row is for.
type errand uint8

const (
	forWave   errand = iota // a segment of a wave, of a row or of a request
	forSlice                // the slice of a TRIM or WRITE_ZEROES
	forFlush                // all that the flush of its device answers
	forItself               // a plan's own row
)

// origin is where a row comes from.
type origin struct {
	parent uint32 // the row or request; none: it has none
	part   uint8  // segment of the parent's wave
	errand errand
	state  rowState
	began  bool // the plan has heard of it
}

// stays reports whether a row is always there: it is not given back at its end.
func (e errand) stays() bool { return e == forFlush || e == forItself }

// rowTable is the rows of a loop.
type rowTable struct {
	rows     []layer.Row // by tag, from tagsPerLoop on; nil: no planned device is at home here
	waves    []layer.Wave
	origins  []origin
	freeRow  uint32   // stack of free rows, linked through tag.next
	rowsUsed uint32   // rows that were ever taken: the first ones
	rowsFree uint32   // rows in it
	rowless  uint32   // devices of trees that have no row
	branches uint32   // devices of trees
	kept     uint32   // rows that are always there: of flushes, and plans' own
	runnable list     // rows whose plan is to be asked
	stirred  []uint32 // devices whose plan may name rows that waited
	shorts   []uint32 // devices that something waits for a row of
	returned bool     // a row was given back since shorts was tried
	ownBytes uint64   // bytes of the small region that plans' own rows have
	steps    int      // calls of Step in this turn
	copied   uint64   // bytes that segments on memory have copied in this turn
}

// branch is what a loop keeps about a device that is part of a tree: planned, or below a plan.
type branch struct {
	below     []uint32 // places of the devices below it, in the order of Segment.Dev
	own       []uint32 // the plan's own rows
	ownMemory []lease
	flushRow  uint32 // for the flushes of a planned device; none: it is not at home here
	trees     uint32 // planned devices at home here that it is part of, itself included
	size      uint64 // bytes of the device when it came
	held      uint32 // rows that it has, but for those that are always there
	due       list   // rows whose next segment waits for a row of this device
	lacks     bool   // it is in shorts
	stirs     bool   // it is in stirred
}

// makeRows makes the rows of a loop, when the first planned device comes to it.
func (l *loop) makePlanRows() {
	n := len(l.tags) - tagsPerLoop
	l.rows, l.waves = make([]layer.Row, n), make([]layer.Wave, n)
	l.origins, l.runnable = make([]origin, n), empty
	l.freeRow, l.rowsFree = none, uint32(n)
	for t := len(l.tags) - 1; t >= tagsPerLoop; t-- {
		l.tags[t].next = l.freeRow
		l.freeRow = uint32(t)
	}
}

// rowOf is the place of a row's tag in the tables beside.
func rowOf(t uint32) uint32 { return t - tagsPerLoop }

// mayHave reports whether a device may have one more row.
func (l *loop) mayHave(dev uint32) bool {
	held := l.devices[dev].held
	return held == 0 || l.rowsFree > l.rowless+held
}

// takeRow gives a device a row, which mayHave allows. root is the client's request that it is for,
// or none.
func (l *loop) takeRow(dev uint32, o origin, root uint32) uint32 {
	q := &l.devices[dev]
	must(q.trees > 0, "a row was asked for a device that is part of no tree here")
	if q.held == 0 {
		l.rowless--
	}
	q.held++
	return l.newRow(dev, o, root)
}

// newRow takes a row from the stack.
func (l *loop) newRow(dev uint32, o origin, root uint32) uint32 {
	must(l.rowsFree > 0, "a row that was promised is not there")
	t := l.freeRow
	row := &l.tags[t]
	l.freeRow = row.next
	l.rowsFree--
	if o.errand.stays() {
		l.kept++
	}
	l.rowsUsed = max(l.rowsUsed, rowOf(t)+1)
	*row = tag{conn: none, dev: dev, memory: none, scratch: none, line: root,
		generation: row.generation + 1, next: none, step: stepRow, portion: portionRow}
	l.origins[rowOf(t)] = o
	return t
}

// giveRow takes a row back.
func (l *loop) giveRow(t uint32) {
	row := &l.tags[t]
	must(row.left == 0, "a row was given back while its work went on")
	if q := &l.devices[row.dev]; l.origins[rowOf(t)].errand.stays() {
		l.kept--
	} else if q.held--; q.held == 0 {
		l.rowless++
	}
	l.origins[rowOf(t)] = origin{}
	row.next = l.freeRow
	l.freeRow = t
	l.rowsFree++
	l.returned = true
}

// lack notes that something waits for a row of a device.
func (l *loop) lack(dev uint32) {
	if q := &l.devices[dev]; !q.lacks {
		q.lacks = true
		l.shorts = append(l.shorts, dev) // within its capacity: each device is there once
		l.counters.RowsShort++
	}
}

// rowsHome reports whether no row is out, and no plan is to be asked.
func (l *loop) rowsHome() bool {
	for i := range l.origins[:l.rowsUsed] {
		if s := l.origins[i].state; s == rowRunnable || s == rowOut || s == rowBelow {
			return false
		}
	}
	return !l.planned() && len(l.shorts) == 0
}

// offerRows tries again for the devices that had no row.
func (l *loop) offerRows() {
	l.returned = false
	waiting := len(l.shorts)
	for range waiting {
		dev := l.shorts[0]
		l.shorts = append(l.shorts[:0], l.shorts[1:]...) // a few devices
		if q := &l.devices[dev]; l.serveRows(dev) {
			q.lacks = false
		} else {
			l.shorts = append(l.shorts, dev)
		}
	}
}

// serveRows gives rows to what waits for those of a device, and reports whether nothing waits any
// more.
func (l *loop) serveRows(dev uint32) bool {
	q := &l.devices[dev]
	for q.due.head != none && l.mayHave(dev) {
		l.issueRow(l.popTag(&q.due), true)
	}
	if q.device.Kind != Planned {
		return q.due.head == none
	}
	for q.parked.head != none && l.mayHave(dev) {
		t, part := l.popParked(q)
		l.spawnSegment(t, part, l.segmentOf(&l.tags[t], part))
	}
	l.issueSlices(dev)
	return q.due.head == none && q.parked.head == none &&
		(q.slicing.head == none || q.slices == maxSlices)
}
