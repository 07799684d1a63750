// A crew does jobs that may hang in the kernel, one system call each, on several threads.
//
// Invariant: a job has a time of its own, from when it begins. A job that takes longer is given up,
// and so is its thread; another thread goes on in its place, so that jobs that hang do not hold up
// the others. A crew that has lost as many threads as it may begins no more jobs.

package engine

import (
	"errors"
	"sync"
	"time"
)

// crew bounds the threads that work on a list of jobs.
type crew struct {
	threads int           // at work at a time
	lost    int           // threads given up, at most
	each    time.Duration // for one job
}

// errLate is the result of a job that did not end in its time, or was not begun.
var errLate = errors.New("its storage did not answer in time")

// crewWork is the state of one run.
type crewWork struct {
	mu      sync.Mutex
	job     func(i int) error
	results []error
	settled []bool
	began   map[int]time.Time // jobs in progress
	next    int
	left    int
	threads int           // at work, not counting those given up
	done    chan struct{} // closed when all jobs are settled
}

// do does the jobs 0 to n-1 and gives their results.
func (c crew) do(n int, job func(i int) error) []error {
	w := &crewWork{job: job, results: make([]error, n), settled: make([]bool, n),
		began: map[int]time.Time{}, left: n, done: make(chan struct{})}
	if n == 0 {
		return nil
	}
	w.threads = min(c.threads, n)
	for range w.threads {
		go w.work()
	}
	every := max(c.each/20, time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	missed, last := time.Duration(0), time.Now()
	for lost := 0; ; {
		select {
		case <-w.done:
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.results
		case now := <-tick.C:
			if gap := now.Sub(last); gap > 4*every {
				missed += gap // the process did not run, see patience.go
			}
			last = now
			lost = w.giveUp(now.Add(-c.each-missed), lost, c.lost)
		}
	}
}

// work does one job after the other, until none is left or the worker's own job was given up.
func (w *crewWork) work() {
	for i := w.begin(); i >= 0; i = w.begin() {
		err := w.job(i)
		if !w.end(i, err) {
			return
		}
	}
}

// begin takes a job; -1 means that none is left.
func (w *crewWork) begin() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == len(w.results) {
		w.threads--
		return -1
	}
	w.next++
	w.began[w.next-1] = time.Now()
	return w.next - 1
}

// end files a result. False means that the job was given up, and another thread goes on.
func (w *crewWork) end(i int, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled[i] {
		return false
	}
	w.settle(i, err)
	return true
}

func (w *crewWork) settle(i int, err error) {
	w.results[i], w.settled[i] = err, true
	delete(w.began, i)
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

// giveUp gives up the jobs that began before then, and, when no thread is left, those that have not
// begun. It returns the number of lost threads.
func (w *crewWork) giveUp(then time.Time, lost, maxLost int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, began := range w.began {
		if began.After(then) {
			continue
		}
		w.settle(i, errLate)
		if lost++; lost <= maxLost && w.next < len(w.results) {
			go w.work()
		} else {
			w.threads--
		}
	}
	if w.threads == 0 {
		for ; w.next < len(w.results); w.next++ {
			w.settle(w.next, errLate)
		}
	}
	return lost
}
