// ringnbd bench: the command line of the load generator, which is in ringnbd/bench/load.
//
// Invariant: results go to standard output, whatever happened; standard error has the progress
// line, on a terminal only, and one line when the exit status is not 0.

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
	"ringnbd/engine/units"
)

// benchOptions is what the flags of bench say.
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
		Long:              benchHelp,
		Example:           benchExamples,
		ValidArgsFunction: cobra.NoFileCompletions, // URIs are not files
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("name one target: nbd://HOST/EXPORT, " +
					"nbd+unix:///EXPORT?socket=PATH or file:PATH")
			}
			if err := o.complete(c.Flags(), args[0]); err != nil {
				return err
			}
			return wrapFailure(bench(&o, c.OutOrStdout(), c.ErrOrStderr()))
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
	o.Duration, o.Timeout = 10*time.Second, 30*time.Second
	s := sections{flags: flags}
	s.begin("What is asked")
	flags.StringVarP(&o.pattern, "pattern", "p", "randread", "`PATTERN`: "+load.PatternNames())
	flags.IntVar(&o.ReadPercent, "read-percent", 70,
		"of rw and randrw, and of zeroes with --verify, this `PERCENTAGE` are reads")
	flags.IntVar(&o.ZeroPercent, "zero-percent", 0,
		"of the writes of a pattern, this `PERCENTAGE` are WRITE_ZEROES")
	flags.StringVar(&o.sizes, "bs", "4k", "block `SIZE`, or sizes with their shares: 4k:70,64k:30")
	flags.BoolVar(&o.FUA, "fua", false, "what changes data is to be on stable storage before it "+
		"is answered")
	flags.BoolVar(&o.NoHole, "no-hole", false,
		"WRITE_ZEROES is to leave no holes: the space stays allocated")
	flags.BoolVar(&o.FastZero, "fast-zero", false,
		"WRITE_ZEROES is to fail if it is no faster than writing")
	flags.IntVar(&o.FlushEvery, "flush-every", 0,
		"a FLUSH after every `N` writes, trims or zeroes of a connection (default: none)")
	s.begin("Where")
	flags.Var((*offsetFlag)(&o.Offset), "offset", "the window begins at this `OFFSET`")
	flags.Var((*sizeFlag)(&o.Size), "size",
		"`SIZE` of the window (default: to the end of the export)")
	flags.BoolVar(&o.Fill, "fill", false, "write the whole window once before the run")
	flags.Var((*rawFlag)(&o.Raw), "format",
		"`FORMAT` of file:PATH: raw, the only one, whatever it looks like")
	flags.BoolVar(&o.Force, "force", false, "with file:PATH, go on although others use it")
	s.begin("How much at a time")
	flags.IntVarP(&o.Connections, "connections", "c", 1, "number `N` of connections")
	flags.IntVarP(&o.Depth, "depth", "d", 32, "requests `N` in flight on each connection")
	flags.IntVar(&o.Threads, "threads", 1, "number `N` of threads, which share the connections")
	flags.IntVar(&o.Idle, "idle", 0, "number `N` of further connections that stay silent")
	flags.Float64Var(&o.Rate, "rate", 0,
		"open loop: `N` requests per second are due, whatever the server does (default: closed "+
			"loop)")
	flags.StringVar(&o.arrivals, "arrivals", "constant",
		"with --rate, when requests are due: `KIND` constant or poisson")
	flags.Uint64Var(&o.Seed, "seed", 1, "`N` that offsets, sizes and arrivals follow from")
	s.begin("How long")
	flags.VarP((*timeFlag)(&o.Duration), "duration", "t",
		"measure for this `TIME` (with --count, no limit unless given)")
	flags.Uint64VarP(&o.Count, "count", "n", 0, "measure `N` requests")
	flags.Var((*timeFlag)(&o.Warmup), "warmup", "run for this `TIME` before measuring")
	flags.Var((*timeFlag)(&o.Timeout), "timeout", "give up after this `TIME` without an answer")
	s.begin("Traces")
	flags.StringVar(&o.Replay.Path, "replay", "",
		"instead of a pattern, the requests of this trace `FILE` (fio's iolog, version 2 or 3)")
	flags.StringVar(&o.Replay.File, "replay-file", "",
		"of the files in the trace, requests to this `NAME` (default: the only one)")
	flags.StringVar(&o.timing, "replay-timing", "fast",
		"`KIND` fast (in order, as soon as there is room) or recorded (each at its time)")
	flags.Float64Var(&o.Replay.Speed, "replay-speed", 1, "recorded times pass `N` times as fast")
	flags.StringVar(&o.Record, "record", "",
		"write the run's requests to this trace `FILE` (fio's iolog, version 3)")
	s.begin("Results")
	flags.BoolVar(&o.Verify, "verify", false,
		"stamp every sector that is written, and judge every one that is read")
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

