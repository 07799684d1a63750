// Planned devices: a plan (engine/layer) says what is to be done on the devices below it, step by
// step, and the loop does it. A request on a planned device lives as any other does, from admission
// to reply; only where a segment of its wave would go to the kernel, a row goes to the plan, which
// asks for waves of segments below. A segment on a leaf, a device that is not planned, is a row as
// well, and runs through the files of requests: disk.go, workers.go, range.go, flush.go. So what
// comes back short, or not at once, or with an error, is dealt with there for all.
//
// Invariant: a plan is called by the loop that is its home, in runRows only (Cancel, in fail), and
// never inside itself: what a step has to start or end is done after it, and what that ends is
// queued in runnable. A row is in one place: runnable, out with a wave, waiting for the plan to
// name it, or asleep. It is given back when it ends, and its end is told to what it came from. A
// row that the plan has heard of ends by the plan's word, or by Cancel.
//
// Data is never copied: rows and segments name places in the lease of the client's request. Memory
// and null devices below a plan are the exception, because no operation of the kernel fills a lease
// from there.

package engine

import (
	"ringnbd/engine/layer"
	"ringnbd/proto"
)

const (
	// maxSteps bounds how many rows plans are asked about in one turn; the others come in the next,
	// which does not sleep.
	maxSteps = 256
	// maxCopied bounds what segments on memory devices copy in one turn, in bytes.
	maxCopied = 1 << 20
)

// spawn has a planned device do a segment of a request's wave.
func (l *loop) spawn(t uint32, part uint8, s segment) {
	dev := l.tags[t].dev
	if l.devices[dev].parked.head != none || !l.mayHave(dev) {
		l.keepParked(t, part)
		l.lack(dev)
		return
	}
	l.spawnSegment(t, part, s)
}

// spawnSegment is spawn when there is a row.
func (l *loop) spawnSegment(t uint32, part uint8, s segment) {
	x := layer.Segment{Op: layer.Read, Len: s.len, Off: s.off, At: s.at}
	switch s.op {
	case opWrite:
		x.Op = layer.Write
	case opWriteSync:
		x.Op, x.Flags = layer.Write, layer.FUA
	}
	row := l.takeRow(l.tags[t].dev, origin{parent: t, part: part, errand: forWave}, t)
	l.beginSegment(row, &x)
}

// spawnSlice has a planned device do a slice of a TRIM or WRITE_ZEROES, n bytes. FUA is not passed
// on: a flush follows the last slice.
func (l *loop) spawnSlice(t uint32, n uint64) {
	row := &l.tags[t]
	x := layer.Segment{Op: layer.Trim, Off: row.cursor, Range: n}
	if row.Command == proto.CmdWriteZeroes {
		x.Op = layer.Zero
		if row.Flags&proto.CmdFlagNoHole != 0 {
			x.Flags |= layer.NoHole
		}
		if row.Flags&proto.CmdFlagFastZero != 0 {
			x.Flags |= layer.Fast
		}
	}
	l.beginSegment(l.takeRow(row.dev, origin{parent: t, errand: forSlice}, t), &x)
}

// spawnFlush has a planned device do what its flushing requests wait for.
func (l *loop) spawnFlush(dev uint32) {
	q := &l.devices[dev]
	t := q.flushRow
	must(l.origins[rowOf(t)].state == rowAsleep, "a planned device is flushed twice at a time")
	if l.tags[t].line = none; q.flushing.head != none {
		l.tags[t].line = l.rootOf(q.flushing.head)
	}
	l.rows[rowOf(t)] = layer.Row{ID: rowOf(t), Op: layer.Flush}
	l.makeRunnable(t)
}

// rootOf is the client's request that a tag is, or is for; none: it is for none.
func (l *loop) rootOf(t uint32) uint32 {
	if l.tags[t].portion == portionRow {
		return l.tags[t].line
	}
	return t
}

