// Requests of a client: which may be sent, and how a caller waits for an answer.
//
// Invariant: the caller waits for a request that was started before it uses the request or its
// memory for anything else; a request that the server could not honour is never sent.

package client

import (
	"context"
	"fmt"

	"ringnbd/proto"
)

// Request is one request and its answer. Its owner sets the exported fields, and may use it again
// after Wait. A Request must not be copied.
type Request struct {
	Command uint16 // proto.Cmd...
	Flags   uint16 // proto.CmdFlag...
	Offset  uint64 // bytes
	Length  uint64 // bytes; READ and WRITE take len(Data)
	Data    []byte // of READ and WRITE
	Context uint32 // of BLOCK_STATUS: the number of a selected context

	// Extents is the answer to BLOCK_STATUS, from Offset on without gaps; the last may reach beyond
	// the requested range, but not beyond the export.
	Extents []proto.StatusExtent

	cookie       uint64
	sent         bool   // entirely
	answered     bool   // entirely
	begun        bool   // a chunk of its reply was received
	errors       int    // error chunks
	requested    uint64 // bytes: Length, or len(Data)
	contextsDone uint64 // bit set of the contexts that were answered, by index
	received     spans
	failure      ReplyError
	err          error
	head         [proto.ExtRequestSize]byte
	done         chan struct{}
}

// Start sends a request as soon as fewer requests than the connection's depth are in flight. An
// error means that the request cannot be sent; otherwise the caller must Wait for it.
func (c *Conn) Start(ctx context.Context, r *Request) error {
	if err := c.check(r); err != nil {
		return err
	}
	if r.done == nil {
		r.done = make(chan struct{}, 1)
	}
	select {
	case c.inFlight <- struct{}{}:
	case <-c.ended:
		return c.lossError()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r.sent, r.answered, r.begun, r.errors, r.contextsDone, r.err = false, false, false, 0, 0, nil
	r.received, r.Extents = r.received[:0], r.Extents[:0]
	c.mu.Lock()
	if c.closing || c.lost != nil {
		err := c.lost
		c.mu.Unlock()
		<-c.inFlight
		if err == nil {
			err = ErrClosed
		}
		return err
	}
	i := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.started++
	r.cookie = c.started<<16 | uint64(i)
	c.slots[i] = r
	c.waiting = append(c.waiting, r)
	c.mu.Unlock()
	select {
	case c.wakeWriter <- struct{}{}:
	default:
	}
	return nil
}

// Wait waits for the answer to a request that was started, and returns nil, a *ReplyError, or why
// the connection ended. A request cannot be cancelled: when the context ends first, the connection
// ends too.
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

// MaxPayload returns the length of the longest READ or WRITE that may be sent, in bytes.
func (c *Conn) MaxPayload() uint64 {
	if !c.BlockSizes {
		return proto.DefaultMaxPayload
	}
	limit := uint64(c.Negotiated.MaxPayload)
	return limit - limit%uint64(max(c.MinBlock, 1))
}

// maxLength returns the length of the longest range of a command without data, in bytes: what its
// header can express, in whole blocks.
func (c *Conn) maxLength() uint64 {
	if c.Framing == proto.Extended {
		return 1 << 62
	}
	return 1<<32 - 64<<10
}

// Can reports whether the export has all of these transmission flags.
func (c *Conn) Can(flags uint16) bool { return c.Negotiated.Flags&flags == flags }

// needs has, by command, the transmission flags without which it must not be sent.
var needs = [...]uint16{
	proto.CmdRead: 0, proto.CmdWrite: 0, proto.CmdFlush: proto.FlagSendFlush,
	proto.CmdTrim: proto.FlagSendTrim, proto.CmdCache: proto.FlagSendCache,
	proto.CmdWriteZeroes: proto.FlagSendWriteZeroes, proto.CmdBlockStatus: 0,
}

// check returns why a request must not be sent, or nil, and sets the length that is requested.
func (c *Conn) check(r *Request) error {
	name := CommandName(r.Command)
	if r.Command == proto.CmdDisc || int(r.Command) >= len(needs) {
		return fmt.Errorf("%s: cannot be requested", name)
	}
	r.requested = r.Length
	if r.Command == proto.CmdRead || r.Command == proto.CmdWrite {
		r.requested = uint64(len(r.Data))
		if r.requested > c.MaxPayload() {
			return fmt.Errorf("%s of %d bytes: the server takes at most %d", name, r.requested,
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
		r.Offset, r.requested = 0, 0
		return nil
	case r.Offset > c.Size || r.requested > c.Size-r.Offset:
		return fmt.Errorf("%s of %d bytes at offset %d: beyond the end of the export of %d bytes",
			name, r.requested, r.Offset, c.Size)
	case r.requested == 0:
		return fmt.Errorf("%s of no bytes: the protocol leaves open what that means", name)
	case r.requested > c.maxLength():
		return fmt.Errorf("%s of %d bytes: at most %d can be requested at a time", name,
			r.requested, c.maxLength())
	case c.MinBlock > 1 && (r.Offset|r.requested)%uint64(c.MinBlock) != 0:
		return fmt.Errorf("%s of %d bytes at offset %d: the server wants multiples of %d bytes",
			name, r.requested, r.Offset, c.MinBlock)
	case r.Command != proto.CmdBlockStatus:
		return nil
	}
	for _, selected := range c.contexts {
		if selected.id == r.Context {
			return nil
		}
	}
	return fmt.Errorf("%s: the meta context was not selected", name)
}
