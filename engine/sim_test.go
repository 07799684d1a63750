// The engine on the simulated kernel: every seed is a world of its own, with its own disks, clients
// and accidents. A failure names its seed; go test ./engine -run TestSim -seed N does it again,
// event for event.

package engine_test

import (
	"flag"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ringnbd/engine"
	"ringnbd/engine/sim"
)

var (
	oneSeed   = flag.Int64("seed", -1, "run the simulation with this seed only")
	firstSeed = flag.Uint64("first-seed", 0, "the first seed of the simulation")
	seeds     = flag.Uint64("seeds", defaultSeeds, "how many seeds of the simulation to run")
)

// runSeed runs one world and returns it, with what it met.
func runSeed(t *testing.T, seed uint64) *sim.World {
	t.Helper()
	w := sim.New(seed)
	run(t, w)
	return w
}

// run runs a world to its end.
func run(t *testing.T, w *sim.World) {
	t.Helper()
	if err := outcome(t, w, func(*simRig) {}); err != nil {
		t.Fatal(err)
	}
}

// outcome runs a world, whose engine prepare may change before. The control plane of a live world
// has goroutines, which run in a bubble: the world knows when all of them wait, and goes on then.
func outcome(t *testing.T, w *sim.World, prepare func(*simRig)) (err error) {
	return outcomeOf(t, w, simShape{}, prepare)
}

// outcomeOf is outcome, with devices of some shape.
func outcomeOf(t *testing.T, w *sim.World, shape simShape, prepare func(*simRig)) (err error) {
	if !w.Plan.Live {
		return alone(w, shape, prepare)
	}
	synctest.Test(t, func(*testing.T) { err = alone(w, shape, prepare) })
	return err
}

// alone runs a world.
func alone(w *sim.World, shape simShape, prepare func(*simRig)) error {
	r := open(w, shape)
	defer r.close()
	prepare(r)
	if err := w.Run(r.loops, r); err != nil {
		return err
	}
	for _, l := range r.Loops {
		c := l.Counters()
		w.AddEngineCounts(sim.EngineCounts{
			OverlapWaited: c.Overlaps,
			Divided:       c.Divided,
			EdgesRead:     c.Unaligned,
			MemoryStarved: c.Starved,
			StageMissing:  c.Stageless,
			Evicted:       c.Closed[engine.CloseStalled],
		})
	}
	return nil
}

// TestSim runs many worlds. Together they must have met every situation that the simulation knows
// how to bring about.
func TestSim(t *testing.T) {
	if *oneSeed >= 0 {
		w := runSeed(t, uint64(*oneSeed))
		t.Logf("seed %d: hash %#x\n%s\n%s", w.Seed, w.Hash(), &w.Plan, &w.Marks)
		return
	}
	var met sim.Marks
	began := time.Now()
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		w := runSeed(t, seed)
		met.Add(&w.Marks)
	}
	t.Logf("%.0f worlds a second", float64(*seeds)/time.Since(began).Seconds())
	t.Log(&met)
	if *seeds >= 400 {
		for _, m := range met.Missing() {
			t.Errorf("%d seeds never met %v: the simulation has lost a part of its reach", *seeds,
				m)
		}
	}
}

// TestSimPlanned runs worlds whose disks stand below plans: what clients may see is the same.
func TestSimPlanned(t *testing.T) {
	from, n := *firstSeed, max(*seeds/4, 1)
	if *oneSeed >= 0 {
		from, n = uint64(*oneSeed), 1
	}
	steps := uint64(0)
	for seed := from; seed < from+n; seed++ {
		var r *simRig
		err := outcomeOf(t, sim.New(seed), simShape{planned: true}, func(made *simRig) { r = made })
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range r.Loops {
			steps += l.Counters().Steps
		}
	}
	if steps < n {
		t.Errorf("plans were asked %d times in %d worlds", steps, n)
	}
}

// TestSimReplays checks that the same seed does the same again, without which a seed is worth
// nothing.
func TestSimReplays(t *testing.T) {
	for seed := uint64(1000); seed < 1010; seed++ {
		a, b := runSeed(t, seed), runSeed(t, seed)
		if a.Hash() != b.Hash() {
			t.Fatalf("seed %d ran differently the second time", seed)
		}
	}
}

// FuzzSim lets the fuzzer look for worlds: a seed, and the first decisions, which lay out the world
// and say what goes wrong in it.
func FuzzSim(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, []byte{})
		f.Add(seed, []byte{255, 255, 255, byte(seed) << 5, 0, 0, 0, 128})
	}
	f.Fuzz(func(t *testing.T, seed uint64, chosen []byte) {
		w := sim.Scripted(seed, chosen)
		if w.Plan.Costly() {
			w.Close()
			return // the fuzzer takes a run of ten seconds for one that hangs
		}
		run(t, w)
	})
}

// TestSimNoticesWhoTakesAllWorkers checks that with the bound of each device's workers switched
// off, the simulation sees disks that hang hold up disks that do not.
func TestSimNoticesWhoTakesAllWorkers(t *testing.T) {
	worlds := 0
	for seed := uint64(0); worlds < 60; seed++ {
		w := sim.New(seed)
		if !w.Plan.Hang {
			w.Close()
			continue
		}
		worlds++
		err := outcome(t, w, func(r *simRig) {
			for _, l := range r.Loops {
				l.Unbounded()
			}
		})
		if err != nil {
			if !strings.Contains(err.Error(), "although its disk is well") {
				t.Fatal(err)
			}
			return
		}
	}
	t.Errorf("%d worlds with disks that hang, and the simulation did not notice", worlds)
}
