// The guard against a model: claims of random ranges come and go, and at every step each must be
// blocked by exactly the earlier ones that it overlaps.

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
	device  uint32
	order   int
	granted bool
}

func (m *modelClaim) blockedBy(o *modelClaim) bool {
	return o.device == m.device && o.order < m.order && o.lo < m.hi && m.lo < o.hi
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
	g := newGuard(rows, 2*guardShards)
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
				t.Fatalf("seed %d: claim %d [%d, %d): blocked %v, granted %v", seed, i, m.lo, m.hi,
					blocked, m.granted)
			}
		}
	}
	// A world is as small as its claims are narrow, so that they overlap; a border of stripes of
	// every size lies at its end or in the middle of it.
	scale := []uint64{4 << 10, 256 << 10, 4 << 20, 64 << 20}[random.IntN(4)]
	base := []uint64{0, 64<<20 - scale/2, 1<<40 - scale/2}[random.IntN(3)]
	for range 400 {
		i := uint32(random.IntN(rows))
		m := model[i]
		grants := uint32(none)
		switch {
		case m == nil:
			lo := base + random.Uint64N(scale)
			m = &modelClaim{lo: lo, hi: lo + drawWidth(random, scale),
				device: uint32(random.IntN(2)) * guardShards, order: order}
			order++
			model[i] = m
			m.granted = g.enter(i, m.device, m.lo, m.hi)
		case m.granted && widthOf(m.hi-m.lo) != narrow && random.IntN(2) == 0:
			to := m.lo + random.Uint64N(m.hi-m.lo)
			g.shrink(i, to, &grants)
			m.lo = to
		case m.granted:
			delete(model, i)
			g.leave(i, &grants)
		}
		verify(grants)
	}
	for len(model) > 0 { // every claim gets a turn, and nothing is left
		for i := range uint32(rows) {
			if m := model[i]; m != nil && m.granted {
				grants := uint32(none)
				delete(model, i)
				g.leave(i, &grants)
				verify(grants)
			}
		}
	}
	checkEmpty(t, g)
}

// drawWidth draws from all widths that there are, and more often from their borders.
func drawWidth(random *rand.Rand, scale uint64) uint64 {
	edges := []uint64{1, 512, 4 << 10, 1 << 16, 1<<16 + 1, 128 << 10, 1 << 20, 1 << 21, 1<<21 + 1,
		32 << 20}
	n := edges[random.IntN(len(edges))]
	if random.IntN(2) == 0 {
		n = 1 + random.Uint64N(n)
	}
	return min(n, 2*scale)
}

func checkEmpty(t *testing.T, g *guard) {
	t.Helper()
	for i := range g.devices {
		if e := &g.devices[i]; e.all != none || e.wide != none || e.count != [wide]uint32{} {
			t.Fatalf("a list of device %d is not empty", i)
		}
	}
	for i := range g.shards {
		for w := range g.shards[i].heads {
			for h, e := range g.shards[i].heads[w] {
				if e != none {
					t.Fatalf("chain %d of width %d is not empty", h, w)
				}
			}
		}
	}
}

// TestNeighboursShareNoHead checks what the counting of claims in two stripes relies on, and that
// claims at one distance, whatever it is, are spread over many heads.
func TestNeighboursShareNoHead(t *testing.T) {
	for device := range uint32(100) {
		for stripe := range uint64(5000) {
			if headOf(device, stripe) == headOf(device, stripe+1) {
				t.Fatalf("stripes %d and %d of device %d share head %d", stripe, stripe+1, device,
					headOf(device, stripe))
			}
		}
	}
	for shift := range 35 {
		var chain [guardHeads]int
		longest := 0
		for i := range uint64(512) {
			h := headOf(3, i<<shift)
			chain[h]++
			longest = max(longest, chain[h])
		}
		if longest > 10 {
			t.Errorf("of 512 claims %d stripes apart, %d are in one chain", uint64(1)<<shift,
				longest)
		}
	}
}

