// Tests with a guest's kernel: what they need, and the two lives of this program. Copied into a
// guest it is one of the programs of guest_test.go there.
//
// RINGNBD_BIN names a binary to test instead of building one.
//
// Invariant: a test that cannot run on this machine is skipped by name with the reason.

package kernel

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/testbed"
)

// ringnbd is the path of the binary under test.
var ringnbd string

func TestMain(m *testing.M) {
	if role := os.Getenv("RINGNBD_GUEST"); role != "" {
		os.Exit(guestProgram(role, os.Args[1:]))
	}
	flag.Parse()
	os.Exit(start(m))
}

func start(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ringnbd-kernel-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if ringnbd, err = testbed.Ringnbd(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// bootLimit bounds a boot, which takes 7 seconds on a machine that has nothing else to do.
// checkLimit bounds one check, the longest of which takes 15.
const (
	bootLimit  = 2 * time.Minute
	checkLimit = 4 * time.Minute
)

// prepared is what all guests share: found or downloaded once.
var prepared = sync.OnceValues(func() (k *kernelPackage, err error) {
	for _, program := range []string{"qemu-system-x86_64", "ldd"} {
		if _, err := find(program); err != nil {
			return nil, err
		}
	}
	for _, program := range basePrograms {
		if _, err := find(program); err != nil {
			return nil, err
		}
	}
	if _, err := find("fio"); err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	return findKernel(cache)
})

// need skips the test unless guests can be booted.
func need(t *testing.T) *kernelPackage {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: booting an emulated machine takes its time")
	}
	k, err := prepared()
	if errors.Is(err, errNoProgram) || errors.Is(err, errNoKernel) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	testbed.DependOnSources()
	return k
}

// guest is a machine for a row of checks. After a check that failed the next one gets a machine
// that was booted again, because the state of the last machine is not known.
type guest struct {
	config  config
	machine *machine
	said    []string // what the step under way is told to log
}

// step is a subtest, and a line of the log when it has ended.
func (g *guest) step(t *testing.T, name string, f func(t *testing.T)) bool {
	t.Helper()
	g.said = nil
	start, verdict, ran := time.Now(), "ok", false
	passed := t.Run(name, func(t *testing.T) {
		ran = true // -run may leave it out
		f(t)
	})
	if !passed {
		verdict = "FAIL"
	}
	if !ran {
		return passed
	}
	t.Logf("%-4s  %5.1f s  %s: %s", verdict, time.Since(start).Seconds(), name,
		strings.Join(g.said, "; "))
	return passed
}

func (g *guest) say(format string, arguments ...any) {
	g.said = append(g.said, fmt.Sprintf(format, arguments...))
}

// newGuest has a guest with fio, the files and this test program in it.
func newGuest(t *testing.T, memory int, fio bool, files map[string]string) *guest {
	t.Helper()
	k := need(t)
	cache, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{config: config{kernel: k, Initramfs: filepath.Join(t.TempDir(), "initramfs"),
		Dir: t.TempDir(), Memory: memory}}
	all := map[string]string{"/bin/guest": self}
	for inside, path := range files {
		all[inside] = path
	}
	if err := k.Initramfs(cache, g.config.Initramfs, fio, all); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.kill)
	return g
}

func (g *guest) kill() {
	if g.machine != nil {
		g.machine.Kill()
		g.machine = nil
	}
}

// boot starts the machine unless it runs.
func (g *guest) boot(t *testing.T) {
	t.Helper()
	if g.machine != nil {
		return
	}
	m, err := startMachine(g.config, bootLimit)
	if err != nil {
		t.Fatal(err)
	}
	g.machine = m
	g.say("Linux %s booted in %.1f s", g.config.kernel.Release, m.Boot.Seconds())
}

// check runs a script and logs what it says.
func (g *guest) check(t *testing.T, note func(string), script string, arguments ...string) {
	t.Helper()
	g.boot(t)
	said, err := g.machine.Check(checkLimit, note, script, arguments...)
	switch {
	case err != nil:
		g.kill()
		t.Fatal(err)
	case said != "":
		g.say("%s", said)
	}
}
