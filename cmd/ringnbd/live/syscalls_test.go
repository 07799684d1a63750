// Under load the server makes one system call: io_uring_enter. What else is seen
// is the Go runtime's own.

package live_test

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// schedulerMost is how many calls a second the Go scheduler may make, wakeUpsMost how often sysmon
// may wake up: some 1,700 and 100 are seen with two loops, which pass through it every 8 ms
// (engine.go, yieldInterval); without that, sysmon wakes up 1,600 to 3,400 times. They are bounds
// for a time and not shares of all calls: the scheduler's go by the clock, io_uring_enter's by how
// fast the machine and strace are just now.
const (
	schedulerMost = 4000
	wakeUpsMost   = 1000
)

// schedulerCalls are the Go scheduler's. Nothing but these and io_uring_enter may
// appear in numbers.
var schedulerCalls = map[string]bool{
	"futex": true, "nanosleep": true, "sched_yield": true, "tgkill": true, "getpid": true,
	"rt_sigreturn": true, "restart_syscall": true,
}

func TestUnderLoadIoUringEnterIsPracticallyTheOnlySystemCall(t *testing.T) {
	need(t, "strace", "fio")
	onlyRingnbd(t)
	for _, c := range []struct{ transport, pattern string }{{measure.Unix, "randread"},
		{measure.TCP, "randwrite"}} {
		t.Run(c.pattern+"-"+c.transport, func(t *testing.T) {
			s := serve(t, c.transport, randomImage(t, 256<<20, 1))
			// a busy machine stops the loops for so long that sysmon takes them for hogs
			for attempt := 1; ; attempt++ {
				calls, took, table := traceUnderLoad(t, s, c.pattern)
				err := judgeCalls(t, calls, took)
				if err == nil {
					break
				}
				if attempt == 3 {
					t.Fatalf("%v:\n%s", err, table)
				}
			}
		})
	}
}

// judgeCalls says what is wrong with the calls that were made in this time.
func judgeCalls(t *testing.T, calls map[string]int, took time.Duration) error {
	t.Helper()
	enters, scheduler, wakeUps := calls["io_uring_enter"], 0.0,
		float64(calls["nanosleep"])/took.Seconds()
	for name, n := range calls {
		switch {
		case schedulerCalls[name]:
			scheduler += float64(n) / took.Seconds()
		case name != "io_uring_enter" && n > enters/20:
			return fmt.Errorf("%d calls are %s, beside %d of io_uring_enter", n, name, enters)
		}
	}
	t.Logf("a second: %.0f of io_uring_enter, %.0f of the scheduler, %.0f of them sysmon's "+
		"wake-ups", float64(enters)/took.Seconds(), scheduler, wakeUps)
	switch {
	case enters < 500:
		return fmt.Errorf("%d of io_uring_enter is not a load", enters)
	case scheduler > schedulerMost || wakeUps > wakeUpsMost:
		return fmt.Errorf("the scheduler made %.0f calls a second, sysmon %.0f of them", scheduler,
			wakeUps)
	}
	return nil
}

// traceUnderLoad counts the server's system calls during about 1.5 s of a fio load, and says how
// long that was.
func traceUnderLoad(t *testing.T, s *server,
	pattern string) (calls map[string]int, took time.Duration, table string) {
	t.Helper()
	load := make(chan error, 1)
	go func() {
		_, err := try(t, time.Minute, "fio", "--name=load", "--ioengine=nbd", "--uri="+s.uri(""),
			"--rw="+pattern, "--bs=4k",
			"--iodepth=32", "--numjobs=4", "--size=256m", "--norandommap", "--time_based",
			"--runtime=3", "--eta=never")
		load <- err
	}()
	time.Sleep(time.Second) // past the handshakes
	trace := exec.Command("strace", "-c", "-f", "-q", "-p", fmt.Sprint(s.pid))
	var out strings.Builder
	trace.Stderr = &out
	if err := trace.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	time.Sleep(1500 * time.Millisecond)
	trace.Process.Signal(syscall.SIGINT) // detaches and prints the table
	trace.Wait()
	took = time.Since(began)
	if err := <-load; err != nil {
		t.Fatalf("fio: %v", err)
	}
	calls, err := parseStrace(out.String())
	if err != nil {
		t.Skipf("strace cannot trace on this machine: %v: %s", err, out.String())
	}
	return calls, took, out.String()
}

// parseStrace reads the table of strace -c: calls by name.
func parseStrace(out string) (map[string]int, error) {
	calls := map[string]int{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(f[3]); err == nil {
			calls[f[len(f)-1]] = n
		}
	}
	if len(calls) == 0 {
		return nil, fmt.Errorf("no table")
	}
	return calls, nil
}
