package bench

// Pairs of measurements, and what disturbed them. Invariant: a pair is either
// whole or an error; a disturbed one is marked, never dropped.

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Pair is one measurement of each side, one right after the other.
type Pair struct {
	Base      Sample  `json:"base"`
	New       Sample  `json:"new"`
	NewFirst  bool    `json:"newFirst"`
	Others    float64 `json:"others"`    // share of the machine's CPU time that other programs and the kernel's own threads used, 0..1
	Disturbed bool    `json:"disturbed"` // much more steal and others than in the load's other pairs
}

// Taken is the share of the machine's CPU time that was stolen, on the worse of
// the two sides, or used by others, 0..1.
func (p Pair) Taken() float64 { return max(p.Base.Steal, p.New.Steal) + p.Others }

// MeasurePair measures a load once on each side; the pair's number (from 0) seeds
// the load on both.
func (s *Suite) MeasurePair(ctx context.Context, l Load, base, new *Program, pair int, newFirst bool) (p Pair, err error) {
	raiseDescriptors()
	measure := func(program *Program, into *Sample) {
		if err != nil {
			return
		}
		if *into, err = s.Measure(ctx, l, program, pair); err != nil {
			err = fmt.Errorf("%s: %w", program.Name, err)
		}
	}
	before := readCPUUse()
	p.NewFirst = newFirst
	if newFirst {
		measure(new, &p.New)
		measure(base, &p.Base)
	} else {
		measure(base, &p.Base)
		measure(new, &p.New)
	}
	if err != nil {
		return Pair{}, err
	}
	p.Others = readCPUUse().others(before)
	return p, nil
}

// cpuUse is CPU time used up to a moment.
type cpuUse struct {
	all  time.Duration // that there was, idle time included
	busy time.Duration // of whatever kind, but steal
	ours time.Duration // of this process and the children that it waited for
}

func readCPUUse() cpuUse {
	u := parseCPUUse(readText("/proc/stat"))
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		if syscall.Getrusage(who, &usage) == nil {
			u.ours += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	return u
}

// parseCPUUse reads the first line of /proc/stat (proc_stat(5)): user, nice,
// system, idle, iowait, irq, softirq, steal. Zero when it is not that line.
func parseCPUUse(stat string) cpuUse {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return cpuUse{}
	}
	var u cpuUse
	for i, text := range f[1:9] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return cpuUse{}
		}
		u.all += time.Duration(n) * clockTick
		if i != 3 && i != 4 && i != 7 {
			u.busy += time.Duration(n) * clockTick
		}
	}
	return u
}

// others is the share of all CPU time that went to others since an earlier moment.
func (u cpuUse) others(earlier cpuUse) float64 {
	all := u.all - earlier.all
	if all <= 0 {
		return 0
	}
	return max(0, float64(u.busy-earlier.busy-(u.ours-earlier.ours))/float64(all))
}

// flagDisturbed marks the pairs of which twice the usual share was taken and five
// points on top: less is what a shared machine always does.
func flagDisturbed(pairs []Pair) {
	usual := usuallyTaken(pairs)
	for i := range pairs {
		pairs[i].Disturbed = pairs[i].Taken() > 2*usual+0.05
	}
}

// usuallyTaken is the median over the pairs.
func usuallyTaken(pairs []Pair) float64 {
	taken := make([]float64, len(pairs))
	for i, p := range pairs {
		taken[i] = p.Taken()
	}
	return median(taken)
}
