// Giving the core away: what a spinning thread does when the holder of the word that it waits for
// must have been preempted.

package uring

import "golang.org/x/sys/unix"

// Yield calls sched_yield(2) without telling the Go scheduler: it returns at once when no other
// thread is waiting for the core.
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
