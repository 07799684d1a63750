// The limits of groups as they stand in the files of both versions, in trees of our own.

package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

const (
	v2 = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	v1 = "31 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n32 20 0:28 / " +
		"/sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
	noLimit = "9223372036854771712\n"
)

// none is what is read where nothing limits.
var none = Limits{Memory: math.MaxUint64, CPUs: math.Inf(1)}

// limits are the files of a tree, and what they say together.
var limits = map[string]struct {
	files map[string]string
	want  Limits
}{
	"nothing to read": {nil, none},
	"no limits, 2": {map[string]string{"proc/self/mountinfo": v2,
		"proc/self/cgroup":             "0::/a/b\n",
		"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"},
		none},
	"own group, 2": {map[string]string{"proc/self/mountinfo": v2,
		"proc/self/cgroup":             "0::/a/b\n",
		"sys/fs/cgroup/a/b/memory.max": "67108864\n",
		"sys/fs/cgroup/a/b/cpu.max":    "150000 100000\n"}, Limits{64 << 20, 1.5}},
	"memory.high and a group above, 2": {map[string]string{"proc/self/mountinfo": v2,
		"proc/self/cgroup":              "0::/a/b\n",
		"sys/fs/cgroup/a/b/memory.max":  "67108864\n",
		"sys/fs/cgroup/a/b/memory.high": "33554432\n",
		"sys/fs/cgroup/a/cpu.max":       "50000 100000\n",
		"sys/fs/cgroup/a/memory.max":    "99999999\n"}, Limits{32 << 20, 0.5}},
	"the top of a container, 2": {map[string]string{"proc/self/mountinfo": v2,
		"proc/self/cgroup":         "0::/\n",
		"sys/fs/cgroup/memory.max": "1048576\n"}, Limits{1 << 20, math.Inf(1)}},
	"a mount of a group": {map[string]string{"proc/self/cgroup": "0::/docker/x/in\n",
		"proc/self/mountinfo": "30 20 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 " +
			"cgroup rw\n",
		"sys/fs/cgroup/in/memory.max":    "3145728\n",
		"sys/fs/cgroup/memory.max":       "2097152\n",
		"sys/fs/cgroup/docker/x/cpu.max": "1 1\n"}, Limits{2 << 20, math.Inf(1)}},
	"a group that is elsewhere": {map[string]string{"proc/self/cgroup": "0::/../other\n",
		"proc/self/mountinfo":      v2,
		"sys/fs/cgroup/memory.max": "2097152\n"}, Limits{2 << 20, math.Inf(1)}},
	"a blank in the path": {map[string]string{"proc/self/cgroup": "0::/\n",
		"proc/self/mountinfo": "1 2 0:1 / /sys/c\\040g rw - cgroup2 c rw\n",
		"sys/c g/memory.max":  "2097152\n"}, Limits{2 << 20, math.Inf(1)}},
	"no limits, 1": {map[string]string{"proc/self/mountinfo": v1,
		"proc/self/cgroup": "5:memory:/a\n6:cpu,cpuacct:/b\n",
		"sys/fs/cgroup/memory/a/memory.limit_in_bytes":  noLimit,
		"sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us":  "-1\n",
		"sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_period_us": "100000\n"}, none},
	"own group and one above, 1": {map[string]string{"proc/self/mountinfo": v1,
		"proc/self/cgroup": "5:memory:/a/x\n6:cpu,cpuacct:/b\n",
		"sys/fs/cgroup/memory/a/x/memory.limit_in_bytes": noLimit,
		"sys/fs/cgroup/memory/a/memory.limit_in_bytes":   "1073741824\n",
		"sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us":   "200000\n",
		"sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_period_us":  "100000\n"},
		Limits{1 << 30, 2}},
	"both versions": {map[string]string{"proc/self/mountinfo": v1 + v2,
		"proc/self/cgroup": "5:memory:/a\n6:cpu,cpuacct:/\n0::/u\n",
		"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "5242880\n",
		"sys/fs/cgroup/u/cpu.max":                      "100000 100000\n"}, Limits{5 << 20, 1}},
	"rubbish": {map[string]string{"proc/self/mountinfo": "x - y\n - \n" + v2,
		"proc/self/cgroup":           "0\n\n0::/a\n",
		"sys/fs/cgroup/a/memory.max": "much", "sys/fs/cgroup/a/cpu.max": "0 0\n"}, none},
}

func TestRead(t *testing.T) {
	for name, test := range limits {
		t.Run(name, func(t *testing.T) {
			if got := read(tree(t, test.files)); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

// tree writes files below a root of their own.
func tree(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for path, content := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestThreads(t *testing.T) {
	const pids = "33 20 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
	for name, test := range map[string]struct {
		files      map[string]string
		room, most int
	}{
		"nothing to read": {nil, math.MaxInt32, math.MaxInt32},
		"no limit": {map[string]string{"proc/self/mountinfo": v2, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/pids.max":     "max\n",
			"sys/fs/cgroup/a/pids.current": "7\n"}, math.MaxInt32, math.MaxInt32},
		"the group above, 2": {map[string]string{"proc/self/mountinfo": v2,
			"proc/self/cgroup":           "0::/a/b\n",
			"sys/fs/cgroup/a/b/pids.max": "100\n", "sys/fs/cgroup/a/b/pids.current": "7\n",
			"sys/fs/cgroup/a/pids.max": "50\n", "sys/fs/cgroup/a/pids.current": "20\n"}, 30, 50},
		"version 1, beside memory": {map[string]string{"proc/self/mountinfo": v1 + pids,
			"proc/self/cgroup":                "5:memory:/a\n7:pids:/p\n",
			"sys/fs/cgroup/memory/a/pids.max": "1\n", "sys/fs/cgroup/memory/a/pids.current": "0\n",
			"sys/fs/cgroup/pids/p/pids.max": "9\n", "sys/fs/cgroup/pids/p/pids.current": "9\n"}, 0,
			9},
	} {
		if room, most := threads(tree(t, test.files)); room != test.room || most != test.most {
			t.Errorf("%s: room for %d of %d, not for %d of %d", name, room, most, test.room,
				test.most)
		}
	}
}
