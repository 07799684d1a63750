// Memory devices: an anonymous mapping, which the loop reads and writes by itself.
//
// Invariant: a long copy goes on from turn to turn (stepStore, in the backlog), and tag.cursor is
// how far it has come. Reads copy nothing: a reply is sent from the mapping.

package engine

import "ringnbd/proto"

// clearEdges zeroes the parts of a memory device's range that are not whole pages.
func (l *loop) clearEdges(row *tag) {
	d := l.deviceOf(row)
	end := row.at + row.Length
	lo, hi := l.innerRange(row)
	if lo >= hi {
		clear(d.Memory.Bytes(row.at, int(row.Length)))
		return
	}
	clear(d.Memory.Bytes(row.at, int(lo-row.at)))
	clear(d.Memory.Bytes(hi, int(end-hi)))
}

// store begins to copy a write's payload into a memory device.
func (l *loop) store(t uint32) {
	row := &l.tags[t]
	row.become(stepStore)
	row.cursor = row.at
	if l.spent() && row.Length > smallWork {
		l.backlog.push(t)
		return
	}
	l.storePart(t)
}

// storePart goes on with the copy, or with clearing what could not be given back, for some 0.1 ms
// of the loop's time.
func (l *loop) storePart(t uint32) {
	row := &l.tags[t]
	memory := l.deviceOf(row).Memory
	end := row.at + row.Length
	if row.Command != proto.CmdWrite {
		_, end = l.innerRange(row)
	}
	for left := min(end-row.cursor, maxStore); left > 0; {
		n := left
		if row.Command != proto.CmdWrite {
			clear(memory.Bytes(row.cursor, int(n)))
		} else {
			at := row.cursor - row.at
			n = min(n, pieceSize-at&(pieceSize-1))
			copy(memory.Bytes(row.cursor, int(n)),
				l.pool.Bytes(l.leases.offset(l.leases.piece(row.memory, at))+at&(pieceSize-1),
					int(n)))
		}
		row.cursor, left = row.cursor+n, left-n
		l.work += n * storeWeight
	}
	switch {
	case row.cursor < end:
		l.backlog.push(t)
	case row.Command == proto.CmdWrite:
		l.answer(t)
	default:
		l.innerDone(t)
	}
}
