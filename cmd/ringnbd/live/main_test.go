// Package live_test drives the built ringnbd with real clients: one named test for each behaviour,
// each with a server of its own.
//
// Invariant: a test that cannot run on this machine is skipped by name with the reason; a test that
// ends leaves no process, mount, loop device or file.
//
// RINGNBD_BIN names a binary to test instead of building one.
// RINGNBD_LIVE_SERVER=nbdkit, qemu-nbd or nbd-server runs the same clients
// against that server, to test the tests: what only ringnbd promises is skipped.
package live_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"ringnbd/cmd/ringnbd/testbed"
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
	if underTest == "ringnbd" {
		if ringnbd, err = testbed.Ringnbd(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// onlyRingnbd skips a test of behaviour that peers do not promise.
func onlyRingnbd(t *testing.T) {
	t.Helper()
	if underTest != "ringnbd" {
		t.Skipf("%s does not promise this, only ringnbd does", underTest)
	}
}

// dependOnSources makes cached results of tests depend on the server under test and its sources.
func dependOnSources() {
	os.Getenv("RINGNBD_LIVE_SERVER")
	testbed.DependOnSources()
}
