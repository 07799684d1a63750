// Room for the process itself: threads (the pids limit of its cgroup, ulimit -u) and address space
// (ulimit -v).
//
// If Go's runtime gets no thread or no memory, it ends the process with a dump of the stacks, and
// nothing in the process can catch that. So a command checks what it will need before it begins,
// and prints one line if that is not available. It then starts the threads at once, because Go
// keeps idle threads. A limit that does not even let Go itself start (about 800 MiB of address
// space, about 7 threads) cannot be handled here.
//
// Invariant: the threads that reserveThreads grants exist: other processes that start threads in
// the same cgroup later cannot take them away.

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/cgroup"
	"ringnbd/engine/units"
)

const (
	// ownThreads are threads that no command asks for: the main thread, Go's monitor, signals, the
	// network, and some in a short system call while other goroutines have work.
	ownThreads = 10
	// plentyOfThreads is how far a limit must be above what may be needed to be ignored.
	plentyOfThreads = 256
	// spaceMargin is by how much Go's memory may grow, in bytes of address space: Go takes 64 MiB
	// at a time.
	spaceMargin = 128 << 20
	// maxCountedThreads is the limit on a user's threads above which it is not worth counting them.
	maxCountedThreads = 16384
)

// reserveThreads grants a command threads for goroutines that block in the kernel at the same time,
// in addition to those that work: maxBlocked, or fewer if there is less room, but at least
// minBlocked. With plenty of room it starts only minBlocked; otherwise it starts all that it
// grants, and leaves the rest of the room, at least spare, to the kernel for its own threads.
func reserveThreads(minBlocked, maxBlocked, spare int) (granted int, err error) {
	room, limit := threadRoom()
	lackingThreads := func() int {
		return max(0, runtime.GOMAXPROCS(0)+ownThreads-threadsNow()) + minBlocked + spare - room
	}
	if n := lackingThreads(); n > 0 { // each processor has a thread: use fewer
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)-n))
	}
	if n := lackingThreads(); n > 0 {
		return 0, fmt.Errorf("%s leaves room for %d more threads, and %d are needed; raise it "+
			"(pids.max, TasksMax= of a systemd unit, --pids-limit of a container, ulimit -u)",
			limit, max(room, 0), max(room, 0)+n)
	}
	base := max(0, runtime.GOMAXPROCS(0)+ownThreads-threadsNow())
	if room > base+maxBlocked+plentyOfThreads {
		startThreads(base + minBlocked - strayThreads())
		return maxBlocked, nil
	}
	granted = max(minBlocked, min(maxBlocked, (room-base-spare)/2))
	startThreads(base + granted - strayThreads())
	return granted, nil
}

// strayThreads is how many threads Go may start in addition to those it was asked for: one for each
// processor that finds work, and the thread that makes threads for goroutines locked to a thread.
func strayThreads() int { return runtime.GOMAXPROCS(0) + 2 }

// startThreads makes Go start n threads, which Go keeps.
func startThreads(n int) {
	var started, ended sync.WaitGroup
	release := make(chan struct{})
	for range n {
		started.Add(1)
		ended.Add(1)
		go func() {
			defer ended.Done()
			runtime.LockOSThread()
			started.Done()
			<-release
			runtime.UnlockOSThread()
		}()
	}
	started.Wait()
	close(release)
	ended.Wait()
}

// threadsNow is the number of threads of this process.
func threadsNow() int {
	entries, _ := os.ReadDir("/proc/self/task")
	return len(entries)
}

// threadRoom is how many more threads this process may start, and the name of the limit.
func threadRoom() (room int, limit string) {
	room, maxThreads := cgroup.Threads()
	limit = fmt.Sprintf("the limit of its cgroup (pids.max, %d)", maxThreads)
	var user unix.Rlimit
	if os.Getuid() == 0 || unix.Getrlimit(unix.RLIMIT_NPROC, &user) != nil ||
		user.Cur > maxCountedThreads {
		return room, limit
	}
	if left := int(user.Cur) - userThreads(os.Getuid()); left < room {
		room, limit = left, fmt.Sprintf("the limit on this user's threads (%d)", user.Cur)
	}
	return room, limit
}

// userThreads counts the threads of all visible processes of a user.
func userThreads(uid int) (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		owner, threads := -1, 0
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, "Uid:"); ok {
				_, _ = fmt.Sscan(value, &owner)
			} else if value, ok := strings.CutPrefix(line, "Threads:"); ok {
				_, _ = fmt.Sscan(value, &threads)
			}
		}
		if owner == uid {
			n += threads
		}
	}
	return n
}

// minBlockedThreads is how many threads a client reserves for calls that block: lookups of names,
// files.
const minBlockedThreads = 4

// reserveRoom reserves what a command with few threads needs, before it begins.
func reserveRoom(blocked int) error {
	if err := checkAddressSpace(0); err != nil {
		return err
	}
	_, err := reserveThreads(blocked, blocked, 0)
	return err
}

// checkAddressSpace returns an error if the limit on address space has no room for more bytes in
// addition to those of Go itself.
func checkAddressSpace(more uint64) error {
	limit, used := addressSpace()
	if need := used + more + spaceMargin; need > limit {
		return fmt.Errorf("the address space is limited to %s, and %s are needed; raise the "+
			"limit (ulimit -v %d, LimitAS= of a systemd unit), or ask for less memory",
			units.Size(limit), units.Size(need), need>>10)
	}
	return nil
}

// spaceLeft is how much address space this process may still take, in bytes; math.MaxUint64 means
// that there is no limit.
func spaceLeft() uint64 {
	limit, used := addressSpace()
	if limit == math.MaxUint64 {
		return limit
	}
	return limit - min(limit, used+spaceMargin)
}

// addressSpace is the limit on the address space of this process, and how much of it is taken, in
// bytes. A limit that cannot be read (/proc is missing) is not a limit.
func addressSpace() (limit, used uint64) {
	var as unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_AS, &as) != nil || as.Cur == unix.RLIM_INFINITY {
		return math.MaxUint64, 0
	}
	b, _ := os.ReadFile("/proc/self/statm")
	first, _, _ := strings.Cut(string(b), " ")
	pages, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return math.MaxUint64, 0
	}
	return as.Cur, pages * uint64(os.Getpagesize())
}
