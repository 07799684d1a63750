// Room for connections where the limit on open files is reached before the first.

package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAFullTableOfFilesLeavesNoRoom: no descriptor is left to count the others with, and the server
// must not begin to serve no client at all.
func TestAFullTableOfFilesLeavesNoRoom(t *testing.T) {
	var usual unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
		t.Fatal(err)
	}
	last, err := os.Open(os.DevNull) // all descriptors below it are in use
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	full := unix.Rlimit{Cur: uint64(last.Fd()) + 1, Max: usual.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &full); err != nil {
		t.Fatal(err)
	}
	err = (&server{options: &options{connections: 4}}).limitConnections()
	if undone := unix.Setrlimit(unix.RLIMIT_NOFILE, &usual); undone != nil {
		t.Fatal(undone)
	}
	if err == nil || !strings.Contains(err.Error(), "leaves no room for connections") {
		t.Errorf("with all descriptors in use: %v", err)
	}
}
