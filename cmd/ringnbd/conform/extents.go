// The rules of a block status that need the request, judged apart from any connection so that each
// can be shown to catch a reply that breaks it.
//
// Invariant: the judge sees only what conn has parsed: extents that are not empty, in chunks that
// belong to the request.

package conform

import (
	"fmt"
	"math/bits"
	"slices"

	"ringnbd/proto"
)

// breach is a rule that a reply broke; soft means that the rule is a SHOULD.
type breach struct {
	rule string
	soft bool
	text string
}

// statusQuestion is what a block status is judged against.
type statusQuestion struct {
	offset, length uint64
	reqOne         bool // REQ_ONE
	extended       bool
	size           uint64   // of the export
	minBlock       uint64   // minimum block size
	contexts       []uint32 // for exactly these there must be a chunk
	base           uint32   // the id of base:allocation
}

// asked returns the question that a request on the connection asks.
func (c *conn) asked(r *request) statusQuestion {
	q := statusQuestion{
		offset: r.offset, length: r.length, reqOne: r.flags&proto.CmdFlagReqOne != 0,
		extended: c.mode.extended(), size: c.size, minBlock: c.t.profile.minBlock(),
	}
	for _, context := range c.contexts {
		q.contexts = append(q.contexts, context.id)
		if context.name == proto.ContextAllocation {
			q.base = context.id
		}
	}
	return q
}

// judgeStatus returns the rules that a successful reply broke.
func judgeStatus(q statusQuestion, chunks []chunk) (list []breach) {
	add := func(soft bool, rule, format string, args ...any) {
		if !soft || len(list) < 64 { // a million extents may break a rule a million times
			list = append(list, breach{rule, soft, fmt.Sprintf(format, args...)})
		}
	}
	seen := map[uint32]int{}
	for _, chunk := range chunks {
		if chunk.kind != proto.ChunkBlockStatus && chunk.kind != proto.ChunkBlockStatusExt {
			continue
		}
		seen[chunk.context]++
		judgeExtents(q, chunk.extents, chunk.context == q.base, add)
	}
	for _, id := range q.contexts {
		if n := seen[id]; n != 1 {
			add(false, "CB-02", "%d chunks for the context %d", n, id)
		}
		delete(seen, id)
	}
	for id := range seen {
		add(false, "CB-02", "a chunk for the context %d, which was not asked about", id)
	}
	return list
}

// judgeExtents adds the rules that the extents of one chunk broke.
func judgeExtents(q statusQuestion, extents []extent, base bool,
	add func(soft bool, rule, format string, args ...any)) {
	if len(extents) == 0 {
		add(false, "CB-03", "no extent")
		return
	}
	if q.reqOne && (len(extents) != 1 || extents[0].length > q.length) {
		add(false, "CB-04", "%d extents, the first of %d bytes, for REQ_ONE of %d bytes",
			len(extents), extents[0].length, q.length)
	}
	if len(extents) > proto.MaxExtents {
		add(true, "CB-06", "%d extents in one chunk", len(extents))
	}
	end := q.offset
	for i, x := range extents {
		switch {
		case x.length == 0:
			add(false, "CB-03", "extent %d is empty", i)
		case i > 0 && end-q.offset >= q.length:
			add(false, "CB-05",
				"extent %d begins %d bytes after the offset of a request of %d bytes", i,
				end-q.offset, q.length)
			return
		case i > 0 && x.flags == extents[i-1].flags:
			add(true, "CB-07", "extents %d and %d have the same status %#x", i-1, i, x.flags)
		}
		if base && x.flags>>32 != 0 {
			add(false, "XH-07",
				"extent %d has %#x in the upper half of a status of base:allocation", i, x.flags)
		}
		if base && uint32(x.flags)&^(proto.StatusHole|proto.StatusZero) != 0 {
			add(true, "CB-08", "extent %d has the status %#x; base:allocation has two bits",
				i, x.flags)
		}
		sum, carry := bits.Add64(end, x.length, 0)
		if carry != 0 {
			add(false, "CB-09", "extent %d of %d bytes goes beyond 2^64", i, x.length)
			return
		}
		end = sum
		block := max(q.minBlock, 512)
		if end%block != 0 && end != q.size && end != q.offset+q.length {
			add(true, "CB-07", "extent %d ends at %d, which is not a multiple of %d", i, end, block)
		}
	}
	if end > q.size {
		// an end that was rounded up to a block says nothing wrong
		block := max(q.minBlock, 512)
		add(end-q.size < block && end%block == 0, "CB-05",
			"the extents end at %d, and the export at %d", end, q.size)
	}
}

// status sends a BLOCK_STATUS that must succeed, and fails on every broken MUST. A broken SHOULD is
// noted only if its rule is one of rules.
func (c *conn) status(r *request, rules ...string) []chunk {
	reply := c.succeeds(r)
	for _, b := range judgeStatus(c.asked(r), reply.chunks) {
		if !b.soft {
			c.t.failf("%s: %s (%s)", r, b.text, b.rule)
		}
		if slices.Contains(rules, b.rule) && len(c.t.differs) < 3 {
			c.t.differ("%s: %s (%s)", r, b.text, c.mode)
		}
	}
	return reply.chunks
}

// allocation returns the extents of base:allocation in a reply.
func (c *conn) allocation(chunks []chunk) []extent {
	base := c.asked(&request{}).base
	for _, chunk := range chunks {
		if chunk.context == base && len(chunk.extents) > 0 {
			return chunk.extents
		}
	}
	return nil
}

// zeroSpans returns the parts of [offset, offset+length) that the server calls ZERO; it asks until
// it knows the status of all.
func (c *conn) zeroSpans(offset, length uint64) []span {
	var list []span
	for at := offset; at < offset+length; {
		extents := c.allocation(c.status(newCommand(proto.CmdBlockStatus, at,
			min(offset+length-at, 1<<32-c.t.block()))))
		for _, x := range extents {
			if x.flags&uint64(proto.StatusZero) != 0 {
				list = append(list, span{at, min(at+x.length, offset+length)})
			}
			at += x.length
		}
	}
	return list
}
