// Sending requests: everything that a turn starts on a connection leaves in one SENDMSG.
//
// Invariant: at most one send per socket is in flight (two would interleave); the memory it names
// is not touched until its completion, so nothing is started on a connection while it sends.

package load

import (
	"syscall"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// batch is the message that is being written, or sent.
type batch struct {
	n      uint32 // iovecs
	filled uint32 // bytes of headers
	joins  bool   // the last iovec is a run of headers, which the next header lengthens
	bytes  uint64
}

// ready reports whether a request may be started on the connection now.
func (l *loop) ready(i uint32) bool {
	c := &l.conns[i]
	return c.free != none && c.state == connOpen && !c.sending &&
		(c.fd < 0 || c.batch.n+2 <= l.layout.iovecs)
}

// addRequest appends a request to the connection's batch; payload is where in the arena the data of
// a WRITE is.
func (l *loop) addRequest(i uint32, r *proto.Request, payload uint64) {
	c := &l.conns[i]
	b := &c.batch
	page := l.layout.pageAt(i)
	iovecs := l.arena.Iovecs(page+iovecsAt, int(l.layout.iovecs))
	at := page + l.layout.headersAt + uint64(b.filled)
	proto.PutRequest(l.arena.Bytes(at, proto.RequestSize), r)
	if b.joins { // headers without payload lie one after another
		iovecs[b.n-1].Len += proto.RequestSize
	} else {
		iovecs[b.n] = uring.Iovec{Base: l.arena.Addr(at), Len: proto.RequestSize}
		b.n++
	}
	b.filled += proto.RequestSize
	b.bytes += proto.RequestSize
	b.joins = true
	if n := r.Payload(); n > 0 {
		iovecs[b.n] = uring.Iovec{Base: l.arena.Addr(payload), Len: n}
		b.n++
		b.bytes += n
		b.joins = false
	}
}

// send hands the unsent rest of a batch to the kernel.
func (l *loop) send(i uint32) {
	c := &l.conns[i]
	if !c.sending {
		c.iovFrom, c.sendLeft = 0, c.batch.bytes
	}
	page := l.layout.pageAt(i)
	*l.arena.Msghdr(page) = uring.Msghdr{
		Iov:    l.arena.Addr(page + iovecsAt + uint64(c.iovFrom)*iovecSize),
		IovLen: uint64(c.batch.n - c.iovFrom),
	}
	c.sending = true
	l.tally.sends++
	uring.PrepSendMsg(l.sqe(), tokenOf(onSend, 0, i), c.fd, l.arena.Addr(page),
		uring.MsgNoSignal|uring.MsgWaitAll)
}

// sent accounts for the completion of a send: all, a part, or the end of the connection.
func (l *loop) sent(i uint32, res int32) {
	c := &l.conns[i]
	l.touch(i)
	again := res == -int32(syscall.EAGAIN) || res == -int32(syscall.EINTR)
	if res > 0 && uint64(res) < c.sendLeft {
		l.skip(i, uint64(res))
		again = true
	}
	if again && c.state <= connLeaving {
		l.send(i)
		return
	}
	c.sending = false
	c.batch = batch{}
	if res <= 0 {
		l.lose(i, syscall.Errno(-res))
	}
}

// skip removes n sent bytes from the beginning of a batch.
func (l *loop) skip(i uint32, n uint64) {
	c := &l.conns[i]
	c.sendLeft -= n
	iovecs := l.arena.Iovecs(l.layout.pageAt(i)+iovecsAt, int(l.layout.iovecs))
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
