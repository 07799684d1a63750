// Reports: the control plane's side of incident.go, a goroutine that sleeps until a loop has
// something to report, and passes it on.
//
// Invariant: a loop wakes the goroutine once, however much it reports before the goroutine has read
// it. All that a loop had to report when it ended has been passed on when end returns.

package engine

import "ringnbd/engine/uring"

type reports struct {
	to    Reports
	loops []*loop
	bell  *uring.Bell
	ended chan struct{}
}

func startReports(loops []*loop, to Reports) (*reports, error) {
	bell, err := uring.NewBell()
	if err != nil {
		return nil, err
	}
	r := &reports{to: to, loops: loops, bell: bell, ended: make(chan struct{})}
	go r.run()
	return r, nil
}

// rouse returns the function by which a loop wakes the goroutine; nil when there is none.
func (r *reports) rouse() func() {
	if r == nil {
		return nil
	}
	return r.bell.Ring
}

func (r *reports) run() {
	defer close(r.ended)
	for {
		err := r.bell.Wait()
		r.look()
		if err != nil {
			return
		}
	}
}

// look passes on what the loops report. The connections that have ended are taken first and passed
// on last: their incidents happened before they ended.
func (r *reports) look() {
	for _, l := range r.loops {
		if l == nil {
			continue
		}
		l.rung.Store(false)
		var inOrder *Client
		for c := l.ended.Swap(nil); c != nil; {
			next := c.next
			c.next, inOrder = inOrder, c
			c = next
		}
		l.incidents.take(r.to)
		for c := inOrder; c != nil; {
			next := c.next
			c.next = nil
			r.to.Ended(c)
			c = next
		}
	}
}

// end passes on the rest. No loop runs any more that could ring the bell.
func (r *reports) end() {
	if r != nil {
		r.bell.Close()
		<-r.ended
	}
}
