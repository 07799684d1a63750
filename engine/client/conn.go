// A connection in transmission: its requests, its two goroutines, and its end.
//
// Invariant: a request leaves its slot once: when it was sent entirely and answered entirely, or
// when both goroutines have let go of it because the connection ended. The first reason for the end
// of a connection is the only one that requests get.

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

// closeTimeout limits the time for DISC on a connection without requests.
const closeTimeout = 2 * time.Second

// Conn is a connection to one export. Its methods may be called from any goroutine.
type Conn struct {
	Negotiated
	target string // the text of the target, for errors
	sock   net.Conn
	raw    syscall.RawConn

	inFlight   chan struct{} // has a token for each request in flight
	wakeWriter chan struct{} // has a token if the writer has something to do
	ended      chan struct{} // is closed when lost is set
	writerDone chan struct{} // is closed when the writer has ended
	readerDone chan struct{} // is closed when the reader has ended and every request was given back

	mu      sync.Mutex
	slots   []*Request // by the lower part of the cookie; nil: free
	free    []uint16   // indices of free slots
	waiting []*Request // to be sent, in order
	started uint64     // requests started: the upper part of a cookie
	closing bool       // no further request is accepted
	// disconnecting says that no request is left and DISC is being sent: whatever ends the
	// connection now is the requested end.
	disconnecting bool
	lost          error // why the connection ended; nil: it has not

	timeout      time.Duration
	bytesMoved   atomic.Uint64 // bytes of either direction
	lastAnswered uint64        // the greatest cookie that was answered; under mu
	watchdog     *time.Timer
	movedSeen    uint64        // bytesMoved when the watchdog looked last
	quiet        time.Duration // time since bytes moved
	overdue      time.Duration // part of quiet in which an answer that need not wait was owed

	reader reader
	writer writer
}

// newConn makes a connection of a socket whose negotiation is over, and starts its goroutines.
func newConn(sock net.Conn, s Negotiated, text string, o Options) (*Conn, error) {
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
		Negotiated: s, target: text, sock: sock, raw: raw, timeout: o.Timeout,
		inFlight: make(chan struct{}, o.Depth), wakeWriter: make(chan struct{}, 1),
		ended: make(chan struct{}), writerDone: make(chan struct{}),
		readerDone: make(chan struct{}), slots: make([]*Request, o.Depth),
		waiting: make([]*Request, 0, o.Depth),
	}
	for i := range o.Depth {
		c.free = append(c.free, uint16(o.Depth-1-i))
	}
	c.reader.init()
	c.writer.init(func(n int) { c.bytesMoved.Add(uint64(n)) })
	c.mu.Lock()
	c.watchdog = time.AfterFunc(c.timeout/4, c.watch)
	c.mu.Unlock()
	go c.writeLoop()
	go c.readLoop()
	return c, nil
}

// fail ends the connection. Only the first reason counts.
func (c *Conn) fail(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return
	}
	if c.disconnecting {
		c.lost = ErrClosed
	} else {
		c.lost = fmt.Errorf("%s: %w", c.target, why)
	}
	close(c.ended)
	c.watchdog.Stop()
	_ = c.sock.Close()
}

// lossError returns why the connection ended, or nil.
func (c *Conn) lossError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// slowTimeout limits the silence of a server that owes the answer to a slow command, which may take
// as long as its disk does, or to requests that may wait for a slow command. If the machine is
// gone, TCP notices earlier.
const slowTimeout = time.Hour

// isSlow reports whether a command may take that long.
func isSlow(command uint16) bool {
	return command == proto.CmdFlush || command == proto.CmdWriteZeroes || command == proto.CmdTrim
}

// mayWait reports whether every request in flight is slow, or may have to wait for a slow request:
// a server that does one thing after another answers a WRITE that follows a FLUSH when the FLUSH is
// done. A request that was sent before the slow request need not wait for it; nor need a later
// request, once the server has answered another request sent after the slow one.
func (c *Conn) mayWait() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := ^uint64(0) // cookie of the first slow request that no answer has overtaken
	for _, r := range c.slots {
		if r != nil && !r.answered && isSlow(r.Command) && r.cookie > c.lastAnswered {
			first = min(first, r.cookie)
		}
	}
	for _, r := range c.slots {
		if r != nil && !r.answered && !isSlow(r.Command) && r.cookie < first {
			return false
		}
	}
	return true
}

// watch checks from time to time that a server that owes answers still moves bytes.
func (c *Conn) watch() {
	moved := c.bytesMoved.Load()
	if moved != c.movedSeen || len(c.inFlight) == 0 {
		c.movedSeen, c.quiet, c.overdue = moved, 0, 0
	} else {
		c.quiet += c.timeout / 4
		patience := max(c.timeout, slowTimeout)
		if c.mayWait() {
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

// Close waits for the answers to the requests in flight, however long that takes, sends DISC and
// ends the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	already := c.closing
	c.closing = true
	c.mu.Unlock()
	if already {
		<-c.readerDone
		return nil
	}
	for range cap(c.inFlight) { // wait for every answer that is owed
		select {
		case c.inFlight <- struct{}{}:
			continue
		case <-c.ended:
		}
		break
	}
	c.mu.Lock()
	c.disconnecting = c.lost == nil
	c.mu.Unlock()
	if c.disconnecting {
		_ = c.sock.SetWriteDeadline(time.Now().Add(closeTimeout))
		var b [proto.ExtRequestSize]byte
		// if that fails, no request is left that could return the error
		_, _ = c.sock.Write(c.putHeader(b[:], &proto.Request{Command: proto.CmdDisc}))
	}
	c.fail(ErrClosed)
	<-c.readerDone
	if err := c.lossError(); !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// putHeader writes the header of a request in the connection's form to b, and returns its bytes.
func (c *Conn) putHeader(b []byte, r *proto.Request) []byte {
	if c.Framing == proto.Extended {
		proto.PutExtRequest(b, r)
		return b[:proto.ExtRequestSize]
	}
	proto.PutRequest(b, r)
	return b[:proto.RequestSize]
}

// release gives a request back to its owner when it was both sent and answered. The caller holds
// the lock.
func (c *Conn) release(r *Request) {
	if !r.sent || !r.answered {
		return
	}
	i := uint16(r.cookie)
	c.slots[i] = nil
	c.free = append(c.free, i)
	<-c.inFlight
	r.done <- struct{}{}
}

// returnAll gives back the requests that were in flight when the connection ended, after both
// goroutines have let go of them.
func (c *Conn) returnAll() {
	<-c.writerDone
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
		c.release(r)
	}
	c.waiting = c.waiting[:0]
	close(c.readerDone)
}
