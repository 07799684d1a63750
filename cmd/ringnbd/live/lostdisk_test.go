// A disk that takes data and loses it.
//
// Invariant: the loss is made by the kernel, below the page cache, so that only the flush can tell
// it.

package live_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lossyDisk is a loop device of 400 MiB whose file system has room for less than half of that, and
// none for its first 100 MiB.
func lossyDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for mount and losetup")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=160M", "tmpfs",
		dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs: %s", out)
	}
	t.Cleanup(func() { must(t, time.Minute, "umount", dir) })
	back := filepath.Join(dir, "back")
	must(t, time.Minute, "truncate", "-s", "400M", back)
	must(t, time.Minute, "fallocate", "-o", "100M", "-l", "120M", back)
	out, err := exec.Command("losetup", "-f", "--show", back).CombinedOutput()
	if err != nil {
		t.Skipf("cannot make a loop device: %s", out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		must(t, time.Minute, "losetup", "-d", device)
		for range 100 { // it goes when the last who has it open is gone
			if out, err := exec.Command("losetup", device).CombinedOutput(); err != nil ||
				len(out) == 0 {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("%s is still there", device)
	})
	return device
}

func TestCopyReportsDataThatTheDiskLost(t *testing.T) {
	device := lossyDisk(t)
	dependOnSources()
	source := randomImage(t, 220<<20, 5)
	must(t, time.Minute, "truncate", "-s", "400M", source)
	for _, flags := range [][]string{nil, {"--resume", filepath.Join(t.TempDir(), "state")}} {
		c := exec.Command(ringnbd, append(append([]string{"copy"}, flags...), source, device)...)
		out, err := c.CombinedOutput()
		if err == nil || c.ProcessState.ExitCode() != 1 {
			t.Fatalf("%v with data lost: %v: %s", flags, err, out)
		}
		if !strings.Contains(string(out), device+": ") ||
			!strings.Contains(string(out), "while flushing: not all of the copy is on the disk") {
			t.Errorf("%s", out)
		}
	}
}
