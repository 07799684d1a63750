// The keeper of a process group: a shell that does nothing but wait for our end.
//
// Invariant: as long as the keeper lives its process group has members that we may kill, so its
// number is nobody else's; and whatever ends us, if it is SIGKILL, ends all of the group, children
// of the command's shell included, and removes what they were given.

package conform

import (
	"os"
	"os/exec"
	"syscall"
)

// keeper leads a process group.
type keeper struct {
	command *exec.Cmd
	alive   *os.File // the end of a pipe that closes with us
}

// start makes an empty group. The shell reads from a pipe that nobody writes to: the read ends when
// we do. dir is removed then.
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

// group is the number of the process group.
func (k *keeper) group() int { return k.command.Process.Pid }

// kill ends all of the group.
func (k *keeper) kill() {
	if k.command == nil {
		return
	}
	// ours to kill: the keeper is in it, and has not been waited for
	_ = syscall.Kill(-k.group(), syscall.SIGKILL)
	_ = k.command.Wait()
	_ = k.alive.Close()
	k.command = nil
}
