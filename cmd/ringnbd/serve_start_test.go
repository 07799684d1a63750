// A start that hangs is given up by others than itself.

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAbandonedStartLeavesNoSocket is about a start that hangs after it has listened: whatever it
// listens at is removed on its behalf.
func TestAbandonedStartLeavesNoSocket(t *testing.T) {
	dir := t.TempDir()
	sockets := []string{filepath.Join(dir, "nbd"), filepath.Join(dir, "debug")}
	o := &options{listen: []string{"unix:" + sockets[0]}, debug: debugFlag("unix:" + sockets[1])}
	s := &server{options: o}
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	s.begun.remove()
	for _, path := range sockets {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}
