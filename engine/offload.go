// Offload: what may block outside of io_uring is done by goroutines beside the loops. A loop pushes requests onto a stack and makes an eventfd readable; who sleeps on that
// shares them out, in order for each export and one at a time, so that storage which hangs holds up nobody but its own clients.
//
// Invariant: at most one lookup of an export and a loop runs at a time; when a loop has no connection left, nothing of it is here.

package engine

import (
	"sync"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

// offload serves one loop.
type offload struct {
	loop *loop
	fd   int // the eventfd that it sleeps on

	mu      sync.Mutex
	queues  map[uint32][]uint32 // by export: requests that wait behind the one that is being looked up; there is an entry as long as one is
	stopped bool
	ended   sync.WaitGroup
}

// startOffload gives a loop somebody to ask.
func startOffload(l *loop) (*offload, error) {
	fd, err := uring.Eventfd()
	if err != nil {
		return nil, err
	}
	o := &offload{loop: l, fd: fd, queues: map[uint32][]uint32{}}
	l.offload = func() { uring.Notify(fd) }
	o.ended.Add(1)
	go o.run()
	return o, nil
}

// run shares out what comes until stop.
func (o *offload) run() {
	defer o.ended.Done()
	for uring.Await(o.fd) == nil {
		for t := o.loop.takeAsked(); t != none; {
			next := o.loop.tags[t].next
			o.enqueue(t)
			t = next
		}
		o.mu.Lock()
		stopped := o.stopped
		o.mu.Unlock()
		if stopped {
			return
		}
	}
}

// enqueue puts a request behind those of its export.
func (o *offload) enqueue(t uint32) {
	export := o.loop.conns[o.loop.tags[t].conn].export
	o.mu.Lock()
	defer o.mu.Unlock()
	queue, busy := o.queues[export]
	if busy {
		o.queues[export] = append(queue, t)
		return
	}
	o.queues[export] = nil
	o.ended.Add(1)
	go o.serve(export, t)
}

// serve looks up a request, and those that have queued behind it.
func (o *offload) serve(export, t uint32) {
	defer o.ended.Done()
	for more := true; more; {
		o.loop.lookUpOne(t)
		t, more = o.next(export)
	}
}

func (o *offload) next(export uint32) (t uint32, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	queue := o.queues[export]
	if len(queue) == 0 {
		delete(o.queues, export)
		return none, false
	}
	o.queues[export] = queue[1:]
	return queue[0], true
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
