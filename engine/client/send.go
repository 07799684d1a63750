// The writer: requests leave in the order in which they were started, several with one system call.
//
// Invariant: the data of a WRITE goes from its owner's memory to the socket, and is not touched
// after the request was marked as sent.

package client

import (
	"syscall"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// A batch is what one system call takes: few enough pieces for the kernel (IOV_MAX is 1024), and
// not so many bytes that the first request of it is only marked as sent long after it went.
const (
	batchRequests = 64
	batchBytes    = 1 << 20
)

// write runs until the connection ends.
func (c *Conn) write() {
	defer close(c.sent)
	batch := make([]*Request, 0, batchRequests)
	for {
		batch = c.take(batch[:0])
		if len(batch) == 0 {
			select {
			case <-c.kick:
				continue
			case <-c.dead:
				return
			}
		}
		w := &c.writer
		w.all = w.all[:0]
		for _, r := range batch {
			w.all = append(w.all, c.compose(r))
			if r.Command == proto.CmdWrite {
				w.all = append(w.all, r.Data)
			}
		}
		if err := c.push(); err != nil {
			c.fail(hungUp(err, "while it was sent requests"))
			return
		}
		c.mu.Lock()
		for _, r := range batch {
			r.sent = true
			c.settle(r)
		}
		c.mu.Unlock()
	}
}

// take is the next requests to be sent, as many as a batch has room for.
func (c *Conn) take(batch []*Request) []*Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := uint64(0)
	n := 0
	for n < len(c.queue) && n < batchRequests && (n == 0 || size < batchBytes) {
		r := c.queue[n]
		if r.Command == proto.CmdWrite {
			size += r.asked
		}
		batch = append(batch, r)
		n++
	}
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	return batch
}

func (c *Conn) compose(r *Request) []byte {
	head := proto.Request{Cookie: r.cookie, Offset: r.Offset, Length: r.asked, Command: r.Command,
		Flags: r.Flags}
	if r.Command == proto.CmdWrite && c.Framing == proto.Extended {
		head.Flags |= proto.CmdFlagPayloadLen
	}
	return c.header(r.head[:], &head)
}

// writer is what the writing goroutine has for itself.
type writer struct {
	all    [][]byte // memory of left
	left   [][]byte // still to be sent
	err    error
	offer  func(fd uintptr) bool // made once: a closure for each batch would be allocated
	pushed func(n int)
}

func (w *writer) init(pushed func(n int)) {
	w.all, w.pushed = make([][]byte, 0, 2*batchRequests), pushed
	w.offer = func(fd uintptr) bool {
		for len(w.left) > 0 {
			n, err := unix.Writev(int(fd), w.left)
			switch err {
			case nil:
			case syscall.EAGAIN:
				return false
			case syscall.EINTR:
				continue
			default:
				w.err = err
				return true
			}
			w.pushed(n)
			w.left = behind(w.left, n)
		}
		return true
	}
}

// push sends all pieces.
func (c *Conn) push() error {
	w := &c.writer
	w.left, w.err = w.all, nil
	if err := c.raw.Write(w.offer); err != nil && w.err == nil {
		w.err = err
	}
	clear(w.all)
	return w.err
}

// behind is what is left of pieces after their first n bytes.
func behind(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}
