// Several connections on one disk: what one connection has written and another has flushed,
// a third reads; neighbours in the same block never overwrite each other.

package live_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

func TestWriteOnOneFlushOnAnotherReadOnAThird(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			s := serve(t, transport, sparseImage(t, 64<<20))
			a, b, c := s.dial(t), s.dial(t), s.dial(t)
			if underTest == "ringnbd" && a.flags&canMultiConn == 0 {
				t.Fatal("CAN_MULTI_CONN is not advertised")
			}
			random := rand.New(rand.NewPCG(4, 5))
			for i := range 300 {
				offset, data := uint64(random.IntN(63<<20)), pattern(1+random.IntN(70000),
					uint64(i))
				if err := a.write(offset, data); err != nil {
					t.Fatal(err)
				}
				if err := b.flush(); err != nil {
					t.Fatal(err)
				}
				got, err := c.read(offset, len(data))
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("round %d at %d: %v, equal %t", i, offset, err, bytes.Equal(got, data))
				}
			}
		})
	}
}

// neighbours lets n connections write unaligned pieces of the same few blocks,
// each only to bytes of its own, and checks after every round trip, and at the
// end on a fresh connection, that no byte of anybody was lost.
func neighbours(t *testing.T, n int, limit time.Duration) {
	const blocks, block = 4, 4096
	s := serve(t, measure.Unix, sparseImage(t, 1<<20))
	deadline := time.Now().Add(limit)
	own := make([][]byte, n) // what each connection knows of its bytes
	piece := blocks * block / n
	errs := make(chan error, n)
	var all sync.WaitGroup
	for k := range n {
		p := s.dial(t)
		own[k] = make([]byte, piece)
		all.Add(1)
		go func() {
			defer all.Done()
			if err := scribble(p, k, n, own[k], deadline); err != nil {
				errs <- err
			}
		}()
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	got, err := s.dial(t).read(0, blocks*block)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if k, j := i%n, i/n; got[i] != own[k][j] {
			t.Fatalf("byte %d, of connection %d: %#x, want %#x", i, k, got[i], own[k][j])
		}
	}
}

// scribble writes single bytes and, through them, the whole of what belongs to
// connection k of n (every n-th byte), several requests in flight at a time. No
// byte has two writes in flight: their order would be open.
func scribble(p *peer, k, n int, own []byte, deadline time.Time) error {
	const depth = 8
	random := rand.New(rand.NewPCG(uint64(k), 99))
	for i := 0; time.Now().Before(deadline); i++ {
		mine := random.Perm(len(own))[:depth]
		for _, j := range mine {
			own[j] = byte(random.Uint32())
			if _, err := p.send(cmdWrite, 0, uint64(j*n+k), 1, own[j:j+1]); err != nil {
				return err
			}
		}
		for range mine {
			if r, err := p.receive(); err != nil || r.errno != 0 {
				return fmt.Errorf("connection %d: error %d, %v", k, r.errno, err)
			}
		}
		j := mine[0]
		got, err := p.read(uint64(j*n+k), 1)
		if err != nil || got[0] != own[j] {
			return fmt.Errorf("connection %d, round %d: byte %d is %x, want %#x (%v)", k, i, j*n+k,
				got, own[j], err)
		}
	}
	return nil
}

func TestTwoUnalignedWritersOfOneBlockLoseNoByte(t *testing.T)   { neighbours(t, 2, 4*time.Second) }
func TestEightUnalignedWritersOfOneBlockLoseNoByte(t *testing.T) { neighbours(t, 8, 4*time.Second) }

// Whole runs that straddle block borders next to aligned writes of the neighbours.
func TestUnalignedRunsNextToAlignedBlocksLoseNoByte(t *testing.T) {
	const stripe = 3*4096 + 1000 // unaligned borders everywhere
	s := serve(t, measure.TCP, sparseImage(t, 4<<20))
	want := make([][]byte, 8)
	var all sync.WaitGroup
	errs := make(chan error, len(want))
	for k := range want {
		p := s.dial(t)
		all.Add(1)
		go func() {
			defer all.Done()
			for i := range 200 {
				want[k] = pattern(stripe, uint64(k*1000+i))
				if err := p.write(uint64(k*stripe), want[k]); err != nil {
					errs <- fmt.Errorf("connection %d: %w", k, err)
					return
				}
			}
		}()
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	p := s.dial(t)
	for k := range want {
		got, err := p.read(uint64(k*stripe), stripe)
		if err != nil || !bytes.Equal(got, want[k]) {
			t.Errorf("stripe %d: %v, equal %t", k, err, bytes.Equal(got, want[k]))
		}
	}
}

// Overlapping writes in flight on one connection are applied as they arrived.
func TestOverlappingWritesInFlightKeepTheirOrder(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.Unix, sparseImage(t, 4<<20))
	p := s.dial(t)
	random := rand.New(rand.NewPCG(6, 7))
	for round := range 200 {
		model := make([]byte, 32<<10)
		if err := p.write(0, model); err != nil {
			t.Fatal(err)
		}
		const depth = 12
		for i := range depth {
			offset := random.IntN(len(model) - 1)
			data := pattern(1+random.IntN(min(9000, len(model)-offset)), uint64(round*100+i))
			copy(model[offset:], data)
			if _, err := p.send(cmdWrite, 0, uint64(offset), uint32(len(data)), data); err != nil {
				t.Fatal(err)
			}
		}
		for range depth {
			if r, err := p.receive(); err != nil || r.errno != 0 {
				t.Fatal(r.errno, err)
			}
		}
		if got, err := p.read(0, len(model)); err != nil || !bytes.Equal(got, model) {
			t.Fatalf("round %d: %v, equal %t", round, err, bytes.Equal(got, model))
		}
	}
}
