// The ownership of memory. From submission to completion an operation's memory belongs to the
// kernel; this file finds out if the engine uses it all the same.
//
// Invariant: no two operations in flight own the same byte, unless both only read it.

package sim

import (
	"encoding/binary"
	"hash/maphash"
)

// span is a piece of memory by its address and by its bytes.
type span struct {
	addr uint64
	b    []byte
}

var sumSeed = maphash.MakeSeed() // sums are compared only within a process

const (
	// memory longer than sumWhole is summed by samples: what a sample misses, the comparison of
	// data finds
	sumWhole  = 16 << 10
	sumStride = 4096
	sumSample = 64
)

// resolve returns the memory at an address that a submission names.
func (k *Kernel) resolve(o *op, addr, n uint64, what string) []byte {
	if n == 0 {
		return nil
	}
	for _, a := range k.arenas {
		off, ok := a.Find(addr)
		if !ok {
			continue
		}
		if end, ok := a.Find(addr + n - 1); !ok || end != off+n-1 {
			k.world.bug("%s: %s of %d bytes at %#x leaves its arena", o.name(), what, n, addr)
		}
		return a.Bytes(off, int(n))
	}
	k.world.bug("%s: %s of %d bytes at %#x lies in no arena", o.name(), what, n, addr)
	return nil
}

// addMemory makes n bytes at addr an operation's own.
func (k *Kernel) addMemory(o *op, addr, n uint64, what string) {
	if n == 0 {
		return
	}
	o.own = append(o.own, span{addr: addr, b: k.resolve(o, addr, n, what)})
	for _, d := range k.world.disks {
		if d.memory != nil {
			_, inside := d.memory.Find(addr)
			o.shared = o.shared || inside
		}
	}
	o.total += int(n)
	if o.lo == o.hi {
		o.lo, o.hi = addr, addr+n
	} else {
		o.lo, o.hi = min(o.lo, addr), max(o.hi, addr+n)
	}
}

// takeMemory checks that no other operation owns the memory of a new operation, and remembers its
// content.
func (k *Kernel) takeMemory(o *op) {
	if len(o.own) == 0 {
		return
	}
	for _, other := range k.world.kernels {
		for _, f := range other.flight {
			if (o.into || f.into) && !(o.shared && f.shared) && o.lo < f.hi && f.lo < o.hi {
				k.checkApart(o, f)
			}
		}
	}
	if o.into && !o.shared && chance(k.world.rng, k.world.mix.scribble) {
		k.scribble(o)
	}
	o.sum = sum(o.own)
}

// checkApart checks that two operations share no byte.
func (k *Kernel) checkApart(o, f *op) {
	for _, a := range o.own {
		for _, b := range f.own {
			if a.addr < b.addr+uint64(len(b.b)) && b.addr < a.addr+uint64(len(a.b)) {
				k.world.bug("%s uses %d bytes at %#x while %s is in flight with %d bytes at %#x",
					o.name(), len(a.b), a.addr, f.name(), len(b.b), b.addr)
			}
		}
	}
}

// checkUntouched checks that the engine did not write into the memory of an operation in flight.
func (k *Kernel) checkUntouched(o *op) {
	if len(o.own) == 0 || o.shared || sum(o.own) == o.sum {
		return
	}
	if o.into {
		k.world.bug("the engine wrote into the buffer of %s, which is in flight", o.name())
	}
	k.world.bug("the engine changed the source of %s, which is in flight", o.name())
}

// sum returns a checksum of memory, of samples if it is long.
func sum(own []span) (total uint64) {
	mix := func(b []byte) { total = total*31 + maphash.Bytes(sumSeed, b) }
	for _, s := range own {
		if len(s.b) <= sumWhole {
			mix(s.b)
			continue
		}
		for at := 0; at < len(s.b); at += sumStride {
			mix(s.b[at:min(at+sumSample, len(s.b))])
		}
		mix(s.b[len(s.b)-sumSample:])
	}
	return total
}

// scribble writes rubbish into a buffer that the kernel owns: at its beginning, and over a random
// stretch.
func (k *Kernel) scribble(o *op) {
	r := k.world.rng
	for _, s := range o.own {
		rubbish(s.b[:min(len(s.b), 64)], r.Uint64())
		at := r.IntN(len(s.b))
		rubbish(s.b[at:min(len(s.b), at+1+r.IntN(2048))], r.Uint64())
	}
	o.sum = sum(o.own)
}

// rubbish fills b with bytes that follow from x.
func rubbish(b []byte, x uint64) {
	var word [8]byte
	for len(b) > 0 {
		x = x*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(word[:], x)
		b = b[copy(b, word[:]):]
	}
}

// copyOut writes what was received into the engine's buffer, at the moment of completion and not
// before.
func (k *Kernel) copyOut(o *op) {
	b := o.stash
	for _, s := range o.own {
		if len(b) == 0 {
			return
		}
		b = b[copy(s.b, b):]
	}
}

// source returns a copy of n bytes of an operation's memory, from byte at on.
func (o *op) source(at, n int) []byte {
	b := make([]byte, 0, n)
	for _, s := range o.own {
		if at >= len(s.b) {
			at -= len(s.b)
			continue
		}
		part := s.b[at:]
		at = 0
		b = append(b, part[:min(len(part), n-len(b))]...)
		if len(b) == n {
			break
		}
	}
	return b
}

// receive keeps bytes for the operation's memory until copyOut.
func (o *op) receive(b []byte) { o.stash = append(o.stash, b...) }
