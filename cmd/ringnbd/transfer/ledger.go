// The ledger: which ranges are done.
//
// Invariant: ranges are in order, do not touch, and are never empty. Because pieces are handed out
// in order, there are about as many ranges as slots.

package transfer

import (
	"slices"
	"sort"
	"sync"
)

// byteRange is a part of the source, [Start, End), in bytes.
type byteRange struct {
	Start uint64 `json:"start"`
	End   uint64 `json:"end"`
}

// ledger is shared by all slots.
type ledger struct {
	mu   sync.Mutex
	list []byteRange
}

// add records a range, which may touch or overlap others.
func (l *ledger) add(start, end uint64) {
	if start >= end {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.list), func(i int) bool { return l.list[i].End >= start })
	j := i
	for ; j < len(l.list) && l.list[j].Start <= end; j++ {
		start, end = min(start, l.list[j].Start), max(end, l.list[j].End)
	}
	if i == j {
		l.list = slices.Insert(l.list, i, byteRange{start, end})
		return
	}
	l.list[i] = byteRange{start, end}
	l.list = slices.Delete(l.list, i+1, j)
}

// copy returns the ranges at this moment.
func (l *ledger) copy() []byteRange {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// missing visits the parts of [start, end) that are in no range of a list.
func missing(done []byteRange, start, end uint64, visit func(start, end uint64) error) error {
	i := sort.Search(len(done), func(i int) bool { return done[i].End > start })
	for ; i < len(done) && done[i].Start < end; i++ {
		if done[i].Start > start {
			if err := visit(start, done[i].Start); err != nil {
				return err
			}
		}
		start = done[i].End
	}
	if start < end {
		return visit(start, end)
	}
	return nil
}
