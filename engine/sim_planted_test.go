// Planted mistakes: a simulation that finds nothing must be able to find something. Each is a
// mistake that a table which changes invites, made in an engine that has none otherwise, and each
// must be noticed within some worlds, by what a client or the kernel sees of it.

package engine_test

import (
	"strings"
	"testing"

	"ringnbd/engine"
	"ringnbd/engine/sim"
)

// planted is a mistake, and words of what the simulation may say of it.
type planted struct {
	name  string
	plant func(*simRig)
	words []string
}

var plantedMistakes = []planted{
	{"clients are adopted by the place, whatever is there now",
		func(r *simRig) { r.byPlace = true },
		[]string{"was adopted, but export"}},
	{"places are given away without a new generation",
		func(r *simRig) { r.before = r.ForgetGenerations },
		[]string{"have the ID", "was adopted, but export"}},
	{"the place of a file is not emptied",
		func(r *simRig) {
			r.EachKernel(func(k engine.Kernel) engine.Kernel {
				return keepsFiles{k.(simKernel)}
			})
		},
		[]string{"still has its file", "is set to"}},
	{"the kernel's file is not waited for",
		func(r *simRig) {
			r.EachKernel(func(k engine.Kernel) engine.Kernel {
				return hastyFiles{k.(simKernel)}
			})
		},
		[]string{"still has its file"}},
	{"requests are ordered by export instead of by device",
		func(r *simRig) { r.apart = true },
		[]string{"wrong bytes", "although a flush had failed"}},
	{"one loop does not see that an export is read-only",
		func(r *simRig) { r.Loops[len(r.Loops)-1].Writable = true },
		[]string{"the protocol allows", "on a read-only export"}},
	{"one loop does not see that an export is shorter",
		func(r *simRig) { r.Loops[len(r.Loops)-1].Long = true },
		[]string{"the protocol allows", "on a disk of"}},
	{"one loop forgets where an export begins",
		func(r *simRig) { r.Loops[len(r.Loops)-1].Baseless = true },
		[]string{"wrong bytes", "on a disk of", "zeroes were claimed", ": status "}},
	{"a change is said to be done before it is",
		func(r *simRig) { r.hasty = true },
		[]string{"has gone, but", "the protocol allows", "says that it is not",
			"its descriptor", "after a crash", "on a read-only export", "has gone as if",
			"is not open", "is looked up, and the export has gone", "on a disk of"}},
	{"what was written is not flushed when its disk is removed",
		func(r *simRig) { r.before = r.forgetWrites },
		[]string{"after a crash", "has gone as if all were well"}},
}

// TestSimNoticesPlantedMistakes plants each mistake in one live world after the other.
func TestSimNoticesPlantedMistakes(t *testing.T) {
	const worlds = 150
	for _, p := range plantedMistakes {
		t.Run(p.name, func(t *testing.T) {
			seed := uint64(0)
			for range worlds {
				w := sim.New(seed)
				for seed++; !w.Plan.Live; seed++ {
					w.Close()
					w = sim.New(seed)
				}
				err := outcome(t, w, p.plant)
				if err == nil {
					continue
				}
				text, _, _ := strings.Cut(err.Error(), "\nplan: ")
				for _, words := range p.words {
					if strings.Contains(text, words) {
						t.Log(text)
						return
					}
				}
				t.Fatalf("noticed by something else: %v", err)
			}
			t.Errorf("%d worlds did not notice", worlds)
		})
	}
}

// simKernel is what the engine may use of the simulated kernel.
type simKernel interface {
	engine.Kernel
	Pwrite(fd int, addr uint64, n uint32, off uint64) int32
}

// keepsFiles is a kernel to which the engine says nothing when a place is to be emptied.
type keepsFiles struct{ simKernel }

func (k keepsFiles) SetFile(place uint32, fd int32) error {
	if fd < 0 {
		k.simKernel.(*sim.Kernel).Released(place)
		return nil
	}
	return k.simKernel.SetFile(place, fd)
}

// hastyFiles is a kernel whose completions the engine has before they come.
type hastyFiles struct{ simKernel }

func (k hastyFiles) SetFile(place uint32, fd int32) error {
	err := k.simKernel.SetFile(place, fd)
	if err == nil && fd < 0 {
		k.simKernel.(*sim.Kernel).Released(place)
	}
	return err
}

// forgetWrites makes the devices of a rig forget that they were written to.
func (r *simRig) forgetWrites() {
	for _, d := range r.devices {
		d.ForgetWrites()
	}
}
