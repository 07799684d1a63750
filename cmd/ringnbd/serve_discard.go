// Exports whose clients throw away what they write: each client gets an overlay of its own, which
// is made when it has chosen the export, and removed when its connection has ended.
//
// Such an overlay is an export of the engine that no catalog shows. Its clients, counters and log
// lines go by the name of the export that was asked for.
//
// Invariant: an overlay that was made belongs to one client, or is removed. What fails, a full disk
// or a lack of descriptors, fails for that client alone.

package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/proto"
)

// discardTime is how long storage may take to let go of an overlay, before the log says so.
const discardTime = 20 * time.Second

// discards is the throw-away overlays of a server.
type discards struct {
	log     *slog.Logger
	engine  *engine.Engine
	journal *journal
	find    func(id engine.ID) *backing.Backing // of an export that is served; nil: it is not
	take    func() error                        // a descriptor
	give    func()                              // it back

	mu      sync.Mutex
	made    map[engine.ID]*thrown
	past    map[engine.ID]engine.Traffic // by export, of clients that have left
	closing bool
	work    sync.WaitGroup // removals
}

// thrown is the overlay of one client.
type thrown struct {
	of      engine.ID // the export that was asked for
	backing *backing.Backing
	left    bool // its client has left, and is counted in past
}

func newDiscards(log *slog.Logger, e *engine.Engine, j *journal,
	find func(id engine.ID) *backing.Backing) *discards {
	return &discards{log: log, engine: e, journal: j, find: find, made: map[engine.ID]*thrown{},
		past: map[engine.ID]engine.Traffic{}}
}

// prepare makes the overlay of a client, if the export that it has chosen is of that kind. It is
// called by the gate.
func (d *discards) prepare(ctx context.Context, export proto.Export, _ string) (id uint64,
	undo func(), err error) {
	asked := engine.ID(export.ID)
	b := d.find(asked)
	if b == nil || !b.Discards() {
		return export.ID, nil, nil
	}
	if err := d.take(); err != nil {
		return 0, nil, err
	}
	own, err := b.ThrowAway(ctx)
	if err != nil {
		d.give()
		return 0, nil, err
	}
	ids, err := d.engine.Apply(ctx, engine.Change{Add: []engine.Export{own.Engine()}})
	if len(ids) == 0 {
		err = errors.Join(err, own.Close())
		d.give()
		return 0, nil, err
	}
	d.journal.know(ids[0], exportName{export.Name, b.Path(), asked})
	d.mu.Lock()
	d.made[ids[0]] = &thrown{of: asked, backing: own}
	late := d.closing
	d.mu.Unlock()
	undo = func() { d.remove(ids[0]) }
	if err != nil { // the client's time is over, and the engine may be about to take it on
		undo()
		return 0, nil, err
	}
	if late || d.find(asked) != b { // nothing that ends the export has seen this overlay
		undo()
		return 0, nil, engine.ErrGone
	}
	return uint64(ids[0]), undo, nil
}

// ended is told of every client that has left.
func (d *discards) ended(c *engine.Client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	own := d.made[c.Export]
	if own == nil || d.closing {
		return
	}
	own.left = true
	if d.find(own.of) != nil {
		past := d.past[own.of]
		addTraffic(&past, &c.Traffic)
		d.past[own.of] = past
	}
	d.work.Go(func() { d.remove(c.Export) })
}

// remove takes an overlay out of the engine and closes it. It is done once.
func (d *discards) remove(id engine.ID) {
	d.mu.Lock()
	own := d.made[id]
	delete(d.made, id)
	d.mu.Unlock()
	if own == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), discardTime)
	_, err := d.engine.Apply(ctx, engine.Change{Remove: []engine.ID{id}, Force: true})
	cancel()
	var remains *engine.RemainsError
	if errors.As(err, &remains) {
		d.log.Warn("the overlay of a client that has left is still with its storage", "error", err)
		<-d.engine.Gone(id)
		err = nil
	}
	var lost *engine.NotFlushedError // nothing was to be kept
	if err != nil && !errors.As(err, &lost) && !engine.IsGone(err) {
		d.log.Warn("the overlay of a client that has left is not removed", "error", err)
		return
	}
	d.journal.forget(id)
	defer d.give()
	if err := own.backing.Close(); err != nil {
		d.log.Warn("the overlay of a client that has left is not closed", "error", err)
	}
}

// of returns the overlays of an export: they end with it.
func (d *discards) of(asked engine.ID) (ids []engine.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, own := range d.made {
		if own.of == asked {
			ids = append(ids, id)
		}
	}
	return ids
}

// count adds to the counters of exports what the engine has counted of the overlays of their
// clients.
func (d *discards) count(counted map[engine.ID]engine.ExportCounters) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, own := range d.made {
		all, of := counted[own.of], counted[id]
		if own.left {
			continue
		}
		addTraffic(&all.Traffic, &of.Traffic)
		all.Connections += of.Connections
		all.DiskErrors += of.DiskErrors
		counted[own.of] = all
	}
	for asked, past := range d.past {
		all := counted[asked]
		addTraffic(&all.Traffic, &past)
		counted[asked] = all
	}
}

func addTraffic(to, more *engine.Traffic) {
	to.Reads += more.Reads
	to.Writes += more.Writes
	to.Others += more.Others
	to.Errors += more.Errors
	to.BytesRead += more.BytesRead
	to.BytesWrite += more.BytesWrite
}

// forget drops what is known of an export that has been removed.
func (d *discards) forget(asked engine.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.past, asked)
}

// close closes all overlays. The engine has ended.
func (d *discards) close() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	d.closing = true
	left := d.made
	d.made = map[engine.ID]*thrown{}
	d.mu.Unlock()
	d.work.Wait()
	var err error
	for _, own := range left {
		err = errors.Join(err, own.backing.Close())
	}
	return err
}
