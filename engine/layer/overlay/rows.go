// Sets of rows: a bit for each ID.
//
// Invariant: n is the number of bits that are set, and none is set below word from.

package overlay

import "math/bits"

// rowSet is a set of rows.
type rowSet struct {
	words []uint64
	n     int
	from  int // no bit is set in the words before it
}

func newRowSet(rows uint32) rowSet { return rowSet{words: make([]uint64, (rows+63)/64)} }

func (s *rowSet) add(id uint32) {
	word := int(id / 64)
	s.words[word] |= 1 << (id % 64)
	s.n++
	s.from = min(s.from, word)
}

// has reports whether a row is in the set.
func (s *rowSet) has(id uint32) bool { return s.words[id/64]>>(id%64)&1 != 0 }

// remove takes a row out that is in the set.
func (s *rowSet) remove(id uint32) {
	s.words[id/64] &^= 1 << (id % 64)
	s.n--
}

// take takes any row out.
func (s *rowSet) take() (id uint32, ok bool) {
	if s.n == 0 {
		return 0, false
	}
	for s.words[s.from] == 0 {
		s.from++
	}
	id = uint32(s.from*64 + bits.TrailingZeros64(s.words[s.from]))
	s.remove(id)
	return id, true
}

// addAll adds all rows of another set, of which none is in this one.
func (s *rowSet) addAll(other *rowSet) {
	for i, w := range other.words {
		s.words[i] |= w
	}
	s.n += other.n
	s.from = min(s.from, other.from)
}

// clear empties the set.
func (s *rowSet) clear() {
	clear(s.words)
	s.n, s.from = 0, 0
}
