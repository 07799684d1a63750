// The ledger against connections that take all they may and give nothing back: what is left must be
// enough for the next connection.

package engine

import (
	"math/rand/v2"
	"testing"
)

// hog is a connection that takes requests of one size until it is refused.
type hog struct {
	account
	export int
}

// books is a ledger and the connections that hold something of it.
type books struct {
	ledger
	hogs []*hog
}

func newBooks(bytes uint64, exports int) *books {
	return &books{ledger: newLedger(tagsPerLoop, [regions]uint64{small: bytes, large: minLarge},
		exports)}
}

func (b *books) connect(export int, taken bool) *hog {
	h := &hog{export: export}
	h.tagCredit, h.credit, h.taken = firstTags, [regions]uint64{small: firstCredit}, taken
	if taken {
		h.tagCredit, h.credit = tagsPerConn, [regions]uint64{small: b.total.leased[small],
			large: b.total.leased[large]}
	}
	b.hogs = append(b.hogs, h)
	return h
}

// ask is one request: granted, out of the reserve, or refused.
func (b *books) ask(h *hog, r region, cost uint64) bool {
	line := lineOf(uint32(h.export), !h.taken)
	pages := uint32(0)
	if b.admits(&h.account, uint32(h.export), r, cost) != granted {
		if pages = b.spares(&h.account, line, r, cost); pages == 0 {
			return false
		}
	}
	b.take(&h.account, uint32(h.export), r, cost)
	b.spare(line, pages)
	return true
}

// fill has a connection ask until it is refused.
func (b *books) fill(h *hog, r region, cost uint64) (n int) {
	for b.ask(h, r, cost) {
		n++
	}
	return n
}

// pools are sizes of the short region: of the smallest server, of the default, of a large one.
var pools = []uint64{2 << 20, 8 << 20, 64 << 20, 512 << 20}

// TestLedgerKeepsAPlaceForTheNext: whatever many exports and connections hold for ever, one more
// client of an export that holds nothing gets a small request in at once, newcomer or not.
func TestLedgerKeepsAPlaceForTheNext(t *testing.T) {
	for _, pool := range pools {
		for _, taken := range []bool{false, true} {
			for _, size := range []uint64{4 << 10, 64 << 10, 1 << 20} {
				for _, hung := range []int{1, 3, 20} {
					b := newBooks(pool, hung+1)
					for range 20 {
						for export := range hung {
							b.fill(b.connect(export, taken), small, size)
							b.fill(b.connect(export, taken), small, 4<<10)
						}
					}
					for _, proven := range []bool{false, true} {
						if n := b.fill(b.connect(hung, proven), small, 4<<10); n < 1 {
							t.Errorf("pool of %d MiB, %d exports hung with %d-byte requests "+
								"(taken: %t): "+
								"a client of another gets %d requests of 4 KiB (taken: %t)",
								pool>>20, hung, size, taken, n, proven)
						}
					}
				}
			}
		}
	}
}

// TestLedgerKeepsAShareForTheNextExport: beside one export that holds all that it can for ever, on
// many connections, another still has a sixth of the pool for its requests, and longer ones
// besides.
func TestLedgerKeepsAShareForTheNextExport(t *testing.T) {
	for _, pool := range pools[1:] {
		b := newBooks(pool, 2)
		for range 100 {
			b.fill(b.connect(0, true), small, 64<<10)
			b.fill(b.connect(0, true), large, 4<<20)
		}
		b.fill(b.connect(0, true), small, 0)
		if !b.ask(b.connect(1, true), large, 4<<20) {
			t.Errorf("pool of %d MiB: the second export gets no request of 4 MiB", pool>>20)
		}
		before := b.free
		for range 8 {
			b.fill(b.connect(1, true), small, 64<<10)
		}
		if got := before.leased[small] - b.free.leased[small]; got < pool/6 &&
			b.exports[1].inflight < 512 {
			t.Errorf("pool of %d MiB: the second export gets %d KiB in %d requests, "+
				"of %d tags left", pool>>20, got>>10, b.exports[1].inflight, before.inflight)
		}
	}
}

// TestLedgerKeepsAPlaceForNewcomersOfTheNextExport: beside newcomers of exports that hold all that
// they can for ever, a newcomer of another export gets a request that is too long for the reserve.
func TestLedgerKeepsAPlaceForNewcomersOfTheNextExport(t *testing.T) {
	for _, pool := range pools[1:] {
		for _, hung := range []int{1, 3} {
			b := newBooks(pool, hung+1)
			for range 100 {
				for export := range hung {
					b.fill(b.connect(export, false), small, 64<<10)
					b.fill(b.connect(export, false), small, 4<<10)
				}
			}
			if !b.ask(b.connect(hung, false), small, 64<<10) {
				t.Errorf("pool of %d MiB, %d exports hung: a newcomer of another gets no request "+
					"of 64 KiB", pool>>20, hung)
			}
		}
	}
}

