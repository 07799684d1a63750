// What a child does to the paths that it touches.

package uring

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// For whatever is at a path, the child ends with status 0, and a FIFO, which would
// let others on if it were opened, is not.
func TestTouchEnds(t *testing.T) {
	directory := t.TempDir()
	file, fifo := filepath.Join(directory, "file"), filepath.Join(directory, "fifo")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := make(chan struct{})
	go func() {
		fd, err := unix.Open(fifo, unix.O_WRONLY, 0)
		close(opened)
		if err == nil {
			unix.Close(fd)
		}
	}()
	for _, path := range []string{file, fifo, directory, "/dev/null",
		filepath.Join(directory, "none"),
		filepath.Join(directory, "none", "none"), filepath.Join(file, "none"), ""} {
		child, err := Touch(path, filepath.Dir(path))
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		var status unix.WaitStatus
		for {
			_, err = unix.Wait4(child, &status, 0, nil)
			if err != unix.EINTR {
				break
			}
		}
		if err != nil || !status.Exited() || status.ExitStatus() != 0 {
			t.Errorf("%q: the child's status is %#x, %v", path, status, err)
		}
	}
	select {
	case <-opened:
		t.Error("the FIFO was opened")
	case <-time.After(50 * time.Millisecond):
	}
	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	<-opened
	unix.Close(fd)
}
