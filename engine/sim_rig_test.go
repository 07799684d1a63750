// The rig between the engine and the simulation: devices and exports of the shape that a world
// plans, and the engine's control plane as the world's operator uses it.

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing/synctest"

	"ringnbd/engine"
	"ringnbd/engine/layer/overlay"
	"ringnbd/engine/sim"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// simLoop is a loop as the simulation drives it.
type simLoop struct{ *engine.SimLoop }

func (s simLoop) Connections() int { return s.Live() }
func (s simLoop) Drain()           { s.SimLoop.Drain() }
func (s simLoop) Idle() error      { return s.Home() }

// simRig is an engine in a world.
type simRig struct {
	*engine.SimEngine
	world   *sim.World
	devices map[int]*engine.Device // by opening
	loops   []sim.Loop
	simShape

	// planted mistakes, see sim_planted_test.go
	byPlace bool   // clients are adopted without a question
	hasty   bool   // changes are said to be done at once
	before  func() // called before each change
}

// simShape is what devices are like from the beginning.
type simShape struct {
	// planned has every device that can be stand below a plan, which waits for a read of its own
	// before it writes.
	planned bool
	apart   bool         // a planted mistake: each export has a device of its own
	kind    overlay.Kind // a planted mistake, if it is not Persistent
}

// open makes an engine of the shape that a world plans, on that world's kernels.
func open(w *sim.World, shape simShape) *simRig {
	r := &simRig{world: w, devices: map[int]*engine.Device{}, simShape: shape}
	formatTops(w)
	w.Reopen = reopened
	p := &w.Plan
	var exports []engine.Export
	for _, o := range w.Offers() {
		exports = append(exports, r.export(&o))
	}
	c := engine.Config{Loops: p.Loops, MaxConnections: p.Loops * p.Connections,
		Homed: r.planned || p.IsLayered()}
	if p.Unregistered {
		c.Register = engine.RegisterOff
	}
	c.Memory = engine.AmpleMemory(c) + uint64(p.Loops)*p.Memory
	if p.Scanty {
		c.Memory = engine.MinMemory(c)
	}
	r.SimEngine = engine.NewSimEngine(c, exports,
		func(_ int, control, pool *uring.Arena, files []int32) (engine.Kernel, int32, func()) {
			k := w.NewKernel(p.Entries, p.Completions)
			k.Attach(control)
			k.SparseBuffers(pool, uring.SparseShift(pool.Size()))
			k.RegisterFiles(files)
			fd, notify := w.Eventfd()
			return k, fd, notify
		})
	for _, l := range r.Loops {
		r.loops = append(r.loops, simLoop{l})
	}
	var ids []uint64
	for _, id := range r.IDs() {
		ids = append(ids, uint64(id))
	}
	w.Serving(ids)
	return r
}

// close takes everything down.
func (r *simRig) close() {
	r.world.Close()
	r.SimEngine.Close()
}

// export makes an export that the world offers. The exports of an opening have one device.
func (r *simRig) export(o *sim.Offer) engine.Export {
	d := r.devices[o.Opening]
	if d == nil || r.apart {
		if d = r.device(o); r.planned {
			d = engine.SimPlanned(d)
		}
		r.devices[o.Opening] = d
	}
	x := engine.Export{Facts: o.Facts, Device: d, Base: o.Base, Name: fmt.Sprint(o.Index)}
	for k := range o.Contexts {
		x.Contexts = append(x.Contexts, r.world.Source(o.Index, k))
	}
	return x
}

// device makes the device of an opening.
func (r *simRig) device(o *sim.Offer) *engine.Device {
	e := &r.world.Plan.Exports[o.Disk]
	if e.Backing == sim.Layered {
		return r.layered(o)
	}
	d := fileDevice(e)
	if len(o.FDs) > 0 {
		d.FD = int(o.FDs[0])
	}
	switch e.Backing {
	case sim.File:
		if e.Frozen {
			d.Freezes = uint64(o.Disk + 1)
		}
	case sim.Block:
		d.Kind = engine.Block
	case sim.Memory:
		d.Kind, d.Memory = engine.Memory, r.world.Memory(o.Disk)
	case sim.Null:
		d.Kind = engine.Null
	}
	return d
}

// fileDevice is the device of a disk, as if it were a file.
func fileDevice(e *sim.ExportPlan) *engine.Device {
	return &engine.Device{Kind: engine.File, FD: -1, Size: e.Size, Block: e.Block,
		Direct: e.Block > 1, Cached: e.Backing == sim.File && e.Block == 1 && !e.Waits,
		Waits: e.Waits, ReadOnly: e.ReadOnly(),
		Punch: e.Punch, ZeroRange: e.ZeroRange, FastZero: e.FastZero, Discard: e.Discard}
}

