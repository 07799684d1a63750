// The map: the state of each block, two bits in memory as on the top.
//
// Invariant: one loop changes it, and anything may read it at the same time. A page that is not
// marked as touched has no bit set, and its memory was never used.

package overlay

import (
	"encoding/binary"
	"math/bits"
	"runtime"
	"sync/atomic"
)

// State is where the content of a block is.
type State uint8

// The states of a block, as in the map.
const (
	FromOrigin State = iota
	Data             // in the top
	Zeroes           // nowhere: it reads as zeroes
)

const (
	wordBlocks = 32
	pageWords  = pageLen / 8
	pageBlocks = pageWords * wordBlocks
	low        = 0x5555_5555_5555_5555 // the lower bit of each block
)

// pattern is a word of blocks in this state.
func (s State) pattern() uint64 { return uint64(s) * low }

// Map is the states of all blocks.
type Map struct {
	layout  Layout
	words   []uint64
	touched []uint64 // a bit for each page
	blocks  uint64
	data    atomic.Uint64 // blocks in the top
	zeroes  atomic.Uint64 // blocks that are zeroes
}

// NewMap returns a map of an overlay without writes. Words is Layout.Words words of zeroes, which
// the map keeps (memory of any kind: it is not used before it is needed); nil lets Go allocate it.
func NewMap(l Layout, words []uint64) *Map {
	if words == nil {
		words = make([]uint64, l.Words())
	}
	if len(words) != l.Words() {
		panic("overlay: a map of another size")
	}
	pages := l.MapLen / pageLen
	return &Map{layout: l, words: words, touched: make([]uint64, (pages+63)/64),
		blocks: l.Size / uint64(l.Block)}
}

// Load takes a part of the map as it was read from the top, from byte at of the map on, once for
// each part. Both at and the length are multiples of 8. What is not loaded is from the origin: a
// hole of the file need not be. Its error is a *DamagedError.
func (m *Map) Load(at uint64, part []byte) error {
	if at%8 != 0 || len(part)%8 != 0 || at+uint64(len(part)) > m.layout.MapLen {
		panic("overlay: a part beside the map")
	}
	for i := 0; i < len(part); i += 8 {
		w := binary.LittleEndian.Uint64(part[i:])
		if w == 0 {
			continue
		}
		word := (at + uint64(i)) / 8
		wrong := w & (w >> 1) & low
		if end := m.blocks - min(word*wordBlocks, m.blocks); end < wordBlocks {
			wrong |= w >> (2 * end) << (2 * end)
		}
		if wrong != 0 {
			byteAt := uint64(bits.TrailingZeros64(wrong)) / 8
			return &DamagedError{"a state that blocks do not have is in the map",
				m.layout.MapAt + word*8 + byteAt}
		}
		m.put(word, w)
	}
	return nil
}

// put changes a word.
func (m *Map) put(word, w uint64) {
	old := m.words[word]
	atomic.StoreUint64(&m.words[word], w)
	page := word / pageWords
	if bit := uint64(1) << (page % 64); m.touched[page/64]&bit == 0 {
		atomic.StoreUint64(&m.touched[page/64], m.touched[page/64]|bit)
	}
	count(&m.data, w&low, old&low)
	count(&m.zeroes, w&^uint64(low), old&^uint64(low))
}

// count brings a number of blocks up to date.
func count(n *atomic.Uint64, is, was uint64) {
	if d := bits.OnesCount64(is) - bits.OnesCount64(was); d != 0 {
		n.Add(uint64(d))
	}
}

// set gives n blocks from b on a state, all within one page, and reports whether any of them had
// another.
func (m *Map) set(b, n uint64, s State) bool {
	changed := false
	for end := b + n; b < end; {
		from := b % wordBlocks
		k := min(wordBlocks-from, end-b)
		mask := ^uint64(0) >> (64 - 2*k) << (2 * from)
		old := m.words[b/wordBlocks]
		if w := old&^mask | s.pattern()&mask; w != old {
			m.put(b/wordBlocks, w)
			changed = true
		}
		b += k
	}
	return changed
}

// run returns the state of block b, and how many blocks from b on have it, up to end.
func (m *Map) run(b, end uint64) (State, uint64) {
	s := State(0xff)
	for at := b; at < end; {
		page := at / pageBlocks
		if atomic.LoadUint64(&m.touched[page/64])>>(page%64)&1 == 0 {
			if s == 0xff {
				s = FromOrigin
			}
			if s != FromOrigin {
				return s, at - b
			}
			at = (page + 1) * pageBlocks
			continue
		}
		w := atomic.LoadUint64(&m.words[at/wordBlocks]) >> (2 * (at % wordBlocks))
		if s == 0xff {
			s = State(w & 3)
		}
		other := w ^ s.pattern()>>(2*(at%wordBlocks))
		if other != 0 {
			at += uint64(bits.TrailingZeros64(other)) / 2
			return s, min(at, end) - b
		}
		at = (at/wordBlocks + 1) * wordBlocks
	}
	return s, end - b
}

// copyPage writes a page as it is on the top.
func (m *Map) copyPage(to []byte, page uint64) {
	words := m.words[page*pageWords:][:pageWords]
	for i, w := range words {
		binary.LittleEndian.PutUint64(to[8*i:], w)
	}
}

// Extents tells the runs of length bytes from off on, in order, until yield says no. It may be
// called from anywhere at any time: each run is what it was at some moment of the call.
func (m *Map) Extents(off, length uint64, yield func(off, length uint64, s State) bool) {
	defer runtime.KeepAlive(m) // its words may go with it
	block := uint64(m.layout.Block)
	end := min(off+length, m.layout.Size)
	for off < end {
		s, n := m.run(off/block, (end+block-1)/block)
		next := min((off/block+n)*block, end)
		if !yield(off, next-off, s) {
			return
		}
		off = next
	}
}
