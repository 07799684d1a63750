// Package cgroup reads how much memory and processor time, and how many threads, the control groups
// of this process allow: its own group and all visible groups above it, of either version.
//
// Invariant: a file that cannot be read limits nothing; a limit is the minimum of all limits that
// apply. Nothing is cached: a start reads once.
//
// The field's libraries each read a part: automemlimit the memory of the process's own group, Go's
// runtime (1.25) the processor time, which it rounds up to two processors. Neither reads
// memory.high and the memory of the groups above.
package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Limits are what the control groups allow.
type Limits struct {
	Memory uint64  // bytes; math.MaxUint64: no limit
	CPUs   float64 // processors' worth of time; +Inf: no limit
}

// Read reads the limits of this process.
func Read() Limits { return read("/") }

// read reads the limits from a file system at root.
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

// Threads is how many more threads this process may start, and the limit that applies;
// math.MaxInt32 means any number.
func Threads() (room, limit int) { return threads("/") }

func threads(root string) (room, limit int) {
	room, limit = math.MaxInt32, math.MaxInt32
	groups := groupsOf(root)
	for _, m := range mounts(root) {
		for _, name := range m.controllers {
			path, ok := groups[name]
			if !ok || name == "memory" || name == "cpu" {
				continue
			}
			m.each(root, path, func(folder string) {
				// "max" means that there is no limit
				pids, err := strconv.Atoi(strings.TrimSpace(text(folder, "pids.max")))
				now, err2 := strconv.Atoi(strings.TrimSpace(text(folder, "pids.current")))
				if err == nil && err2 == nil && pids-now < room {
					room, limit = pids-now, pids
				}
			})
		}
	}
	return room, limit
}

// groupsOf is the path of the process's own group by controller; the controller "" is version 2, in
// which one group has all controllers.
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
	point       string   // the mount point
}

// mounts finds the mounts of control groups in mountinfo (proc(5)), whose lines are 36 35 98:0 /top
// /point options - type source options.
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

// unescape replaces the escapes of mountinfo, as in \040 for a blank.
func unescape(s string) string {
	for i := 0; i+3 < len(s); i++ {
		if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); s[i] == '\\' && err == nil {
			s = s[:i] + string([]byte{byte(n)}) + s[i+4:]
		}
	}
	return s
}

// each visits the folder of a group and of all groups above it up to the mounted group. A group
// outside of the mounted group, as seen from a container that was given another container's mount,
// is not visible: the mounted group is the best guess.
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

// memoryOf is the memory limit of a group. memory.high counts as a limit, because the kernel slows
// down a group that exceeds it until the group stands still.
func memoryOf(folder string) uint64 {
	limit := uint64(math.MaxUint64)
	for _, name := range [...]string{"memory.max", "memory.high", "memory.limit_in_bytes"} {
		// Version 1 writes "no limit" as the largest number of whole pages, version 2 as "max".
		if n, err := strconv.ParseUint(strings.TrimSpace(text(folder, name)), 10, 64); err == nil &&
			n < 1<<62 {
			limit = min(limit, n)
		}
	}
	return limit
}

// cpusOf is how many processors' worth of time a group gets: quota over period.
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

// text is the content of a file, or nothing if it cannot be read.
func text(folder, name string) string {
	b, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return ""
	}
	return string(b)
}
