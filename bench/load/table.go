// The generation table: what every block of the window must hold, and which requests are on it.
//
// Invariant: a block is being written by one request, or read by any number, or neither. Each block
// belongs to one loop (plan.go: parts), so entries need no lock.

package load

// An entry is generation:40 | readers:20 | zeroed:1 | writing:1 | stamped:1, from the highest bit
// down, with one to spare.
const (
	// the generation has been acknowledged, so its stamps are what must be read
	entryStamped = 1 << 0
	entryWriting = 1 << 1
	entryZeroed  = 1 << 2 // likewise, but zeroes
	entryReader  = 1 << 4 // one reader
	// all readers. maxInflight is larger by one: that reader is refused like a writer
	entryReaders    = (1<<20 - 1) << 4
	entryGeneration = 1 << 24
	maxGeneration   = 1<<40 - 1
)

type table struct {
	base uint64 // bytes: where the window begins
	unit uint64 // bytes of a block
	run  uint64
	// entries have no pointers and begin as zeroes: pages that are not touched cost nothing.
	entries []uint64
}

// maxTable limits the table, in bytes.
const maxTable = 2 << 30

func newTable(base, unit, blocks, run uint64) *table {
	return &table{base: base, unit: unit, run: run, entries: make([]uint64, blocks)}
}

func (t *table) blocks(offset, length uint64) []uint64 {
	first := (offset - t.base) / t.unit
	return t.entries[first : first+length/t.unit]
}

// boundary reports whether a block begins at an offset.
func (t *table) boundary(offset uint64) bool { return (offset-t.base)%t.unit == 0 }

// content is what is known about a block.
type content uint64

const (
	unknown content = 0
	stamped content = entryStamped // stamps of its generation
	zeroed  content = entryZeroed  // nothing but zeroes
)

// expect returns the generation that a sector must have, and what it must hold.
func (t *table) expect(offset uint64) (generation uint64, holds content) {
	e := t.entries[(offset-t.base)/t.unit]
	return e / entryGeneration, content(e & (entryStamped | entryZeroed))
}

// takeWrite claims the blocks for a request that changes them, and reports whether no other request
// was on one of them.
func (t *table) takeWrite(offset, length uint64) bool {
	list := t.blocks(offset, length)
	for _, e := range list {
		if e&(entryReaders|entryWriting) != 0 || e/entryGeneration == maxGeneration {
			return false
		}
	}
	for i := range list {
		list[i] |= entryWriting
	}
	return true
}

// stamp fills b with the next generation of each block.
func (t *table) stamp(b []byte, offset uint64) {
	for _, e := range t.blocks(offset, uint64(len(b))) {
		for end := offset + t.unit; offset < end; offset += sector {
			putStamp(b, offset, e/entryGeneration+1, t.run)
			b = b[sector:]
		}
	}
}

// doneWrite moves the blocks to the next generation, and notes what they hold.
func (t *table) doneWrite(offset, length uint64, holds content) {
	list := t.blocks(offset, length)
	for i, e := range list {
		list[i] = e&^(entryWriting|entryStamped|entryZeroed) + entryGeneration | uint64(holds)
	}
}

// takeRead keeps writers off the blocks, and reports whether there was none.
func (t *table) takeRead(offset, length uint64) bool {
	list := t.blocks(offset, length)
	for _, e := range list {
		if e&entryWriting != 0 || e&entryReaders == entryReaders {
			return false
		}
	}
	for i := range list {
		list[i] += entryReader
	}
	return true
}

func (t *table) doneRead(offset, length uint64) {
	list := t.blocks(offset, length)
	for i := range list {
		list[i] -= entryReader
	}
}
