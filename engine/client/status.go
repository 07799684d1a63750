// The map of an export, made of BLOCK_STATUS requests in order.
//
// Invariant: every request begins where the answer before it ended, or less than a block earlier,
// and every answer describes at least one further byte, so the map ends; its memory is that of one
// answer.

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

// Extents calls emit for a selected context's extents from an offset on, up to end or the end of
// the export: without gaps, neighbours of equal flags merged. An error of emit ends it. The
// connection should have no other requests: several maps at a time need several connections.
//
// If the server has a minimum block, an incomplete block at the end of the export cannot be asked
// about. If the server does not describe it together with the bytes before it, it is data in
// base:allocation, where that is always right, and missing in other contexts.
func (c *Conn) Extents(ctx context.Context, name string, offset, end uint64,
	emit func(Extent) error) error {
	id, ok := c.Context(name)
	if !ok {
		return fmt.Errorf("%s: the server has no metadata context %q for this export", c.target,
			name)
	}
	end = min(end, c.Size)
	block := uint64(max(c.MinBlock, 1))
	whole := min((end+block-1)/block*block, c.Size-c.Size%block)
	r := &Request{Command: proto.CmdBlockStatus, Context: id}
	out := merger{emit: emit}
	at := offset
	for at < min(end, whole) {
		r.Offset = at - at%block
		r.Length = min(whole-r.Offset, c.maxLength())
		if err := c.Do(ctx, r); err != nil {
			return err
		}
		from, before := r.Offset, at
		for _, e := range r.Extents {
			to := min(from+e.Length, end)
			if to <= at { // before an offset that is not a multiple of a block
				from = to
				continue
			}
			if err := out.add(Extent{Offset: at, Length: to - at, Flags: e.Flags}); err != nil {
				return err
			}
			at, from = to, to
		}
		if at == before {
			return violated("the answer to BLOCK_STATUS describes nothing")
		}
	}
	if at < end && name == proto.ContextAllocation {
		if err := out.add(Extent{Offset: at, Length: end - at}); err != nil {
			return err
		}
	}
	return out.end()
}

// merger merges neighbours of equal flags.
type merger struct {
	emit func(Extent) error
	last Extent
}

// add merges an extent with the last one, or emits the last one.
func (j *merger) add(e Extent) error {
	if j.last.Length > 0 && j.last.Flags == e.Flags {
		j.last.Length += e.Length
		return nil
	}
	err := j.end()
	j.last = e
	return err
}

// end emits the last extent.
func (j *merger) end() error {
	if j.last.Length == 0 {
		return nil
	}
	return j.emit(j.last)
}
