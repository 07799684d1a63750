// Slots: each has a buffer and requests, and copies a piece at a time.
//
// Invariant: a piece is done when all of it is written; data is compared with zeroes before it is
// written, unless --allocated asks for all space.

package transfer

import (
	"bytes"
	"context"

	"ringnbd/engine/client"
)

// zeroes are compared with data, and written if the destination has no other way to make zeroes.
var zeroes [64 << 10]byte

// slot is a worker.
type slot struct {
	job    *job
	lane   int
	buffer []byte
	from   client.Request
	to     client.Request
}

// copy copies a piece.
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

// put writes data, with or without its zeroes, as the options say.
func (s *slot) put(ctx context.Context, b []byte, offset uint64) error {
	j := s.job
	if j.options.Allocated {
		j.copied.Add(uint64(len(b)))
		return j.destination.write(ctx, s.lane, &s.to, b, offset)
	}
	return s.sparse(ctx, b, offset)
}

// sparse writes data, and makes whole grains of zeroes without writing them as data.
func (s *slot) sparse(ctx context.Context, b []byte, offset uint64) error {
	j := s.job
	grain := int(j.grain)
	for len(b) > 0 {
		n, zero := leadingRun(b, grain, int(offset%j.grain))
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

// leadingRun is the length of the run at the front of b that is all zeroes, in whole grains, or has
// no zero grain. The first grain lacks skew bytes, which belong to the piece before, and the last
// may be short.
func leadingRun(b []byte, grain, skew int) (n int, zero bool) {
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

// zero makes a range read as zeroes by the fastest available means.
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
