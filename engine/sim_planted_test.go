// Planted mistakes: a simulation that finds nothing must be able to find something. Each is a
// mistake that a table which changes invites, made in an engine that has none otherwise, and each
// must be noticed within some worlds, by what a client or the kernel sees of it.

package engine_test

import (
	"strings"
	"testing"

	"ringnbd/engine"
	"ringnbd/engine/layer/overlay"
	"ringnbd/engine/sim"
)

// planted is a mistake, and words of what the simulation may say of it.
type planted struct {
	name  string
	plant func(*simRig)
	shape simShape // and this
	words []string
	where func(*sim.Plan) bool // the worlds in which it is made
}

var plantedMistakes = []planted{
	{"clients are adopted by the place, whatever is there now",
		func(r *simRig) { r.byPlace = true },
		simShape{}, []string{"was adopted, but export"}, live},
	{"places are given away without a new generation",
		func(r *simRig) { r.before = r.ForgetGenerations },
		simShape{}, []string{"have the ID", "was adopted, but export"}, live},
	{"the place of a file is not emptied",
		func(r *simRig) {
			r.EachKernel(func(k engine.Kernel) engine.Kernel {
				return keepsFiles{k.(simKernel)}
			})
		},
		simShape{}, []string{"still has its file", "is set to"}, live},
	{"the kernel's file is not waited for",
		func(r *simRig) {
			r.EachKernel(func(k engine.Kernel) engine.Kernel {
				return hastyFiles{k.(simKernel)}
			})
		},
		simShape{}, []string{"still has its file", "the kernel let go of a file"}, live},
	{"requests are ordered by export instead of by device",
		func(r *simRig) {}, simShape{apart: true},
		[]string{"wrong bytes", "still has its file"}, shared},
	{"one loop does not see that an export is read-only",
		func(r *simRig) { r.Loops[len(r.Loops)-1].Writable = true },
		simShape{}, []string{"the protocol allows", "on a read-only export"}, live},
	{"one loop does not see that an export is shorter",
		func(r *simRig) { r.Loops[len(r.Loops)-1].Long = true },
		simShape{}, []string{"the protocol allows", "on a disk of"}, live},
	{"one loop forgets where an export begins",
		func(r *simRig) { r.Loops[len(r.Loops)-1].Baseless = true },
		simShape{},
		[]string{"wrong bytes", "on a disk of", "zeroes were claimed", ": status "}, live},
	{"a change is said to be done before it is",
		func(r *simRig) { r.hasty = true },
		simShape{}, []string{"has gone, but", "the protocol allows", "says that it is not",
			"its descriptor", "after a crash", "on a read-only export", "has gone as if",
			"is not open", "is looked up, and the export has gone", "on a disk of"}, live},
	{"an overlay does not save its map",
		func(r *simRig) {}, simShape{kind: overlay.ThrowAway},
		[]string{"after a crash", "a read saw"}, overlays},
	{"what was written is not flushed when its disk is removed",
		func(r *simRig) {
			for _, l := range r.Loops {
				l.Careless = true
			}
		},
		simShape{}, []string{"after a crash", "has gone as if all were well"}, live},
}

func live(p *sim.Plan) bool     { return p.Live && !p.Hang && !p.IsLayered() }
func overlays(p *sim.Plan) bool { return p.IsLayered() }

// shared has worlds with unaligned writes to disks that exports share.
func shared(p *sim.Plan) bool {
	for _, v := range p.Views {
		if p.Exports[v.Disk].Block > 1 && !p.Hang && !p.IsLayered() {
			return true
		}
	}
	return false
}

// TestSimNoticesPlantedMistakes plants each mistake in one world after the other.
func TestSimNoticesPlantedMistakes(t *testing.T) {
	const worlds = 150
	for _, p := range plantedMistakes {
		t.Run(p.name, func(t *testing.T) {
			seed := uint64(0)
			for range worlds {
				w := sim.New(seed)
				for seed++; !p.where(&w.Plan); seed++ {
					w.Close()
					w = sim.New(seed)
				}
				err := outcomeOf(t, w, p.shape, p.plant)
				// flushes have to be those of the device too: that is another mistake
				other := p.shape.apart && err != nil &&
					strings.Contains(err.Error(), "a flush had failed")
				if err == nil || other {
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
