// Slots: a buffer and a request each, and a piece at a time.
//
// Invariant: a piece is done when all of it was written; what was read is compared with zeroes
// before it is written, unless everything is to be allocated.

package transfer

import (
	"bytes"
	"context"

	"ringnbd/engine/client"
)

// zeroes is what blocks are compared with, and what is written where there is no other way.
var zeroes [64 << 10]byte

// slot is one worker.
type slot struct {
	job    *job
	lane   int
	buffer []byte
	from   client.Request
	to     client.Request
}

// copy does one piece.
func (s *slot) copy(ctx context.Context, p piece) error {
	j := s.job
	if p.zero {
		j.zeroed.Add(p.length)
		return s.zero(ctx, p.offset, p.length)
	}
	if p.data != nil {
		err := s.put(ctx, (*p.data)[:p.length], p.offset)
		j.buffers.Put(p.data)
		return err
	}
	b := s.buffer[:p.length]
	if err := j.source.read(ctx, s.lane, &s.from, b, p.offset); err != nil {
		return err
	}
	return s.put(ctx, b, p.offset)
}

// put writes what was read, zeroes in the way that was asked for.
func (s *slot) put(ctx context.Context, b []byte, offset uint64) error {
	j := s.job
	if j.options.Allocated {
		j.copied.Add(uint64(len(b)))
		return j.destination.write(ctx, s.lane, &s.to, b, offset)
	}
	return s.sparse(ctx, b, offset)
}

// sparse writes data, and leaves out what is zero in whole grains.
func (s *slot) sparse(ctx context.Context, b []byte, offset uint64) error {
	j := s.job
	grain := int(j.grain)
	for len(b) > 0 {
		n, zero := alike(b, grain, int(offset%j.grain))
		var err error
		if zero {
			j.zeroed.Add(uint64(n))
			err = s.zero(ctx, offset, uint64(n))
		} else {
			j.copied.Add(uint64(n))
			err = j.destination.write(ctx, s.lane, &s.to, b[:n], offset)
		}
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+uint64(n)
	}
	return nil
}

// alike is how many bytes at the front are alike: zeroes, in whole grains, or not. The first grain
// has lost skew bytes to the piece before, and the last may be short.
func alike(b []byte, grain, skew int) (n int, zero bool) {
	for n < len(b) {
		step := min(grain-skew, len(b)-n)
		skew = 0
		z := bytes.Equal(b[n:n+step], zeroes[:step])
		if n > 0 && z != zero {
			return n, zero
		}
		zero = z
		n += step
	}
	return n, zero
}

// zero makes a range zero by the best means there are.
func (s *slot) zero(ctx context.Context, offset, length uint64) error {
	j := s.job
	if j.blank && !j.options.Allocated {
		return nil
	}
	if !j.writeZeroes.Load() {
		ok, err := j.destination.zero(ctx, s.lane, &s.to, offset, length, !j.options.Allocated)
		if ok || err != nil {
			return err
		}
		j.writeZeroes.Store(true)
	}
	for length > 0 {
		n := min(length, uint64(len(zeroes)), j.destination.payload())
		if err := j.destination.write(ctx, s.lane, &s.to, zeroes[:n], offset); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}
