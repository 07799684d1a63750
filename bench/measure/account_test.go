// Tests of accounting: what is read out of /proc.

package measure

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/procfs"
)

// fakeProc is a /proc with one file.
func fakeProc(t *testing.T, name, text string) procfs.FS {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	fs, err := procfs.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestTreeHasThisProcessAndItsChildOfAnyName(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a) b (c")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep in PATH")
	}
	if err := os.Symlink(sleep, name); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(name, "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		child.Process.Kill()
		child.Wait()
	}()
	members := tree(os.Getpid())
	if _, own := members[os.Getpid()]; !own {
		t.Error("the root is not in its tree")
	}
	if s, in := members[child.Process.Pid]; !in || s.PPID != os.Getpid() {
		t.Errorf("the child is not in the tree: %+v", s)
	}
	if sum, highest := treeRSS(os.Getpid()); sum < 1<<20 || highest < 1<<20 || highest > 1<<40 {
		t.Errorf("memory: %d, at most %d", sum, highest)
	}
	if n := treeSwitches(os.Getpid()); n <= 0 {
		t.Errorf("%d context switches", n)
	}
	if gone := tree(1 << 22); len(gone) != 0 {
		t.Errorf("a process that cannot be has the tree %v", gone)
	}
}

func TestStealIsAShareOfAllTime(t *testing.T) {
	a := cpuUseOf(fakeProc(t, "stat", "cpu  100 0 50 800 10 0 0 40 5 0\ncpu0 1 1\n"))
	if a != (cpuUse{all: 1000 * clockTick, busy: 150 * clockTick, steal: 40 * clockTick}) {
		t.Fatalf("%+v", a)
	}
	b := cpuUse{all: 1200 * clockTick, steal: 90 * clockTick}
	if got := b.stolen(a); got != 0.25 {
		t.Errorf("steal = %v, want 0.25", got)
	}
	if got := a.stolen(a); got != 0 {
		t.Errorf("steal of no time = %v", got)
	}
}

func TestProcessClockCountsOurOwnTime(t *testing.T) {
	before, ok := processClock(os.Getpid())
	if !ok {
		t.Fatal("no clock of this process")
	}
	for begun := time.Now(); time.Since(begun) < 30*time.Millisecond; {
	}
	after, _ := processClock(os.Getpid())
	if used := after - before; used < 5*time.Millisecond || used > 10*time.Second {
		t.Errorf("30 ms of spinning count as %v", used)
	}
	if _, ok := processClock(1 << 22); ok {
		t.Error("a process that cannot be has a clock")
	}
}

func TestCPUTimeDividesExactlyByItsTicks(t *testing.T) {
	c := cpuTime{total: 100, user: 30, system: 10}.since(cpuTime{total: 60, user: 20, system: 10})
	if c != (cpuTime{40, 10, 0}) {
		t.Fatalf("since: %+v", c)
	}
	for _, x := range []struct {
		c            cpuTime
		user, system time.Duration
	}{{cpuTime{40, 10, 30}, 10, 30}, {cpuTime{40, 0, 0}, 0, 40}, {cpuTime{0, 10, 10}, 0, 0}} {
		if user, system := x.c.divide(); user != x.user || system != x.system {
			t.Errorf("%+v divides into %v and %v", x.c, user, system)
		}
	}
}

func TestWhatOthersUseIsTheBusyTimeWithoutOurs(t *testing.T) {
	const before, after = "cpu 100 10 200 5000 40 3 7 50 9 9\ncpu0 1\n",
		"cpu 160 20 230 5060 50 4 16 70 99 99\ncpu0 2\n"
	a, b := cpuUseOf(fakeProc(t, "stat", before)), cpuUseOf(fakeProc(t, "stat", after))
	b.ours = 600 * time.Millisecond // of 110 ticks that were busy, of 200
	if got := b.others(a); math.Abs(got-0.25) > 1e-9 {
		t.Errorf("others used %g", got)
	}
	b.ours = 2 * time.Second // ticks are coarse: it can seem to be more than all
	if got := b.others(a); got != 0 {
		t.Errorf("others used %g", got)
	}
	for _, stat := range []string{"", "cpu a b c d e f g h", "intr 1 2 3 4 5 6 7 8"} {
		if got := cpuUseOf(fakeProc(t, "stat", stat)); got != (cpuUse{}) {
			t.Errorf("%q: %+v", stat, got)
		}
	}
	if now := readCPUUse(); now.busy <= 0 || now.all < now.busy || now.ours <= 0 ||
		now.others(now) != 0 {
		t.Errorf("this machine: %+v", now)
	}
}
