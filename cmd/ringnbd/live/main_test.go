// Package live_test drives the built ringnbd with real clients: one named test
// for each behaviour, each with a server of its own. Invariant: a test that
// cannot run on this machine is skipped by name with the reason; a test that
// ends leaves no process, mount, loop device or file.
//
// RINGNBD_BIN names a binary to test instead of building one.
// RINGNBD_LIVE_SERVER=nbdkit, qemu-nbd or nbd-server runs the same clients
// against that server, to test the tests: what only ringnbd promises is skipped.
package live_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// ringnbd is the path of the binary under test.
var ringnbd string

// underTest names the server program: ringnbd, or a peer.
var underTest = "ringnbd"

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if name := os.Getenv("RINGNBD_LIVE_SERVER"); name != "" {
		underTest = name
	}
	dir, err := os.MkdirTemp("", "ringnbd-live-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ringnbd = os.Getenv("RINGNBD_BIN")
	if ringnbd == "" && underTest == "ringnbd" {
		ringnbd = filepath.Join(dir, "ringnbd")
		// giouring links only with this flag on Go 1.23 and newer.
		build := exec.Command("go", "build", "-ldflags=-checklinkname=0", "-o", ringnbd, "ringnbd/cmd/ringnbd")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// onlyRingnbd skips a test of what peers do not promise.
func onlyRingnbd(t *testing.T) {
	t.Helper()
	if underTest != "ringnbd" {
		t.Skipf("%s does not promise this, only ringnbd does", underTest)
	}
}

// dependOnSources looks at every source file of the server while a test runs: go
// test knows then that a cached result is stale when one has changed. The server
// is a program here, not an import.
var dependOnSources = sync.OnceFunc(func() {
	os.Getenv("RINGNBD_LIVE_SERVER")
	os.Stat(os.Getenv("RINGNBD_BIN"))
	for _, dir := range []string{"../../../cmd", "../../../engine", "../../../proto", "../../../go.mod"} {
		filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && (strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".mod")) {
				os.Stat(path)
			}
			return nil
		})
	}
})
