// Benchmarks of the ring alone, without the engine: go test -bench . -count 5 ./engine/uring.

package uring

import (
	"strconv"
	"testing"
	"time"
)

// One batch of NOPs: queue, one Enter, reap. ns/op is per batch.
func BenchmarkNop(b *testing.B) {
	for _, n := range []int{1, 32, 128} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r := newRing(b, 128, 512)
			out := make([]CQE, 128)
			b.ReportAllocs()
			for b.Loop() {
				for i := range n {
					PrepNop(r.SQE(), uint64(i))
				}
				if err := r.Enter(uint32(n), 0); err != nil {
					b.Fatal(err)
				}
				if got := r.Reap(out); got != n {
					b.Fatalf("%d completions of %d", got, n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/nop")
		})
	}
}

// The same by an Enter that may block, with a timeout: what a loop pays that has nothing else to
// do.
func BenchmarkNopWait(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r := newRing(b, 128, 512)
			out := make([]CQE, 128)
			for b.Loop() {
				for i := range n {
					PrepNop(r.SQE(), uint64(i))
				}
				if err := r.Enter(uint32(n), time.Second); err != nil {
					b.Fatal(err)
				}
				if got := r.Reap(out); got != n {
					b.Fatalf("%d completions of %d", got, n)
				}
			}
		})
	}
}

// Nothing to do: no system call.
func BenchmarkEnterEmpty(b *testing.B) {
	r := newRing(b, 8, 16)
	for b.Loop() {
		if err := r.Enter(0, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// Nothing to do, but the kernel is asked.
func BenchmarkEnterEmptyCall(b *testing.B) {
	r := newRing(b, 8, 16)
	for b.Loop() {
		if err := r.poll(0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		if Now() < 0 {
			b.Fatal()
		}
	}
}

func BenchmarkNotify(b *testing.B) {
	fd := newEventfd(b)
	for b.Loop() {
		Notify(fd)
	}
}

func BenchmarkArenaBytes(b *testing.B) {
	a := newArena(b, 1<<20, false)
	sum := 0
	for b.Loop() {
		sum += len(a.Bytes(4096, 64))
	}
	_ = sum
}
