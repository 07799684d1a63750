// Exports of NBD servers.
//
// Invariant: all connections see the same export. There are several only if the server promises
// that one connection reads what another wrote, and that a FLUSH on one covers all.

package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

const (
	// window is for how much of an export the map is asked at a time, so that copying begins before
	// all of a large map is known.
	window = 1 << 30
	// maxZero is the longest WRITE_ZEROES: a server that has no fast way needs time for it, and
	// progress should be visible.
	maxZero = 64 << 20
	// furtherTimeout is how long to wait for the connections after the first: some servers leave
	// connections above their limit unanswered, and the copy waits to begin.
	furtherTimeout = 3 * time.Second
)

// remote is an export over one or more connections.
type remote struct {
	conns   []*client.Conn
	target  client.Target
	command []string // that started the server
	context bool     // base:allocation was selected
}

// dialAll opens the wanted number of connections, or as many as the server accepts: one, if the
// server does not promise that several see the same data.
func dialAll(ctx context.Context, t *client.Target, connections, depth int,
	timeout time.Duration) (*remote, error) {
	o := client.Options{Contexts: []string{proto.ContextAllocation}, Depth: depth, Timeout: timeout}
	first, err := client.Dial(ctx, t, o)
	if err != nil {
		return nil, err
	}
	r := &remote{conns: []*client.Conn{first}, target: *t}
	_, r.context = first.Context(proto.ContextAllocation)
	if !first.Can(proto.FlagCanMultiConn) {
		return r, nil
	}
	r.conns = append(r.conns, dialFurther(ctx, t, o, connections-1)...)
	if ctx.Err() != nil {
		_ = r.close()
		return nil, fmt.Errorf("%s: interrupted while connecting", t.Text)
	}
	for n, c := range r.conns {
		if c.Facts != first.Facts || c.Framing != first.Framing {
			_ = r.close()
			return nil, fmt.Errorf("%s: connection %d sees another export than the first: %d "+
				"bytes, not %d, or other flags", t.Text, n+1, c.Size, first.Size)
		}
	}
	return r, nil
}

// dialFurther opens connections at the same time. A server may accept fewer than wanted: it hangs
// up, or does not answer, and the copy uses the accepted ones.
func dialFurther(ctx context.Context, t *client.Target, o client.Options,
	wanted int) []*client.Conn {
	ctx, cancel := context.WithTimeout(ctx, min(o.Timeout, furtherTimeout))
	defer cancel()
	dialed := make([]*client.Conn, max(wanted, 0))
	var all sync.WaitGroup
	for i := range dialed {
		all.Go(func() { dialed[i], _ = client.Dial(ctx, t, o) })
	}
	all.Wait()
	return slices.DeleteFunc(dialed, func(c *client.Conn) bool { return c == nil })
}

func (r *remote) name() string    { return r.target.Text }
func (r *remote) size() uint64    { return r.conns[0].Size }
func (r *remote) block() uint64   { return uint64(max(r.conns[0].MinBlock, 1)) }
func (r *remote) payload() uint64 { return r.conns[0].MaxPayload() }
func (r *remote) stretch() uint64 { return maxZero }
func (r *remote) grain() uint64   { return max(32<<10, r.block()) }
func (r *remote) lanes() int      { return len(r.conns) }
func (r *remote) mapped() bool    { return r.context }
func (r *remote) dropCache()      {}

func (r *remote) close() error {
	var errs []error
	for _, c := range r.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// extents asks in windows, which grow while they have only zeroes. A range that the server does not
// describe counts as data.
func (r *remote) extents(ctx context.Context, end uint64, visit func(extent) error) error {
	size, width := min(end, r.size()), uint64(window)
	for at := uint64(0); at < size; {
		end := at + min(width, size-at)
		covered, zeroes := at, true
		if r.context {
			err := r.conns[0].Extents(ctx, proto.ContextAllocation, at, end,
				func(e client.Extent) error {
					zero := e.Flags&uint64(proto.StatusZero) != 0
					covered, zeroes = e.Offset+e.Length, zeroes && zero
					return visit(extent{e.Offset, e.Length, zero})
				})
			var refused *client.ReplyError
			if err != nil && !errors.As(err, &refused) {
				return err
			}
		}
		if covered < end {
			if err := visit(extent{covered, end - covered, false}); err != nil {
				return err
			}
			zeroes = false
		}
		if width = window; zeroes {
			width = 2 * (end - at)
		}
		at = end
	}
	return nil
}

func (r *remote) do(ctx context.Context, lane int, q *client.Request) error {
	err := r.conns[lane%len(r.conns)].Do(ctx, q)
	var refused *client.ReplyError
	if errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", r.target.Text, err)
	}
	return err
}

func (r *remote) read(ctx context.Context, lane int, q *client.Request, b []byte,
	offset uint64) error {
	q.Command, q.Flags, q.Offset, q.Data = proto.CmdRead, 0, offset, b
	return r.do(ctx, lane, q)
}

func (r *remote) write(ctx context.Context, lane int, q *client.Request, b []byte,
	offset uint64) error {
	q.Command, q.Flags, q.Offset, q.Data = proto.CmdWrite, 0, offset, b
	return r.do(ctx, lane, q)
}

func (r *remote) zero(ctx context.Context, lane int, q *client.Request, offset, length uint64,
	hole bool) (bool, error) {
	if !r.conns[0].Can(proto.FlagSendWriteZeroes) {
		return false, nil
	}
	q.Command, q.Flags, q.Offset, q.Length, q.Data = proto.CmdWriteZeroes, 0, offset, length, nil
	if !hole {
		q.Flags = proto.CmdFlagNoHole
	}
	err := r.do(ctx, lane, q)
	var refused *client.ReplyError
	if errors.As(err, &refused) &&
		(refused.Errno == proto.ENOTSUP || refused.Errno == proto.EINVAL) {
		return false, nil // the server offers WRITE_ZEROES, and its disk does not support it
	}
	return true, err
}

// flush sends one FLUSH: with several connections the server has promised that it covers all.
func (r *remote) flush(ctx context.Context) error {
	if !r.conns[0].Can(proto.FlagSendFlush) {
		return nil // without FLUSH, answered writes are on the disk
	}
	return r.do(ctx, 0, &client.Request{Command: proto.CmdFlush})
}

// writable refuses a read-only export.
func (r *remote) writable() error {
	if r.conns[0].Can(proto.FlagReadOnly) {
		return fmt.Errorf("%s: the export is read-only", r.target.Text)
	}
	return nil
}

func (r *remote) identity() identity {
	p := Place{Target: r.target, Command: r.command}
	return identity{Place: p.place(), Size: r.size()}
}
