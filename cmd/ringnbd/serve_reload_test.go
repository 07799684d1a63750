// Reloads: signals that come during one, and a configuration that cannot be read.

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine/backing"
)

// newTestServer makes a server that can do no more than read a configuration.
func newTestServer(path string) *server {
	o := &options{config: path}
	return &server{options: o, log: newLog(o, io.Discard), loading: make(chan struct{}, 1)}
}

// TestASignalDuringAReloadIsNotLost checks that a signal waits for the reload that is under way,
// which may have read the file already, and that another user is told to try again.
func TestASignalDuringAReloadIsNotLost(t *testing.T) {
	s := newTestServer(filepath.Join(t.TempDir(), "none.toml"))
	hangups := make(chan os.Signal, 1)
	go s.followHangups(hangups)
	defer close(hangups)
	s.reloading.Lock()
	hangups <- unix.SIGHUP
	time.Sleep(50 * time.Millisecond)
	if at, _ := s.reloaded(); at != nil {
		t.Fatal("the signal did not wait")
	}
	_, _, err := s.reload(context.Background(), control.Caller{UID: 1}, false)
	if err == nil || !strings.Contains(err.Error(), "another reload is under way") {
		t.Errorf("a user: %v", err)
	}
	s.reloading.Unlock()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if at, trouble := s.reloaded(); at != nil && strings.Contains(trouble, "none.toml") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the signal was lost")
		}
	}
}

// TestAConfigurationThatHangsKeepsOneReader checks that a pipe that nobody writes to ends a reload
// in time, and that asking again does not pile up readers.
func TestAConfigurationThatHangsKeepsOneReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.toml")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newTestServer(path)
	for range 3 {
		_, _, err := s.load(50 * time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), "a pipe that nobody writes to") {
			t.Errorf("%v", err)
		}
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("nobody reads the pipe: %v", err)
	}
	unix.Close(fd)
	s.loading <- struct{}{} // the reader has ended
	if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
		unix.Close(fd)
		t.Error("there was another reader")
	}
}

func TestDescriptorsOfAnExport(t *testing.T) {
	for path, want := range map[string]int{"disk.img": 1, "disk.img?partition=2": 1,
		"overlay(a, b)": 2, "overlay(overlay(a, b), c)": 3,
		"overlay(a, discard=on-disconnect)": 1} {
		var s backing.Spec
		s.SetPath(path)
		if n := descriptors(&s); n != want {
			t.Errorf("%s: %d, want %d", path, n, want)
		}
	}
}
