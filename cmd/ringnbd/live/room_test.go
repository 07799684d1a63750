// Limits on the process itself: threads (ulimit -u, pids.max) and address space (ulimit -v). Go
// ends a program that runs into one with a dump of its stacks.
//
// Invariant: a command works within a limit, or names in one line the limit that is too low.

package live_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench/measure"
	"ringnbd/engine/testbed"
)

// limited runs the program with a limit of the shell, and returns its status and what it printed.
func limited(t *testing.T, limit string, arguments ...string) (int, string) {
	t.Helper()
	out, err := try(t, time.Minute, "sh",
		append([]string{"-c", "ulimit " + limit + ` && exec "$0" "$@"`, ringnbd}, arguments...)...)
	var exit *exec.ExitError
	if e, ok := err.(*exec.ExitError); ok {
		exit = e
	} else if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
	if exit != nil {
		return exit.ExitCode(), out
	}
	return 0, out
}

// oneLine fails the test unless a command that failed said why in one line.
func oneLine(t *testing.T, what string, status int, out, want string) {
	t.Helper()
	if status == 0 {
		return
	}
	if status != 1 || strings.Count(strings.TrimSpace(out), "\n") != 0 ||
		!strings.HasPrefix(out, "ringnbd: ") || !strings.Contains(out, want) {
		t.Errorf("%s: status %d\n%.2000s\nwant one line with %q", what, status, out, want)
	}
}

func TestAddressSpaceOfOneGiB(t *testing.T) {
	onlyRingnbd(t)
	dependOnSources()
	image := patchy(t, 64<<20, 31)
	s := serve(t, measure.Unix, image)
	back := filepath.Join(t.TempDir(), "back.img")
	for _, c := range [][]string{
		{"copy", "--quiet", "--force", image, back}, {"copy", "--quiet", s.uri(""), back}, {"info",
			"--map", s.uri("")},
		{"bench", "--count", "1000", s.uri("")}, {"conform", "--only", "XH-01a", s.uri("")},
	} {
		if status, out := limited(t, "-v 1048576", c...); status != 0 {
			t.Errorf("%s: status %d\n%.2000s", c[0], status, out)
		}
	}
	sameFiles(t, image, back)
	// A server takes as much memory by default as there is room for.
	confined := exec.Command("sh", "-c",
		`ulimit -v 1048576 && exec "$0" serve --listen "$1" null:1M`,
		ringnbd, "unix:"+newAddress(t, measure.Unix).Path)
	log := new(testbed.LogBuffer)
	confined.Stderr = log
	out, err := confined.StdoutPipe()
	if err == nil {
		err = confined.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	_ = confined.Process.Signal(syscall.SIGTERM)
	if err := confined.Wait(); err != nil || !strings.HasPrefix(line, "ready ") {
		t.Errorf("serve with defaults: %q, %v\n%.2000s", line, err, log)
	}
	// With less: whatever it is that is too little, down to where Go starts at all.
	for _, kib := range []string{"950000", "900000", "850000"} {
		for _, c := range [][]string{
			{"copy", "--quiet", "--force", image, back}, {"info", "--map", s.uri("")}, {"bench",
				"--count", "1000", s.uri("")},
			{"conform", "--only", "XH-01a", s.uri("")},
			{"serve", "--memory", "300M", "--listen", "unix:" + newAddress(t, measure.Unix).Path,
				"null:1M"},
		} {
			status, out := limited(t, "-v "+kib, c...)
			oneLine(t, "-v "+kib+" "+c[0], status, out, "address space is limited")
		}
	}
}

// lonely is a user without another process, and a program that this user can run.
func lonely(t *testing.T) (uid int, program string) {
	t.Helper()
	needRoot(t, "starts the server as another user")
	program = filepath.Join(os.TempDir(), fmt.Sprintf("ringnbd-room-%d", os.Getpid()))
	b, err := os.ReadFile(ringnbd)
	if err == nil {
		err = os.WriteFile(program, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(program) })
	return 1<<20 + os.Getpid(), program
}

// asUser is a command of that user, with a limit on threads.
func asUser(uid, threads int, program string, arguments ...string) *exec.Cmd {
	script := fmt.Sprintf(`ulimit -u %d && exec "$0" "$@"`, threads)
	c := exec.Command("bash", append([]string{"-c", script, program}, arguments...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid),
		Gid: uint32(uid)}, Setpgid: true}
	c.Dir = os.TempDir()
	return c
}

