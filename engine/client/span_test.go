// Spans against a plain model.

package client

import (
	"math/rand/v2"
	"testing"
)

func TestSpans(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s spans
		var have [64]bool
		for range 40 {
			start := r.IntN(64)
			end := start + 1 + r.IntN(min(8, 64-start))
			taken := false
			for i := start; i < end; i++ {
				taken = taken || have[i]
			}
			if err := s.add(uint64(start), uint64(end)); (err != nil) != taken {
				t.Fatalf("seed %d: [%d, %d): %v, taken %v, %v", seed, start, end, err, taken, s)
			}
			for i := start; i < end && !taken; i++ {
				have[i] = true
			}
		}
		all := true
		for i := range have {
			all = all && have[i]
		}
		if s.isWhole(0, 64) != all {
			t.Fatalf("seed %d: %v", seed, s)
		}
		for i := 1; i < len(s); i++ {
			if s[i-1].end >= s[i].start {
				t.Fatalf("seed %d: %v", seed, s)
			}
		}
	}
	var s spans
	for i := range uint64(maxSpans) {
		if err := s.add(2*i, 2*i+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.add(1<<20, 1<<20+1); err == nil {
		t.Error("no bound")
	}
}
