// The kernel's threads that a ring keeps.

package uring

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	// one of each kind; they are the thread's, which may have had workers before
	if n := workersNow(); n < 2 {
		t.Errorf("%d workers are there", n)
	}
	if r.inFlight() != 0 || r.queued() != 0 {
		t.Errorf("in flight %d, queued %d", r.inFlight(), r.queued())
	}
	// A worker drops its reference to a request after the completion. The kernel frees the request
	// as deferred work of this thread, so Ready may be true once more, without a completion.
	for end := time.Now().Add(10 * time.Second); r.Ready(); {
		if err := r.Enter(0, 0); err != nil || time.Now().After(end) {
			t.Fatalf("deferred work stays: %v", err)
		}
		if n := r.Reap(make([]CQE, 8)); n != 0 {
			t.Fatalf("%d completions of nothing", n)
		}
	}
}
