// A server in a memory control group, as a container has it.

package live_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ringnbd/engine/testbed"
)

// TestSmallContainer serves a hundred clients in 64 MiB, with nothing but defaults.
func TestSmallContainer(t *testing.T) {
	group := memoryGroup(t, 64<<20)
	client := ringnbd
	within(t, group)
	s := serve(t, "unix", sparseImage(t, 256<<20))
	memory, start := regexp.MustCompile(` memory=(\d+)`), []string(nil)
	for end := time.Now().Add(startTimeout); start == nil &&
		time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		start = memory.FindStringSubmatch(s.log.String())
	}
	if start == nil {
		t.Fatalf("the log does not say how much memory was taken:\n%s", s.log)
	}
	if n, err := strconv.Atoi(start[1]); err != nil || n >= 32<<20 {
		t.Errorf("--memory is %s by default, in a container of 64 MiB", start[1])
	}
	for _, load := range [][]string{
		{"--bs", "4k", "--depth", "32", "--count", "60000"},
		{"--bs", "64k", "--depth", "16", "--count", "8000"},
		{"--bs", "2M", "--depth", "2", "--count", "600"},
	} {
		usual := []string{"bench", "--pattern", "randrw", "--connections", "100", "--verify",
			s.uri("")}
		out := must(t, 2*time.Minute, client, append(usual, load...)...)
		if !strings.Contains(out, " 0 bad blocks") {
			t.Error(out)
		}
	}
	s.stop() // status 0
	events := groupFile(t, group, "memory.oom_control", "memory.events")
	killed := regexp.MustCompile(`oom_kill (\d+)`).FindStringSubmatch(events)
	if killed == nil || killed[1] != "0" {
		t.Errorf("the kernel killed in this group: %v", killed)
	}
}

// TestTooSmallContainer is a line, where the kernel would have killed without one.
func TestTooSmallContainer(t *testing.T) {
	group := memoryGroup(t, 16<<20)
	within(t, group)
	listen := "unix:" + filepath.Join(t.TempDir(), "s")
	out, err := exec.Command(ringnbd, "serve", "--listen", listen, "null:1G").CombinedOutput()
	const want = "the control group of this process allows 16 MiB of memory"
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v, %s", err, out)
	}
}

// TestEmptyRoot is about a root without hosts file, /proc and /dev: clients find localhost there.
func TestEmptyRoot(t *testing.T) {
	onlyRingnbd(t)
	needRoot(t, "chroot")
	root := t.TempDir()
	b, err := os.ReadFile(ringnbd)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "ringnbd"), b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	inside := func(arguments ...string) *exec.Cmd {
		return exec.Command("chroot", append([]string{root, "/ringnbd"}, arguments...)...)
	}
	server := inside("serve", "--listen", "localhost:0", "--memory", "64M", "--loops", "1",
		"--create", "1M", "/disk.img")
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log := new(testbed.LogBuffer)
	server.Stderr = log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	uri, ready := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ready {
		t.Fatalf("%q, %v\n%s", line, err, log)
	}
	for _, c := range [][]string{
		{"info", uri}, {"info", "--list", uri}, {"copy", "--quiet", uri, "/copy.img"},
		{"bench", "--count", "100", uri}, {"conform", "--only", "XH-01a", uri},
	} {
		if out, err := inside(c...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%.1000s", c[0], err, out)
		}
	}
}

// memoryGroup makes a control group that may use that much memory, of whichever version can.
func memoryGroup(t *testing.T, limit uint64) string {
	t.Helper()
	needRoot(t, "control groups")
	for top, file := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes",
		"/sys/fs/cgroup": "memory.max"} {
		group := filepath.Join(top, fmt.Sprintf("ringnbd-test-%d-%d", os.Getpid(), limit))
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			for end := time.Now().Add(5 * time.Second); os.Remove(group) != nil &&
				time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond) // the kernel has not let go of the processes yet
			}
		})
		f, err := os.OpenFile(filepath.Join(group, file), os.O_WRONLY, 0)
		if err != nil {
			continue // not of this version, or without this controller
		}
		_, err = f.WriteString(strconv.FormatUint(limit, 10))
		if err = errors.Join(err, f.Close()); err == nil {
			return group
		}
	}
	t.Skip("no memory control group can be made here")
	return ""
}

// within has every ringnbd that is started until the end of the test live in a control group from
// its first moment.
func within(t *testing.T, group string) {
	t.Helper()
	usual, wrapper := ringnbd, filepath.Join(t.TempDir(), "ringnbd")
	script := fmt.Sprintf("#!/bin/sh\necho $$ > '%s/cgroup.procs' && exec '%s' \"$@\"\n", group,
		usual)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ringnbd = wrapper
	t.Cleanup(func() { ringnbd = usual })
}

// groupFile is what the first of these files of a group says that is there.
func groupFile(t *testing.T, group string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if text, err := os.ReadFile(filepath.Join(group, name)); err == nil {
			return string(text)
		}
	}
	t.Fatalf("%s has none of %v", group, names)
	return ""
}
