// kill -9 in the middle of a write load: every write acknowledged before a FLUSH
// reply is on the disk afterwards. The disk is cut into units; each is written
// by one connection only, one write at a time, with a growing version whose bytes
// fill it, so that whatever the disk holds tells which versions it came from.

package live_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
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
	random := rand.New(rand.NewPCG(uint64(k), 1))
	p.changeUnits(func() int { return random.IntN(len(l.sent)/writers)*writers + k },
		func(u int) (uint64, error) {
			data := l.content(u, l.sent[u].Add(1))
			return p.send(cmdWrite, 0, uint64(u*l.unit), uint32(l.unit), data)
		},
		func(u int) { l.acked[u].Store(l.sent[u].Load()) })
}

// changeUnits keeps changes of units in flight, one of a unit at a time, until the connection dies
// (bounded). choose picks a unit, send sends a change of it, and done hears that it was answered.
func (p *peer) changeUnits(choose func() int, send func(u int) (cookie uint64, err error),
	done func(u int)) {
	const depth = 16
	busy, unitOf := map[int]bool{}, map[uint64]int{}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for len(unitOf) < depth {
			u := choose()
			if busy[u] {
				continue
			}
			cookie, err := send(u)
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
		done(u)
	}
}

// flusher flushes on a connection of its own until it dies.
func (l *ledger) flusher(p *peer) {
	p.keepFlushing(l.acked, &l.flushes, func(u int, v uint32) { l.flushed[u].Store(v) })
}

// keepFlushing flushes until the connection dies (bounded), and tells of each unit which version
// was answered before a FLUSH, that was answered, was sent.
func (p *peer) keepFlushing(acked []atomic.Uint32, flushes *atomic.Uint32,
	flushed func(u int, v uint32)) {
	seen := make([]uint32, len(acked))
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for u := range seen {
			seen[u] = acked[u].Load()
		}
		if p.flush() != nil {
			return
		}
		for u, v := range seen {
			flushed(u, v)
		}
		flushes.Add(1)
		time.Sleep(4 * time.Millisecond)
	}
}

// loadUntilKilled begins a load of several writers and a flusher, with a connection each. wait
// returns when their connections have died.
func loadUntilKilled(t *testing.T, s *server, writer func(p *peer, k, writers int),
	flusher func(p *peer)) (wait func()) {
	t.Helper()
	const writers = 4
	var all sync.WaitGroup
	for k := range writers {
		p := s.dial(t)
		all.Go(func() { writer(p, k, writers) })
	}
	p := s.dial(t)
	all.Go(func() { flusher(p) })
	return all.Wait
}

// unexplained finds a byte of a unit that is in none of the versions from first to last; -1: there
// is none.
func unexplained(got []byte, first, last uint32, content func(v uint32) []byte) int {
	possible := make([][]byte, 0, last-first+1)
	for v := first; v <= last; v++ {
		c := content(v)
		if bytes.Equal(c, got) {
			return -1
		}
		possible = append(possible, c)
	}
	for i, b := range got {
		if !slices.ContainsFunc(possible, func(c []byte) bool { return c[i] == b }) {
			return i
		}
	}
	return -1
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
		i := unexplained(got, first, last, func(v uint32) []byte { return l.content(u, v) })
		if i >= 0 {
			return fmt.Errorf("unit %d of %d bytes, byte %d: %#x is in none of versions %d "+
				"(flushed) to %d (sent), %d was acknowledged", u, l.unit, i, got[i], first, last,
				l.acked[u].Load())
		}
	}
	return nil
}

func TestKillMinusNineLosesNothingThatWasFlushed(t *testing.T) {
	for _, unit := range []int{4096, 1000, 65536} {
		t.Run(fmt.Sprintf("%dBytes", unit), func(t *testing.T) {
			const units = 512
			image := sparseImage(t, 64<<20)
			for round := range 3 {
				l := newLedger(units, unit)
				s := serve(t, measure.Unix, image)
				if err := zeroAll(s.dial(t), units*unit); err != nil {
					t.Fatal(err)
				}
				wait := loadUntilKilled(t, s, l.writer, l.flusher)
				time.Sleep(time.Duration(300+200*round) * time.Millisecond)
				s.kill()
				wait()
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
