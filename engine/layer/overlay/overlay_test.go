// The map against a plain one, lookups beside writes, allocations, and the cost of a step.

package overlay

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"ringnbd/engine/layer"
)

// TestMapAgainstPlain compares the map with a slice of states.
func TestMapAgainstPlain(t *testing.T) {
	l, err := Lay((2*pageBlocks + 77) * 512)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	o := New(NewMap(l, nil), Persistent)
	o.Owns(64, []layer.Own{{ID: 1, Memory: make([]byte, 3*pageLen)}})
	plain := make([]State, o.m.blocks)
	for range 3000 {
		b := rng.Uint64N(o.m.blocks)
		n := min(1+rng.Uint64N(1<<rng.IntN(16)), o.m.blocks-b)
		s := State(1 + rng.IntN(2))
		o.set(b, n, s)
		for i := b; i < b+n; i++ {
			plain[i] = s
		}
		from := rng.Uint64N(o.m.blocks)
		end := from + 1 + rng.Uint64N(o.m.blocks-from)
		state, length := o.m.run(from, end)
		want := from
		for want < end && plain[want] == plain[from] {
			want++
		}
		if state != plain[from] || from+length != want {
			t.Fatalf("run from %d to %d: state %d of %d blocks, not %d of %d", from, end, state,
				length, plain[from], want-from)
		}
	}
	data := uint64(0)
	for _, s := range plain {
		if s == Data {
			data += 512
		}
	}
	if stats := o.Stats(); stats.Data != data {
		t.Errorf("%d bytes are in the top, told are %d", data, stats.Data)
	}
	copied, again := make([]byte, pageLen), NewMap(l, nil)
	for page := range l.MapLen / pageLen {
		o.m.copyPage(copied, page)
		if err := again.Load(page*pageLen, copied); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(again.words, o.m.words) {
		t.Error("a map that is copied and loaded is another one")
	}
}

// TestUnalignedExtents checks lookups that begin and end within blocks.
func TestUnalignedExtents(t *testing.T) {
	l, _ := Lay(1 << 20)
	o := New(NewMap(l, nil), ThrowAway)
	o.set(2, 3, Data)
	o.set(5, 1, Zeroes)
	var got []uint64
	o.Extents(3*4096+100, 20*4096, func(off, length uint64, s State) bool {
		got = append(got, off, length, uint64(s))
		return len(got) < 9
	})
	want := []uint64{3*4096 + 100, 2*4096 - 100, 1, 5 * 4096, 4096, 2, 6 * 4096, 17*4096 + 100, 0}
	if !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}

// TestExtentsBesideWrites looks up runs while the loop changes them: for the race detector, and
// because a run must always be of a state that the block had.
func TestExtentsBesideWrites(t *testing.T) {
	l, _ := Lay(64 << 20)
	o := New(NewMap(l, nil), ThrowAway)
	stop, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			end := uint64(0)
			o.Extents(0, 64<<20, func(off, length uint64, s State) bool {
				if off != end || length == 0 || s > Zeroes {
					t.Errorf("%d+%d is %d after %d", off, length, s, end)
				}
				end = off + length
				return true
			})
			o.Stats()
		}
	}()
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 20_000 {
		b := rng.Uint64N(o.m.blocks - 40)
		o.set(b, 1+rng.Uint64N(40), State(1+i%2))
		if i%1000 == 0 {
			runtime.Gosched()
		}
	}
	close(stop)
	<-ended
}

// bench is an overlay and a row, for costs.
type bench struct {
	o *Overlay
	r layer.Row
	w layer.Wave
}

func newBench() *bench {
	l, _ := Lay(1 << 30)
	b := &bench{o: New(NewMap(l, nil), Persistent)}
	b.o.Owns(4096, []layer.Own{{ID: 1, Memory: make([]byte, 64*pageLen)}})
	return b
}

// do runs a row to its end, and the own row whenever it is named.
func (b *bench) do(op layer.Op, flags uint8, off uint64, length uint32) {
	b.r = layer.Row{ID: 9, Op: op, Flags: flags, Off: off, At: layer.Most}
	if op == layer.Zero || op == layer.Trim {
		b.r.Range = uint64(length)
	} else {
		b.r.Len = length
	}
	own := layer.Row{ID: 1, Own: 1, Len: 64 * pageLen, At: 2 * layer.Most}
	for then := b.o.Step(&b.r, &b.w); then != layer.Done; {
		if then == layer.Go {
			then = b.o.Step(&b.r, &b.w)
			continue
		}
		for id, ok := b.o.Next(); ok; id, ok = b.o.Next() {
			if id == b.r.ID {
				then = b.o.Step(&b.r, &b.w)
				continue
			}
			for b.o.Step(&own, &b.w) == layer.Go {
			}
		}
	}
}

var costs = []struct {
	name   string
	op     layer.Op
	flags  uint8
	length uint32
}{
	{"read", layer.Read, 0, 4096},
	{"write", layer.Write, 0, 4096},
	{"write 1M", layer.Write, 0, layer.Most},
	{"write fua", layer.Write, layer.FUA, 4096},
	{"trim", layer.Trim, 0, 4096},
	{"zero 1G", layer.Zero, 0, 1 << 30},
}

// TestStepAllocates checks that no step allocates.
func TestStepAllocates(t *testing.T) {
	b := newBench()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range costs {
		n := testing.AllocsPerRun(200, func() {
			off := rng.Uint64N(1<<30-uint64(c.length)+1) &^ 4095
			b.do(c.op, c.flags, off, c.length)
			b.do(layer.Flush, 0, 0, 0)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// BenchmarkStep is the cost of a row from beginning to end, disks not counted.
func BenchmarkStep(b *testing.B) {
	for _, c := range costs {
		b.Run(c.name, func(b *testing.B) {
			k := newBench()
			b.ReportAllocs()
			off := uint64(0)
			for b.Loop() {
				k.do(c.op, c.flags, off, c.length)
				if off += 1 << 20; off+uint64(c.length) > 1<<30 {
					off = 0
				}
			}
		})
	}
}
