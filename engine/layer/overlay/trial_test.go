// The overlay in the pure world: seeds, what they must have met, and that a seed repeats its run.

package overlay

import (
	"flag"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ringnbd/engine/layer"
	"ringnbd/engine/layer/trial"
	"ringnbd/proto"
)

var (
	seeds     = flag.Uint64("seeds", 2500, "how many seeds of the trial to run")
	firstSeed = flag.Uint64("first-seed", 1, "the first seed")
)

// met is what seeds have met, by name.
type met struct {
	lock  sync.Mutex
	times map[string]int
}

func (m *met) note(names ...string) {
	m.lock.Lock()
	defer m.lock.Unlock()
	for _, name := range names {
		m.times[name]++
	}
}

// observed is an overlay of which each step is looked at.
func (m *met) observed(o *Overlay) planWithRows {
	return &wrong{Overlay: o, step: func(o *Overlay, r *layer.Row,
		w *layer.Wave) layer.Then {
		phase, state, bad, shared := o.save.phase, r.State, r.Bad, o.save.saving.n
		rounds := o.save.rounds.Load()
		then := o.Step(r, w)
		if r.Own != 0 {
			m.saving(o, then, phase, bad != 0, r.Cause == proto.ENOSPC, shared,
				o.save.rounds.Load() != rounds)
			return then
		}
		switch {
		case state == joined && r.Errno != 0:
			m.note("row whose round failed")
		case then == layer.Go && w.N == layer.WaveMost && r.Op == layer.Read:
			m.note("read of more runs than a wave has")
		case then == layer.Go && w.N == layer.WaveMost && r.Op == layer.Trim:
			m.note("trim of more runs than a wave has")
		case then == layer.Wait && r.State == punching:
			m.note("range of more than a stride")
		case then == layer.Go && r.State == plain:
			m.note("durable rewrite")
		case state == writing && bad != 0:
			m.note("write that failed")
		}
		return then
	}}
}

// saving notes what an own row's step was about.
func (m *met) saving(o *Overlay, then layer.Then, phase uint8, bad, space bool, shared int,
	ended bool) {
	switch {
	case bad && phase == storing && space:
		m.note("round without space")
	case bad && phase == storing:
		m.note("round with a page that failed")
	case bad:
		m.note("round with a flush that failed")
	case phase == storing && o.save.phase == settling:
		m.note("round of several batches")
	case ended && shared > 1:
		m.note("shared round")
	case ended && o.save.dirty.n > 0:
		m.note("page that changed during its round")
	case then == layer.Go && phase == storing && o.save.phase == storing:
		m.note("batch of several waves")
	}
}

// TestTrial runs seeds: random requests, errors and crashes, over trees of overlays.
func TestTrial(t *testing.T) {
	if raced {
		*seeds = min(*seeds, 50)
	}
	m := met{times: map[string]int{}}
	var all trial.Seen
	var lock sync.Mutex
	var next atomic.Uint64
	start := time.Now()
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for n := next.Add(1) - 1; n < *seeds && !t.Failed(); n = next.Add(1) - 1 {
				seen, err := trial.Run(*firstSeed+n, func(rng *trial.Rand) trial.Rig {
					s := draw(rng)
					s.wrap = m.observed
					return s.rig(rng)
				})
				if err != nil {
					t.Error(err)
				}
				lock.Lock()
				all.Add(seen)
				lock.Unlock()
			}
		})
	}
	wait.Wait()
	took := time.Since(start).Seconds()
	t.Logf("%d seeds: %.0f seeds/s, %.0f steps/s, %+v, met %v", *seeds, float64(*seeds)/took,
		float64(all.Steps)/took, all, m.times)
	for _, name := range []string{"row whose round failed", "read of more runs than a wave has",
		"trim of more runs than a wave has", "range of more than a stride", "durable rewrite",
		"write that failed", "round without space", "round with a page that failed",
		"round with a flush that failed", "round of several batches", "shared round",
		"page that changed during its round", "batch of several waves"} {
		if m.times[name] == 0 && *seeds >= 1000 {
			t.Errorf("no seed has met a %s", name)
		}
	}
}

// TestTrialRepeats checks that a seed repeats its run, to the last step and failure.
func TestTrialRepeats(t *testing.T) {
	late := func(rng *trial.Rand) trial.Rig {
		s := draw(rng)
		s.kind, s.wrap = Persistent, latePunch
		return s.rig(rng)
	}
	failed := 0
	for seed := uint64(1); seed < 60; seed++ {
		seen, err := trial.Run(seed, late)
		again, errAgain := trial.Run(seed, late)
		if seen != again || (err == nil) != (errAgain == nil) ||
			err != nil && (err.Error() != errAgain.Error() ||
				strings.Contains(err.Error(), "does not repeat")) {
			t.Errorf("seed %d: %+v, %v, and again %+v, %v", seed, seen, err, again, errAgain)
		}
		if err != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Error("no seed has failed: a failure was not repeated")
	}
}
