// Tests of accounting: what is read out of /proc.

package measure

import (
	"math"
	"os"
	"testing"
	"time"
)

func TestParseStatFindsFieldsBehindAnyName(t *testing.T) {
	line := "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 3 0 100 1 1"
	got, err := parseStat(line)
	want := processTimes{parent: 7, user: 110 * time.Millisecond, system: 220 * time.Millisecond,
		childrenUser: 330 * time.Millisecond, childrenSy: 440 * time.Millisecond}
	if err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 no name S 7", "42 (x) S 7 1",
		"42 (x) S 7 1 1 1 1 1 1 1 1 1 a b c d 1 1"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) found numbers", bad)
		}
	}
}

func TestParseStatusFieldKnowsKilobytes(t *testing.T) {
	text := "Name:\tx\nVmHWM:\t    2048 kB\nvoluntary_ctxt_switches:\t17\n"
	for name, want := range map[string]int64{"VmHWM": 2 << 20, "voluntary_ctxt_switches": 17,
		"VmRSS": 0, "Name": 0} {
		if got := parseStatusField(text, name); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
}

func TestStealIsAShareOfAllTime(t *testing.T) {
	a := parseCPUUse("cpu  100 0 50 800 10 0 0 40 5 0\ncpu0 1 1\n")
	if a != (cpuUse{all: 1000 * clockTick, busy: 150 * clockTick, steal: 40 * clockTick}) {
		t.Fatalf("parseCPUUse = %+v", a)
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
	a, b := parseCPUUse(before), parseCPUUse(after)
	b.ours = 600 * time.Millisecond // of 110 ticks that were busy, of 200
	if got := b.others(a); math.Abs(got-0.25) > 1e-9 {
		t.Errorf("others used %g", got)
	}
	b.ours = 2 * time.Second // ticks are coarse: it can seem to be more than all
	if got := b.others(a); got != 0 {
		t.Errorf("others used %g", got)
	}
	for _, stat := range []string{"", "cpu 1 2 3", "cpu a b c d e f g h", "intr 1 2 3 4 5 6 7 8"} {
		if got := parseCPUUse(stat); got != (cpuUse{}) {
			t.Errorf("%q: %+v", stat, got)
		}
	}
	if now := readCPUUse(); now.busy <= 0 || now.all < now.busy || now.ours <= 0 ||
		now.others(now) != 0 {
		t.Errorf("this machine: %+v", now)
	}
}