// makeRunnable has a row's plan be asked.
func (l *loop) makeRunnable(t uint32) {
	l.origins[rowOf(t)].state = rowRunnable
	l.appendTag(&l.runnable, t)
}

// beginSegment begins a segment on the device that row t was taken for.
func (l *loop) beginSegment(t uint32, s *layer.Segment) {
	q := &l.devices[l.tags[t].dev]
	d := q.device
	l.checkSegment(q, s)
	switch {
	case s.Op == layer.Flush: // in one line with those of clients, for at most one is out
		l.origins[rowOf(t)].state = rowBelow
		l.flush(t)
	case d.Kind == Planned:
		l.rows[rowOf(t)] = layer.Row{ID: rowOf(t), Op: s.Op, Flags: s.Flags, Len: s.Len,
			Off: s.Off, At: s.At, Range: s.Range}
		l.makeRunnable(t)
	default:
		l.origins[rowOf(t)].state = rowBelow
		l.beginLeaf(t, s)
	}
}

// checkSegment checks what a plan asks for: a segment that is wrong is a mistake of ours. A device
// that has become shorter since says so itself.
func (l *loop) checkSegment(q *deviceRow, s *layer.Segment) {
	n := uint64(s.Len)
	switch s.Op {
	case layer.Flush:
		return
	case layer.Zero, layer.Trim:
		n = s.Range
	default:
		must(n <= layer.Most && s.At+n <= l.pool.Size() && (s.Op == layer.Write || s.At != 0),
			"a segment of a plan is not inside of the pool")
	}
	must(n > 0 && s.Off <= q.size && n <= q.size-s.Off && (s.Off|n)&uint64(q.device.Block-1) == 0,
		"a segment of a plan is not inside of its device, or not on blocks")
}

// beginLeaf begins a segment on a device that is not planned, as if a client had asked for it.
func (l *loop) beginLeaf(t uint32, s *layer.Segment) {
	row := &l.tags[t]
	d := l.devices[row.dev].device
	row.Request = proto.Request{Offset: s.Off, Length: uint64(s.Len)}
	switch s.Op {
	case layer.Read:
		row.Command = proto.CmdRead
	case layer.Write:
		row.Command = proto.CmdWrite
	case layer.Trim:
		row.Command, row.Length = proto.CmdTrim, s.Range
	case layer.Zero:
		row.Command, row.Length = proto.CmdWriteZeroes, s.Range
	}
	row.Flags = commandFlags(s.Flags)
	row.at, row.lo, row.hi, row.cursor = s.Off, s.Off, s.Off+row.Length, s.At
	if s.Op != layer.Read && d.keeps() && !d.written.Load() {
		d.written.Store(true)
	}
	switch {
	case d.Kind == Null || s.Op <= layer.Write && d.Kind == Memory:
		l.copyLeaf(d, s)
		l.answer(t)
	case s.Op == layer.Read:
		row.become(stepRead)
		l.issueLeaf(t)
	case s.Op != layer.Write:
		l.beginRange(t)
	case l.cacheable(row):
		l.writeCached(t)
	default:
		row.become(stepWrite)
		l.issueLeaf(t)
	}
}

// issueLeaf sends the one segment of a row to the disk.
func (l *loop) issueLeaf(t uint32) {
	row := &l.tags[t]
	row.wave = wave{part: 1, parts: 1, left: 1}
	l.issue(t, 0, l.segmentOf(row, 0))
}

// commandFlags are the flags of a segment as a client would have set them.
func commandFlags(flags uint8) (f uint16) {
	if flags&layer.FUA != 0 {
		f |= proto.CmdFlagFUA
	}
	if flags&layer.NoHole != 0 {
		f |= proto.CmdFlagNoHole
	}
	if flags&layer.Fast != 0 {
		f |= proto.CmdFlagFastZero
	}
	return f
}

