// The map of an export: as many BLOCK_STATUS requests as it takes, in order.
//
// Invariant: every request begins where the answer before ended, and every answer has at least one byte, so it ends; memory is that of one answer.

package peer

import (
	"context"
	"fmt"

	"ringnbd/proto"
)

// Extent is a range of the export, with what a meta context says about it.
type Extent struct {
	Offset uint64 // bytes
	Length uint64 // bytes
	Flags  uint64
}

// Extents tells a selected context's extents from an offset on, up to end or the end of the export: without gaps, neighbours of equal flags made one. What tell returns
// as an error ends it. The connection should have nothing else to do: several maps at a time are several connections.
func (c *Conn) Extents(ctx context.Context, name string, offset, end uint64, tell func(Extent) error) error {
	id, ok := c.Context(name)
	if !ok {
		return fmt.Errorf("%s: the server has no meta context %q for this export", c.text, name)
	}
	end = min(end, c.Size)
	r := &Request{Command: proto.CmdBlockStatus, Context: id}
	var last Extent
	for at := offset; at < end; {
		r.Offset, r.Length = at, min(end-at, c.MaxLength())
		if m := uint64(max(c.MinBlock, 1)); c.MinBlock > 1 {
			r.Offset = at - at%m
			r.Length = min((end-r.Offset+m-1)/m*m, c.Size-r.Offset, c.MaxLength())
		}
		if err := c.Do(ctx, r); err != nil {
			return err
		}
		from := r.Offset
		for _, e := range r.Extents {
			to := min(from+e.Length, end)
			if to <= at { // in front of an offset that is no multiple of a block
				from = to
				continue
			}
			switch {
			case last.Length > 0 && last.Flags == e.Flags:
				last.Length += to - at
			case last.Length > 0:
				if err := tell(last); err != nil {
					return err
				}
				fallthrough
			default:
				last = Extent{Offset: at, Length: to - at, Flags: e.Flags}
			}
			at, from = to, to
		}
		if at <= r.Offset {
			return violated("the answer to BLOCK_STATUS tells nothing")
		}
	}
	if last.Length == 0 {
		return nil
	}
	return tell(last)
}
