// The map of an export: as many BLOCK_STATUS requests as it takes, in order.
//
// Invariant: every request begins where the answer before ended, or in front of that, and every
// answer tells at least one byte more, so it ends; memory is that of one answer.

package client

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

// Extents tells a selected context's extents from an offset on, up to end or the end of the export:
// without gaps, neighbours of equal flags made one. What tell returns as an error ends it. The
// connection should have nothing else to do: several maps at a time are several connections.
//
// An export's end that is no whole block of a server with a smallest one cannot be asked about. If
// the server does not tell it with what is in front of it, it is data in base:allocation, where
// that is always right; other contexts are told without it.
func (c *Conn) Extents(ctx context.Context, name string, offset, end uint64,
	tell func(Extent) error) error {
	id, ok := c.Context(name)
	if !ok {
		return fmt.Errorf("%s: the server has no meta context %q for this export", c.text, name)
	}
	end = min(end, c.Size)
	block := uint64(max(c.MinBlock, 1))
	whole := min((end+block-1)/block*block, c.Size-c.Size%block)
	r := &Request{Command: proto.CmdBlockStatus, Context: id}
	out := joint{tell: tell}
	at := offset
	for at < min(end, whole) {
		r.Offset = at - at%block
		r.Length = min(whole-r.Offset, c.MaxLength())
		if err := c.Do(ctx, r); err != nil {
			return err
		}
		from, before := r.Offset, at
		for _, e := range r.Extents {
			to := min(from+e.Length, end)
			if to <= at { // in front of an offset that is not a multiple of a block
				from = to
				continue
			}
			if err := out.add(Extent{Offset: at, Length: to - at, Flags: e.Flags}); err != nil {
				return err
			}
			at, from = to, to
		}
		if at == before {
			return violated("the answer to BLOCK_STATUS tells nothing")
		}
	}
	if at < end && name == proto.ContextAllocation {
		if err := out.add(Extent{Offset: at, Length: end - at}); err != nil {
			return err
		}
	}
	return out.end()
}

// joint makes neighbours of equal flags one.
type joint struct {
	tell func(Extent) error
	last Extent
}

func (j *joint) add(e Extent) error {
	if j.last.Length > 0 && j.last.Flags == e.Flags {
		j.last.Length += e.Length
		return nil
	}
	err := j.end()
	j.last = e
	return err
}

func (j *joint) end() error {
	if j.last.Length == 0 {
		return nil
	}
	return j.tell(j.last)
}
