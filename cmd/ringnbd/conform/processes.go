// The descriptors and the memory that the processes of a spawned server hold, from /proc.
//
// Invariant: processes are only looked at; what cannot be read counts as nothing, so that no server
// is accused of it.

package conform

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holdings is what the processes of a server hold.
type holdings struct {
	descriptors int
	memory      int64 // resident, bytes
}

// What a server may keep after many connections are gone: descriptors that it opens when it first
// needs them, memory for later connections.
const (
	keptDescriptors = 32
	keptMemory      = 512 << 20
)

// holdings adds up the processes of the server's group without the keeper, which leads the group
// and is not part of the server. The sum is zero for a server that left the group, and for a server
// that the suite did not start.
func (t *trial) holdings() (sum holdings) {
	if t.profile.group == 0 {
		return sum
	}
	group := strconv.Itoa(t.profile.group)
	list, _ := filepath.Glob("/proc/[0-9]*/stat") // only a wrong pattern fails
	for _, path := range list {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		// the fields from the state on; the name before them may hold any byte
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

// released notes a deviation if the server holds much more than before the connections, all of
// which are closed; the server has some time to notice.
func (t *trial) released(before holdings, connections int) {
	after := t.holdings()
	for after.descriptors > before.descriptors+keptDescriptors && t.left() > t.patience/10 {
		t.sleep(pause)
		after = t.holdings()
	}
	t.prefer(after.descriptors <= before.descriptors+keptDescriptors,
		"after %d connections that were dropped the server has %d descriptors open, and had %d",
		connections, after.descriptors, before.descriptors)
	t.prefer(after.memory <= before.memory+keptMemory,
		"after %d connections that were dropped the server has %d MiB of memory, and had %d",
		connections, after.memory>>20, before.memory>>20)
}
