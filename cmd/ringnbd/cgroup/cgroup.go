// Package cgroup reads how much memory and processor time, and how many threads, the control groups
// of this process leave it, of either version, its own and all above it that can be seen.
//
// Invariant: what cannot be read limits nothing; a limit is the least of all that hold. Nothing is
// cached: a start reads once.
//
// The field's libraries know a part each: automemlimit the memory of the own group, Go's runtime
// (1.25) the processor time, of which it takes two processors for the least. Both with memory.high
// and the groups above are the hundred lines below.
package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Limits is what the control groups leave.
type Limits struct {
	Memory uint64  // bytes; math.MaxUint64: no limit
	CPUs   float64 // processors' worth of time; +Inf: no limit
}

// Read reads the limits of this process.
func Read() Limits { return read("/") }

// read takes root for the root of the file system.
func read(root string) Limits {
	l := Limits{Memory: math.MaxUint64, CPUs: math.Inf(1)}
	groups := groupsOf(root)
	for _, m := range mounts(root) {
		for _, name := range m.controllers {
			path, ok := groups[name]
			if !ok || name == "pids" {
				continue
			}
			m.each(root, path, func(folder string) {
				if name != "cpu" {
					l.Memory = min(l.Memory, memoryOf(folder))
				}
				if name != "memory" {
					l.CPUs = min(l.CPUs, cpusOf(folder))
				}
			})
		}
	}
	return l
}

// Threads is how many threads more this process may have, and the limit that says so;
// math.MaxInt32: any number.
func Threads() (room, most int) { return threads("/") }

func threads(root string) (room, most int) {
	room, most = math.MaxInt32, math.MaxInt32
	groups := groupsOf(root)
	for _, m := range mounts(root) {
		for _, name := range m.controllers {
			path, ok := groups[name]
			if !ok || name == "memory" || name == "cpu" {
				continue
			}
			m.each(root, path, func(folder string) {
				// "max" is no limit
				limit, err := strconv.Atoi(strings.TrimSpace(text(folder, "pids.max")))
				now, err2 := strconv.Atoi(strings.TrimSpace(text(folder, "pids.current")))
				if err == nil && err2 == nil && limit-now < room {
					room, most = limit-now, limit
				}
			})
		}
	}
	return room, most
}

// groupsOf is the path of the own group by controller; "" is version 2, which has all of them in
// one.
func groupsOf(root string) map[string]string {
	groups := map[string]string{}
	for line := range strings.Lines(text(root, "proc/self/cgroup")) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for name := range strings.SplitSeq(fields[1], ",") {
			groups[name] = fields[2]
		}
	}
	return groups
}

// mount is a hierarchy of control groups, or a part of one.
type mount struct {
	controllers []string // memory, cpu and pids of version 1, or "" for version 2
	top         string   // the group that is mounted
	point       string   // where
}

// mounts finds them in mountinfo, proc(5): 36 35 98:0 /top /point options - type source options.
func mounts(root string) (list []mount) {
	for line := range strings.Lines(text(root, "proc/self/mountinfo")) {
		before, after, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if len(where) < 5 || len(what) < 3 {
			continue
		}
		m := mount{top: unescape(where[3]), point: unescape(where[4])}
		switch what[0] {
		case "cgroup2":
			m.controllers = []string{""}
		case "cgroup":
			for name := range strings.SplitSeq(what[2], ",") {
				if name == "memory" || name == "cpu" || name == "pids" {
					m.controllers = append(m.controllers, name)
				}
			}
		}
		if len(m.controllers) > 0 {
			list = append(list, m)
		}
	}
	return list
}

// unescape undoes what mountinfo does to blanks and the like: \040.
func unescape(s string) string {
	for i := 0; i+3 < len(s); i++ {
		if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); s[i] == '\\' && err == nil {
			s = s[:i] + string([]byte{byte(n)}) + s[i+4:]
		}
	}
	return s
}

// each visits the folder of a group and of all above it up to the one that is mounted. A group
// outside of that one, as seen from a container that was given another's mount, is not there: the
// mounted one is the best guess.
func (m *mount) each(root, group string, visit func(folder string)) {
	below, inside := strings.CutPrefix(group, strings.TrimSuffix(m.top, "/"))
	if !inside || below != "" && below[0] != '/' || strings.Contains(below, "..") {
		below = ""
	}
	for ; ; below = filepath.Dir(below) {
		visit(filepath.Join(root, m.point, below))
		if below == "" || below == "/" || below == "." {
			return
		}
	}
}

// memoryOf is the limit of one group. memory.high slows a group that is above it down until it
// stands still.
func memoryOf(folder string) uint64 {
	limit := uint64(math.MaxUint64)
	for _, name := range [...]string{"memory.max", "memory.high", "memory.limit_in_bytes"} {
		// Version 1 says "no limit" as the largest number of whole pages, 2 as "max".
		if n, err := strconv.ParseUint(strings.TrimSpace(text(folder, name)), 10, 64); err == nil &&
			n < 1<<62 {
			limit = min(limit, n)
		}
	}
	return limit
}

// cpusOf is how many processors' worth of time one group gets: quota over period.
func cpusOf(folder string) float64 {
	quota, period := text(folder, "cpu.cfs_quota_us"), text(folder, "cpu.cfs_period_us")
	if fields := strings.Fields(text(folder, "cpu.max")); len(fields) == 2 {
		quota, period = fields[0], fields[1]
	}
	q, err := strconv.ParseFloat(strings.TrimSpace(quota), 64)
	p, err2 := strconv.ParseFloat(strings.TrimSpace(period), 64)
	if err != nil || err2 != nil || q <= 0 || p <= 0 {
		return math.Inf(1)
	}
	return q / p
}

// text is what a file says; nothing, if it cannot be read.
func text(folder, name string) string {
	b, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return ""
	}
	return string(b)
}
