// The reader: replies in whatever order they come.
//
// Invariant: a reply is for a request that is in flight and was not answered; its data goes
// straight into the owner's memory, except for what came along with headers in the stage. A length
// of the server decides how much is skipped or compared, never how much memory there is.

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
	// peek is how much is read when only headers are expected: some replies, and not so much of a
	// READ's data that copying it out of the stage costs anything.
	peek = 1 << 10
)

// reader is what the reading goroutine has for itself.
type reader struct {
	stage      []byte
	start, end int // bytes in the stage that are not used yet
	pieces     [2][]byte
	n          int
	err        error
	pull       func(fd uintptr) bool // made once: a closure for each read would be allocated
	text       []byte                // of an error
}

func (r *reader) init() {
	r.stage = make([]byte, stageSize)
	r.pull = func(fd uintptr) bool {
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

// read runs until the connection ends.
func (c *Conn) read() {
	var err error
	for err == nil {
		err = c.reply()
	}
	c.fail(hungUp(err, "in the middle of the transmission"))
	c.bury()
}

// reply reads one simple reply or one chunk.
func (c *Conn) reply() error {
	b, err := c.need(proto.SimpleReplySize, peek)
	if err != nil {
		return err
	}
	switch magic := binary.BigEndian.Uint32(b); {
	case magic == proto.SimpleReplyMagic && c.Framing != proto.Extended:
		c.use(proto.SimpleReplySize)
		return c.simple(b)
	case magic == proto.ChunkMagic && c.Framing == proto.Structured:
		if b, err = c.need(proto.ChunkSize, peek); err != nil {
			return err
		}
		c.use(proto.ChunkSize)
		head, err := proto.ParseReplyChunk(b)
		if err != nil {
			return violation{err.Error()}
		}
		return c.chunk(&head)
	case magic == proto.ExtReplyMagic && c.Framing == proto.Extended:
		if b, err = c.need(proto.ExtReplySize, peek); err != nil {
			return err
		}
		c.use(proto.ExtReplySize)
		head, err := proto.ParseExtReplyChunk(b)
		if err != nil {
			return violation{err.Error()}
		}
		return c.chunk(&head)
	default:
		return violated("a reply of magic %#x on a connection with %s", magic, c.Protocol())
	}
}

// simple is a simple reply, whose header was used.
func (c *Conn) simple(b []byte) error {
	cookie, errno, err := proto.ParseSimpleReply(b)
	if err != nil {
		return violation{err.Error()}
	}
	r, err := c.find(cookie)
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
		r.refuse(errno, nil)
	case r.Command == proto.CmdRead:
		if err := c.fill(r.Data); err != nil {
			return err
		}
	}
	c.finish(r)
	return nil
}

// find is the request that a reply is for.
func (c *Conn) find(cookie uint64) (*Request, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := cookie & 0xffff; i < uint64(len(c.slots)) {
		if r := c.slots[i]; r != nil && r.cookie == cookie && !r.answered {
			return r, nil
		}
	}
	return nil, violated("an answer to a request that is not in flight")
}

// finish is a request whose answer is complete.
func (c *Conn) finish(r *Request) {
	c.mu.Lock()
	r.answered = true
	c.latest = max(c.latest, r.cookie)
	c.settle(r)
	c.mu.Unlock()
}

// refuse notes the first error of an answer.
func (r *Request) refuse(errno proto.Errno, text []byte) {
	r.errors++
	if r.err != nil {
		return
	}
	r.failure = ReplyError{Command: r.Command, Offset: r.Offset, Length: r.asked, Errno: errno,
		Text: string(text)}
	r.err = &r.failure
}

// need is the next n bytes, which stay valid until the next need or fill; when it has to read, it
// asks for up to most. n is at most the stage's size.
func (c *Conn) need(n, most int) ([]byte, error) {
	r := &c.reader
	if r.end-r.start < n && len(r.stage)-r.start < max(n, most) {
		r.end = copy(r.stage, r.stage[r.start:r.end])
		r.start = 0
	}
	for r.end-r.start < n {
		got, err := c.pull(nil, r.stage[r.end:min(len(r.stage), r.start+max(n, most))])
		if err != nil {
			return nil, err
		}
		r.end += got
	}
	return r.stage[r.start : r.start+n], nil
}

// use drops bytes from the stage that were needed.
func (c *Conn) use(n int) {
	r := &c.reader
	if r.start += n; r.start == r.end {
		r.start, r.end = 0, 0
	}
}

// fill reads all of b, and what comes behind it as far as it is there.
func (c *Conn) fill(b []byte) error {
	r := &c.reader
	n := copy(b, r.stage[r.start:r.end])
	c.use(n)
	for b = b[n:]; len(b) > 0; { // the stage is empty
		got, err := c.pull(b, r.stage[:peek])
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

// pull is one read into one or two pieces of memory.
func (c *Conn) pull(first, second []byte) (int, error) {
	r := &c.reader
	r.pieces[0], r.pieces[1] = first, second
	err := c.raw.Read(r.pull)
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
	c.moved.Add(uint64(r.n))
	return r.n, nil
}
