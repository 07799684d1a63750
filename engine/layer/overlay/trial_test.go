// The overlay in the pure world: seeds, and planted bugs that the world must catch.

package overlay

import (
	"flag"
	"testing"
	"time"

	"ringnbd/engine/layer/trial"
)

var (
	seeds     = flag.Uint64("seeds", 3000, "how many seeds of the trial to run")
	firstSeed = flag.Uint64("first-seed", 1, "the first seed")
)

// TestTrial runs seeds: random requests, errors and crashes, over trees of overlays.
func TestTrial(t *testing.T) {
	var all trial.Seen
	start := time.Now()
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		seen, err := trial.Run(seed, func(rng *trial.Rand) trial.Rig { return draw(rng).rig(rng) })
		if err != nil {
			t.Fatal(err)
		}
		all.Add(seen)
	}
	took := time.Since(start).Seconds()
	t.Logf("%d seeds: %.0f seeds/s, %.0f steps/s, %+v", *seeds, float64(*seeds)/took,
		float64(all.Steps)/took, all)
}
