// The parts of a READ that were received, so that none comes twice and none is missing.
//
// Invariant: spans are in order, do not touch each other, and are few: chunks in order are one
// span.

package client

import (
	"slices"
	"sort"
)

// maxSpans limits how scattered an answer may be: servers split at holes, and a request of a MiB
// has at most 256 holes of 4 KiB. Without a limit, one-byte chunks in a malicious order would cost
// the square of their number.
const maxSpans = 4096

// span is a range of bytes: start <= end.
type span struct{ start, end uint64 }

// spans is a list of spans.
type spans []span

// add adds a range, which is not empty, or returns what is wrong with it.
func (s *spans) add(start, end uint64) error {
	list := *s
	if n := len(list); n > 0 && list[n-1].end == start {
		list[n-1].end = end
		return nil
	}
	i := sort.Search(len(list), func(i int) bool { return list[i].end > start })
	if i < len(list) && list[i].start < end {
		return violated("two chunks for the same offset %d of one reply", max(list[i].start, start))
	}
	after := i > 0 && list[i-1].end == start
	before := i < len(list) && list[i].start == end
	switch {
	case after && before:
		list[i-1].end = list[i].end
		*s = slices.Delete(list, i, i+1)
	case after:
		list[i-1].end = end
	case before:
		list[i].start = start
	case len(list) == maxSpans:
		return violated("a reply in more than %d scattered pieces", maxSpans)
	default:
		*s = slices.Insert(list, i, span{start, end})
	}
	return nil
}

// isWhole reports whether exactly this range was received.
func (s spans) isWhole(start, end uint64) bool { return len(s) == 1 && s[0] == span{start, end} }