// TestLedgerKeepsAPlaceBesideACrowd: a client of the same export, which holds little, beside 200
// that ask for 64 KiB and never take a reply.
func TestLedgerKeepsAPlaceBesideACrowd(t *testing.T) {
	for _, pool := range pools {
		for _, taken := range []bool{false, true} {
			b := newBooks(pool, 1)
			for range 200 {
				b.fill(b.connect(0, taken), small, 64<<10)
			}
			if used := b.total.leased[small] - b.free.leased[small]; !taken && used > pool/4 {
				t.Errorf("pool of %d MiB: newcomers hold %d KiB", pool>>20, used>>10)
			}
			if n := b.fill(b.connect(0, true), small, 4<<10); n < 2 {
				t.Errorf("pool of %d MiB, crowd has taken replies: %t: a client gets %d "+
					"requests of 4 KiB",
					pool>>20, taken, n)
			}
		}
	}
}

// TestLedgerKeepsMoreThanTheReserve: beside some connections that hold all that they can there is
// room for longer requests.
func TestLedgerKeepsMoreThanTheReserve(t *testing.T) {
	b := newBooks(64<<20, 1)
	for range 6 {
		b.fill(b.connect(0, true), small, 256<<10)
	}
	if n := b.fill(b.connect(0, true), small, 64<<10); n < 16 {
		t.Errorf("%d requests of 64 KiB, and nothing is left but %+v", n, b.free)
	}
}

// TestLedgerGivesOneEnough: an export or a connection that is alone is not held back much for
// others that are not there.
func TestLedgerGivesOneEnough(t *testing.T) {
	b := newBooks(64<<20, 10)
	for range 16 {
		b.fill(b.connect(3, true), small, 64<<10)
	}
	if used := b.total.leased[small] - b.free.leased[small]; used < 30<<20 {
		t.Errorf("an export alone gets %d MiB of 64", used>>20)
	}
	b = newBooks(64<<20, 1)
	if b.fill(b.connect(0, true), small, 256<<10); b.free.leased[small] > 44<<20 {
		t.Errorf("a connection alone leaves %d MiB of 64", b.free.leased[small]>>20)
	}
	b = newBooks(8<<20, 4)
	if !b.ask(b.connect(0, false), large, MaxRequest) {
		t.Error("the longest request does not fit although nothing is held")
	}
}

// TestLedgerAddsUp: whatever is taken and given back, in whatever order, the sums agree.
func TestLedgerAddsUp(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	b := newBooks(8<<20, 3)
	type held struct {
		h     *hog
		r     region
		cost  uint64
		pages uint32
		line  uint32
	}
	var out []held
	for range 30 {
		b.connect(random.IntN(3), false)
	}
	for range 50000 {
		if len(out) > 0 && random.IntN(3) == 0 {
			k := random.IntN(len(out))
			x := out[k]
			if random.IntN(2) == 0 {
				b.accept(&x.h.account, uint32(x.h.export))
				x.h.tagCredit, x.h.credit = tagsPerConn, b.total.leased
			}
			b.give(&x.h.account, uint32(x.h.export), x.r, 1, x.cost)
			b.unspare(x.line, x.pages)
			out[k] = out[len(out)-1]
			out = out[:len(out)-1]
			continue
		}
		h := b.hogs[random.IntN(len(b.hogs))]
		x := held{h: h, r: region(random.IntN(2)), cost: leaseCost(1 << random.IntN(21)),
			line: lineOf(uint32(h.export), !h.taken)}
		before := b.reserved
		if b.ask(h, x.r, x.cost) {
			x.pages = b.reserved - before
			out = append(out, x)
		}
		var all, newcomers holdings
		var newcomersOf [3]holdings
		for _, h := range b.hogs {
			all.inflight += h.inflight
			for r := range all.leased {
				all.leased[r] += h.leased[r]
			}
			if !h.taken {
				for _, sum := range [2]*holdings{&newcomers, &newcomersOf[h.export]} {
					sum.add(small, h.inflight, h.leased[small])
					sum.add(large, 0, h.leased[large])
				}
			}
		}
		all.inflight += b.free.inflight
		for r := range all.leased {
			all.leased[r] += b.free.leased[r]
		}
		if all != b.total || newcomers != b.newcomers ||
			newcomersOf != [3]holdings(b.newcomersOf) {
			t.Fatalf("with what is free %+v (newcomers %+v), the ledger: %+v", all, newcomers,
				b.ledger)
		}
	}
	for _, x := range out {
		b.give(&x.h.account, uint32(x.h.export), x.r, 1, x.cost)
		b.unspare(x.line, x.pages)
	}
	if b.free != b.total || b.newcomers != (holdings{}) || b.reserved != 0 {
		t.Errorf("all is given back, and the ledger has %+v", b.ledger)
	}
}
