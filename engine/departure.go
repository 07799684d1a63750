// Departures: exports on their way out, as the control plane sees them off.
//
// Invariant: a departure ends in this order: no loop has a connection of the export; what was
// written is flushed, if no other export has the device; no loop has anything of the export, or of
// a device without exports, and the kernel has let go of the device's file. What waits for storage
// waits in a goroutine of its own and keeps up no other departure.

package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// maxFlushWait is how long a flush keeps its turn, before the flush of another export that leaves
// may begin beside it.
const maxFlushWait = 2 * time.Second

// departure is one export on its way out.
type departure struct {
	id       ID
	name     string
	device   *Device
	dev      uint32            // place of the device
	loops    atomic.Int32      // those in which it has connections, or may have
	conns    atomic.Int32      // connections that were not closed yet
	home     chan<- *departure // takes the departure when no loop has connections
	flushing atomic.Bool
	gone     chan struct{}
	err      error        // that of the flush; valid once it has gone
	devices  []goneDevice // that no export has any more
}

// goneDevice is the place of a device that leaves, and that of its file.
type goneDevice struct{ place, file uint32 }

func newDeparture(x *Export, loops int, home chan<- *departure) *departure {
	d := &departure{id: x.id, name: x.Name, device: x.Device, dev: x.dev, home: home,
		gone: make(chan struct{})}
	d.loops.Store(int32(loops))
	return d
}

// homeIn notes that a loop has no connection of the export any more. Loops call it; there is room
// in the channel.
func (d *departure) homeIn() {
	if d.loops.Add(-1) == 0 {
		d.home <- d
	}
}

// remains says what a departure still waits for.
func (d *departure) remains() error {
	return &RemainsError{Name: d.name, ID: d.id, Connections: int(d.conns.Load()),
		Flushing: d.flushing.Load()}
}

// outcome waits until the export has gone, and says what was lost, or what remains when it is late.
func (d *departure) outcome(late <-chan struct{}) error {
	select {
	case <-d.gone:
		return d.err
	default:
	}
	select {
	case <-d.gone:
		return d.err
	case <-late:
		return d.remains()
	}
}

// seeOff ends n departures, each as it gets home.
func (e *Engine) seeOff(home <-chan *departure, n int) {
	flushed := make(chan *departure, n)
	turns := make(chan struct{}, maxFlushThreads)
	go func() {
		for range n {
			select {
			case d := <-home:
				if e.lastUser(d) {
					go e.flushLast(d, turns, flushed)
				} else {
					flushed <- d
				}
			case <-e.ended:
				return
			}
		}
	}()
	for left := n; left > 0; {
		var batch []*departure
		select {
		case d := <-flushed:
			batch = append(batch, d)
		case <-e.ended:
			return
		}
		for more := true; more; {
			select {
			case d := <-flushed:
				batch = append(batch, d)
			default:
				more = false
			}
		}
		left -= len(batch)
		if !e.takeOut(batch) {
			return
		}
	}
}

// lastUser takes an export without connections from the users of its device, and reports whether it
// was the last, and has left something to be flushed, or a flush that has not ended.
func (e *Engine) lastUser(d *departure) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &e.shared.register
	r.users[d.dev]--
	flushing := d.device.syncing.Load() || d.device.queued.Load() > 0
	return r.users[d.dev] == 0 && (d.device.dirty() || flushing)
}

// flushLast flushes a device whose last export leaves, when it is its turn.
func (e *Engine) flushLast(d *departure, turns chan struct{}, flushed chan<- *departure) {
	d.flushing.Store(true)
	turns <- struct{}{}
	e.mu.Lock()
	m := e.postFlush(d.dev)
	e.mu.Unlock()
	ctx, stop := context.WithTimeout(context.Background(), maxFlushWait)
	defer stop()
	if m != nil {
		e.answered(ctx, m.done)
	}
	<-turns
	d.err = e.flushResult(context.Background(), m, d.name)
	d.flushing.Store(false)
	flushed <- d
}

// takeOut takes exports that are home and flushed out of the table, and ends their departures when
// nothing of them is left in any loop. False means that the engine has ended.
func (e *Engine) takeOut(batch []*departure) bool {
	letters := e.drop(batch)
	if letters == nil {
		return false
	}
	for _, m := range letters {
		if !e.answered(context.Background(), m.done) {
			return false
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range batch {
		e.shared.register.giveBack(d)
		close(d.gone)
	}
	return true
}

// drop takes exports, and the devices that no other export has, out of the table, and tells the
// loops.
func (e *Engine) drop(batch []*departure) []*mail {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down {
		return nil
	}
	u := &update{table: e.shared.table.copy()}
	for _, d := range batch {
		e.shared.register.drop(u.table, d)
		u.exports = append(u.exports, d.id.place())
		for _, p := range d.devices {
			u.devices = append(u.devices, p.place)
		}
	}
	return e.postTable(u)
}
