// The rig between the engine and the simulation: devices and exports of the shape that a world
// plans, and the engine's control plane as the world's operator uses it.

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing/synctest"

	"ringnbd/engine"
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
	// planned has every device that can be stand below a plan, which waits for a read of its own
	// before it writes.
	planned bool

	// planted mistakes, see sim_planted_test.go
	byPlace bool   // clients are adopted without a question
	apart   bool   // each export has a device of its own
	hasty   bool   // changes are said to be done at once
	before  func() // called before each change
}

// open makes an engine of the shape that a world plans, on that world's kernels.
func open(w *sim.World, planned bool) *simRig {
	r := &simRig{world: w, devices: map[int]*engine.Device{}, planned: planned}
	p := &w.Plan
	var exports []engine.Export
	for _, o := range w.Offers() {
		exports = append(exports, r.export(&o))
	}
	c := engine.Config{Loops: p.Loops, MaxConnections: p.Loops * p.Connections, Homed: planned}
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
	d := &engine.Device{Kind: engine.File, FD: o.FD, Size: e.Size, Block: e.Block,
		Direct: e.Block > 1, Cached: e.Backing == sim.File && e.Block == 1 && !e.Waits,
		Waits: e.Waits, ReadOnly: e.ReadOnly(),
		Punch: e.Punch, ZeroRange: e.ZeroRange, FastZero: e.FastZero, Discard: e.Discard}
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

// Adopt implements sim.Table. In a world whose exports stay, the world chooses the loop.
func (r *simRig) Adopt(loop int, fd int32, id uint64, s proto.Session) (client any, gone bool) {
	if !r.world.Plan.Live && !r.planned || r.byPlace {
		r.Loops[loop].Adopt(fd, engine.ID(id), s)
		return nil, false
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
