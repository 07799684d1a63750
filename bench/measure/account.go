// Accounting: what a server cost, read from /proc. Invariant: a process that
// vanishes while it is read counts as nothing, never as an error; its time is in
// its parent's once it was waited for.

package measure

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of utime and stime in /proc/PID/stat: USER_HZ, which is
// 100 on every Linux architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// processTimes are fields of one /proc/PID/stat line (proc_pid_stat(5)).
type processTimes struct {
	parent                   int
	user, system             time.Duration // all threads, exited ones included
	childrenUser, childrenSy time.Duration // waited-for children and theirs
}

// parseStat reads a /proc/PID/stat line. The command name may hold spaces and
// parentheses: fields are counted from the last one.
func parseStat(line string) (processTimes, error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return processTimes{}, fmt.Errorf("no command name in %q", line)
	}
	f := strings.Fields(line[end+1:]) // f[0] is field 3 of the manual page
	if len(f) < 15 {
		return processTimes{}, fmt.Errorf("only %d fields in %q", len(f)+2, line)
	}
	var n [5]int64
	for i, field := range []int{4, 14, 15, 16, 17} {
		v, err := strconv.ParseInt(f[field-3], 10, 64)
		if err != nil {
			return processTimes{}, fmt.Errorf("field %d of %q: %w", field, line, err)
		}
		n[i] = v
	}
	t := func(i int) time.Duration { return time.Duration(n[i]) * clockTick }
	return processTimes{parent: int(n[0]), user: t(1), system: t(2), childrenUser: t(3),
		childrenSy: t(4)}, nil
}

// tree returns root and its live descendants with their times.
func tree(root int) map[int]processTimes {
	all := map[int]processTimes{}
	lines, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if t, err := parseStat(string(b)); err == nil {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			all[pid] = t
		}
	}
	members := map[int]processTimes{}
	if t, ok := all[root]; ok {
		members[root] = t
	}
	for grown := true; grown; {
		grown = false
		for pid, t := range all {
			_, in := members[pid]
			if _, child := members[t.parent]; child && !in {
				members[pid], grown = t, true
			}
		}
	}
	return members
}

// cpuTime is what a process tree has used. The total is exact; user and system
// are in clock ticks and only say how the total divides.
type cpuTime struct{ total, user, system time.Duration }

// treeCPU sums over a process tree: its live members by their clocks, and the
// children they have waited for.
func treeCPU(root int) cpuTime {
	var c cpuTime
	for pid, t := range tree(root) {
		c.user += t.user + t.childrenUser
		c.system += t.system + t.childrenSy
		own, ok := processClock(pid)
		if !ok {
			own = t.user + t.system
		}
		c.total += own + t.childrenUser + t.childrenSy
	}
	return c
}

func (c cpuTime) since(earlier cpuTime) cpuTime {
	return cpuTime{c.total - earlier.total, c.user - earlier.user, c.system - earlier.system}
}

// divide splits the total in the proportion of the ticks; without a tick it was
// too little to tell, and counts as system time, where a server spends most.
func (c cpuTime) divide() (user, system time.Duration) {
	if ticks := c.user + c.system; ticks > 0 {
		user = time.Duration(float64(c.total) * float64(c.user) / float64(ticks))
	}
	return user, c.total - user
}

// processClock reads the CPU clock of a process: user and system time of all its
// threads, exited ones included, to the nanosecond. The clock's number is made of
// the process's as in clock_getcpuclockid(3).
func processClock(pid int) (time.Duration, bool) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}

// statusField reads one "Name:  123 [kB]" line of a /proc status file; 0 when the
// process or the line is not there.
func statusField(path, name string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return parseStatusField(string(b), name)
}

func parseStatusField(status, name string) int64 {
	for line := range strings.Lines(status) {
		value, ok := strings.CutPrefix(line, name+":")
		if !ok {
			continue
		}
		f := strings.Fields(value)
		if len(f) == 0 {
			return 0
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			return 0
		}
		if len(f) == 2 && f[1] == "kB" {
			n <<= 10
		}
		return n
	}
	return 0
}

// treeRSS is the resident memory of a process tree in bytes, and the largest
// high-water mark of a single member.
func treeRSS(root int) (sum, highest int64) {
	return resident(slices.Collect(maps.Keys(tree(root))))
}

// resident is treeRSS of known members.
func resident(pids []int) (sum, highest int64) {
	for _, pid := range pids {
		path := fmt.Sprintf("/proc/%d/status", pid)
		sum += statusField(path, "VmRSS")
		highest = max(highest, statusField(path, "VmHWM"))
	}
	return sum, highest
}

// treeSwitches sums the context switches of all live threads of a tree.
func treeSwitches(root int) int64 {
	var n int64
	for pid := range tree(root) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, path := range tasks {
			n += statusField(path, "voluntary_ctxt_switches") +
				statusField(path, "nonvoluntary_ctxt_switches")
		}
	}
	return n
}

// cpuUse is CPU time used up to a moment.
type cpuUse struct {
	all   time.Duration // that there was, idle time included
	busy  time.Duration // of whatever kind, but steal
	steal time.Duration // that the hypervisor gave to somebody else
	ours  time.Duration // of this process and the children that it waited for
}

func readCPUUse() cpuUse {
	u := parseCPUUse(readText("/proc/stat"))
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		if unix.Getrusage(who, &usage) == nil {
			u.ours += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	return u
}

// parseCPUUse reads the first line of /proc/stat (proc_stat(5)): user, nice,
// system, idle, iowait, irq, softirq, steal; guest time is part of user time
// already. Zero when it is not that line.
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
		t := time.Duration(n) * clockTick
		u.all += t
		switch i {
		case 3, 4: // idle
		case 7:
			u.steal = t
		default:
			u.busy += t
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

// stolen is the share of all CPU time that was stolen since an earlier moment.
func (u cpuUse) stolen(earlier cpuUse) float64 {
	all := u.all - earlier.all
	if all <= 0 {
		return 0
	}
	return float64(u.steal-earlier.steal) / float64(all)
}
