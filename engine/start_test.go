// An engine that cannot start leaves nothing behind, wherever it stops.

package engine

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStartThatFailsLeavesNothing lets every descriptor that Start opens be one too many in turn.
func TestStartThatFailsLeavesNothing(t *testing.T) {
	c := Config{Loops: 2, MaxConnections: 2}
	c.Memory = AmpleMemory(c)
	open := len(openDescriptors(t)) - 1 // its own
	before := mapped(t)
	failed := 0
	for spare := uint64(0); ; spare++ {
		e, err := startWithin(t, uint64(open)+spare, c)
		if err == nil {
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			break
		}
		failed++
		if now := len(openDescriptors(t)) - 1; now != open {
			t.Fatalf("%d descriptors to spare: %d are open, %d were: %v", spare, now, open, err)
		}
	}
	if failed < 4 { // an eventfd for lookups, a ring, an eventfd for mail, for each of two loops
		t.Fatalf("it failed %d times only: the limit does not do what this test needs", failed)
	}
	// One arena that is left behind is more than all of Go's own growth.
	if grown := int64(mapped(t)) - int64(before); grown > int64(c.Memory/uint64(c.Loops)) {
		t.Errorf("after %d starts that failed %d MiB more are mapped", failed, grown>>20)
	}
}

// startWithin starts an engine that may have that many descriptors open.
func startWithin(t *testing.T, limit uint64, c Config) (*Engine, error) {
	t.Helper()
	var usual unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE,
		&unix.Rlimit{Cur: limit, Max: usual.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
			t.Fatal(err)
		}
	}()
	d := nullDevice(1 << 20)
	return Start(c, []Export{{Facts: factsOf(d), Device: d}})
}

func openDescriptors(t *testing.T) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// mapped is how much address space this process has, in bytes.
func mapped(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(text))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}
