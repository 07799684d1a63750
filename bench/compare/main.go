// Compare measures two revisions of ringnbd against each other and prints, for each load, the
// ratio new/base of requests per second, server CPU time per request, median latency and 99th
// percentile, each with its interval and a verdict.
//
// Usage, from the top of the repository:
//
//	make compare BASE=HEAD~1                    the working tree against a revision
//	make compare BASE=v1 NEW=v2                 two revisions
//	go run ./bench/compare --base . --base-flags '--poll 0' --new-flags '--poll 50'
//
// The last one compares two settings of the working tree, which is called ".".
//
// # What is measured
//
// Both sides are built the same way and driven by the same load generator, that of the working
// tree. A pair is one measurement of each side, one right after the other; which of them is
// first alternates from pair to pair (ABBA), so that what being first or second does cancels
// out, and there is an even number of pairs. The pairs of a load are spread over the whole run:
// every load has its first pair before any has its second.
//
// A server is started anew for every measurement. Which pages its memory gets and where its
// threads land differs from start to start, and that difference is part of what separates two
// measurements. Servers kept running for the whole comparison would have a smaller spread around
// a ratio that holds for these two processes only: an interval that leaves out what it should
// cover.
//
// How ratios become verdicts is in package judge (comparison.go).
//
//	flags.go     the command line
//	loads.go     names of loads
//	revision.go  building revisions
//	measure.go   taking the pairs
//
// Invariant: nothing is left but the binaries in the cache, whether the run ends by
// itself or by SIGINT or SIGTERM: no process, no worktree, no file.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"ringnbd/bench/flags"
	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/bench/show"
)

func main() {
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if errors.Is(err, flags.ErrHelp) {
		return
	}
	if err == nil {
		err = compare(o, os.Stdout, os.Stderr)
	}
	var child *exec.ExitError
	if errors.As(err, &child) {
		os.Exit(max(child.ExitCode(), 1)) // it has printed the reason
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// compare builds, measures and prints.
func compare(o options, stdout, stderr io.Writer) error {
	if b := inherited(); b != nil {
		measure.Isolate()
		return measureAndPublish(o, b, stdout, stderr)
	}
	ctx, stop := catch()
	defer stop()
	b, err := buildSides(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.Dir)
	if o.isolate && os.Geteuid() == 0 {
		return again(ctx, b, stdout, stderr)
	}
	return measureAndPublish(o, b, stdout, stderr)
}

// catch ends the context on the signals that end a run.
func catch() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

// builtVariable hands what was built to the process that measures.
const builtVariable = "RINGNBD_COMPARE_BUILT"

// again runs this program once more, to measure what was built, and waits. Of the two processes
// this one has the machine's network, which building may need, and removes what was built however
// the other one ends; the other one moves into a network of its own.
func again(ctx context.Context, b *built, stdout, stderr io.Writer) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the death of this thread would be a signal to the child
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), builtVariable+"="+string(text))
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// inherited is what the process before this one has built; nil in the first one.
func inherited() *built {
	text, found := os.LookupEnv(builtVariable)
	b := new(built)
	if !found || json.Unmarshal([]byte(text), b) != nil {
		return nil
	}
	return b
}

func measureAndPublish(o options, b *built, stdout, stderr io.Writer) error {
	ctx, stop := catch()
	defer stop()
	c, err := measurePairs(ctx, o, b, stderr)
	if err != nil {
		return err
	}
	c.Command = o.command
	return publish(c, o, stdout)
}

// publish prints the comparison. What was measured is printed even when a load failed; that is an
// error afterwards.
func publish(c *judge.Comparison, o options, w io.Writer) error {
	var text string
	switch {
	case o.json:
		b, err := json.MarshalIndent(c, "", " ")
		if err != nil {
			return err
		}
		text = string(b) + "\n"
	case o.markdown:
		text = show.ComparisonMarkdown(c)
	default:
		text = show.ComparisonText(c)
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	for _, l := range c.Loads {
		if l.Error != "" {
			return fmt.Errorf("not every load was measured: %s: %s", l.Name, l.Error)
		}
	}
	return nil
}
