// Connections: a negotiated socket each, or, with file:PATH, a set of slots without one.
//
// Invariant: a socket is closed when the kernel holds no operation on it (join before close).
// receiving and sending are the whole ownership protocol with the kernel.

package load

import (
	"errors"
	"fmt"
	"syscall"

	"ringnbd/engine/units"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

type connState uint8

const (
	connOpen    connState = iota
	connLeaving           // everything was answered; a DISC is on its way
	connClosing           // shut down; the kernel still has operations on it
	connGone
)

type conn struct {
	fd        int32 // -1: no socket
	state     connState
	receiving bool
	sending   bool
	dirty     bool
	goodbye   bool   // the DISC is in the batch, or sent
	blocked   bool   // all blocks that it tried are in use by other connections
	number    int    // among all connections, from 1
	free      uint32 // stack of free slots
	inflight  uint32
	random    random
	part      part
	fill      part   // the units that it still has to fill
	cursor    uint64 // in order: the next unit of its part
	unflushed int    // writes and trims since the last FLUSH

	start, end uint32 // bytes of the stage that are not parsed yet
	body       uint32 // slot whose payload is arriving
	bodyLeft   uint32 // bytes of the payload still to come
	judge      judge

	batch    batch  // of the next send, or of the send in flight
	iovFrom  uint32 // iovecs before this one have been sent
	sendLeft uint64 // bytes
}

// settle decides what a connection does next: send, listen, leave.
func (l *loop) settle(i uint32) {
	c := &l.conns[i]
	if l.phase >= phaseLeave && c.state == connOpen {
		l.leave(i)
	}
	if c.fd < 0 {
		return
	}
	if c.state == connLeaving && !c.goodbye && !c.sending {
		l.addRequest(i, &proto.Request{Command: proto.CmdDisc}, 0)
		c.goodbye = true
	}
	if c.state <= connLeaving && !c.sending && c.batch.n > 0 {
		l.send(i)
	}
	if c.state == connLeaving && c.goodbye && !c.sending && c.batch.n == 0 {
		l.close(i)
	}
	if c.state <= connLeaving && !c.receiving {
		l.listen(i)
	}
	if c.state == connClosing && !c.sending && !c.receiving {
		l.ring.CloseFD(c.fd)
		c.state = connGone
		l.left--
	}
}

// leave begins the end of a connection: the protocol wants a DISC, which has no reply.
func (l *loop) leave(i uint32) {
	c := &l.conns[i]
	if c.fd < 0 {
		c.state = connGone
		l.left--
		return
	}
	c.state = connLeaving
}

func (l *loop) close(i uint32) {
	c := &l.conns[i]
	c.state = connClosing
	l.ring.Shutdown(c.fd)
}

// lose records that a connection was lost. The run ends: what the other connections would still do
// could not be compared with anything.
func (l *loop) lose(i uint32, why error) {
	c := &l.conns[i]
	if c.state >= connLeaving {
		if c.state == connLeaving {
			l.close(i)
		}
		return
	}
	if errors.Is(why, syscall.EPIPE) || errors.Is(why, syscall.ECONNRESET) {
		why = errHungUp // which of the three errors it is depends on timing
	}
	if l.trouble == nil {
		l.trouble = fmt.Errorf("connection %d of %d: %w (%s in flight)", c.number,
			l.plan.options.Connections, why, units.Plural(c.inflight, "request"))
	}
	l.tally.lost += uint64(c.inflight)
	l.inflight -= int(c.inflight)
	c.inflight = 0
	l.close(i)
	l.touch(i)
	l.shared.stop.Store(true)
}

// silent ends the connections with requests in flight, because no reply has arrived in time.
func (l *loop) silent() {
	why := l.plan.options.errorf("no reply for %v ({timeout})", l.plan.options.Timeout)
	if l.plan.subject.file != nil {
		l.fail(fmt.Errorf("%d requests: %w", l.inflight, why))
		return
	}
	for i := range l.conns {
		if l.conns[i].inflight > 0 {
			l.lose(uint32(i), why)
		}
	}
}

var (
	errHungUp = errors.New("closed by the server")
	errCookie = errors.New("the server answered a request that is not in flight")
)

// received accounts for the completion of a RECV.
func (l *loop) received(i uint32, res int32) {
	c := &l.conns[i]
	c.receiving = false
	l.tally.receives++
	l.touch(i)
	switch {
	case res > 0:
		c.end += uint32(res)
	case res == -int32(syscall.EINTR) || res == -int32(syscall.EAGAIN):
	case res == 0:
		l.lose(i, errHungUp)
	default:
		l.lose(i, syscall.Errno(-res))
	}
}

// listen submits the next RECV, after the bytes that could not be parsed yet.
func (l *loop) listen(i uint32) {
	c := &l.conns[i]
	stage := l.layout.stageAt(i)
	if c.start > 0 {
		if left := c.end - c.start; left > 0 {
			b := l.arena.Bytes(stage, int(c.end))
			copy(b, b[c.start:])
		}
		c.start, c.end = 0, c.end-c.start
	}
	c.receiving = true
	uring.PrepRecv(l.sqe(), tokenOf(onReceive, 0, i), c.fd, l.arena.Addr(stage+uint64(c.end)),
		l.layout.stage-c.end, 0)
}

// sqe returns a free submission; when the queue is full, its entries go to the kernel first.
func (l *loop) sqe() *uring.SQE {
	for range 1000 {
		if s := l.ring.SQE(); s != nil {
			return s
		}
		if err := l.ring.Enter(0, 0); err != nil {
			panic("ringnbd: io_uring_enter: " + err.Error())
		}
	}
	panic("ringnbd: the submission queue stays full")
}
