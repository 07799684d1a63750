// Lookup workers: goroutines beside the loops, for lookups that may block outside of io_uring. A
// loop pushes requests onto a stack and makes an eventfd readable; a worker that sleeps on it takes
// a request whose device has no lookup running, so that storage which hangs holds up no other's
// lookups. A request that waits for its lookup holds memory and a tag, as a READ does that waits
// for such storage; when its client has gone, it is given back at once.
//
// Invariant: at most one lookup of a device runs at a time, for each loop; connections take turns,
// and lookups of one connection begin in order. As long as fewer than maxLookupWorkers are busy, at
// least one worker is asleep or on its way to look, and seldom more than maxIdle are. A loop
// without connections has no lookup here.

package engine

import (
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

const (
	// maxLookupWorkers bounds the threads that storage which hangs can take up, per loop: a device
	// occupies one. More lookups wait, as for their device.
	maxLookupWorkers = 64
	// maxIdle is how many workers stay, with their threads, when they find nothing to do.
	maxIdle = 2
)

// lookupWorkers serves one loop.
type lookupWorkers struct {
	loop *loop
	fd   int // the eventfd that workers sleep on

	mu      sync.Mutex
	waiting []uint32        // requests that no worker has taken, in order
	busy    map[uint32]bool // devices with a lookup that runs
	turns   uint64          // lookups that have begun
	turn    []uint64        // by connection: the number of its last lookup
	workers int
	max     int  // workers at a time
	keep    bool // threads stay, as there may be none when they are needed again
	idle    int  // workers that are asleep, or awake and have not taken anything yet
	stopped bool
	ended   sync.WaitGroup
}

// startLookups gives a loop workers; threads is Config.Lookups.
func startLookups(l *loop, threads int) (*lookupWorkers, error) {
	fd, err := uring.Eventfd()
	if err != nil {
		return nil, err
	}
	o := &lookupWorkers{loop: l, fd: fd, busy: map[uint32]bool{},
		turn: make([]uint64, len(l.conns)),
		max:  maxLookupWorkers}
	if threads > 0 && threads < maxLookupWorkers {
		o.max, o.keep = threads, true
	}
	l.ask = func() { uring.Notify(fd) }
	o.hire()
	return o, nil
}

// hire starts a worker.
func (o *lookupWorkers) hire() {
	o.workers++
	o.idle++
	o.ended.Add(1)
	go o.work()
}

// work looks up what it finds, and sleeps when it finds nothing, or leaves if enough others do.
func (o *lookupWorkers) work() {
	defer o.ended.Done()
	for uring.Await(o.fd) == nil {
		t, more := o.begin()
		for more {
			dev := o.loop.tags[t].dev
			o.loop.lookUp(t)
			t, more = o.next(dev)
		}
		switch stopped, superfluous := o.dismiss(); {
		case stopped:
			uring.Notify(o.fd) // wakes the next worker
			return
		case superfluous:
			// a thread ends with a goroutine that is locked to it, and with nothing else
			runtime.LockOSThread()
			return
		}
	}
}

// dismiss reports whether a worker that has found nothing is to end: because all are, or because
// enough others are idle.
func (o *lookupWorkers) dismiss() (stopped, superfluous bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	superfluous = o.idle > maxIdle && !o.stopped && !o.keep
	if superfluous {
		o.idle--
		o.workers--
	}
	return o.stopped, superfluous
}

// begin takes a request for a worker that was idle; another takes its place if it was the last.
func (o *lookupWorkers) begin() (uint32, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, ok := o.take()
	if !ok {
		return none, false
	}
	o.idle--
	if o.idle == 0 && o.workers < o.max {
		o.hire()
	}
	if len(o.waiting) > 0 {
		uring.Notify(o.fd)
	}
	return t, true
}

// next takes another request for a worker that has done one of the device.
func (o *lookupWorkers) next(dev uint32) (uint32, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.busy, dev)
	t, ok := o.take()
	if !ok {
		o.idle++
	}
	return t, ok
}

// take finds a request of a device that is not busy, of the connection whose last turn is longest
// ago, and makes the device busy. Requests whose client has left are given back unanswered.
func (o *lookupWorkers) take() (uint32, bool) {
	for t := o.loop.takeAsked(); t != none; t = o.loop.tags[t].next {
		o.waiting = append(o.waiting, t)
	}
	o.waiting = slices.DeleteFunc(o.waiting, func(t uint32) bool {
		left := o.loop.gone[o.loop.tags[t].conn].Load()
		if left {
			o.loop.lookUp(t) // which asks no Context then
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

// stop ends the workers; the loop has no connections left.
func (o *lookupWorkers) stop() {
	o.mu.Lock()
	o.stopped = true
	o.mu.Unlock()
	uring.Notify(o.fd)
	o.ended.Wait()
	_ = unix.Close(o.fd)
}
