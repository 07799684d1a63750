// TestMain fails the run when a test leaves a descriptor or a thread's ring open.

package load

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// descriptors lists what is open, as "number -> target". The runtime's own poller comes and goes
// with the first socket.
func descriptors() map[string]string {
	open := map[string]string{}
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" &&
			target != "anon_inode:[pidfd]" {
			open[link] = target
		}
	}
	return open
}

func TestMain(m *testing.M) {
	// a loop that wakes up needs a processor of its own
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	before := descriptors()
	code := m.Run()
	var left []string
	for range 20 { // finalizers of files and the kernel's asynchronous teardown need a moment
		left = left[:0]
		for link, target := range descriptors() {
			if before[link] != target {
				left = append(left, link+" -> "+target)
			}
		}
		if len(left) == 0 {
			break
		}
		runtime.GC()
		time.Sleep(50 * time.Millisecond)
	}
	if len(left) > 0 && code == 0 {
		fmt.Println("descriptors left open by a test:", left)
		code = 1
	}
	os.Exit(code)
}
