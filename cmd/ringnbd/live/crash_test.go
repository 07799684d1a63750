// kill -9 in the middle of a write load: every write acknowledged before a FLUSH
// reply is on the disk afterwards. The disk is cut into units; each is written
// by one connection only, one write at a time, with a growing version whose bytes
// fill it, so that whatever the disk holds tells which versions it came from.

package live_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// ledger remembers, per unit, which versions a reader may find.
type ledger struct {
	unit    int             // bytes
	sent    []atomic.Uint32 // newest version handed to the server
	acked   []atomic.Uint32 // newest version answered
	flushed []atomic.Uint32 // newest version answered before a FLUSH, that was answered, was sent
	flushes atomic.Uint32
}

func newLedger(units, unit int) *ledger {
	return &ledger{unit: unit, sent: make([]atomic.Uint32, units),
		acked: make([]atomic.Uint32, units), flushed: make([]atomic.Uint32, units)}
}

// content is what version v of unit u looks like; version 0 was never written.
func (l *ledger) content(u int, v uint32) []byte {
	if v == 0 {
		return make([]byte, l.unit)
	}
	return pattern(l.unit, uint64(u)<<32|uint64(v))
}

// writer writes the units that belong to it until the connection dies (bounded).
func (l *ledger) writer(p *peer, k, writers int) {
	const depth = 16
	random := rand.New(rand.NewPCG(uint64(k), 1))
	busy, unitOf := map[int]bool{}, map[uint64]int{}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for len(unitOf) < depth {
			u := random.IntN(len(l.sent)/writers)*writers + k
			if busy[u] {
				continue
			}
			data := l.content(u, l.sent[u].Add(1))
			cookie, err := p.send(cmdWrite, 0, uint64(u*l.unit), uint32(l.unit), data)
			if err != nil {
				return
			}
			busy[u], unitOf[cookie] = true, u
		}
		r, err := p.receive()
		if err != nil {
			return
		}
		u := unitOf[r.cookie]
		delete(unitOf, r.cookie)
		if r.errno != 0 {
			return // the unit stays busy: its version is open
		}
		delete(busy, u)
		l.acked[u].Store(l.sent[u].Load())
	}
}

// flusher flushes on a connection of its own until it dies.
func (l *ledger) flusher(p *peer) {
	seen := make([]uint32, len(l.acked))
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for u := range seen {
			seen[u] = l.acked[u].Load()
		}
		if p.flush() != nil {
			return
		}
		for u, v := range seen {
			l.flushed[u].Store(v)
		}
		l.flushes.Add(1)
		time.Sleep(5 * time.Millisecond)
	}
}

// check compares the disk with the ledger: every byte of a unit must come from a
// version between the one flushed last and the one sent last.
func (l *ledger) check(p *peer) error {
	for u := range l.sent {
		got, err := p.read(uint64(u*l.unit), l.unit)
		if err != nil {
			return err
		}
		first, last := l.flushed[u].Load(), l.sent[u].Load()
		possible := make([][]byte, 0, last-first+1)
		for v := first; v <= last; v++ {
			possible = append(possible, l.content(u, v))
		}
		for i, b := range got {
			found := false
			for _, c := range possible {
				found = found || c[i] == b
			}
			if !found {
				return fmt.Errorf("unit %d of %d bytes, byte %d: %#x is in none of versions %d "+
					"(flushed) to %d (sent), %d was acknowledged",
					u, l.unit, i, b, first, last, l.acked[u].Load())
			}
		}
	}
	return nil
}

func TestKillMinusNineLosesNothingThatWasFlushed(t *testing.T) {
	for _, unit := range []int{4096, 1000, 65536} {
		t.Run(fmt.Sprintf("%dBytes", unit), func(t *testing.T) {
			const writers, units = 4, 512
			image := sparseImage(t, 64<<20)
			for round := range 3 {
				l := newLedger(units, unit)
				s := serve(t, measure.Unix, image)
				if err := zeroAll(s.dial(t), units*unit); err != nil {
					t.Fatal(err)
				}
				var all sync.WaitGroup
				for k := range writers {
					p := s.dial(t)
					all.Go(func() { l.writer(p, k, writers) })
				}
				p := s.dial(t)
				all.Go(func() { l.flusher(p) })
				time.Sleep(time.Duration(300+200*round) * time.Millisecond)
				s.kill()
				all.Wait()
				if l.flushes.Load() == 0 {
					t.Fatal("no FLUSH was answered: nothing was tested")
				}
				again := serve(t, measure.Unix, image)
				if err := l.check(again.dial(t)); err != nil {
					t.Errorf("round %d, after %d flushes: %v", round, l.flushes.Load(), err)
				}
				if again.peer != nil {
					again.kill() // peers lock the image
				} else {
					again.stop()
				}
			}
		})
	}
}

func zeroAll(p *peer, n int) error {
	for done := 0; done < n; done += 8 << 20 {
		if err := p.write(uint64(done), make([]byte, min(8<<20, n-done))); err != nil {
			return err
		}
	}
	if err := p.flush(); err != nil {
		return err
	}
	p.disconnect()
	return nil
}
