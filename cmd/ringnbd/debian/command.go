// Commands of apt and dpkg, and the folder that keeps their results.
//
// Invariant: no command runs longer than its limit, nor longer than its caller.

package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// AptLimit bounds each call of apt, which downloads up to 100 MB.
const AptLimit = 4 * time.Minute

// ErrNoDebian means that this machine has no apt. Its text is for people who run the tests.
var ErrNoDebian = errors.New("this is not Debian")

// Check returns an error that wraps ErrNoDebian if apt or dpkg is not installed.
func Check() error {
	for _, program := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: %s is not installed", ErrNoDebian, program)
		}
	}
	return nil
}

// CacheDir makes the folder ringnbd/NAME of the user's cache, or of the folder for temporary files
// if there is none.
func CacheDir(name string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "ringnbd", name)
	return dir, os.MkdirAll(dir, 0o755)
}

// Run runs a program to its end, for at most limit, and returns its standard output. An error has
// the last line of standard error.
func Run(limit time.Duration, dir, name string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s %s: not finished within %s", name, strings.Join(arguments, " "),
			limit)
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s %s: %v: %s", name, strings.Join(arguments, " "), err,
			lines[len(lines)-1])
	}
	return string(out), nil
}
