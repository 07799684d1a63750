// Package testbed is what the tests of several packages set up: servers in the test's own process,
// the program under test, and what a file takes of the disk.
//
// Invariant: only tests import it, and nothing of it outlives the test that asked for it.
package testbed

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Listen is the path of a Unix socket that is listened on until the test ends. Every connection is
// answered in a goroutine of its own, and closed behind it.
func Listen(t testing.TB, answer func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answer(c)
			}()
		}
	}()
	return path
}

// Ringnbd is the program under test: RINGNBD_BIN, or built from the tree into a directory.
func Ringnbd(dir string) (string, error) {
	if path := os.Getenv("RINGNBD_BIN"); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "ringnbd")
	// As the Makefile does it: giouring links only with this flag on Go 1.23 and newer.
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-checklinkname=0", "-o", path,
		"ringnbd/cmd/ringnbd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// DependOnSources looks, once, at the program and at every source file of it while a test runs: go
// test knows then that a cached result is stale when one has changed. The program is no import of
// the tests that drive it.
var DependOnSources = sync.OnceFunc(func() {
	_, _ = os.Stat(os.Getenv("RINGNBD_BIN")) // looked at, not asked
	root := "."
	for range 10 {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		root = filepath.Join("..", root)
	}
	for _, dir := range []string{"cmd", "engine", "proto", "go.mod"} {
		_ = filepath.WalkDir(filepath.Join(root, dir),
			func(path string, _ fs.DirEntry, err error) error {
				if err == nil &&
					(strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".mod")) {
					_, _ = os.Stat(path)
				}
				return nil
			})
	}
})

// Taken is how many bytes of its disk a file takes.
func Taken(t testing.TB, path string) int64 {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}
