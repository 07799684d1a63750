// Parts: a loop without the memory for the longest requests at once serves them part by part.
//
// Invariant: a request in parts has its connection to itself. It begins when nothing else of the
// connection is in flight; one part at a time is in flight; and nothing after it is taken in before
// its last part. So its parts reach the disk, and their data the client, in order, and no other
// reply comes between.
//
// A part ends at a multiple of layout.maxWhole on the device, which is a multiple of every block
// size: only the first and the last part read the blocks at their edges. Each part claims its own
// blocks, so that of two long WRITEs that overlap, on two connections and with neither answered,
// one may win in one part and the other in the next; the protocol promises no more. A claim on the
// whole would have to
// be held while the payload arrives, because there is no memory for the payload before: a client
// that sends the first part of a WRITE and then nothing would keep all others from writing there.
// A WRITE has one reply, with the first error of its parts; the payload after an error is dropped.
// A READ has one header, or a chunk for what each part has read; when a later part fails, chunks
// can say so, but a simple reply has promised all the data, and the connection is closed.

package engine

import "ringnbd/proto"

// portion says which part of a request a tag is.
type portion uint8

const (
	portionWhole portion = 0
	portionMore  portion = 1 << 0 // another part comes after it
	portionLater portion = 1 << 1 // another part came before it
	portionRow   portion = 1 << 2 // it is a row, which a plan has asked for: rows.go
)

// divided is the request in parts of a connection.
type divided struct {
	proto.Request
	open  bool        // until its last part is answered, nothing after it is taken in
	rest  uint64      // bytes at its end of which no part has been made
	errno proto.Errno // the first of the parts of a WRITE
}

// outsize reports whether a request needs more memory than its loop can give to one request.
func (l *loop) outsize(r *proto.Request, x *exportRow) bool {
	if r.Length <= l.layout.maxWhole || r.Command != proto.CmdRead && r.Command != proto.CmdWrite {
		return false
	}
	d, at := x.device, r.Offset+x.base
	memory, _ := needs(r, d, at, d.down(at), d.up(at+r.Length))
	return memory > 0
}

// divide begins a request in parts. A READ that may not be answered in parts is refused, as the
// spec allows.
func (l *loop) divide(i uint32, r *proto.Request) bool {
	c := &l.conns[i]
	if r.Command == proto.CmdRead && r.Flags&proto.CmdFlagDF != 0 {
		return l.takeIn(i, r, proto.EOVERFLOW, portionWhole)
	}
	if c.inflight > 0 {
		return false // the connection is settled again when its replies have been sent
	}
	l.counters.Requests[r.Command]++
	c.count(r)
	l.counters.Divided++
	c.divided = divided{Request: *r, open: true, rest: r.Length}
	return true
}

// nextPart takes the next part in. False means that the part before it is still in flight, or that
// the connection waits for memory.
func (l *loop) nextPart(i uint32) bool {
	c := &l.conns[i]
	d := &c.divided
	if c.inflight > 0 || d.rest == 0 {
		return false
	}
	r, before := d.Request, *d
	r.Offset += r.Length - d.rest
	r.Length = min(d.rest, l.layout.maxWhole-(r.Offset+l.exports[c.export].base)%l.layout.maxWhole)
	p := portionWhole
	if r.Offset > d.Offset {
		p |= portionLater
	}
	d.rest -= r.Length // a part may be answered, and end the request, before takeIn returns
	if d.rest > 0 {
		p |= portionMore
	}
	if !l.takeIn(i, &r, d.errno, p) {
		*d = before
		return false
	}
	return true
}

// partDone accounts for an answered part, or row, and reports whether it has no reply of its own.
func (l *loop) partDone(t uint32) bool {
	row := &l.tags[t]
	if row.portion == portionRow {
		l.rowOver(t)
		return true
	}
	c := &l.conns[row.conn]
	if row.portion&portionMore == 0 {
		c.divided.open = false
	}
	if row.Command == proto.CmdRead {
		if row.errno != proto.Success {
			c.divided.open, c.divided.rest = false, 0
			if row.portion&portionLater != 0 && c.session.Framing == proto.Simple {
				l.fail(row.conn, CloseTorn)
			}
		}
		return false
	}
	if row.portion&portionMore == 0 {
		return false
	}
	if c.divided.errno == proto.Success {
		c.divided.errno = row.errno
	}
	l.release(t)
	l.touch(row.conn)
	return true
}

// owes reports whether a connection is owed the rest of a READ in parts: all of its data was
// promised with the first part.
func (c *conn) owes() bool { return c.divided.open && c.divided.Command == proto.CmdRead }

// asked returns the request that a reply answers.
func (b *batch) asked(row *tag) *proto.Request {
	if row.portion == portionWhole {
		return &row.Request
	}
	return &b.conn.divided.Request // nothing else is divided before the reply has been sent
}