// copyLeaf reads from or writes to a device whose bytes the loop has at hand.
func (l *loop) copyLeaf(d *Device, s *layer.Segment) {
	switch {
	case s.Op > layer.Write || d.Kind == Null && s.Op == layer.Write:
		return
	case d.Kind == Null:
		clear(l.pool.Bytes(s.At, int(s.Len)))
	case s.Op == layer.Read:
		copy(l.pool.Bytes(s.At, int(s.Len)), d.Memory.Bytes(s.Off, int(s.Len)))
	default:
		copy(d.Memory.Bytes(s.Off, int(s.Len)), l.pool.Bytes(s.At, int(s.Len)))
	}
	l.copied += uint64(s.Len)
}

// runRows asks the plans: first for every row that is runnable, then, of the plans that were asked,
// for rows that waited. It reports whether it did anything. What is more than a turn's part is left
// to the next.
func (l *loop) runRows() (any bool) {
	if l.rows == nil {
		return false
	}
	for l.mayStep() {
		if l.returned && len(l.shorts) > 0 {
			l.offerRows()
		}
		if t := l.popTag(&l.runnable); t != none {
			l.stepPlan(t)
		} else if last := len(l.stirred) - 1; last >= 0 {
			dev := l.stirred[last]
			l.stirred = l.stirred[:last]
			l.devices[dev].stirs = false
			l.takeNamed(dev)
		} else {
			return any
		}
		any = true
	}
	return any
}

// mayStep reports whether plans may be asked once more in this turn.
func (l *loop) mayStep() bool { return l.steps < maxSteps && l.copied < maxCopied }

// planned reports whether a plan is to be asked.
func (l *loop) planned() bool {
	return l.rows != nil && (l.runnable.head != none || len(l.stirred) > 0 ||
		l.returned && len(l.shorts) > 0)
}

// stir notes that a plan may have rows to name.
func (l *loop) stir(dev uint32) {
	if q := &l.devices[dev]; !q.stirs {
		q.stirs = true
		l.stirred = append(l.stirred, dev) // within its capacity: each device is there once
	}
}

// takeNamed makes the rows runnable that a plan names.
func (l *loop) takeNamed(dev uint32) {
	plan := l.devices[dev].device.Plan
	for id, ok := plan.Next(); ok; id, ok = plan.Next() {
		must(int(id) < len(l.origins), "a plan names a row that there is not")
		t, o := id+tagsPerLoop, &l.origins[id]
		must(l.tags[t].dev == dev && (o.state == rowWaits || o.state == rowAsleep),
			"a plan names a row that does not wait")
		l.makeRunnable(t)
	}
}

// stepPlan asks a plan about one row.
func (l *loop) stepPlan(t uint32) {
	row, id := &l.tags[t], rowOf(t)
	r, o := &l.rows[id], &l.origins[id]
	if !o.began && o.parent != none && l.deserted(o.parent) {
		row.errno = proto.EIO // as segments that were not issued yet: the plan has not heard of it
		l.answer(t)
		return
	}
	o.began = true
	l.steps++
	l.counters.Steps++
	then := l.devices[row.dev].device.Plan.Step(r, &l.waves[id])
	l.stir(row.dev)
	switch then {
	case layer.Go:
		w := &l.waves[id]
		must(w.N > 0 && w.N <= layer.WaveMost, "a plan issues a wave without segments")
		r.Bad, r.Cause = 0, proto.Success
		row.system, row.ended = 0, false
		row.wave = wave{parts: uint8(w.N), left: uint16(w.N)}
		o.state = rowOut
		l.issueRow(t, false)
	case layer.Wait:
		o.state = rowWaits
		if o.parent != none && l.deserted(o.parent) {
			l.cancelRow(t)
		}
	case layer.Done:
		if o.errand == forItself {
			l.rest(t)
			r.State, r.Errno, r.Bad, r.Cause = 0, proto.Success, 0, proto.Success
			return
		}
		if row.errno = r.Errno; row.errno == proto.Success {
			row.system, row.ended = 0, false
		}
		l.answer(t)
	default:
		must(false, "a plan answers what is not an answer")
	}
}

