// Reaching storage before anything is asked of it: a thread that hangs in a system call may keep
// the process, whatever signal comes, so the first to ask is a child (uring.Touch).
//
// Invariant: a goroutine in Reach can be left waiting. The process ends all the same, and a child
// that the kernel keeps has nothing of it.

package backing

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

// Reach returns when the storage of a path has answered. What it answered is for those to find out
// who open it. Where there can be no child (a limit on processes), it returns at once, and they are
// the first.
func Reach(path string) {
	if path == "" || Synthetic(path) {
		return
	}
	child, err := uring.Touch(path, filepath.Dir(path))
	if err != nil {
		return
	}
	for {
		if _, err := unix.Wait4(child, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}
