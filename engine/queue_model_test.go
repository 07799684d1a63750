// The memory queue against a model: lines are slices, the first one is searched for, and nothing is
// remembered that can be computed.

package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// queueWorld is a queue with what a loop would have beside it: room, and requests that hold it.
type queueWorld struct {
	t      *testing.T
	random *rand.Rand
	q      queue
	now    int64
	free   [regions]uint64
	held   []queueHeld
	// The model: the connections that wait, by line and region, since when, and for what.
	lines [][regions][]uint32
	since []int64
	needs []uint64
	stake [regions]stake
	// turn is the connection whose turn it is.
	turn uint32
	met  struct{ waited, overtook, blocked, served, changed int }
}

type queueHeld struct {
	r           region
	cost, ahead uint64
}

const modelConns, modelExports = 12, 3

func newQueueWorld(t *testing.T, seed uint64) *queueWorld {
	w := &queueWorld{t: t, random: rand.New(rand.NewPCG(seed, 9)),
		q:    newQueue(modelConns, modelExports, 68<<20),
		free: [regions]uint64{small: 2 << 20, large: 68 << 20}, turn: none}
	w.lines = make([][regions][]uint32, 2*modelExports)
	w.since, w.needs = make([]int64, modelConns), make([]uint64, modelConns)
	w.stake[small].conn, w.stake[large].conn = none, none
	return w
}

// place is where a connection waits, by the model.
func (w *queueWorld) place(i uint32) (at uint32, r region, n int) {
	for at := range w.lines {
		for r := range w.lines[at] {
			if n := slices.Index(w.lines[at][r], i); n >= 0 {
				return uint32(at), region(r), n
			}
		}
	}
	return none, small, -1
}

// first is the connection before which a request may not go but as an overtaker; none: it may.
func (w *queueWorld) first(i, at uint32, r region) uint32 {
	k := &w.stake[r]
	if k.conn != none && w.now > k.until {
		*k = stake{conn: none, rest: w.now + stakeRestNanos}
	}
	if k.conn != none && k.conn != i {
		return k.conn
	}
	if x := w.lines[at][r]; w.turn != i && len(x) > 0 && x[0] != i {
		return x[0]
	}
	return none
}

// leave takes a connection out of the model's lines.
func (w *queueWorld) leave(i uint32) {
	at, r, n := w.place(i)
	if n < 0 {
		return
	}
	w.lines[at][r] = slices.Delete(w.lines[at][r], n, n+1)
	for k := range w.stake {
		if w.stake[k].conn == i && w.turn != i {
			w.stake[k].conn = none
		}
	}
}

// try is what takeTag does: the request goes if it may and there is room, or else waits.
func (w *queueWorld) try(i, at uint32, cost uint64) (went bool) {
	q, r := &w.q, regionOf(cost)
	first := w.first(i, at, r)
	ahead, ok := q.mayGo(i, at, r, cost, w.now)
	want := first == none
	if first != none && r == large {
		w.met.blocked++
		beside := inPieces(cost) + inPieces(w.needs[first]) + q.ahead
		want = beside <= q.largeLen && q.ahead+inPieces(cost) <= maxAhead
	}
	if ok != want || ok && (ahead > 0) != (first != none) {
		w.t.Fatalf("connection %d, line %d, %d bytes, first %d: goes %t ahead %d, want %t", i, at,
			cost, int32(first), ok, ahead, want)
	}
	if ok && w.free[r] >= cost {
		w.free[r] -= cost
		w.held = append(w.held, queueHeld{r, cost, ahead})
		q.ahead += ahead
		q.withdraw(i)
		w.leave(i)
		w.met.served++
		if ahead > 0 {
			w.met.overtook++
		}
		return true
	}
	w.met.waited++
	q.wait(i, at, r, cost, scarce, w.now)
	was, wasIn, n := w.place(i)
	since := w.now
	if n >= 0 {
		since = w.since[i]
	}
	if n < 0 || was != at || wasIn != r {
		if n >= 0 {
			w.met.changed++
		}
		w.leave(i)
		w.lines[at][r] = append(w.lines[at][r], i)
		w.since[i] = since
	}
	w.needs[i] = cost
	if k := &w.stake[r]; k.conn == none && w.now >= k.rest &&
		(w.lines[at][r][0] == i || w.turn == i) {
		k.conn, k.until = i, w.now+stakeNanos
	}
	return false
}

