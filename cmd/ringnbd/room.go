// Room for the process itself: threads (the pids limit of its cgroup, ulimit -u) and address space
// (ulimit -v).
//
// Go ends a process that is refused a thread or memory, with a dump of its stacks, and nothing in
// the process can catch that. Hence what a command will need is looked at before it begins, and
// said in one line if it is not there; threads are then started at once, for Go keeps those that
// have nothing to do. A limit that does not even let Go itself start (some 800 MiB of address
// space, some 7 threads) is beyond that.
//
// Invariant: what reserveThreads has granted is there: whatever else starts threads in the cgroup
// later takes none of it.

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
	// ownThreads are those that no command asks for: the main one, Go's monitor, signals, the
	// network, and some that are in a short system call when others have work.
	ownThreads = 10
	// plentyThreads beside what may be needed is a limit that is not worth looking at.
	plentyThreads = 256
	// spaceMargin is what Go's memory may grow by, in bytes of address space: it takes 64 MiB at a
	// time.
	spaceMargin = 128 << 20
	// countedUser is the limit on a user's threads above which it is not worth counting them.
	countedUser = 16384
)

// reserveThreads grants a command threads for goroutines that block in the kernel at a time, beside
// its own that work: most of them, or what there is room for, but not less than least. Where there
// is plenty of room only the least are started; else all that are granted, and the kernel has what
// is left for its own threads, of which spare at least.
func reserveThreads(least, most, spare int) (granted int, err error) {
	room, limit := threadRoom()
	lacking := func() int {
		return max(0, runtime.GOMAXPROCS(0)+ownThreads-threadsNow()) + least + spare - room
	}
	if n := lacking(); n > 0 { // a processor less is a thread less
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)-n))
	}
	if n := lacking(); n > 0 {
		return 0, fmt.Errorf("%s leaves room for %d more threads, and %d are needed; raise it "+
			"(pids.max, TasksMax= of a systemd unit, --pids-limit of a container, ulimit -u)",
			limit, max(room, 0), max(room, 0)+n)
	}
	base := max(0, runtime.GOMAXPROCS(0)+ownThreads-threadsNow())
	if room > base+most+plentyThreads {
		startThreads(base + least - strayThreads())
		return most, nil
	}
	granted = max(least, min(most, (room-base-spare)/2))
	startThreads(base + granted - strayThreads())
	return granted, nil
}

// strayThreads is how many threads Go may start beside those that are asked of it: one for each
// processor that finds work, and what makes threads for goroutines that are bound to theirs.
func strayThreads() int { return runtime.GOMAXPROCS(0) + 2 }

// startThreads makes Go start n threads, which it keeps.
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

// threadsNow is how many threads this process has.
func threadsNow() int {
	entries, _ := os.ReadDir("/proc/self/task")
	return len(entries)
}

// threadRoom is how many threads more this process may have, and the limit that says so.
func threadRoom() (room int, limit string) {
	room, most := cgroup.Threads()
	limit = fmt.Sprintf("the limit of its cgroup (pids.max, %d)", most)
	var user unix.Rlimit
	if os.Getuid() == 0 || unix.Getrlimit(unix.RLIMIT_NPROC, &user) != nil ||
		user.Cur > countedUser {
		return room, limit
	}
	if left := int(user.Cur) - userThreads(os.Getuid()); left < room {
		room, limit = left, fmt.Sprintf("the limit on this user's threads (%d)", user.Cur)
	}
	return room, limit
}

// userThreads counts the threads of all processes of a user that can be seen.
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

// leastBlocked is how many threads a client has at least for what blocks: names that are looked up,
// files.
const leastBlocked = 4

// enter is what a command that needs few threads asks for before it begins.
func enter(blocked int) error {
	if err := affordSpace(0); err != nil {
		return err
	}
	_, err := reserveThreads(blocked, blocked, 0)
	return err
}

// affordSpace says what is wrong if the limit on address space has no room for so many bytes beside
// Go's own.
func affordSpace(more uint64) error {
	limit, used := addressSpace()
	if need := used + more + spaceMargin; need > limit {
		return fmt.Errorf("the address space is limited to %s, and %s are needed; raise the "+
			"limit (ulimit -v %d, LimitAS= of a systemd unit), or ask for less memory",
			units.Size(limit), units.Size(need), need>>10)
	}
	return nil
}

// spaceLeft is how much address space this process may still take, in bytes; math.MaxUint64: any
// amount.
func spaceLeft() uint64 {
	limit, used := addressSpace()
	if limit == math.MaxUint64 {
		return limit
	}
	return limit - min(limit, used+spaceMargin)
}

// addressSpace is the limit on this process's address space, and how much of it is taken, in bytes.
// What is not known (/proc is not there) is not a limit.
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