// layered makes the device of an overlay, over what is on its disks.
func (r *simRig) layered(o *sim.Offer) *engine.Device {
	_, over := r.world.Below(o.Disk)
	l, err := overlay.Lay(o.Size)
	if err != nil {
		panic(err)
	}
	m, err := loadedMap(l, over)
	if err != nil {
		panic(err)
	}
	plan := overlay.New(m, r.kind)
	needs := plan.Needs()
	d := &engine.Device{Kind: engine.Planned, FD: -1, Size: l.Size, Block: needs.Block, Plan: plan,
		Needs: needs, Punch: true, ZeroRange: true, FastZero: true}
	for i, e := range o.Lower {
		below := fileDevice(e)
		below.FD = int(o.FDs[i])
		d.Below = append(d.Below, below)
	}
	return d
}

// formatTops makes the tops of all overlays of a world.
func formatTops(w *sim.World) {
	for i := range w.Plan.Exports {
		if e := &w.Plan.Exports[i]; e.Backing == sim.Layered {
			head, err := overlay.Format([16]byte{1}, overlay.Origin{Size: e.Size})
			if err != nil {
				panic(err)
			}
			_, over := w.Below(i)
			copy(over, head)
			w.Formatted(i)
		}
	}
}

// loadedMap reads the map of an overlay's top.
func loadedMap(l overlay.Layout, over []byte) (*overlay.Map, error) {
	if _, err := overlay.Parse(over[:overlay.HeadLen]); err != nil {
		return nil, err
	}
	m := overlay.NewMap(l, nil)
	return m, m.Load(0, over[l.MapAt:][:l.MapLen])
}

// reopened is the content of an overlay as it is found on its disks.
func reopened(base, over []byte) ([]byte, error) {
	l, err := overlay.Lay(uint64(len(base)))
	if err != nil {
		return nil, err
	}
	m, err := loadedMap(l, over)
	if err != nil {
		return nil, err
	}
	content := append([]byte(nil), base...)
	overlay.New(m, overlay.Persistent).Extents(0, l.Size,
		func(at, n uint64, s overlay.State) bool {
			switch s {
			case overlay.Data:
				copy(content[at:at+n], over[l.DataAt+at:])
			case overlay.Zeroes:
				clear(content[at : at+n])
			}
			return true
		})
	return content, nil
}

// Adopt implements sim.Table. In a world whose exports stay, the world chooses the loop.
func (r *simRig) Adopt(loop int, fd int32, id uint64, s proto.Session) (client any, gone bool) {
	if !r.world.Plan.Live && !r.planned || r.byPlace {
		return r.Loops[loop].Adopt(fd, engine.ID(id), s), false
	}
	c, err := r.AdoptSome(fd, engine.ID(id), s)
	if err != nil && !engine.IsGone(err) {
		panic(err)
	}
	return c, err != nil
}

// Retire implements sim.Table.
func (r *simRig) Retire(client any) (ended func() bool) {
	done := r.SimEngine.Retire(client.(*engine.Client))
	return func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

// Settle implements sim.Table: every goroutine of the engine goes on until it waits for a loop.
func (r *simRig) Settle() { synctest.Wait() }

// Apply implements sim.Table.
func (r *simRig) Apply(c sim.Change) (outcome func() (sim.Outcome, bool)) {
	change := engine.Change{Force: c.Force}
	for _, id := range c.Remove {
		change.Remove = append(change.Remove, engine.ID(id))
	}
	for _, a := range c.Alter {
		change.Alter = append(change.Alter, engine.Alteration{ID: engine.ID(a.ID), Facts: a.Facts})
	}
	for i := range c.Add {
		change.Add = append(change.Add, r.export(&c.Add[i]))
	}
	if r.before != nil {
		r.before()
	}
	var o sim.Outcome
	done := r.hasty && len(c.Add) == 0
	go func() {
		added, err := r.SimEngine.Apply(context.Background(), change)
		for _, id := range added {
			o.Added = append(o.Added, sim.Place{ID: uint64(id), Place: id.Place()})
		}
		o.Refused = refusal(err, &o)
		done = true
	}()
	return func() (sim.Outcome, bool) { return o, done }
}

// refusal sorts the errors of a change: what was not flushed goes into the outcome, and what
// remains is why the change was refused.
func refusal(err error, o *sim.Outcome) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var left []error
		for _, e := range joined.Unwrap() {
			left = append(left, refusal(e, o))
		}
		return errors.Join(left...)
	}
	var lost *engine.NotFlushedError
	if !errors.As(err, &lost) {
		return err
	}
	var index int
	if _, err := fmt.Sscan(lost.Name, &index); err != nil {
		return err
	}
	o.Unflushed = append(o.Unflushed, index)
	return nil
}