// issueRow issues the segments of a row's wave, from the first that was not issued yet, as far as
// there are rows for them. A row that has waited for one before does not lose its place.
func (l *loop) issueRow(t uint32, waited bool) {
	row, w := &l.tags[t], &l.waves[rowOf(t)]
	for row.part < row.parts {
		part := row.part
		s := &w.Seg[part]
		if s.Dev == layer.Nowhere {
			must(s.Op == layer.Read && s.Len <= layer.Most && s.At != 0,
				"a plan asks of no device what is not a read")
			row.part++
			clear(l.pool.Bytes(s.At, int(s.Len)))
			l.copied += uint64(s.Len)
			l.rowSegmentOver(t, part, proto.Success)
			continue
		}
		below := l.devices[row.dev].below
		must(int(s.Dev) < len(below), "a plan asks a device that it has not")
		dev := below[s.Dev]
		if !l.mayHave(dev) {
			if waited {
				l.prependTag(&l.devices[dev].due, t)
			} else {
				l.appendTag(&l.devices[dev].due, t)
			}
			l.lack(dev)
			return
		}
		row.part++
		l.beginSegment(l.takeRow(dev, origin{parent: t, part: part, errand: forWave}, row.line), s)
	}
}

// rowSegmentOver ends a segment of a row's wave. With the last one the plan is asked again.
func (l *loop) rowSegmentOver(t uint32, part uint8, errno proto.Errno) {
	row, r := &l.tags[t], &l.rows[rowOf(t)]
	must(row.left > 0, "a row's wave has more ends than segments")
	if errno != proto.Success {
		r.Bad |= 1 << part
		if r.Cause == proto.Success {
			r.Cause = errno
		}
	}
	if row.left--; row.left == 0 {
		l.makeRunnable(t)
	}
}

// rowOver ends a row that is answered, and tells what it came from.
func (l *loop) rowOver(t uint32) {
	row, o := &l.tags[t], l.origins[rowOf(t)]
	errno, system, ended, dev := row.errno, row.system, row.ended, row.dev
	if o.errand == forFlush {
		l.rest(t)
		l.flushAnswered(dev, errno)
		return
	}
	l.giveRow(t)
	if o.parent != none && errno != proto.Success {
		above := &l.tags[o.parent] // what the kernel said below, for the text of the error
		above.system, above.ended = system, ended
	}
	switch {
	case o.errand == forWave && o.parent >= tagsPerLoop:
		l.rowSegmentOver(o.parent, o.part, errno)
	case o.errand == forWave:
		l.segmentsOver(o.parent, 1, errno)
	default:
		l.sliceAnswered(o.parent, errno)
	}
}

// rest has a row that is always there sleep until it is needed again.
func (l *loop) rest(t uint32) {
	row, o := &l.tags[t], &l.origins[rowOf(t)]
	*row = tag{conn: none, dev: row.dev, memory: none, scratch: none, line: none,
		generation: row.generation + 1, next: none, step: stepRow, portion: portionRow}
	*o = origin{parent: none, errand: o.errand, state: rowAsleep}
}

// cancelRows tells the plan of a connection's export that no client waits any more for the rows of
// the connection. Rows further below are not cancelled: to the plan above them that would look like
// a failure of the device.
func (l *loop) cancelRows(i uint32) {
	if l.rows == nil || l.conns[i].inflight == 0 {
		return
	}
	for id := range l.origins[:l.rowsUsed] {
		o := &l.origins[id]
		if o.state == rowWaits && o.parent < tagsPerLoop && l.tags[o.parent].conn == i {
			l.cancelRow(uint32(id) + tagsPerLoop)
		}
	}
}

// cancelRow ends a row that waits, if its plan forgets it.
func (l *loop) cancelRow(t uint32) {
	row := &l.tags[t]
	forgotten := l.devices[row.dev].device.Plan.Cancel(rowOf(t))
	l.stir(row.dev)
	if forgotten {
		row.errno = proto.EIO
		l.answer(t)
	}
}
