// Requests of a client: what may be asked, and how an answer is waited for.
//
// Invariant: a request that was started is waited for before it or its memory is used for anything
// else; one that a server could not honour is never sent.

package client

import (
	"context"
	"fmt"

	"ringnbd/proto"
)

// Request is one request and its answer. Its owner fills in the upper part, and may use it again
// when it was waited for. A Request must not be copied.
type Request struct {
	Command uint16 // proto.Cmd...
	Flags   uint16 // proto.CmdFlag...
	Offset  uint64 // bytes
	Length  uint64 // bytes; READ and WRITE take len(Data)
	Data    []byte // of READ and WRITE
	Context uint32 // of BLOCK_STATUS: the selected context that is asked about

	// Extents is the answer to BLOCK_STATUS, from Offset on without gaps; the last may reach beyond
	// what was asked, but not beyond the export.
	Extents []proto.StatusExtent

	cookie   uint64
	sent     bool
	answered bool
	begun    bool // a chunk of its reply has come
	errors   int  // error chunks
	asked    uint64
	replied  uint64 // mask of the contexts that were answered for
	have     spans
	failure  ReplyError
	err      error
	head     [proto.ExtRequestSize]byte
	done     chan struct{}
}

// Start sends a request as soon as fewer than the connection's depth are in flight. The error is
// that of a request that cannot be sent; otherwise it must be waited for.
func (c *Conn) Start(ctx context.Context, r *Request) error {
	if err := c.check(r); err != nil {
		return err
	}
	if r.done == nil {
		r.done = make(chan struct{}, 1)
	}
	select {
	case c.room <- struct{}{}:
	case <-c.dead:
		return c.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r.sent, r.answered, r.begun, r.errors, r.replied, r.err = false, false, false, 0, 0, nil
	r.have, r.Extents = r.have[:0], r.Extents[:0]
	c.mu.Lock()
	if c.closing || c.lost != nil {
		err := c.lost
		c.mu.Unlock()
		<-c.room
		if err == nil {
			err = ErrClosed
		}
		return err
	}
	i := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.turns++
	r.cookie = c.turns<<16 | uint64(i)
	c.slots[i] = r
	c.queue = append(c.queue, r)
	c.mu.Unlock()
	select {
	case c.kick <- struct{}{}:
	default:
	}
	return nil
}

// Wait gives the answer of a request that was started: nil, a *ReplyError, or why the connection
// ended. A request cannot be taken back: when the context ends first, so does the connection.
func (c *Conn) Wait(ctx context.Context, r *Request) error {
	if ctx.Done() == nil {
		<-r.done
		return r.err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		c.fail(fmt.Errorf("given up while requests were in flight: %w", context.Cause(ctx)))
		<-r.done
	}
	return r.err
}

// Do starts a request and waits for it.
func (c *Conn) Do(ctx context.Context, r *Request) error {
	if err := c.Start(ctx, r); err != nil {
		return err
	}
	return c.Wait(ctx, r)
}

// MaxPayload is the longest READ or WRITE that may be asked for, in bytes.
func (c *Conn) MaxPayload() uint64 {
	if !c.BlockSizes {
		return proto.DefaultMaxPayload
	}
	most := uint64(c.Session.MaxPayload)
	return most - most%uint64(max(c.MinBlock, 1))
}

// MaxLength is the longest range that a command without data may be asked for, in bytes: what its
// header can say, in whole blocks.
func (c *Conn) MaxLength() uint64 {
	if c.Framing == proto.Extended {
		return 1 << 62
	}
	return 1<<32 - 64<<10
}

// Can says whether the export has all of these transmission flags.
func (c *Conn) Can(flags uint16) bool { return c.Session.Flags&flags == flags }

// needs are the transmission flags without which a command must not be sent.
var needs = [...]uint16{
	proto.CmdRead: 0, proto.CmdWrite: 0, proto.CmdFlush: proto.FlagSendFlush,
	proto.CmdTrim: proto.FlagSendTrim, proto.CmdCache: proto.FlagSendCache,
	proto.CmdWriteZeroes: proto.FlagSendWriteZeroes, proto.CmdBlockStatus: 0,
}

// check is what a client has to see to before it sends.
func (c *Conn) check(r *Request) error {
	name := CommandName(r.Command)
	if r.Command == proto.CmdDisc || int(r.Command) >= len(needs) {
		return fmt.Errorf("%s: cannot be asked for", name)
	}
	r.asked = r.Length
	if r.Command == proto.CmdRead || r.Command == proto.CmdWrite {
		r.asked = uint64(len(r.Data))
		if r.asked > c.MaxPayload() {
			return fmt.Errorf("%s of %d bytes: the server takes at most %d", name, r.asked,
				c.MaxPayload())
		}
	}
	changes := r.Command == proto.CmdWrite || r.Command == proto.CmdTrim ||
		r.Command == proto.CmdWriteZeroes
	switch {
	case changes && c.Can(proto.FlagReadOnly):
		return fmt.Errorf("%s: the export is read-only", name)
	case !c.Can(needs[r.Command]):
		return fmt.Errorf("%s: the server does not offer it for this export", name)
	case r.Command == proto.CmdFlush:
		r.Offset, r.asked = 0, 0
		return nil
	case r.Offset > c.Size || r.asked > c.Size-r.Offset:
		return fmt.Errorf("%s of %d bytes at offset %d: beyond the end of the export of %d bytes",
			name, r.asked, r.Offset, c.Size)
	case r.asked == 0:
		return fmt.Errorf("%s of no bytes: the protocol leaves open what that means", name)
	case r.asked > c.MaxLength():
		return fmt.Errorf("%s of %d bytes: at most %d can be asked for at a time", name, r.asked,
			c.MaxLength())
	case c.MinBlock > 1 && (r.Offset|r.asked)%uint64(c.MinBlock) != 0:
		return fmt.Errorf("%s of %d bytes at offset %d: the server wants multiples of %d bytes",
			name, r.asked, r.Offset, c.MinBlock)
	case r.Command != proto.CmdBlockStatus:
		return nil
	}
	for _, selected := range c.Contexts {
		if selected.ID == r.Context {
			return nil
		}
	}
	return fmt.Errorf("%s: the meta context was not selected", name)
}
