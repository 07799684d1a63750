// The keeper of a process group: a shell that does nothing but wait until we end.
//
// Invariant: while the keeper lives, its process group is not empty, so its number cannot come to
// name another group, and we may kill it. When we end, even by SIGKILL, the whole group ends,
// including children of the command's shell, and the files that they were given are removed.

package conform

import (
	"os"
	"os/exec"
	"syscall"
)

// keeper leads a process group.
type keeper struct {
	command *exec.Cmd
	alive   *os.File // our end of the pipe, which closes when we end
}

// start makes a group with the keeper alone. The keeper reads from a pipe that is never written to:
// the read ends when we end. Then dir is removed.
func (k *keeper) start(dir string) error {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close()
	k.command = exec.Command("/bin/sh", "-c",
		`trap '' HUP INT QUIT TERM; read line; rm -rf -- "$1"; kill -9 0`, "keeper", dir)
	k.command.Stdin = theirs
	k.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := k.command.Start(); err != nil {
		k.command = nil
		return err
	}
	k.alive = ours
	return nil
}

// group returns the number of the process group.
func (k *keeper) group() int { return k.command.Process.Pid }

// kill ends the whole group.
func (k *keeper) kill() {
	if k.command == nil {
		return
	}
	// the number still names our group: the keeper is in it, and has not been waited for
	_ = syscall.Kill(-k.group(), syscall.SIGKILL)
	_ = k.command.Wait()
	_ = k.alive.Close()
	k.command = nil
}
