// Package testbed has the program under test, for the tests that drive it.
//
// Invariant: only tests import this package; the program is built with the flags of the Makefile.
package testbed

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Ringnbd returns the path of the program under test: that of RINGNBD_BIN, or of one that is built
// from the tree into a directory.
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

// DependOnSources looks, once, at the program and at every source file of it while a test runs, so
// that go test knows that a cached result is stale when one of them has changed: the tests that
// drive the program do not import it.
var DependOnSources = sync.OnceFunc(func() {
	_, _ = os.Stat(os.Getenv("RINGNBD_BIN")) // the look alone counts
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