// complete parses what flags alone cannot.
func (o *benchOptions) complete(flags *pflag.FlagSet, target string) error {
	var err error
	if err := notURI(target); err != nil {
		return err
	}
	if o.Target, err = load.ParseTarget(target); err != nil {
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
		return fmt.Errorf("--read-percent is about rw and randrw (and zeroes with --verify), "+
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

// completeReplay sees which flags go with --replay, and which without.
func (o *benchOptions) completeReplay(flags *pflag.FlagSet) error {
	if o.timing != "fast" && o.timing != "recorded" {
		return fmt.Errorf("--replay-timing %s: must be fast or recorded", o.timing)
	}
	o.Replay.Timed = o.timing == "recorded"
	if !flags.Changed("replay") {
		for _, name := range []string{"replay-file", "replay-timing", "replay-speed"} {
			if flags.Changed(name) {
				return fmt.Errorf("--%s is about --replay", name)
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

// bench runs and prints. The first signal ends the run early, the second one the program.
func bench(o *benchOptions, stdout, stderr io.Writer) error {
	tune(o.Threads)
	if err := enter(o.Threads + 2); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	line := new(load.Line)
	// a terminal that was stopped (Ctrl-S) must not stop what is measured
	screen := newBacklog(stderr, progressBacklog)
	if isTerminal(stderr) {
		line = load.NewLine(screen, terminalWidth(stderr))
	}
	var report *load.Report
	var err error
	if forsaken(ctx, o.Timeout, func() { report, err = load.Run(ctx, o.Options, line.Show) }) {
		screen.close()
		return fmt.Errorf("interrupted, and nothing has been answered within %v (--timeout)",
			o.Timeout)
	}
	line.Clear()
	screen.close()
	if report == nil {
		return err
	}
	stop() // from here on a signal ends the program: whoever reads the results may not read on
	if printErr := printReport(report, o.json, stdout); err == nil && printErr != nil {
		err = fmt.Errorf("the results could not be written to standard output: %w", printErr)
	}
	return err
}

func printReport(r *load.Report, asJSON bool, w io.Writer) error {
	if !asJSON {
		return r.Table(w, terminalWidth(w))
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

const benchHelp = `Put load on an NBD server, any one, and measure it: requests per second, latency percentiles, errors.

The target is nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH. With file:PATH (taken literally) the same load goes straight to a file or block
device through io_uring with O_DIRECT: the physical limit, to compare a server with. A server of the oldstyle handshake knows no names: its URI must be without one.

PATTERNS OTHER THAN read, randread AND flush OVERWRITE DATA in the target's window, and so do --fill and traces that write. A file or device that is mounted, or
that another ringnbd serves, is refused; a server cannot be asked whether somebody else uses the export.

Closed loop, the default: --connections x --depth requests are kept in flight, and latency counts from sending. Open loop, --rate: requests are due at fixed or
random (--arrivals poisson) times, whatever the server does, and latency counts from the time a request was due; one that finds nothing free waits.
So a stall is seen by every request that should have been made meanwhile. What was waiting is reported as the backlog.

The pattern's offsets are multiples of the request's size. In order, each connection goes through a part of the window of its own, again and again. zeroes and
randzeroes are WRITE_ZEROES, which carry no data; --zero-percent puts some among the writes of the other patterns.

--idle opens further connections, up to tens of thousands, which stay silent: what do they cost the server? Any that the server closes is an error.

--replay does what a trace says instead of a pattern: fio's iolog, version 2 or 3, as fio --write_iolog and --record make it. Requests start in the order of
the trace, on whatever connection has room. By default they start as soon as there is room, and a FLUSH (sync, datasync) waits for all before it, since it covers
only what was answered; the trace's times and waits do not count. With --replay-timing recorded each is due at its time, as in an open loop, and --replay-speed 2
makes that twice as fast. All requests must go to one file of the trace (else pick one by --replay-file) and lie inside the window; nothing is sent before that
is certain.

--verify stamps every sector of 512 bytes with its offset, a generation and a checksum. A read that brings anything but the last generation written is an
error with its offset, and so is anything but zeroes after WRITE_ZEROES. Only blocks that this run has written are judged: use --fill to write them all first,
which the read patterns need. Trimmed blocks and those of failed writes are not judged until they are written again. zeroes and randzeroes read back, too.

Sizes are bytes, or have a unit (4k, 1MiB), in powers of 1024; times are seconds, or have a unit
(500ms, 2m). Ctrl-C ends a run early and prints what was measured; a second one ends the program.

Exit status: 0 if every request succeeded, 1 if one failed, data was wrong, a connection died or the run could not start, 2 for a wrong command line.`

const benchExamples = `  # 4 KiB random reads, 4 connections of 32 requests each, for 10 seconds
  ringnbd bench --connections 4 nbd://localhost

  # the same straight on the file: how far the server is from the limit
  ringnbd bench --connections 4 file:disk.img

  # 70 % reads of mixed sizes, as JSON
  ringnbd bench --pattern randrw --read-percent 70 --bs 4k:80,64k:20 --json \
      'nbd+unix:///?socket=/run/nbd.sock'

  # latency at 20,000 requests per second with random arrivals
  ringnbd bench --rate 20000 --arrivals poisson --warmup 2s --duration 30s \
      nbd://server/export

  # is every byte what was written, or zeroed? (overwrites the first GiB)
  ringnbd bench --pattern randrw --zero-percent 5 --verify --fill --size 1G \
      --count 1000000 nbd://localhost

  # large sequential writes, flushed every 64
  ringnbd bench --pattern write --bs 1M --depth 16 --flush-every 64 \
      nbd://localhost

  # one busy connection beside 10,000 silent ones
  ringnbd bench --idle 10000 nbd://localhost

  # what fio did to a disk, done to an export at the same times
  fio --name=job --filename=disk.img --size=1G --rw=randrw \
      --write_iolog=trace.log
  ringnbd bench --replay trace.log --replay-timing recorded nbd://localhost

  # record a run, and do the same again
  ringnbd bench --pattern randrw --count 100000 --record run.log nbd://localhost
  ringnbd bench --replay run.log nbd://localhost`
