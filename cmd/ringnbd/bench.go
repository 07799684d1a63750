// ringnbd bench: the command line of the load generator, which is in ringnbd/bench/load.
//
// Invariant: results go to standard output, even of a run that failed; standard error has the
// progress line, on a terminal only, and one line when the exit status is not 0.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/bench/load"
	"ringnbd/cmd/ringnbd/version"
	"ringnbd/engine/client"
	"ringnbd/engine/units"
)

// benchOptions are the values of bench's flags.
type benchOptions struct {
	load.Options
	pattern  string
	sizes    string
	arrivals string
	timing   string
	json     bool
}

func newBench() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:               "bench [flags] URI|file:PATH",
		Short:             "Put load on an NBD server, or on a file itself, and measure it",
		ValidArgsFunction: cobra.NoFileCompletions, // URIs are not files
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("name one target: nbd://HOST/EXPORT, " +
					"nbd+unix:///EXPORT?socket=PATH or file:PATH")
			}
			if err := o.complete(c.Flags(), args[0]); err != nil {
				return err
			}
			return asFailure(adviser(benchAdvice).about(
				bench(&o, c.OutOrStdout(), c.ErrOrStderr())))
		},
	}
	o.register(c.Flags())
	for flag, values := range map[string][]string{"pattern": strings.Split(load.PatternNames(),
		", "), "arrivals": {"constant", "poisson"}, "replay-timing": {"fast", "recorded"}} {
		// The only error is a flag that does not exist, which a test would see.
		_ = c.RegisterFlagCompletionFunc(flag,
			cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

func (o *benchOptions) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	o.Prefix, o.Duration, o.Timeout = "--", 10*time.Second, 30*time.Second
	s := sections{flags: flags}
	s.begin("Requests")
	flags.StringVarP(&o.pattern, "pattern", "p", "randread", "`PATTERN`: "+load.PatternNames())
	flags.IntVar(&o.ReadPercent, "read-percent", 70,
		"`PERCENTAGE` of reads in rw and randrw, and in zeroes with --verify")
	flags.IntVar(&o.ZeroPercent, "zero-percent", 0,
		"`PERCENTAGE` of WRITE_ZEROES among the writes of a pattern")
	flags.StringVar(&o.sizes, "bs", "4k", "block `SIZE`, or sizes with their shares: 4k:70,64k:30")
	flags.BoolVar(&o.FUA, "fua", false,
		"send FUA: changes must be on stable storage before they are answered")
	flags.BoolVar(&o.NoHole, "no-hole", false,
		"WRITE_ZEROES must leave no holes: the space stays allocated")
	flags.BoolVar(&o.FastZero, "fast-zero", false,
		"WRITE_ZEROES must fail if it is not faster than writing")
	flags.IntVar(&o.FlushEvery, "flush-every", 0,
		"send a FLUSH after every `N` writes, trims or zeroes of a connection (default: none)")
	s.begin("Where")
	flags.Var((*offsetFlag)(&o.Offset), "offset", "the window begins at this `OFFSET`")
	flags.Var((*sizeFlag)(&o.Size), "size",
		"`SIZE` of the window (default: to the end of the export)")
	flags.BoolVar(&o.Fill, "fill", false, "write the whole window once before the run")
	flags.Var((*rawFlag)(&o.Raw), "format",
		"`FORMAT` of file:PATH: raw is the only one; it is used whatever it looks like")
	flags.BoolVar(&o.Force, "force", false,
		"with file:PATH, continue although other programs use it")
	s.begin("Concurrency")
	flags.IntVarP(&o.Connections, "connections", "c", 1, "number `N` of connections")
	flags.IntVarP(&o.Depth, "depth", "d", 32, "requests `N` in flight on each connection")
	flags.IntVar(&o.Threads, "threads", 1, "number `N` of threads that share the connections")
	flags.IntVar(&o.Idle, "idle", 0, "number `N` of further connections that stay silent")
	flags.Float64Var(&o.Rate, "rate", 0,
		"open loop: `N` requests per second are due, whatever the server does (default: closed "+
			"loop)")
	flags.StringVar(&o.arrivals, "arrivals", "constant",
		"with --rate, when requests are due: `KIND` constant or poisson")
	flags.Uint64Var(&o.Seed, "seed", 1, "`N` that determines offsets, sizes and arrivals")
	s.begin("How long")
	flags.VarP((*timeFlag)(&o.Duration), "duration", "t",
		"measure for this `TIME` (with --count, no limit unless given)")
	flags.Uint64VarP(&o.Count, "count", "n", 0, "measure `N` requests")
	flags.Var((*timeFlag)(&o.Warmup), "warmup", "run for this `TIME` before measuring")
	flags.Var((*timeFlag)(&o.Timeout), "timeout", "give up after this `TIME` without an answer")
	s.begin("Traces")
	flags.StringVar(&o.Replay.Path, "replay", "",
		"send the requests of this trace `FILE` (fio's iolog, version 2 or 3), not a pattern")
	flags.StringVar(&o.Replay.File, "replay-file", "",
		"replay the requests to this file `NAME` of the trace (default: the only file)")
	flags.StringVar(&o.timing, "replay-timing", "fast",
		"`KIND` fast (in order, as soon as a slot is free) or recorded (each at its time)")
	flags.Float64Var(&o.Replay.Speed, "replay-speed", 1, "replay recorded times `N` times as fast")
	flags.StringVar(&o.Record, "record", "",
		"write the run's requests to this trace `FILE` (fio's iolog, version 3)")
	s.begin("Results")
	flags.BoolVar(&o.Verify, "verify", false,
		"stamp every sector that is written, and check every sector that is read")
	flags.BoolVar(&o.json, "json", false, "print the results as JSON")
	s.end()
}

// offsetFlag is a number of bytes, which may be 0.
type offsetFlag uint64

func (f *offsetFlag) Type() string   { return "OFFSET" }
func (f *offsetFlag) String() string { return strconv.FormatUint(uint64(*f), 10) }
func (f *offsetFlag) Set(text string) error {
	n, err := units.ParseSize(text)
	*f = offsetFlag(n)
	return err
}

// complete parses the target and the values that one flag alone cannot check.
func (o *benchOptions) complete(flags *pflag.FlagSet, target string) error {
	var err error
	if err := checkURI(target); err != nil {
		return err
	}
	if o.Target, err = client.ParseTarget(target); err != nil {
		return err
	}
	if o.Pattern, err = load.ParsePattern(o.pattern); err != nil {
		return fmt.Errorf("--pattern: %w", err)
	}
	if o.Sizes, err = load.ParseMix(o.sizes); err != nil {
		return fmt.Errorf("--bs: %w", err)
	}
	if o.arrivals != "constant" && o.arrivals != "poisson" {
		return fmt.Errorf("--arrivals %s: must be constant or poisson", o.arrivals)
	}
	o.Poisson = o.arrivals == "poisson"
	if err := o.completeReplay(flags); err != nil {
		return err
	}
	if flags.Changed("read-percent") && !o.Mixed() {
		return fmt.Errorf("--read-percent is only for rw and randrw (and zeroes with --verify), "+
			"not --pattern %s", o.pattern)
	}
	if flags.Changed("rate") && o.Rate <= 0 {
		return fmt.Errorf("--rate %v: must be more than 0", o.Rate)
	}
	if flags.Changed("count") && o.Count == 0 {
		return fmt.Errorf("--count 0: must be 1 or more")
	}
	if flags.Changed("flush-every") && o.FlushEvery < 1 {
		return fmt.Errorf("--flush-every %d: must be 1 or more", o.FlushEvery)
	}
	if (o.Count > 0 || o.Replay.Path != "") && !flags.Changed("duration") {
		o.Duration = 0
	}
	return o.Check()
}

// completeReplay checks which flags go with --replay, and which without it.
func (o *benchOptions) completeReplay(flags *pflag.FlagSet) error {
	if o.timing != "fast" && o.timing != "recorded" {
		return fmt.Errorf("--replay-timing %s: must be fast or recorded", o.timing)
	}
	o.Replay.Timed = o.timing == "recorded"
	if !flags.Changed("replay") {
		for _, name := range []string{"replay-file", "replay-timing", "replay-speed"} {
			if flags.Changed(name) {
				return fmt.Errorf("--%s needs --replay", name)
			}
		}
		return nil
	}
	if o.Replay.Path == "" {
		return fmt.Errorf("--replay needs the path of a trace")
	}
	for _, name := range []string{"pattern", "bs", "read-percent"} {
		if flags.Changed(name) {
			return fmt.Errorf("--%s with --replay: the requests are in the trace", name)
		}
	}
	return nil
}

// bench runs the load and prints the report. The first signal ends the run early, the second ends
// the program.
func bench(o *benchOptions, stdout, stderr io.Writer) error {
	tuneRuntime(o.Threads)
	if err := reserveRoom(o.Threads + 2); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	line := new(load.Line)
	// a terminal that was stopped (Ctrl-S) must not stop the measurement
	screen := newBacklog(stderr, progressBacklog)
	if isTerminal(stderr) {
		line = load.NewLine(screen, terminalWidth(stderr))
	}
	var report *load.Report
	var err error
	if leftBehind(ctx, o.Timeout, func() { report, err = load.Run(ctx, o.Options, line.Show) }) {
		screen.close()
		return fmt.Errorf("interrupted, and no request was answered within %v (--timeout)",
			o.Timeout)
	}
	line.Clear()
	screen.close()
	if report == nil {
		return err
	}
	stop() // from here on a signal ends the program: the reader of the results may have stopped
	if printErr := printReport(report, o.json, stdout); err == nil && printErr != nil {
		err = fmt.Errorf("the results could not be written to standard output: %w", printErr)
	}
	return err
}

func printReport(r *load.Report, asJSON bool, w io.Writer) error {
	r.Version = version.Text()
	if !asJSON {
		return r.Table(w, terminalWidth(w))
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
