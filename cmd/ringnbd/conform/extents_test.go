// The judge of block statuses: each rule broken by hand, and replies that break none.
//
// Invariant: each case names the one rule that it breaks, or none.

package conform

import (
	"testing"

	"ringnbd/proto"
)

// oneChunk returns a reply with one chunk, of the context 1.
func oneChunk(extents ...extent) []chunk {
	return []chunk{{kind: proto.ChunkBlockStatus, context: 1, extents: extents}}
}

// statusCase is a reply to a question and the rule that it breaks, "" for none.
type statusCase struct {
	name     string
	question statusQuestion
	chunks   []chunk
	rule     string
	soft     bool
}

func statusCases() []statusCase {
	plain := statusQuestion{offset: 4096, length: 8192, size: 1 << 20, minBlock: 1,
		contexts: []uint32{1}, base: 1}
	one, blocks, tail, two, huge := plain, plain, plain, plain, plain
	one.reqOne = true
	blocks.minBlock = 4096
	tail.offset, tail.size = 1<<20-8192, 1<<20-100
	two.contexts = []uint32{1, 2}
	huge.offset, huge.length, huge.size = 0, 1<<40, 1<<40
	filtered := two
	filtered.contexts = []uint32{2}
	unwanted := []chunk{{kind: 5, context: 2, extents: []extent{data(512)}},
		{kind: 5, context: 1, extents: []extent{data(512)}}}
	again := append(oneChunk(data(512)), oneChunk(data(512))...)
	most, tooMany := many(proto.MaxExtents), many(proto.MaxExtents+1)
	return []statusCase{
		{"exact", plain, oneChunk(data(4096), hole(4096)), "", false},
		{"shorter than asked", plain, oneChunk(data(512)), "", false},
		{"the last reaches further", plain, oneChunk(data(4096), hole(1<<19)), "", false},
		{"to an odd end of the export", tail, oneChunk(data(8092)), "", false},
		{"REQ_ONE", one, oneChunk(hole(8192)), "", false},
		{"none", plain, nil, "CB-02", false},
		{"twice", plain, again, "CB-02", false},
		{"one of two", two, oneChunk(data(512)), "CB-02", false},
		{"a context that was filtered out", filtered, unwanted, "CB-02", false},
		{"empty", plain, oneChunk(data(0)), "CB-03", false},
		{"no extents", plain, oneChunk(), "CB-03", false},
		{"REQ_ONE with two", one, oneChunk(data(512), hole(512)), "CB-04", false},
		{"REQ_ONE too long", one, oneChunk(data(8704)), "CB-04", false},
		{"an extent after the request", plain, oneChunk(data(8192), hole(512)), "CB-05", false},
		{"beyond the export", plain, oneChunk(data(1 << 21)), "CB-05", false},
		{"one block beyond the export", plain, oneChunk(data(1<<20 - 3584)), "CB-05", false},
		{"to the end of an odd export", tail, oneChunk(data(8192)), "CB-05", true},
		{"the most extents that a chunk may have", huge, oneChunk(most...), "", false},
		{"more extents than a chunk may have", huge, oneChunk(tooMany...), "CB-06", true},
		{"half of the last block", tail, oneChunk(data(8150)), "CB-07", true},
		{"equal neighbours", plain, oneChunk(data(4096), data(4096)), "CB-07", true},
		{"cut at 100", plain, oneChunk(data(100), hole(8092)), "CB-07", true},
		{"cut at half of a block", blocks, oneChunk(data(2048), hole(6144)), "CB-07", true},
		{"unknown bits", plain, oneChunk(extent{4096, 8}), "CB-08", true},
		{"upper bits", plain, oneChunk(extent{4096, 1 << 32}), "XH-07", false},
		{"a length that wraps round", plain, oneChunk(data(512), hole(1<<64-512)), "CB-09", false},
	}
}

func data(length uint64) extent { return extent{length, 0} }

func hole(length uint64) extent {
	return extent{length, uint64(proto.StatusHole | proto.StatusZero)}
}

func TestJudgeStatus(t *testing.T) {
	for _, c := range statusCases() {
		t.Run(c.name, func(t *testing.T) {
			list := judgeStatus(c.question, c.chunks)
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

// many returns n extents that alternate data and holes.
func many(n int) []extent {
	list := make([]extent, n)
	for i := range list {
		list[i] = extent{512, uint64(i % 2)}
	}
	return list
}
