// The plan: the source's map, cut into pieces in order.
//
// Invariant: the pieces of a plan cover the source once, except for what was done before; they
// begin and end at multiples of both ends' blocks, or with the source.

package transfer

// shortHole is what zeroes in the map must have at least to be worth a piece of their own, in
// bytes. Shorter ones are read with the data around them: fewer requests, and a slot finds them
// again.
const shortHole = 64 << 10

// piece is what a slot does at a time.
type piece struct {
	offset, length uint64
	zero           bool
	// what was read of a source that passes by once: in a buffer of the job, and whole
	data *[]byte
}

// plan cuts what it is told into pieces.
type plan struct {
	size    uint64
	block   uint64 // of both ends
	request uint64 // longest piece of data
	stretch uint64 // longest piece of zeroes
	done    []Range
	give    func(piece) error

	at uint64 // everything before is given
}

// tell takes the next extent of the map.
func (p *plan) tell(e extent) error {
	end := min(e.offset+e.length, p.size)
	if !e.zero {
		if whole := end - end%p.request; whole > p.at { // the rest may go on in the next extent
			return p.data(whole)
		}
		return nil
	}
	start := (max(e.offset, p.at) + p.block - 1) / p.block * p.block
	if end != p.size {
		end -= end % p.block
	}
	if end < start || end-start < shortHole && (start > p.at || end != p.size) {
		return nil
	}
	if err := p.data(start); err != nil {
		return err
	}
	p.at = end
	return p.cut(start, end, p.stretch, true)
}

// finish gives what is left.
func (p *plan) finish() error { return p.data(p.size) }

// data gives everything up to an offset as data, in pieces that end at multiples of the request's
// size.
func (p *plan) data(end uint64) error {
	start := p.at
	if end <= start {
		return nil
	}
	p.at = end
	return p.cut(start, end, p.request, false)
}

func (p *plan) cut(start, end, most uint64, zero bool) error {
	return missing(p.done, start, end, func(start, end uint64) error {
		for start < end {
			to := min(start-start%most+most, end)
			if err := p.give(piece{offset: start, length: to - start, zero: zero}); err != nil {
				return err
			}
			start = to
		}
		return nil
	})
}
