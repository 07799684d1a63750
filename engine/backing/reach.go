// Reaching storage before it is used: a thread that hangs in a system call may keep the process
// alive, whatever signal arrives, so a child is the first to touch the storage (uring.Touch).
//
// Invariant: a goroutine in Reach can be left waiting. The process ends all the same, and a child
// that the kernel keeps holds nothing of the process.

package backing

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

// Reach returns when the storage of a path has answered, whatever the answer. Where no child can be
// started (a limit on processes), it returns at once, and the open that follows is the first touch.
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
