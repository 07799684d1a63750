// Block sizes: one, or several with their shares.
//
// Invariant: a Mix that was parsed has at least one size, no size is 0, and the sum of its shares
// is more than 0.

package load

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"ringnbd/engine/units"
)

// Mix is the sizes of requests in bytes and how often each is drawn.
type Mix struct {
	Sizes  []uint64
	Shares []uint32 // relative
	total  uint64
}

// ParseMix reads "4k" or "4k:70,64k:30". A size without a share has the share 1.
func ParseMix(text string) (Mix, error) {
	var m Mix
	for _, field := range strings.Split(text, ",") {
		size, share, hasShare := strings.Cut(field, ":")
		n, err := units.ParseSize(strings.TrimSpace(size))
		if err != nil {
			return Mix{}, err
		}
		if n == 0 || n > maxBlock {
			return Mix{}, fmt.Errorf("block size %q: must be from 1 byte to %s", size,
				units.Exact(maxBlock))
		}
		weight := uint64(1)
		if hasShare {
			if weight, err = strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(share), "%"),
				10, 31); err != nil || weight == 0 {
				return Mix{}, fmt.Errorf("share %q of block size %s: must be a whole number above "+
					"0, as in 4k:70,64k:30", share, size)
			}
		}
		m.Sizes = append(m.Sizes, n)
		m.Shares = append(m.Shares, uint32(weight))
		m.total += weight
	}
	return m, nil
}

// String returns the text that ParseMix reads.
func (m Mix) String() string {
	var b strings.Builder
	for i, size := range m.Sizes {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(units.Short(size))
		if len(m.Sizes) > 1 {
			b.WriteString(":" + strconv.FormatUint(uint64(m.Shares[i]), 10))
		}
	}
	return b.String()
}

// draw picks a size.
func (m *Mix) draw(r *random) uint64 {
	if len(m.Sizes) == 1 {
		return m.Sizes[0]
	}
	at := r.below(m.total)
	for i, share := range m.Shares {
		if at < uint64(share) {
			return m.Sizes[i]
		}
		at -= uint64(share)
	}
	return m.Sizes[len(m.Sizes)-1]
}

// largest returns the largest size.
func (m *Mix) largest() uint64 {
	var largest uint64
	for _, size := range m.Sizes {
		largest = max(largest, size)
	}
	return largest
}

// unit returns the greatest common divisor of the sizes: the block in which offsets and generations
// are counted.
func (m *Mix) unit() uint64 {
	var unit uint64
	for _, size := range m.Sizes {
		for a, b := unit, size; ; a, b = b, a%b {
			if b == 0 {
				unit = a
				break
			}
		}
	}
	return unit
}

// random is splitmix64: eight bytes of state, a multiplication or two per number, and good enough
// to scatter offsets.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return scramble(uint64(*r))
}

// scramble is splitmix64's output function, a permutation of the 64-bit numbers.
func scramble(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// below returns a number from 0 to n-1; n is not 0. The bias of at most n/2^64 does not matter
// here.
func (r *random) below(n uint64) uint64 {
	high, _ := bits.Mul64(r.next(), n)
	return high
}

// unit returns a number in (0, 1].
func (r *random) unit() float64 { return float64(r.next()>>11+1) / (1 << 53) }
