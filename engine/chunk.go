// Structured replies: chunks instead of one header and all the data. A READ may leave out what is
// zero, an error comes with a text, BLOCK_STATUS is possible at all.
//
// Invariant: a reply is one chunk, or data and holes in the order of their offsets that cover the
// request exactly; the last chunk, and no other, is marked as the last. The disk's work has been
// done when the first chunk is written, so that nothing can go wrong after it; a long reply is
// searched for zeroes, and sent, part by part.

package engine

import (
	"encoding/binary"

	"ringnbd/proto"
)

// addChunks appends the reply to one request of a session with structured replies or extended
// headers, or reports that the batch is full.
func (b *batch) addChunks(row *tag) bool {
	framing := b.conn.session.Framing
	switch {
	case row.errno != proto.Success:
		return b.addError(row)
	case row.Command == proto.CmdRead && row.Length > 0:
		return b.addRead(row)
	case row.Command == proto.CmdBlockStatus:
		return b.addStatus(row)
	case !b.room(proto.ExtReplySize, 1):
		return false
	case framing == proto.Structured && row.Command != proto.CmdRead:
		// four bytes shorter, and allowed where there is no payload
		proto.PutSimpleReply(b.headers[b.filled:], row.Cookie, proto.Success)
		b.head(proto.SimpleReplySize)
	default:
		b.head(framing.PutNone(b.headers[b.filled:], b.asked(row)))
	}
	return true
}

// room reports whether that many bytes of headers and that many iovecs are left.
func (b *batch) room(headers, iovecs int) bool {
	return len(b.headers)-b.filled >= headers && len(b.iovecs)-b.n >= iovecs
}

// addError appends an error chunk. The text is written in place, after the space for the chunk's
// header.
func (b *batch) addError(row *tag) bool {
	if !b.room(proto.MaxError, 1) {
		return false
	}
	export := b.loop.table.Load().exports[b.conn.export]
	why := proto.Complaint{
		Request: b.asked(row), Export: export.Name, Facts: &export.Facts, Session: b.conn.session,
		Errno: row.errno, System: row.system, Filter: row.filter, Ended: row.ended,
	}
	framing, to := b.conn.session.Framing, b.headers[b.filled:]
	text := why.Append(to[framing.ChunkHeaderSize()+4+2:][:0])
	b.head(framing.PutError(to, b.asked(row), row.errno, text))
	return true
}

// addStatus appends a chunk for each context; the lookup has written their payloads one after the
// other into the lease (lookup.go).
func (b *batch) addStatus(row *tag) bool {
	if !b.room(proto.MaxContexts*proto.ExtReplySize, 2*proto.MaxContexts) {
		return false
	}
	framing := b.conn.session.Framing
	_, each := b.loop.answers(row)
	at := b.loop.leases.offset(row.memory)
	for set := row.contexts; set != 0; set &= set - 1 {
		n := binary.NativeEndian.Uint64(b.loop.pool.Bytes(at, answerHead))
		b.head(framing.PutChunk(b.headers[b.filled:], &row.Request, framing.StatusKind(), n,
			set&(set-1) == 0))
		b.append(b.loop.pool.Addr(at+answerHead), n)
		b.joins = false
		b.bytes += n
		at += each
	}
	return true
}

// addRead appends what was read: as data, with holes where it is zero. Of a long reply it appends
// the next part; each send carries one part.
func (b *batch) addRead(row *tag) bool {
	from, end := row.at+row.cursor, row.at+row.Length
	parts := row.Flags&proto.CmdFlagDF == 0 && b.loop.deviceOf(row).keeps()
	// a rest that is shorter than a hole may be is not a part
	if parts && end-from > searchPart+2*minHole {
		end = min(end, (from+searchPart)&^(holeUnit-1))
	}
	if b.loop.spent() && (b.filled > 0 || end-from > smallWork && b.loop.owed != row.conn) {
		return false
	}
	h := holes{row: row, loop: b.loop}
	pieces := int((end-from)>>pieceShift) + 3 + 2*maxRuns
	if !b.room(min(maxRuns, 2*int(max((end-from)/minHole, 1))+1)*proto.MaxHole, pieces) {
		return false
	}
	h.find(from, end)
	b.loop.work += h.seen
	b.looked += h.seen
	row.cursor = end - row.at
	b.unended = row.cursor < row.Length
	framing, base := b.conn.session.Framing, row.at-row.Offset
	for i, r := range h.runs[:h.n] {
		last := i == h.n-1 && !b.unended && row.portion&portionMore == 0
		if r.zero {
			b.head(framing.PutHole(b.headers[b.filled:], b.asked(row), r.off-base, r.len, last))
			continue
		}
		b.head(framing.PutData(b.headers[b.filled:], b.asked(row), r.off-base, r.len, last))
		b.data(row, r.off, r.len)
	}
	return true
}