// TestClaimsAreComparedOnlyWithThoseNearThem counts what a claim is compared with beside 512 claims
// that it does not touch.
func TestClaimsAreComparedOnlyWithThoseNearThem(t *testing.T) {
	for _, c := range []struct {
		name              string
		own, width, apart uint64
	}{
		{"4 KiB beside 4 KiB", 4 << 10, 4 << 10, 4 << 10},
		{"4 KiB beside 128 KiB", 4 << 10, 128 << 10, 128 << 10},
		{"128 KiB beside 4 KiB", 128 << 10, 4 << 10, 64 << 10},
		{"128 KiB beside 128 KiB", 128 << 10, 128 << 10, 128 << 10},
		{"1 MiB beside 1 MiB", 1 << 20, 1 << 20, 1 << 20},
		{"64 KiB, 64 MiB apart", 64 << 10, 64 << 10, 64 << 20},
		{"2 MiB, 1 GiB apart", 2 << 20, 2 << 20, 1 << 30},
	} {
		g := newGuard(513, 1)
		for i := range uint64(512) {
			g.enter(uint32(i)+1, 0, i*c.apart, i*c.apart+c.width)
		}
		looked, own := 0, claim{lo: 200 * c.apart, hi: 200*c.apart + c.own}
		for of := narrow; of < wide; of++ {
			if widthOf(c.own) == wide {
				t.Fatal("a case that walks all")
			}
			shift := stripeShift[of]
			for stripe := own.lo >> shift; stripe <= (own.hi-1)>>shift; stripe++ {
				head := g.shards[0].heads[of][headOf(0, stripe)]
				for e := head; e != none; e = g.claims[e>>1].next[e&1] {
					looked++
				}
			}
		}
		if looked > 40 {
			t.Errorf("%s: a claim looks at %d others of 512", c.name, looked)
		}
	}
}

// A claimOrder knows which claims run on each unit of two devices, 0 and 64, which share a shard.
type claimOrder struct {
	t      *testing.T
	g      *guard
	inside [2][orderUnits]atomic.Int32
	last   [2][orderUnits]atomic.Uint64 // ticket of the last claim that ran
}

const (
	orderUnit  = 32 << 10
	orderUnits = 512 // 16 MiB: 8 stripes of 2 MiB
)

// run records that claim i runs.
func (o *claimOrder) run(i uint32) {
	c := &o.g.claims[i]
	for u := c.lo / orderUnit; u < c.hi/orderUnit; u++ {
		if o.inside[c.device/64][u].Add(1) != 1 {
			o.t.Error("two overlapping claims run at once")
		}
		if before := o.last[c.device/64][u].Swap(c.ticket); before > c.ticket {
			o.t.Errorf("claim %d runs after claim %d, which came later", c.ticket, before)
		}
	}
}

// quit records that a claim gives up the bytes [lo, hi).
func (o *claimOrder) quit(device uint32, lo, hi uint64) {
	for u := lo / orderUnit; u < hi/orderUnit; u++ {
		o.inside[device/64][u].Add(-1)
	}
}

// TestGuardKeepsTheOrderOfArrival lets threads, with several claims each in flight, hammer a few
// MiB with claims of all widths, some of which give up their front as they go: no two that overlap
// run at once, and they run in the order of their tickets.
func TestGuardKeepsTheOrderOfArrival(t *testing.T) {
	const threads, each, rounds, unit, units = 4, 16, 30000, orderUnit, orderUnits
	g := newGuard(threads*each, 65)
	order := claimOrder{t: t, g: g}
	var granted [threads * each]atomic.Bool
	var done sync.WaitGroup
	for id := range uint32(threads) {
		done.Go(func() {
			random := rand.New(rand.NewPCG(uint64(id), 9))
			grant := func(grants uint32) {
				for i := grants; i != none; {
					next := g.claims[i].wake
					granted[i].Store(true)
					i = next
				}
			}
			state := [each]uint8{} // 0: out, 1: waits, 2: runs
			for round, out := 0, 0; round < rounds || out > 0; round++ {
				k := uint32(random.IntN(each))
				i := id*each + k
				c := &g.claims[i]
				grants := uint32(none)
				switch {
				case state[k] == 0 && round < rounds:
					lo := random.Uint64N(units)
					hi := min(lo+[]uint64{1, 1, 1, 2, 3, 4, 32, 64, 65, 200}[random.IntN(10)],
						units)
					out++
					state[k] = 1
					if g.enter(i, uint32(random.IntN(2))*64, lo*unit, hi*unit) {
						granted[i].Store(true)
					}
				case state[k] == 1 && granted[i].Swap(false):
					state[k] = 2
					order.run(i)
				case state[k] == 2 && c.width != narrow && c.hi-c.lo > unit && random.IntN(3) == 0:
					to := c.lo + (1+random.Uint64N((c.hi-c.lo)/unit-1))*unit
					order.quit(c.device, c.lo, to)
					g.shrink(i, to, &grants)
				case state[k] == 2:
					state[k] = 0
					out--
					order.quit(c.device, c.lo, c.hi)
					g.leave(i, &grants)
				default:
					runtime.Gosched()
				}
				grant(grants)
			}
		})
	}
	done.Wait()
	checkEmpty(t, g)
}

// TestGuardExcludes lets threads hammer few blocks: two overlapping claims must never run at once.
func TestGuardExcludes(t *testing.T) {
	const threads, rounds, blocks = 4, 3000, 8
	g := newGuard(threads, 1)
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
				if !g.enter(id, 0, lo, hi) {
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
