// The judge of block statuses: each rule broken by hand, and replies that break none.
//
// Invariant: each case names the one rule that it breaks, or none.

package conform

import (
	"testing"

	"ringnbd/proto"
)

// oneChunk is a reply for the context 1.
func oneChunk(extents ...extent) []chunk {
	return []chunk{{kind: proto.ChunkBlockStatus, context: 1, extents: extents}}
}

func TestJudgeStatus(t *testing.T) {
	const data, hole = 0, uint64(proto.StatusHole | proto.StatusZero)
	plain := statusQuestion{offset: 4096, length: 8192, size: 1 << 20, least: 1,
		contexts: []uint32{1}, base: 1}
	one, blocks, tail, two := plain, plain, plain, plain
	one.one = true
	blocks.least = 4096
	tail.offset, tail.size = 1<<20-8192, 1<<20-100
	two.contexts = []uint32{1, 2}
	filtered := two
	filtered.contexts = []uint32{2}
	for name, c := range map[string]struct {
		q      statusQuestion
		chunks []chunk
		rule   string
		soft   bool
	}{
		"exact": {plain, oneChunk(extent{4096, data}, extent{4096, hole}),
			"", false},
		"shorter than asked": {plain, oneChunk(extent{512, data}), "", false},
		"the last reaches further": {plain,
			oneChunk(extent{4096, data}, extent{1 << 19, hole}), "", false},
		"to an odd end of the export": {tail, oneChunk(extent{8092, data}), "", false},
		"REQ_ONE":                     {one, oneChunk(extent{8192, hole}), "", false},
		"none":                        {plain, nil, "CB-02", false},
		"twice": {plain,
			append(oneChunk(extent{512, data}), oneChunk(extent{512, data})...), "CB-02", false},
		"one of two": {two, oneChunk(extent{512, data}), "CB-02", false},
		"one that was filtered out": {filtered,
			[]chunk{{kind: 5, context: 2, extents: []extent{{512, 0}}},
				{kind: 5, context: 1, extents: []extent{{512, 0}}}}, "CB-02", false},
		"empty":      {plain, oneChunk(extent{0, data}), "CB-03", false},
		"no extents": {plain, oneChunk(), "CB-03", false},
		"REQ_ONE with two": {one, oneChunk(extent{512, data}, extent{512, hole}),
			"CB-04", false},
		"REQ_ONE too long": {one, oneChunk(extent{8704, data}), "CB-04", false},
		"one behind the request": {plain, oneChunk(extent{8192, data}, extent{512, hole}),
			"CB-05", false},
		"beyond the export": {plain, oneChunk(extent{1 << 21, data}), "CB-05", false},
		"one block beyond the export": {plain, oneChunk(extent{1<<20 - 4096 + 512, data}),
			"CB-05", false},
		"to the end of an odd export": {tail, oneChunk(extent{8192, data}), "CB-05", true},
		"a half of the last block":    {tail, oneChunk(extent{8150, data}), "CB-07", true},
		"equal neighbours": {plain, oneChunk(extent{4096, data}, extent{4096, data}),
			"CB-07", true},
		"cut at 100": {plain, oneChunk(extent{100, data}, extent{8092, hole}),
			"CB-07", true},
		"cut at half of a block": {blocks, oneChunk(extent{2048, data}, extent{6144, hole}),
			"CB-07", true},
		"bits that nobody knows": {plain, oneChunk(extent{4096, 8}), "CB-08", true},
		"upper bits":             {plain, oneChunk(extent{4096, 1 << 32}), "XH-07", false},
		"a length that wraps round": {plain,
			oneChunk(extent{512, data}, extent{1<<64 - 512, hole}), "CB-09", false},
		"more extents than are a chunk": {statusQuestion{length: 1 << 40, size: 1 << 40, least: 1,
			contexts: []uint32{1}, base: 1}, oneChunk(many(proto.MaxExtents + 1)...), "CB-06",
			true},
		"as many as are a chunk": {statusQuestion{length: 1 << 40, size: 1 << 40, least: 1,
			contexts: []uint32{1}, base: 1}, oneChunk(many(proto.MaxExtents)...), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			list := judgeStatus(c.q, c.chunks)
			switch {
			case c.rule == "" && len(list) > 0:
				t.Errorf("a right reply breaks %v", list)
			case c.rule != "" &&
				(len(list) == 0 || list[0].rule != c.rule || list[0].soft != c.soft):
				t.Errorf("%v, not first of all %s (soft: %v)", list, c.rule, c.soft)
			}
		})
	}
}

// many is n extents in turn data and holes.
func many(n int) []extent {
	list := make([]extent, n)
	for i := range list {
		list[i] = extent{512, uint64(i % 2)}
	}
	return list
}
