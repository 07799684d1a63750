// Accounting: what a server cost, read from /proc.
//
// Invariant: a process that vanishes while it is read counts as nothing, never as an error; its
// time is in its parent's once it was waited for.

package measure

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ, which is 100 on every Linux
// architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// proc is /proc. Where it is not mounted, every process counts as one that vanished.
var proc, _ = procfs.NewDefaultFS()

// tree returns root and its live descendants with what /proc says of them.
func tree(root int) map[int]procfs.ProcStat {
	all := map[int]procfs.ProcStat{}
	processes, _ := proc.AllProcs()
	for _, p := range processes {
		if s, err := p.Stat(); err == nil {
			all[p.PID] = s
		}
	}
	members := map[int]procfs.ProcStat{}
	if s, ok := all[root]; ok {
		members[root] = s
	}
	for grown := true; grown; {
		grown = false
		for pid, s := range all {
			_, in := members[pid]
			if _, child := members[s.PPID]; child && !in {
				members[pid], grown = s, true
			}
		}
	}
	return members
}

// cpuTime is what a process tree has used. The total is exact; user and system are in clock ticks
// and only say how the total divides.
type cpuTime struct{ total, user, system time.Duration }

// treeCPU sums over a process tree: its live members by their clocks, and the children they have
// waited for.
func treeCPU(root int) cpuTime {
	var c cpuTime
	for pid, s := range tree(root) {
		waited := cpuTime{user: time.Duration(s.CUTime) * clockTick,
			system: time.Duration(s.CSTime) * clockTick}
		user, system := time.Duration(s.UTime)*clockTick, time.Duration(s.STime)*clockTick
		own, ok := processClock(pid)
		if !ok {
			own = user + system
		}
		c.user += user + waited.user
		c.system += system + waited.system
		c.total += own + waited.user + waited.system
	}
	return c
}

func (c cpuTime) since(earlier cpuTime) cpuTime {
	return cpuTime{c.total - earlier.total, c.user - earlier.user, c.system - earlier.system}
}

// divide splits the total in the proportion of the ticks; without a tick it is too small to divide,
// and counts as system time, where a server spends most.
func (c cpuTime) divide() (user, system time.Duration) {
	if ticks := c.user + c.system; ticks > 0 {
		user = time.Duration(float64(c.total) * float64(c.user) / float64(ticks))
	}
	return user, c.total - user
}

// processClock reads the CPU clock of a process: user and system time of all its threads, exited
// ones included, to the nanosecond. The number of the clock follows from that of the process as in
// clock_getcpuclockid(3).
func processClock(pid int) (time.Duration, bool) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}

// treeRSS is the resident memory of a process tree in bytes, and the largest high-water mark of a
// single member.
func treeRSS(root int) (sum, highest int64) {
	return resident(slices.Collect(maps.Keys(tree(root))))
}

// resident is treeRSS of known members.
func resident(pids []int) (sum, highest int64) {
	for _, pid := range pids {
		if s, err := status(pid); err == nil {
			sum += int64(s.VmRSS)
			highest = max(highest, int64(s.VmHWM))
		}
	}
	return sum, highest
}

func status(pid int) (procfs.ProcStatus, error) {
	p, err := proc.Proc(pid)
	if err != nil {
		return procfs.ProcStatus{}, err
	}
	return p.NewStatus()
}

// treeSwitches sums the context switches of all live threads of a tree.
func treeSwitches(root int) int64 {
	var n uint64
	for pid := range tree(root) {
		threads, _ := proc.AllThreads(pid)
		for _, thread := range threads {
			if s, err := thread.NewStatus(); err == nil {
				n += s.TotalCtxtSwitches()
			}
		}
	}
	return int64(n)
}

// cpuUse is CPU time used up to a moment.
type cpuUse struct {
	all   time.Duration // that there was, idle time included
	busy  time.Duration // of any kind but steal
	steal time.Duration // that the hypervisor gave to other guests
	ours  time.Duration // of this process and the children that it waited for
}

func readCPUUse() cpuUse {
	u := cpuUseOf(proc)
	for _, process := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		if unix.Getrusage(process, &usage) == nil {
			u.ours += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	return u
}

// cpuUseOf reads the sum over all CPUs of /proc/stat, zero if it cannot. Guest time is part of user
// time already.
func cpuUseOf(fs procfs.FS) cpuUse {
	stat, err := fs.Stat()
	if err != nil {
		return cpuUse{}
	}
	seconds := func(s float64) time.Duration { return time.Duration(math.Round(s*100)) * clockTick }
	c := stat.CPUTotal
	u := cpuUse{steal: seconds(c.Steal),
		busy: seconds(c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ)}
	u.all = u.busy + u.steal + seconds(c.Idle+c.Iowait)
	return u
}

// others is the share of all CPU time that other programs and the kernel's threads used since an
// earlier moment.
func (u cpuUse) others(earlier cpuUse) float64 {
	all := u.all - earlier.all
	if all <= 0 {
		return 0
	}
	return max(0, float64(u.busy-earlier.busy-(u.ours-earlier.ours))/float64(all))
}

// stolen is the share of all CPU time that was stolen since an earlier moment.
func (u cpuUse) stolen(earlier cpuUse) float64 {
	all := u.all - earlier.all
	if all <= 0 {
		return 0
	}
	return float64(u.steal-earlier.steal) / float64(all)
}
