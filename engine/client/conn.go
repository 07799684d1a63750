// A connection in transmission: its requests, its two goroutines, and its end.
//
// Invariant: a request leaves its slot once, when it was sent entirely and answered entirely, or
// when both goroutines are done with it because the connection ended; what ended it first is the
// only reason that anybody is told.

package client

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ringnbd/proto"
)

// closeTimeout bounds the goodbye of a connection on which nothing is owed.
const closeTimeout = 2 * time.Second

// Conn is a connection to one export. Its methods may be called from any goroutine.
type Conn struct {
	Session
	text string // the target's, for errors
	sock net.Conn
	raw  syscall.RawConn

	room chan struct{} // a token for each request in flight
	kick chan struct{} // the writer has something to do
	dead chan struct{} // closed with lost set
	sent chan struct{} // closed when the writer is gone
	gone chan struct{} // closed when the reader is gone, and with it every request

	mu      sync.Mutex
	slots   []*Request
	free    []uint16 // slots
	queue   []*Request
	turns   uint64 // requests started, which the upper part of a cookie is made of
	closing bool
	// nothing is owed and DISC is on its way: whatever ends the connection now is the end that was
	// asked for
	parting bool
	lost    error

	timeout  time.Duration
	moved    atomic.Uint64 // bytes of either direction
	latest   uint64        // the cookie of the latest request that was answered; under mu
	watchdog *time.Timer
	seen     uint64        // of moved, when the watchdog looked
	quiet    time.Duration // since something moved
	overdue  time.Duration // of quiet: with a request that has nothing to wait for

	reader reader
	writer writer
}

// newConn takes a socket whose negotiation is over.
func newConn(sock net.Conn, s Session, text string, o Options) (*Conn, error) {
	carrier, ok := sock.(syscall.Conn)
	if !ok {
		return nil, errors.New("the connection is not a socket")
	}
	raw, err := carrier.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := sock.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	c := &Conn{
		Session: s, text: text, sock: sock, raw: raw, timeout: o.Timeout,
		room: make(chan struct{}, o.Depth), kick: make(chan struct{}, 1),
		dead: make(chan struct{}), sent: make(chan struct{}), gone: make(chan struct{}),
		slots: make([]*Request, o.Depth), queue: make([]*Request, 0, o.Depth),
	}
	for i := range o.Depth {
		c.free = append(c.free, uint16(o.Depth-1-i))
	}
	c.reader.init()
	c.writer.init(func(n int) { c.moved.Add(uint64(n)) })
	c.mu.Lock()
	c.watchdog = time.AfterFunc(c.timeout/4, c.watch)
	c.mu.Unlock()
	go c.write()
	go c.read()
	return c, nil
}

// fail ends the connection, for the first reason that comes.
func (c *Conn) fail(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return
	}
	if c.parting {
		c.lost = ErrClosed
	} else {
		c.lost = fmt.Errorf("%s: %w", c.text, why)
	}
	close(c.dead)
	c.watchdog.Stop()
	_ = c.sock.Close()
}

// Err is why the connection ended, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// slowTimeout is the patience with a server that owes the answer to a command that the protocol
// lets take as long as its disk does, and with what may wait behind it. Whether the machine is
// still there is for TCP to find out meanwhile.
const slowTimeout = time.Hour

// slow says whether a command may take that long.
func slow(command uint16) bool {
	return command == proto.CmdFlush || command == proto.CmdWriteZeroes || command == proto.CmdTrim
}

// waitable says whether all that the server owes is slow, or may have to wait for something slow: a
// server that does one thing after another answers a WRITE behind a FLUSH when that is done. What
// was asked before the slow one has no such excuse; and neither has what came after it once the
// server has answered anything that did.
func (c *Conn) waitable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := ^uint64(0) // the cookie of the first slow request that nothing has overtaken
	for _, r := range c.slots {
		if r != nil && !r.answered && slow(r.Command) && r.cookie > c.latest {
			first = min(first, r.cookie)
		}
	}
	for _, r := range c.slots {
		if r != nil && !r.answered && !slow(r.Command) && r.cookie < first {
			return false
		}
	}
	return true
}

// watch looks from time to time whether a server that owes answers still moves anything.
func (c *Conn) watch() {
	moved := c.moved.Load()
	if moved != c.seen || len(c.room) == 0 {
		c.seen, c.quiet, c.overdue = moved, 0, 0
	} else {
		c.quiet += c.timeout / 4
		patience := max(c.timeout, slowTimeout)
		if c.waitable() {
			c.overdue = 0
		} else if c.overdue += c.timeout / 4; c.overdue >= c.timeout {
			patience = c.timeout
		}
		if c.quiet >= patience {
			c.fail(fmt.Errorf("the server did not answer for %v", patience))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == nil {
		c.watchdog.Reset(c.timeout / 4)
	}
}

// Close says goodbye and ends the connection. Requests in flight are answered first, as long as
// that takes.
func (c *Conn) Close() error {
	c.mu.Lock()
	already := c.closing
	c.closing = true
	c.mu.Unlock()
	if already {
		<-c.gone
		return nil
	}
	for range cap(c.room) { // every answer that is owed
		select {
		case c.room <- struct{}{}:
			continue
		case <-c.dead:
		}
		break
	}
	c.mu.Lock()
	c.parting = c.lost == nil
	c.mu.Unlock()
	if c.parting {
		_ = c.sock.SetWriteDeadline(time.Now().Add(closeTimeout))
		var b [proto.ExtRequestSize]byte
		// nobody is left to be told if that fails
		_, _ = c.sock.Write(c.header(b[:], &proto.Request{Command: proto.CmdDisc}))
	}
	c.fail(ErrClosed)
	<-c.gone
	if err := c.Err(); !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// header writes a request as this connection has it, and gives the bytes.
func (c *Conn) header(b []byte, r *proto.Request) []byte {
	if c.Framing == proto.Extended {
		proto.PutExtRequest(b, r)
		return b[:proto.ExtRequestSize]
	}
	proto.PutRequest(b, r)
	return b[:proto.RequestSize]
}

// settle is a request that is done with, for one of its two reasons; at the second it goes back to
// its owner. To be called with the lock held.
func (c *Conn) settle(r *Request) {
	if !r.sent || !r.answered {
		return
	}
	i := uint16(r.cookie)
	c.slots[i] = nil
	c.free = append(c.free, i)
	<-c.room
	r.done <- struct{}{}
}

// bury gives back what was in flight when the connection ended, after both goroutines let go of it.
func (c *Conn) bury() {
	<-c.sent
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.slots {
		if r == nil {
			continue
		}
		if !r.answered {
			r.err = c.lost
		}
		r.sent, r.answered = true, true
		c.settle(r)
	}
	c.queue = c.queue[:0]
	close(c.gone)
}
