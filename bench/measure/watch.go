// Watching a server while it is driven: its memory and its CPU time, read every now and then.
//
// Invariant: the watcher has ended when the function that stops it returns.

package measure

import (
	"maps"
	"slices"
	"time"
)

// How often a server is looked at. Looking through all processes for a tree and its memory costs
// milliseconds, reading the clocks of known ones next to nothing.
const (
	markInterval = 10 * time.Millisecond
	treeInterval = 200 * time.Millisecond
)

// watched is what was seen.
type watched struct {
	peak  int64 // bytes resident at most
	ended time.Time
	marks []mark
}

// mark is the CPU time of a tree's live members at one moment.
type mark struct {
	at  time.Time
	cpu time.Duration
}

// watchTree looks at a process tree until the returned function is called. With marks, its CPU time
// is noted too.
func watchTree(pid int, marks bool) func() watched {
	stop, seen := make(chan struct{}), make(chan watched)
	interval := treeInterval
	if marks {
		interval = markInterval
	}
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		var w watched
		var members []int
		var scanned time.Time
		for {
			if now := time.Now(); now.Sub(scanned) >= treeInterval {
				members = slices.Collect(maps.Keys(tree(pid)))
				sum, single := resident(members)
				w.peak = max(w.peak, sum, single)
				scanned = now
			}
			if marks {
				w.marks = append(w.marks, mark{time.Now(), clocks(members)})
			}
			select {
			case <-stop:
				seen <- w
				return
			case <-tick.C:
			}
		}
	}()
	return func() watched {
		ended := time.Now()
		close(stop)
		w := <-seen
		sum, single := treeRSS(pid)
		w.ended, w.peak = ended, max(w.peak, sum, single)
		return w
	}
}

// clocks adds up the CPU time of processes.
func clocks(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		t, _ := processClock(pid)
		sum += t
	}
	return sum
}

// window is the CPU time used in the inner part of an open loop's measuring time, and the length of
// that part; measured is the whole time in seconds. In the inner part all connections are up and
// requests come at a fixed rate, so connecting a thousand clients is not charged to the requests.
// ok is false when the run was too short to hold two marks there.
func (w watched) window(measured float64) (used time.Duration, seconds float64, ok bool) {
	span := func(share float64) time.Duration {
		return time.Duration(share * measured * float64(time.Second))
	}
	from, to := w.ended.Add(-span(0.85)), w.ended.Add(-span(0.15))
	inside := slices.DeleteFunc(slices.Clone(w.marks), func(m mark) bool {
		return m.at.Before(from) || m.at.After(to)
	})
	if len(inside) < 2 {
		return 0, 0, false
	}
	a, b := inside[0], inside[len(inside)-1]
	return b.cpu - a.cpu, b.at.Sub(a.at).Seconds(), true
}