// A server has all threads that it needs when it is ready: from then on the limit allows no more.
func TestServerNeedsNoThreadsAfterTheStart(t *testing.T) {
	onlyRingnbd(t)
	dependOnSources()
	need(t, "prlimit", "bash")
	uid, program := lonely(t)
	address := newAddress(t, measure.Unix)
	if err := os.Chown(filepath.Dir(address.Path), uid, uid); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(filepath.Dir(address.Path), "disk.img")
	c := asUser(uid, 60, program, "serve", "--create", "64M", "--loops", "2", "--memory", "200M",
		"--listen", "unix:"+address.Path, image)
	log := new(testbed.LogBuffer)
	c.Stderr = log
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	line := make([]byte, 200)
	if n, _ := out.Read(line); !strings.HasPrefix(string(line[:n]), "ready") {
		t.Fatalf("%q\n%s", line[:n], log)
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	lower := asUser(uid, 60, "prlimit", "--pid", fmt.Sprint(c.Process.Pid),
		fmt.Sprintf("--nproc=%d", len(entries)))
	if out, err := lower.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	uri := "nbd+unix:///?socket=" + address.Path
	for _, load := range [][]string{
		{"bench", "--count", "4000", "--connections", "8", "--depth", "16", "--bs", "4k",
			"--pattern", "randwrite", "--flush-every", "50", uri},
		{"bench", "--count", "4000", "--connections", "16", "--depth", "16", "--pattern",
			"randread", uri}, {"info", "--map", uri}, {"info", "--list", uri},
	} {
		if out, err := try(t, time.Minute, ringnbd, load...); err != nil {
			t.Errorf("%v: %s; log:\n%s", load, out, log)
		}
	}
	now, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.Process.Pid))
	if len(now) > len(entries) {
		t.Errorf("%d threads at the start, %d now", len(entries), len(now))
	}
	_ = c.Process.Signal(syscall.SIGTERM)
	if err := c.Wait(); err != nil || strings.Contains(log.String(), "goroutine ") {
		t.Errorf("the server ended with %v\n%.4000s", err, log)
	}
}

func TestFewThreads(t *testing.T) {
	onlyRingnbd(t)
	dependOnSources()
	need(t, "bash")
	uid, program := lonely(t)
	dir := filepath.Dir(newAddress(t, measure.Unix).Path)
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "source.img")
	if err := os.Rename(randomImage(t, 96<<20, 32), source); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(source, uid, uid); err != nil {
		t.Fatal(err)
	}
	for _, threads := range []int{10, 16, 24, 40} {
		for _, arguments := range [][]string{
			{"copy", "--quiet", "--force", source, dir + "/copy.img"}, {"serve", "--memory", "100M",
				"--loops", "1", "--listen", "unix:" + dir + "/x", source},
			{"bench", "--count", "1000", "null:"},
		} {
			if arguments[0] == "bench" {
				arguments = []string{"bench", "--count", "1000", "file:" + source}
			}
			c := asUser(uid, threads, program, arguments...)
			log := new(testbed.LogBuffer)
			c.Stderr = log
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if arguments[0] == "serve" {
				time.AfterFunc(2*time.Second, func() { _ = c.Process.Signal(syscall.SIGTERM) })
			}
			err := c.Wait()
			switch text := log.String(); {
			case err != nil:
				oneLine(t, fmt.Sprintf("%d threads: %s", threads, arguments[0]),
					c.ProcessState.ExitCode(), text, "more threads, and")
			case arguments[0] == "copy":
				sameFiles(t, source, dir+"/copy.img")
			}
			if err == nil && threads == 10 {
				t.Errorf("%s makes do with 10 threads: the limit is no longer one", arguments[0])
			}
			if err != nil && threads == 40 {
				t.Errorf("40 threads: %s: %v", arguments[0], err)
			}
		}
	}
	if n := testbed.Taken(t, dir+"/copy.img"); n == 0 {
		t.Error("nothing was copied")
	}
}
