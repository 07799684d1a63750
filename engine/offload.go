// Offload: what may block outside of io_uring is done by goroutines beside the loops. A loop pushes
// requests onto a stack and makes an eventfd readable; whoever sleeps on that takes one whose
// device nobody is busy with, so that storage which hangs holds up no other's lookups. What waits
// for it holds memory and tags, as READs do that wait for such storage; when its client has gone,
// it is given back at once.
//
// Invariant: at most one lookup of a device and a loop runs at a time; connections take turns, and
// those of one connection begin in order; as long as fewer than mostWorkers are busy, one worker at
// least is asleep or on its way to look, and seldom more than idleWorkers; when a loop has no
// connection left, nothing of it is here.

package engine

import (
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

const (
	// mostWorkers bounds the threads that storage which hangs can take up, per loop: a device
	// occupies one. Lookups beyond wait, as for their device.
	mostWorkers = 64
	// more than these leave, and their threads with them, when they find nothing to do
	idleWorkers = 2
)

// offload serves one loop.
type offload struct {
	loop *loop
	fd   int // the eventfd that workers sleep on

	mu      sync.Mutex
	waiting []uint32        // requests that no worker has taken, in order
	busy    map[uint32]bool // devices with a lookup that runs
	turns   uint64          // lookups that have begun
	turn    []uint64        // by connection: when its last one did
	workers int
	most    int  // workers at a time
	keep    bool // threads stay, as there may be none when they are needed again
	idle    int  // workers that are asleep, or awake and have not taken anything yet
	stopped bool
	ended   sync.WaitGroup
}

// startOffload gives a loop somebody to ask; lookups is Config.Lookups.
func startOffload(l *loop, lookups int) (*offload, error) {
	fd, err := uring.Eventfd()
	if err != nil {
		return nil, err
	}
	o := &offload{loop: l, fd: fd, busy: map[uint32]bool{}, turn: make([]uint64, len(l.conns)),
		most: mostWorkers}
	if lookups > 0 && lookups < mostWorkers {
		o.most, o.keep = lookups, true
	}
	l.offload = func() { uring.Notify(fd) }
	o.hire()
	return o, nil
}

// hire starts a worker.
func (o *offload) hire() {
	o.workers++
	o.idle++
	o.ended.Add(1)
	go o.work()
}

// work looks up what it finds, and sleeps when it finds nothing, or leaves if enough others do.
func (o *offload) work() {
	defer o.ended.Done()
	for uring.Await(o.fd) == nil {
		t, more := o.begin()
		for more {
			dev := o.loop.tags[t].dev
			o.loop.lookUpOne(t)
			t, more = o.next(dev)
		}
		switch stopped, superfluous := o.part(); {
		case stopped:
			uring.Notify(o.fd) // the next one
			return
		case superfluous:
			// a thread ends with a goroutine that is locked to it, and with nothing else
			runtime.LockOSThread()
			return
		}
	}
}

// part says whether a worker that has found nothing is to end: all are, or it alone.
func (o *offload) part() (stopped, superfluous bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	superfluous = o.idle > idleWorkers && !o.stopped && !o.keep
	if superfluous {
		o.idle--
		o.workers--
	}
	return o.stopped, superfluous
}

// begin takes a request for a worker that was idle; another takes its place if it was the last.
func (o *offload) begin() (uint32, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, ok := o.take()
	if !ok {
		return none, false
	}
	o.idle--
	if o.idle == 0 && o.workers < o.most {
		o.hire()
	}
	if len(o.waiting) > 0 {
		uring.Notify(o.fd)
	}
	return t, true
}

// next takes another request for a worker that has done one of the device.
func (o *offload) next(dev uint32) (uint32, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.busy, dev)
	t, ok := o.take()
	if !ok {
		o.idle++
	}
	return t, ok
}

// take finds a request of a device that is not busy, the first one of the connection whose last
// turn is longest ago, and makes the device busy.
func (o *offload) take() (uint32, bool) {
	for t := o.loop.takeAsked(); t != none; t = o.loop.tags[t].next {
		o.waiting = append(o.waiting, t)
	}
	o.waiting = slices.DeleteFunc(o.waiting, func(t uint32) bool {
		left := o.loop.gone[o.loop.tags[t].conn].Load()
		if left {
			o.loop.lookUpOne(t) // which does not look
		}
		return left
	})
	best := -1
	for i, t := range o.waiting {
		c := o.loop.tags[t].conn
		if !o.busy[o.loop.tags[t].dev] &&
			(best < 0 || o.turn[c] < o.turn[o.loop.tags[o.waiting[best]].conn]) {
			best = i
		}
	}
	if best < 0 {
		return none, false
	}
	t := o.waiting[best]
	c := o.loop.tags[t].conn
	o.waiting = slices.Delete(o.waiting, best, best+1)
	o.busy[o.loop.tags[t].dev] = true
	o.turns++
	o.turn[c] = o.turns
	return t, true
}

// stop ends it; the loop has no connections left.
func (o *offload) stop() {
	o.mu.Lock()
	o.stopped = true
	o.mu.Unlock()
	uring.Notify(o.fd)
	o.ended.Wait()
	_ = unix.Close(o.fd)
}
