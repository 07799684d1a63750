// The writer: it sends requests in the order in which they were started, several with one system
// call.
//
// Invariant: the data of a WRITE goes from its owner's memory to the socket, and is not touched
// after the request was marked as sent.

package client

import (
	"syscall"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// Limits of a batch, which is what one system call sends: few enough pieces for the kernel (IOV_MAX
// is 1024), and few enough bytes that its first request is marked as sent soon after it was sent.
const (
	batchRequests = 64
	batchBytes    = 1 << 20
)

// writeLoop runs until the connection ends.
func (c *Conn) writeLoop() {
	defer close(c.writerDone)
	batch := make([]*Request, 0, batchRequests)
	for {
		batch = c.nextBatch(batch[:0])
		if len(batch) == 0 {
			select {
			case <-c.wakeWriter:
				continue
			case <-c.ended:
				return
			}
		}
		w := &c.writer
		w.all = w.all[:0]
		for _, r := range batch {
			w.all = append(w.all, c.requestHeader(r))
			if r.Command == proto.CmdWrite {
				w.all = append(w.all, r.Data)
			}
		}
		if err := c.writeBatch(); err != nil {
			c.fail(streamEnd(err, "while requests were being sent"))
			return
		}
		c.mu.Lock()
		for _, r := range batch {
			r.sent = true
			c.release(r)
		}
		c.mu.Unlock()
	}
}

// nextBatch takes the next requests to be sent from the queue, up to the limits of a batch.
func (c *Conn) nextBatch(batch []*Request) []*Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := uint64(0)
	n := 0
	for n < len(c.waiting) && n < batchRequests && (n == 0 || size < batchBytes) {
		r := c.waiting[n]
		if r.Command == proto.CmdWrite {
			size += r.requested
		}
		batch = append(batch, r)
		n++
	}
	rest := copy(c.waiting, c.waiting[n:])
	clear(c.waiting[rest:])
	c.waiting = c.waiting[:rest]
	return batch
}

// requestHeader returns the header of a request, in memory of the request.
func (c *Conn) requestHeader(r *Request) []byte {
	head := proto.Request{Cookie: r.cookie, Offset: r.Offset, Length: r.requested,
		Command: r.Command, Flags: r.Flags}
	if r.Command == proto.CmdWrite && c.Framing == proto.Extended {
		head.Flags |= proto.CmdFlagPayloadLen
	}
	return c.putHeader(r.head[:], &head)
}

// writer is the state of the writing goroutine.
type writer struct {
	all     [][]byte // the pieces of a batch: the memory of left
	left    [][]byte // still to be sent
	err     error
	writev  func(fd uintptr) bool // made once: a closure for each batch would be allocated
	written func(n int)
}

// init makes the closure that writes; written is called with the number of bytes of each write.
func (w *writer) init(pushed func(n int)) {
	w.all, w.written = make([][]byte, 0, 2*batchRequests), pushed
	w.writev = func(fd uintptr) bool {
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
			w.written(n)
			w.left = dropBytes(w.left, n)
		}
		return true
	}
}

// writeBatch sends all pieces of a batch.
func (c *Conn) writeBatch() error {
	w := &c.writer
	w.left, w.err = w.all, nil
	if err := c.raw.Write(w.writev); err != nil && w.err == nil {
		w.err = err
	}
	clear(w.all)
	return w.err
}

// dropBytes returns what is left of pieces without their first n bytes.
func dropBytes(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}
