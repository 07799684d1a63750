// The kernel's threads that a ring keeps.

package uring

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// workersNow counts the threads of io_uring in this process.
func workersNow() (n int) {
	files, _ := filepath.Glob("/proc/self/task/*/comm")
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(b), "iou-wrk") {
			n++
		}
	}
	return n
}

func TestKeepWorkers(t *testing.T) {
	r := newRing(t, 8, 16)
	if err := r.KeepWorkers(); err != nil {
		t.Fatal(err)
	}
	// one of each kind; they are the thread's, which may have had some
	if n := workersNow(); n < 2 {
		t.Errorf("%d workers are there", n)
	}
	if r.InFlight() != 0 || r.Queued() != 0 || r.Ready() {
		t.Errorf("in flight %d, queued %d, ready %v", r.InFlight(), r.Queued(), r.Ready())
	}
}
