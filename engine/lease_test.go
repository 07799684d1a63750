// The lease pool against a model: pieces never overlap, whole requests or nothing, and everything
// merges again when all is home.

package engine

import (
	"math/rand/v2"
	"testing"
)

func TestLeasesNeverOverlapAndComeHome(t *testing.T) {
	const smallLen, largeLen = 8 << 20, 36 << 20
	random := rand.New(rand.NewPCG(3, 4))
	p := newLeasePool(zeroRegion, smallLen, largeLen)
	owner := make([]uint32, (smallLen+largeLen)>>pageShift)
	type held struct {
		l lease
		n uint64
		r region
	}
	var out []held
	mark := func(h held, from, to uint32) {
		left := h.n
		for piece := h.l; piece != none; piece = p.next[piece] {
			n := min(left, pieceSize)
			for page := piece; page < piece+1<<orderOf(n); page++ {
				if owner[page] != from || p.regionOf(page) != h.r {
					t.Fatalf("page %d of region %d belongs to %d, want %d", page, p.regionOf(page),
						owner[page], from)
				}
				owner[page] = to
			}
			left -= n
		}
		if left != 0 {
			t.Fatalf("a lease of %d bytes lacks %d", h.n, left)
		}
	}
	refused := 0
	for id := uint32(1); id < 20000; id++ {
		if len(out) > 0 && random.IntN(5) < 2 {
			k := random.IntN(len(out))
			mark(out[k], ownerOf(owner, out[k].l), 0)
			p.give(out[k].l)
			out[k] = out[len(out)-1]
			out = out[:len(out)-1]
			continue
		}
		h := held{n: 1 + random.Uint64N(1<<(8+random.IntN(14))), r: small}
		if random.IntN(4) == 0 {
			h = held{n: 1 + random.Uint64N(MaxRequest), r: large}
		}
		before := p.used
		var ok bool
		if h.l, ok = p.take(h.r, h.n); !ok {
			refused++
			if p.used != before {
				t.Fatal("a refused lease kept memory")
			}
			continue
		}
		if got := p.used[h.r] - before[h.r]; got != leaseCost(h.n) {
			t.Fatalf("a lease of %d bytes took %d, leaseCost says %d", h.n, got, leaseCost(h.n))
		}
		mark(h, 0, id)
		out = append(out, h)
	}
	if refused == 0 {
		t.Fatal("the pool never ran out: the test is too tame")
	}
	for _, h := range out {
		p.give(h.l)
	}
	checkAllHome(t, p, [regions]int{smallLen >> pieceShift, largeLen >> pieceShift})
}

func checkAllHome(t *testing.T, p *leasePool, whole [regions]int) {
	t.Helper()
	for r, want := range whole {
		found := 0
		for page := p.heads[r][topOrder]; page != none; page = p.next[page] {
			found++
		}
		if found != want || p.used[r] != 0 {
			t.Fatalf("region %d has %d whole blocks of %d at the end, %d bytes out", r, found, want,
				p.used[r])
		}
	}
}

func ownerOf(owner []uint32, l lease) uint32 { return owner[l] }

func TestLeaseGivenBackTwiceIsFoundOut(t *testing.T) {
	p := newLeasePool(0, 1<<20, 1<<20)
	l, _ := p.take(small, 4096)
	p.give(l)
	defer func() {
		if recover() == nil {
			t.Fatal("a double give went unnoticed")
		}
	}()
	p.give(l)
}
