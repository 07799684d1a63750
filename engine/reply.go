// Replying: everything that is answered by the end of a turn leaves in one SENDMSG, in order of
// completion. Replies that become ready while a send is in flight wait for the next one, so the
// slower the socket, the larger the batches.
//
// Invariant: at most one send per socket is in flight (two would interleave); the memory that it
// names, the connection's page and the leases of the tags in outbound.sent, is not touched until
// its completion.

package engine

import (
	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// maxSendPart is how many bytes one SENDMSG carries: the quantum by which progress is judged. A
// piece and the headers around it fit.
const maxSendPart = pieceSize + 64<<10

// batchBytes closes a batch. Leases are returned when the whole batch has been sent (a long READ
// returns its own earlier, see giveSent); without a bound, a batch of many megabytes would keep the
// client's next requests, and the disk, idle. Measured, 64 KiB random reads, depth 32: 20,600
// requests/s without a bound, 18,200 with 1 MiB, 27,100 with 256 KiB.
const batchBytes = 256 << 10

// outbound is the sending half of a connection.
type outbound struct {
	ready     list   // tags that are answered, in order of completion
	sent      list   // tags whose replies are in the send that is in flight
	sendLeft  uint64 // bytes of the batch that are not sent yet
	sendPart  uint64 // bytes that are with the kernel
	sendSince int64  // when the send in flight began, nanoseconds of the loop's clock
	iovFrom   uint32 // iovecs [iovFrom, iovTo) of the batch are not sent yet
	iovTo     uint32
	sending   bool
	unended   bool // the last of sent has more to send
}

// reply sends what is ready, unless a send is in flight.
func (l *loop) reply(i uint32) {
	c := &l.conns[i]
	if c.sending || c.ready.head == none || c.state == connClosing {
		return
	}
	page := l.layout.pageAt(i)
	b := batch{loop: l, conn: c, page: page, iovecs: l.control.Iovecs(page+iovecsAt, maxIovecs),
		headers: l.control.Bytes(page+headersAt, ownAt-headersAt)}
	for t := c.ready.head; t != none && !b.unended && b.bytes < batchBytes &&
		b.looked < searchPart &&
		b.add(&l.tags[t]); t = c.ready.head {
		l.appendTag(&c.sent, l.popTag(&c.ready))
	}
	if b.n == 0 {
		l.postpone(i, false)
		return
	}
	c.iovFrom, c.iovTo, c.sendLeft, c.unended = 0, uint32(b.n), b.bytes, b.unended
	l.send(i)
}

// batch gathers replies into a connection's page.
type batch struct {
	loop    *loop
	conn    *conn
	page    uint64
	iovecs  []uring.Iovec
	headers []byte
	n       int  // iovecs in use
	filled  int  // bytes of headers in use
	joins   bool // the last iovec is a run of headers, which the next can lengthen
	bytes   uint64
	looked  uint64 // bytes that were compared: a reply of few bytes may cost many
	unended bool   // it ends with a part of a reply
}

// add appends one reply, or reports that the batch is full.
func (b *batch) add(row *tag) bool {
	if b.conn.session.Framing != proto.Simple {
		return b.addChunks(row)
	}
	data := row.Command == proto.CmdRead && row.errno == proto.Success && row.Length > 0
	if b.filled == len(b.headers) || b.n == len(b.iovecs) ||
		data && b.n+int(row.Length>>pieceShift)+3 > len(b.iovecs) {
		return false
	}
	if row.portion&portionLater == 0 || row.Command != proto.CmdRead {
		proto.PutSimpleReply(b.headers[b.filled:], row.Cookie, row.errno)
		b.head(proto.SimpleReplySize)
	}
	if data {
		b.data(row, row.at, row.Length)
	}
	return true
}

// head appends n bytes that have just been written after the other headers.
func (b *batch) head(n int) {
	if b.joins { // headers without payload lie one after the other
		b.iovecs[b.n-1].Len += uint64(n)
	} else {
		b.append(b.loop.control.Addr(b.page+headersAt+uint64(b.filled)), uint64(n))
		b.joins = true
	}
	b.bytes += uint64(n)
	b.filled += n
}

// data appends n bytes from off of what a READ has read.
func (b *batch) data(row *tag, off, n uint64) {
	l := b.loop
	b.joins = false
	b.bytes += n
	switch d := l.deviceOf(row); d.Kind {
	case Memory:
		for at, end := off, off+n; at < end; at += pieceSize {
			b.append(d.Memory.Addr(at), min(end-at, pieceSize))
		}
	case Null:
		for left := n; left > 0; {
			part := min(left, zeroRegion)
			b.append(l.pool.Addr(0), part)
			left -= part
		}
	default:
		skip, piece := off-row.lo, row.memory
		for ; skip >= pieceSize; skip -= pieceSize {
			piece = l.leases.next[piece]
		}
		for left := n; left > 0; piece = l.leases.next[piece] {
			part := min(left, pieceSize-skip)
			b.append(l.pool.Addr(l.leases.offset(piece)+skip), part)
			skip = 0
			left -= part
		}
	}
}

func (b *batch) append(addr, n uint64) {
	b.iovecs[b.n] = uring.Iovec{Base: addr, Len: n}
	b.n++
}

// send hands the next part of a batch to the kernel: up to maxSendPart bytes, so that a connection
// which takes its replies is seen to take them.
func (l *loop) send(i uint32) {
	c := &l.conns[i]
	page := l.layout.pageAt(i)
	iovecs := l.control.Iovecs(page+iovecsAt, maxIovecs)
	to, bytes := c.iovFrom, uint64(0)
	for to < c.iovTo && (bytes == 0 || bytes+iovecs[to].Len <= maxSendPart) {
		bytes += iovecs[to].Len
		to++
	}
	*l.control.Msghdr(page) = uring.Msghdr{
		Iov:    l.control.Addr(page + iovecsAt + uint64(c.iovFrom)*iovecSize),
		IovLen: uint64(to - c.iovFrom),
	}
	c.sending, c.sendPart, c.sendSince = true, bytes, l.now
	l.counters.Sends++
	data := uint64(tokenOf(onSend, 0, c.generation, i))
	uring.PrepSendMsg(l.sqe(), data, c.fd, l.control.Addr(page), unix.MSG_NOSIGNAL|unix.MSG_WAITALL)
}

// sent files the completion of a send. What is left of the batch is sent next; when nothing is, the
// tags of the batch are released.
func (l *loop) sent(tok token, res int32) {
	c, i := l.connAt(tok)
	c.sending = false
	l.touch(i)
	again := res == -int32(unix.EAGAIN) || res == -int32(unix.EINTR)
	if res > 0 {
		must(uint64(res) <= c.sendPart, "more was sent than was asked for")
		l.skipSent(c, i, uint64(res))
		again = c.sendLeft > 0
	} else if !again {
		l.fail(i, CloseSend)
	}
	if again && c.state != connClosing {
		l.giveSent(i)
		l.send(i)
		return
	}
	for t := l.popTag(&c.sent); t != none; t = l.popTag(&c.sent) {
		if c.unended && c.sent.head == none && c.state != connClosing {
			l.goOn(c, t)
			break
		}
		l.earn(c, l.tags[t].region, uint64(l.tags[t].cost))
		c.tagCredit = min(c.tagCredit+1, tagsPerConn)
		l.release(t)
	}
}

// goOn puts a reply of which a part was sent before the others that are ready. The memory of that
// part is returned.
func (l *loop) goOn(c *conn, t uint32) {
	row := &l.tags[t]
	if row.region == large {
		l.giveFront(c, row, l.leases.piece(row.memory, row.at+row.cursor-row.lo))
	}
	l.prependTag(&c.ready, t)
}

// skipSent moves the beginning of a batch past n bytes that were sent.
func (l *loop) skipSent(c *conn, i uint32, n uint64) {
	c.sendLeft -= n
	iovecs := l.control.Iovecs(l.layout.pageAt(i)+iovecsAt, maxIovecs)
	for n > 0 {
		v := &iovecs[c.iovFrom]
		if n < v.Len {
			v.Base += n
			v.Len -= n
			return
		}
		n -= v.Len
		c.iovFrom++
	}
}

// giveSent returns the pieces of a long READ that were sent, while the others are being sent: a
// client that takes its time for 64 MiB keeps from other clients only what it has not taken yet. A
// READ of more than batchBytes closes its batch, so unsent data belongs to the last request, or to
// a request before it, and then all of the last one's data is unsent.
func (l *loop) giveSent(i uint32) {
	c := &l.conns[i]
	if row := &l.tags[c.sent.tail]; row.region == large && row.Command == proto.CmdRead {
		l.giveFront(c, row, l.leases.find(row.memory, l.firstUnsent(i)))
	}
}

// giveFront returns the pieces of a long READ that lie before the piece first.
func (l *loop) giveFront(c *conn, row *tag, first uint32) {
	for row.region == large && first != none && row.memory != first {
		after, n := l.leases.next[row.memory], l.leases.size(row.memory)
		l.leases.giveBlock(row.memory)
		l.queue.freed(large)
		row.memory, row.cost = after, row.cost-uint32(n)
		row.lo += n
		l.ledger.give(&c.account, c.export, large, 0, n)
		l.earn(c, large, n)
	}
}

// firstUnsent is the pool offset of the first unsent payload byte, or pool.Size() if none is left.
func (l *loop) firstUnsent(i uint32) uint64 {
	c := &l.conns[i]
	for _, v := range l.control.Iovecs(l.layout.pageAt(i)+iovecsAt, maxIovecs)[c.iovFrom:c.iovTo] {
		if off, ok := l.pool.Find(v.Base); ok {
			return off
		}
	}
	return l.pool.Size()
}
