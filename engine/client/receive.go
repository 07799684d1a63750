// The reader: replies, in whatever order they arrive.
//
// Invariant: a reply is for a request that is in flight and was not answered; its data goes
// straight into the owner's memory, except for what arrived in the stage together with headers. A
// length from the server decides how much is skipped or compared, never how much memory is
// allocated.

package client

import (
	"encoding/binary"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

const (
	stageSize = 64 << 10
	// peek is how many bytes are read when only headers are expected: enough for some replies, and
	// little of a READ's data, which has to be copied out of the stage.
	peek = 1 << 10
)

// reader is the state of the reading goroutine.
type reader struct {
	stage      []byte
	start, end int // unconsumed bytes of the stage
	pieces     [2][]byte
	n          int
	err        error
	readv      func(fd uintptr) bool // made once: a closure for each read would be allocated
	text       []byte                // of an error
}

// init allocates the stage and makes the closure that reads.
func (r *reader) init() {
	r.stage = make([]byte, stageSize)
	r.readv = func(fd uintptr) bool {
		for {
			pieces := r.pieces[:]
			if len(pieces[0]) == 0 {
				pieces = pieces[1:]
			}
			r.n, r.err = unix.Readv(int(fd), pieces)
			switch r.err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			}
			return true
		}
	}
}

// readLoop runs until the connection ends.
func (c *Conn) readLoop() {
	var err error
	for err == nil {
		err = c.readReply()
	}
	c.fail(streamEnd(err, "in the middle of the transmission"))
	c.returnAll()
}

// readReply reads one simple reply or one chunk.
func (c *Conn) readReply() error {
	b, err := c.next(proto.SimpleReplySize, peek)
	if err != nil {
		return err
	}
	switch magic := binary.BigEndian.Uint32(b); {
	case magic == proto.SimpleReplyMagic && c.Framing != proto.Extended:
		c.consume(proto.SimpleReplySize)
		return c.readSimple(b)
	case magic == proto.ChunkMagic && c.Framing == proto.Structured:
		if b, err = c.next(proto.ChunkSize, peek); err != nil {
			return err
		}
		c.consume(proto.ChunkSize)
		head, err := proto.ParseReplyChunk(b)
		if err != nil {
			return violation{err.Error()}
		}
		return c.readChunk(&head)
	case magic == proto.ExtReplyMagic && c.Framing == proto.Extended:
		if b, err = c.next(proto.ExtReplySize, peek); err != nil {
			return err
		}
		c.consume(proto.ExtReplySize)
		head, err := proto.ParseExtReplyChunk(b)
		if err != nil {
			return violation{err.Error()}
		}
		return c.readChunk(&head)
	default:
		return violated("a reply of magic %#x on a connection with %s", magic, c.Protocol())
	}
}

// readSimple reads a simple reply, whose header b was consumed.
func (c *Conn) readSimple(b []byte) error {
	cookie, errno, err := proto.ParseSimpleReply(b)
	if err != nil {
		return violation{err.Error()}
	}
	r, err := c.findRequest(cookie)
	if err != nil {
		return err
	}
	switch {
	case r.begun:
		return violated("a simple reply in the middle of chunks")
	case c.Framing == proto.Structured && r.Command == proto.CmdRead:
		return violated("a simple reply to READ, although structured replies were agreed on")
	case errno == proto.Success && r.Command == proto.CmdBlockStatus:
		return violated("a simple reply to BLOCK_STATUS")
	case errno != proto.Success:
		r.noteError(errno, nil)
	case r.Command == proto.CmdRead:
		if err := c.readFull(r.Data); err != nil {
			return err
		}
	}
	c.finish(r)
	return nil
}

// findRequest returns the request that a reply is for.
func (c *Conn) findRequest(cookie uint64) (*Request, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := cookie & 0xffff; i < uint64(len(c.slots)) {
		if r := c.slots[i]; r != nil && r.cookie == cookie && !r.answered {
			return r, nil
		}
	}
	return nil, violated("an answer to a request that is not in flight")
}

// finish marks a request as answered.
func (c *Conn) finish(r *Request) {
	c.mu.Lock()
	r.answered = true
	c.lastAnswered = max(c.lastAnswered, r.cookie)
	c.release(r)
	c.mu.Unlock()
}

// noteError counts an error of an answer, and keeps the first.
func (r *Request) noteError(errno proto.Errno, text []byte) {
	r.errors++
	if r.err != nil {
		return
	}
	r.failure = ReplyError{Command: r.Command, Offset: r.Offset, Length: r.requested, Errno: errno,
		Text: string(text)}
	r.err = &r.failure
}

// next returns the next n bytes without consuming them; they stay valid until the next call of next
// or readFull. If it has to read, it reads up to maxRead bytes. n is at most the stage's size.
func (c *Conn) next(n, maxRead int) ([]byte, error) {
	r := &c.reader
	if r.end-r.start < n && len(r.stage)-r.start < max(n, maxRead) {
		r.end = copy(r.stage, r.stage[r.start:r.end])
		r.start = 0
	}
	for r.end-r.start < n {
		got, err := c.readInto(nil, r.stage[r.end:min(len(r.stage), r.start+max(n, maxRead))])
		if err != nil {
			return nil, err
		}
		r.end += got
	}
	return r.stage[r.start : r.start+n], nil
}

// consume drops n bytes from the stage.
func (c *Conn) consume(n int) {
	r := &c.reader
	if r.start += n; r.start == r.end {
		r.start, r.end = 0, 0
	}
}

// readFull fills b, and reads into the stage what has arrived after it.
func (c *Conn) readFull(b []byte) error {
	r := &c.reader
	n := copy(b, r.stage[r.start:r.end])
	c.consume(n)
	for b = b[n:]; len(b) > 0; { // the stage is empty
		got, err := c.readInto(b, r.stage[:peek])
		if err != nil {
			return err
		}
		if got > len(b) {
			r.start, r.end = 0, got-len(b)
			return nil
		}
		b = b[got:]
	}
	return nil
}

// readInto makes one read into one or two pieces of memory.
func (c *Conn) readInto(first, second []byte) (int, error) {
	r := &c.reader
	r.pieces[0], r.pieces[1] = first, second
	err := c.raw.Read(r.readv)
	r.pieces[0], r.pieces[1] = nil, nil
	switch {
	case r.err != nil:
		err = r.err
	case err != nil:
	case r.n == 0:
		err = io.EOF
	}
	if err != nil {
		return 0, err
	}
	c.bytesMoved.Add(uint64(r.n))
	return r.n, nil
}
