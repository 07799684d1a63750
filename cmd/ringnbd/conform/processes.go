// What a server of the suite's own has open, and how much memory, as the kernel tells it.
//
// Invariant: processes are only looked at; what cannot be read counts for nothing, so that nobody
// is accused of it.

package conform

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// spending is what the processes of a server have taken.
type spending struct {
	descriptors int
	memory      int64 // resident, bytes
}

// What a server may keep of many connections that are gone: descriptors that are opened when they
// are first needed, memory for the next ones.
const (
	keptDescriptors = 32
	keptMemory      = 512 << 20
)

// spent adds up the processes of the server's group, but for the keeper, which leads it and is not
// the server's. A server that leaves the group, or is not our own, has none.
func (t *trial) spent() (sum spending) {
	if t.profile.group == 0 {
		return sum
	}
	group := strconv.Itoa(t.profile.group)
	list, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, path := range list {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		// from the state on; the name before may hold anything
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 22 || fields[2] != group || filepath.Base(filepath.Dir(path)) == group {
			continue
		}
		open, _ := os.ReadDir(filepath.Join(filepath.Dir(path), "fd"))
		pages, _ := strconv.ParseInt(fields[21], 10, 64)
		sum.descriptors += len(open)
		sum.memory += pages * int64(os.Getpagesize())
	}
	return sum
}

// released compares with what was spent before some connections, all of which are closed; the
// server has a while to notice.
func (t *trial) released(before spending, connections int) {
	after := t.spent()
	for after.descriptors > before.descriptors+keptDescriptors && t.left() > t.patience/10 {
		t.sleep(pause)
		after = t.spent()
	}
	t.prefer(after.descriptors <= before.descriptors+keptDescriptors,
		"after %d connections that were dropped the server has %d descriptors open, and had %d",
		connections, after.descriptors, before.descriptors)
	t.prefer(after.memory <= before.memory+keptMemory,
		"after %d connections that were dropped the server has %d MiB of memory, and had %d",
		connections, after.memory>>20, before.memory>>20)
}
