// The plan: the source's map, cut into pieces in order.
//
// Invariant: the pieces of a plan cover the source once, except for ranges that were done before;
// they begin and end at multiples of both ends' blocks, or with the source.

package transfer

// minHole is the minimum length of zeroes in the map to get a piece of their own, in bytes. Shorter
// zeroes are read with the data around them, which takes fewer requests, and a slot finds them in
// the data.
const minHole = 64 << 10

// piece is the unit of work of a slot.
type piece struct {
	offset, length uint64
	zero           bool
	// of a stream: the data that was read, in a buffer of the job; otherwise nil
	data *[]byte
}

// plan cuts the extents of a map into pieces.
type plan struct {
	size    uint64
	block   uint64 // of both ends
	request uint64 // longest piece of data
	stretch uint64 // longest piece of zeroes
	done    []byteRange
	give    func(piece) error

	at uint64 // everything before it was handed out
}

// addExtent takes the next extent of the map.
func (p *plan) addExtent(e extent) error {
	end := min(e.offset+e.length, p.size)
	if !e.zero {
		if whole := end - end%p.request; whole > p.at { // the rest may continue in the next extent
			return p.data(whole)
		}
		return nil
	}
	start := (max(e.offset, p.at) + p.block - 1) / p.block * p.block
	if end != p.size {
		end -= end % p.block
	}
	if end < start || end-start < minHole && (start > p.at || end != p.size) {
		return nil
	}
	if err := p.data(start); err != nil {
		return err
	}
	p.at = end
	return p.cut(start, end, p.stretch, true)
}

// finish hands out the rest.
func (p *plan) finish() error { return p.data(p.size) }

// data hands out everything up to an offset as data, in pieces that end at multiples of the
// request's size.
func (p *plan) data(end uint64) error {
	start := p.at
	if end <= start {
		return nil
	}
	p.at = end
	return p.cut(start, end, p.request, false)
}

// cut hands out the missing parts of a range in pieces of at most maxPiece bytes.
func (p *plan) cut(start, end, maxPiece uint64, zero bool) error {
	return missing(p.done, start, end, func(start, end uint64) error {
		for start < end {
			to := min(start-start%maxPiece+maxPiece, end)
			if err := p.give(piece{offset: start, length: to - start, zero: zero}); err != nil {
				return err
			}
			start = to
		}
		return nil
	})
}