// feed offers what was freed, as the loop does, and sees that no use of it is left.
func (w *queueWorld) feed(r region) {
	q := &w.q
	for tries := 0; q.offers(r); tries++ {
		if tries > 1000 {
			w.t.Fatal("offered for ever")
		}
		at, i := q.next(r)
		if i == none {
			continue
		}
		if x := w.lines[at][r]; len(x) == 0 || x[0] != i {
			w.t.Fatalf("the turn of line %d goes to %d, not to the first of %d", at, i, x)
		}
		w.turn, q.trying = i, i
		went := w.try(i, at, w.needs[i])
		w.turn, q.turn, q.trying = none, none, none
		if went {
			q.dropStake(r, i)
			if w.stake[r].conn == i {
				w.stake[r].conn = none
			}
		}
		q.tried(r, went)
	}
	for at := range w.lines {
		if x := w.lines[at][r]; len(x) > 0 && w.first(x[0], uint32(at), r) == none &&
			w.free[r] >= w.needs[x[0]] {
			w.t.Fatalf("connection %d waits for %d bytes, and %d are free", x[0], w.needs[x[0]],
				w.free[r])
		}
	}
}

// compare looks whether queue and model agree.
func (w *queueWorld) compare() {
	w.t.Helper()
	q, waiting := &w.q, 0
	for at := range w.lines {
		for r, want := range w.lines[at] {
			var got []uint32
			before := none
			for i := q.lines[at].waiting[r].head; i != none; i = q.waiters[i].next {
				if q.waiters[i].prev != before || !q.waits(i) || q.waiters[i].since != w.since[i] {
					w.t.Fatalf("connection %d is not in its line as it should", i)
				}
				got, before = append(got, i), i
			}
			if !slices.Equal(got, want) || q.lines[at].waiting[r].tail != before {
				w.t.Fatalf("line %d of region %d is %d, want %d", at, r, got, want)
			}
			if len(want) > 0 && !q.lines[at].ringed[r] {
				w.t.Fatalf("line %d of region %d has no turn", at, r)
			}
			waiting += len(got)
		}
	}
	if q.waiting != waiting {
		w.t.Fatalf("%d wait, and %d are counted", waiting, q.waiting)
	}
	for r := range q.stakes {
		if q.stakes[r].conn != w.stake[r].conn {
			w.t.Fatalf("region %d is kept for %d, want %d", r, int32(q.stakes[r].conn),
				int32(w.stake[r].conn))
		}
	}
}

// step is one random operation.
func (w *queueWorld) step() {
	i := uint32(w.random.IntN(modelConns))
	switch w.random.IntN(10) {
	case 0, 1, 2, 3:
		at, cost := i%modelExports*2+uint32(w.random.IntN(8)/7), w.needs[i]
		if _, _, n := w.place(i); n < 0 {
			cost = uint64(4<<10) << w.random.IntN(9)
			if w.random.IntN(2) == 0 {
				cost = uint64(2+w.random.IntN(60)) << 20
			}
		}
		w.try(i, at, cost)
	case 4, 5, 6:
		if len(w.held) > 0 {
			k := w.random.IntN(len(w.held))
			h := w.held[k]
			w.held = slices.Delete(w.held, k, k+1)
			w.free[h.r] += h.cost
			w.q.ahead -= h.ahead
			w.q.freed(h.r)
		}
	case 7:
		w.q.withdraw(i)
		w.leave(i)
	case 8:
		w.now += w.random.Int64N(2 * stakeNanos)
		w.q.tagFreed() // the tick: a stake may have ended
	default:
		w.feed(region(w.random.IntN(int(regions))))
	}
	w.compare()
}

func TestQueueAgreesWithItsModel(t *testing.T) {
	var met [5]int
	for seed := range uint64(40) {
		w := newQueueWorld(t, seed)
		for range 2000 {
			w.step()
		}
		for _, h := range w.held {
			w.q.ahead -= h.ahead
		}
		if w.q.ahead != 0 {
			t.Fatalf("%d bytes went ahead, and all were given back", w.q.ahead)
		}
		for k, n := range []int{w.met.waited, w.met.overtook, w.met.blocked, w.met.served,
			w.met.changed} {
			met[k] += n
		}
	}
	t.Logf("waited, overtook, blocked, served, changed: %d", met)
	for k, n := range met {
		if n < 100 {
			t.Errorf("situation %d was met %d times", k, n)
		}
	}
}
