// Parts: where a loop has not the memory for the longest requests at once, they are served part by
// part.
//
// Invariant: a request in parts has its connection to itself. It begins when nothing else of the
// connection is in flight, one part at a time is, and nothing behind it is taken in before the
// last. So its parts reach the disk, and their data the client, in order, and no reply comes
// between.
//
// A part ends at a multiple of layout.longest, which blocks divide: only the first and the last
// read the blocks at their edges. Each claims its own blocks, so that of two long WRITEs that
// overlap, on two connections and with neither answered, one may win in one part and the other in
// the next; the protocol promises no more. To claim the whole would mean to hold it while the
// payload comes, for there is no memory for it before: a client that sends the first part of a
// WRITE and then nothing would keep everybody else from writing there. A WRITE has one reply,
// with the first error of its parts; what comes behind an error is dropped. A READ has one header,
// or chunk by chunk what each part has brought; when a later part fails, chunks can say so, but a
// simple reply has promised all the data, and the connection is closed.

package engine

import "ringnbd/proto"

// portion says what of a request a tag is.
type portion uint8

const (
	portionWhole portion = 0
	portionMore  portion = 1 << 0 // more of the request comes behind it
	portionLater portion = 1 << 1 // some of it came before
)

// divided is the request in parts of a connection.
type divided struct {
	proto.Request
	open  bool        // there is one; until its last part is answered nothing behind it is taken in
	rest  uint64      // bytes of it that no part has been made of
	errno proto.Errno // of the parts of a WRITE, the first
}

// outsize says whether a request needs more memory than its loop can give to one.
func (l *loop) outsize(r *proto.Request, d *Device) bool {
	if r.Length <= l.layout.maxWhole || r.Command != proto.CmdRead && r.Command != proto.CmdWrite {
		return false
	}
	memory, _ := needs(r, d, d.down(r.Offset), d.up(r.Offset+r.Length))
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
		return false // its own replies will call again
	}
	l.counters.Requests[r.Command]++
	c.count(r)
	l.counters.Divided++
	c.divided = divided{Request: *r, open: true, rest: r.Length}
	return true
}

// nextPart takes the next part in; false: the one before it is still in flight, or the connection
// waits for memory.
func (l *loop) nextPart(i uint32) bool {
	c := &l.conns[i]
	d := &c.divided
	if c.inflight > 0 || d.rest == 0 {
		return false
	}
	r, before := d.Request, *d
	r.Offset += r.Length - d.rest
	r.Length = min(d.rest, l.layout.maxWhole-r.Offset%l.layout.maxWhole)
	p := portionWhole
	if r.Offset > d.Offset {
		p |= portionLater
	}
	d.rest -= r.Length // a part may be answered, and end the whole, before takeIn returns
	if d.rest > 0 {
		p |= portionMore
	}
	if !l.takeIn(i, &r, d.errno, p) {
		*d = before
		return false
	}
	return true
}

// partDone sees what an answered part means to the whole; true: it has no reply of its own.
func (l *loop) partDone(t uint32) bool {
	row := &l.tags[t]
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

// asked is the request that a reply answers.
func (b *batch) asked(row *tag) *proto.Request {
	if row.portion == portionWhole {
		return &row.Request
	}
	return &b.conn.divided.Request // nothing else is divided before the reply has been sent
}
