// The engine on the simulated kernel: every seed is a world of its own, with its own disks, clients
// and accidents. A failure names its seed; go test ./engine -run TestSim -seed N does it again,
// event for event.

package engine_test

import (
	"flag"
	"strings"
	"testing"

	"ringnbd/engine"
	"ringnbd/engine/sim"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

var (
	oneSeed   = flag.Int64("seed", -1, "run the simulation with this seed only")
	firstSeed = flag.Uint64("first-seed", 0, "the first seed of the simulation")
	seeds     = flag.Uint64("seeds", defaultSeeds, "how many seeds of the simulation to run")
)

// simLoop is a loop as the simulation drives it.
type simLoop struct{ *engine.SimLoop }

func (s simLoop) Adopt(fd int32, export int, session proto.Session) {
	s.SimLoop.Adopt(fd, uint32(export), session)
}
func (s simLoop) Connections() int { return s.Live() }
func (s simLoop) Drain()           { s.SimLoop.Drain() }
func (s simLoop) Idle() error      { return s.Home() }

// device makes the device of a disk of a world.
func device(w *sim.World, disk int) *engine.Device {
	e := &w.Plan.Exports[disk]
	d := &engine.Device{Kind: engine.File, FD: w.DiskFD(disk), Size: e.Size, Block: e.Block,
		Direct: e.Block > 1, Cached: e.Backing == sim.File && e.Block == 1 && !e.Waits,
		Waits: e.Waits, ReadOnly: e.ReadOnly(),
		Punch: e.Punch, ZeroRange: e.ZeroRange, FastZero: e.FastZero, Discard: e.Discard}
	switch e.Backing {
	case sim.File:
		if e.Frozen {
			d.Freezes = uint64(disk + 1)
		}
	case sim.Block:
		d.Kind = engine.Block
	case sim.Memory:
		d.Kind, d.Memory = engine.Memory, w.Memory(disk)
	case sim.Null:
		d.Kind = engine.Null
	}
	return d
}

// open makes an engine of the shape that a world plans, on that world's kernels.
func open(w *sim.World) ([]sim.Loop, func()) {
	p := &w.Plan
	devices := make([]*engine.Device, len(p.Exports))
	var exports []engine.Export
	add := func(e *sim.ExportPlan, disk int) {
		x := engine.Export{Facts: e.Facts, Device: devices[disk], Name: "disk"}
		for k := range e.Contexts {
			x.Contexts = append(x.Contexts, w.Source(len(exports), k))
		}
		exports = append(exports, x)
	}
	for i := range p.Exports {
		devices[i] = device(w, i)
		add(&p.Exports[i], i)
	}
	for i := range p.Views {
		add(&p.Views[i].ExportPlan, p.Views[i].Disk)
	}
	c := engine.Config{Loops: p.Loops, MaxConnections: p.Loops * p.Connections}
	if p.Unregistered {
		c.Register = engine.RegisterOff
	}
	c.Memory = engine.AmpleMemory(c) + uint64(p.Loops)*p.Memory
	if p.Scanty {
		c.Memory = engine.MinMemory(c)
	}
	made := engine.NewSimLoops(c, exports,
		func(_ int, control, pool *uring.Arena, files []int32) (engine.Kernel, int32, func()) {
			k := w.NewKernel(p.Entries, p.Completions)
			k.Attach(control)
			k.SparseBuffers(pool, uring.SparseShift(pool.Size()))
			k.RegisterFiles(files)
			fd, notify := w.Eventfd()
			return k, fd, notify
		})
	loops := make([]sim.Loop, len(made))
	for i, l := range made {
		loops[i] = simLoop{l}
	}
	return loops, func() {
		w.Close()
		for _, l := range made {
			l.Close()
		}
	}
}

// runSeed runs one world and returns it, with what it met.
func runSeed(t testing.TB, seed uint64) *sim.World {
	t.Helper()
	w := sim.New(seed)
	run(t, w)
	return w
}

// run runs a world to its end.
func run(t testing.TB, w *sim.World) {
	t.Helper()
	loops, closeAll := open(w)
	defer closeAll()
	if err := w.Run(loops); err != nil {
		t.Fatal(err)
	}
	for _, l := range loops {
		c := l.(simLoop).Counters()
		w.AddEngineCounts(sim.EngineCounts{
			OverlapWaited: c.Overlaps,
			Divided:       c.Divided,
			EdgesRead:     c.Unaligned,
			MemoryStarved: c.Starved,
			StageMissing:  c.Stageless,
			Evicted:       c.Closed[engine.CloseStalled],
		})
	}
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
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		w := runSeed(t, seed)
		met.Add(&w.Marks)
	}
	t.Log(&met)
	if *seeds >= 400 {
		for _, m := range met.Missing() {
			t.Errorf("%d seeds never met %v: the simulation has lost a part of its reach", *seeds,
				m)
		}
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
		loops, closeAll := open(w)
		for _, l := range loops {
			l.(simLoop).Unbounded()
		}
		err := w.Run(loops)
		closeAll()
		if err != nil {
			if !strings.Contains(err.Error(), "although its disk is well") {
				t.Fatal(err)
			}
			return
		}
	}
	t.Errorf("%d worlds with disks that hang, and the simulation did not notice", worlds)
}
