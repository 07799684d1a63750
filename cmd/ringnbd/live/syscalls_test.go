package live_test

// Under load the server makes one system call: io_uring_enter. What else is seen
// is the Go runtime's own.

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench"
)

// leastShare of all system calls under load has to be io_uring_enter. The rest is
// the Go scheduler's: it wakes up every 10 ms at best, 50 times as often if it
// finds the loops' threads blocked for long. strace makes every call slow, so
// that fewer of io_uring_enter are made in the time than without it.
const leastShare = 0.80

// runtimeCalls are the Go scheduler's. Nothing but these and io_uring_enter may
// appear in numbers.
var runtimeCalls = map[string]bool{
	"futex": true, "nanosleep": true, "sched_yield": true, "tgkill": true, "getpid": true, "rt_sigreturn": true, "restart_syscall": true,
}

func TestUnderLoadIoUringEnterIsPracticallyTheOnlySystemCall(t *testing.T) {
	need(t, "strace", "fio")
	onlyRingnbd(t)
	for _, c := range []struct{ transport, pattern string }{{bench.Unix, "randread"}, {bench.TCP, "randwrite"}} {
		t.Run(c.pattern+"-"+c.transport, func(t *testing.T) {
			s := serve(t, c.transport, randomImage(t, 256<<20, 1))
			var share float64
			var table string
			for attempt := 0; attempt < 3 && share < leastShare; attempt++ { // a busy machine distorts
				var calls map[string]int
				calls, table = traceUnderLoad(t, s, c.pattern)
				total := 0
				for _, n := range calls {
					total += n
				}
				for name, n := range calls {
					if name != "io_uring_enter" && !runtimeCalls[name] && n > total/100 {
						t.Errorf("%d of %d calls are %s:\n%s", n, total, name, table)
					}
				}
				share = float64(calls["io_uring_enter"]) / float64(total)
				t.Logf("%d of %d calls are io_uring_enter (%.1f %%)", calls["io_uring_enter"], total, 100*share)
			}
			if share < leastShare {
				t.Errorf("only %.1f %% of the system calls are io_uring_enter:\n%s", 100*share, table)
			}
		})
	}
}

// traceUnderLoad counts the server's system calls during 1.5 s of a fio load.
func traceUnderLoad(t *testing.T, s *server, pattern string) (calls map[string]int, table string) {
	t.Helper()
	load := make(chan error, 1)
	go func() {
		_, err := try(t, time.Minute, "fio", "--name=load", "--ioengine=nbd", "--uri="+s.uri(""), "--rw="+pattern, "--bs=4k",
			"--iodepth=32", "--numjobs=4", "--size=256m", "--norandommap", "--time_based", "--runtime=3", "--eta=never")
		load <- err
	}()
	time.Sleep(time.Second) // past the handshakes
	trace := exec.Command("strace", "-c", "-f", "-q", "-p", fmt.Sprint(s.pid))
	var out strings.Builder
	trace.Stderr = &out
	if err := trace.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
	trace.Process.Signal(syscall.SIGINT) // detaches and prints the table
	trace.Wait()
	if err := <-load; err != nil {
		t.Fatalf("fio: %v", err)
	}
	calls, err := parseStrace(out.String())
	if err != nil {
		t.Skipf("strace cannot trace on this machine: %v: %s", err, out.String())
	}
	return calls, out.String()
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
