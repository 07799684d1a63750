// The guard against a model: claims of random ranges come and go, and at every step each must be blocked by exactly the earlier ones that it overlaps.

package engine

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// modelClaim is what the model remembers of a claim in the table.
type modelClaim struct {
	lo, hi  uint64
	export  uint32
	order   int
	granted bool
}

func (m *modelClaim) blockedBy(o *modelClaim) bool {
	return o.export == m.export && o.order < m.order && o.lo < m.hi && m.lo < o.hi
}

func TestGuardAgreesWithItsModel(t *testing.T) {
	for seed := range uint64(60) {
		checkGuard(t, seed)
	}
}

func checkGuard(t *testing.T, seed uint64) {
	t.Helper()
	const rows = 64
	random := rand.New(rand.NewPCG(seed, 1))
	g := newGuard(rows)
	model := map[uint32]*modelClaim{}
	order := 0
	verify := func(grants uint32) {
		for i := grants; i != none; i = g.claims[i].wake {
			if model[i].granted {
				t.Fatalf("seed %d: claim %d was granted twice", seed, i)
			}
			model[i].granted = true
		}
		for i, m := range model {
			blocked := false
			for _, o := range model {
				blocked = blocked || m.blockedBy(o)
			}
			if blocked == m.granted {
				t.Fatalf("seed %d: claim %d [%d, %d): blocked %v, granted %v", seed, i, m.lo, m.hi, blocked, m.granted)
			}
		}
	}
	for range 400 {
		i := uint32(random.IntN(rows))
		m := model[i]
		grants := uint32(none)
		switch {
		case m == nil:
			lengths := []uint64{1, 512, 4096, 65536, 65537, 1 << 20, 4 << 20}
			lo := random.Uint64N(4 << 20)
			m = &modelClaim{lo: lo, hi: lo + 1 + random.Uint64N(lengths[random.IntN(len(lengths))]), export: uint32(random.IntN(2)) * guardShards, order: order}
			order++
			model[i] = m
			m.granted = g.enter(i, 0, m.export, m.lo, m.hi)
		case m.granted && m.hi-m.lo > regionSize && random.IntN(2) == 0:
			to := m.lo + random.Uint64N(m.hi-m.lo)
			g.shrink(i, to, &grants)
			m.lo = to
		case m.granted:
			delete(model, i)
			g.leave(i, &grants)
		}
		verify(grants)
	}
}

// TestGuardExcludes lets threads hammer few blocks: two that overlap must never run at once.
func TestGuardExcludes(t *testing.T) {
	const threads, rounds, blocks = 4, 3000, 8
	g := newGuard(threads)
	var granted [threads]atomic.Bool
	var inside [blocks]atomic.Int32
	var done sync.WaitGroup
	for id := range uint32(threads) {
		done.Add(1)
		go func() {
			defer done.Done()
			random := rand.New(rand.NewPCG(uint64(id), 7))
			for range rounds {
				lo := random.Uint64N(blocks)
				hi := lo + 1 + random.Uint64N(blocks-lo)
				if !g.enter(id, id, 0, lo, hi) {
					for !granted[id].CompareAndSwap(true, false) {
						runtime.Gosched()
					}
				}
				for b := lo; b < hi; b++ {
					if inside[b].Add(1) != 1 {
						t.Error("two overlapping claims ran at once")
					}
				}
				for b := lo; b < hi; b++ {
					inside[b].Add(-1)
				}
				grants := uint32(none)
				g.leave(id, &grants)
				for i := grants; i != none; {
					next := g.claims[i].wake
					granted[i].Store(true)
					i = next
				}
			}
		}()
	}
	done.Wait()
}
