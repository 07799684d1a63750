// Suite measures ringnbd and the NBD servers of Debian with the same load generator in one run,
// prints tables, and writes every sample as JSON and as an HTML report. bench/RESULTS.md is
// made from such a JSON. What is counted, and how rounds are interleaved, is in the
// documentation of package measure.
//
// Usage, from the top of the repository (make bench does it):
//
//	go run ./bench/suite --ringnbd bin/ringnbd --json bin/bench.json --html bin/bench.html
//	go run ./bench/suite --from bin/bench.json --html bin/bench.html
//
//	flags.go  the command line
//
// Invariant: nothing is left, whether the run ends by itself or by SIGINT or SIGTERM: no
// process, no socket, no file, no loop device.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"ringnbd/bench/flags"
	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/bench/profile"
	"ringnbd/bench/show"
)

func main() {
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if errors.Is(err, flags.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(2)
	}
	if o.list {
		list(os.Stdout)
		return
	}
	if o.stages != "" {
		if err := stages(os.Stdout, o.stages); err != nil {
			fmt.Fprintln(os.Stderr, "suite:", err)
			os.Exit(1)
		}
		return
	}
	if (o.from == "" || o.pprof) && o.isolate {
		measure.Isolate()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

// stages prints where a saved profile says the time went.
func stages(w io.Writer, file string) error {
	p, err := profile.Read(file)
	if err == nil {
		_, err = io.WriteString(w, profile.Text(p))
	}
	return err
}

// run makes or loads a report and publishes it. What was measured is published even when some
// measurements failed; that is an error afterwards.
func run(ctx context.Context, o options) error {
	report, err := obtain(ctx, o)
	if err != nil {
		return err
	}
	if err := show.Tables(os.Stdout, report); err != nil {
		return err
	}
	if o.json != "" && (o.json != o.from || o.pprof) {
		if err := judge.Save(report, o.json); err != nil {
			return err
		}
	}
	if o.html != "" {
		if err := show.HTML(report, o.html); err != nil {
			return err
		}
	}
	sayWritten(o)
	if failures := report.Failures(); len(failures) > 0 {
		return fmt.Errorf("%d measurements failed, the first: %s", len(failures), failures[0])
	}
	if o.results != "" {
		if err := show.WriteResults(report, o.results); err != nil {
			return err
		}
	}
	if o.readme != "" {
		return show.WriteREADME(report, o.readme)
	}
	return nil
}

func obtain(ctx context.Context, o options) (*measure.Report, error) {
	if o.from != "" && !o.pprof {
		return measure.ReadReport(o.from)
	}
	suite, err := newSuite(o)
	if err != nil {
		return nil, err
	}
	if o.from != "" {
		report, err := measure.ReadReport(o.from)
		if err == nil {
			report.Profiles, err = profile.Take(ctx, suite)
		}
		return report, err
	}
	meetings, estimate := suite.Estimate()
	if meetings == 0 {
		return nil,
			errors.New("no server that takes part serves any of these loads: nothing to measure")
	}
	fmt.Fprintf(os.Stderr, "%d measurements, about %s: until %s\n", meetings, estimate,
		time.Now().Add(estimate).Format("15:04"))
	report, err := suite.Run(ctx)
	if errors.Is(err, context.Canceled) {
		return nil, errors.New("interrupted: nothing was written, nothing is left behind")
	}
	if err != nil {
		return nil, err
	}
	report.Command = o.command
	if o.pprof {
		if report.Profiles, err = profile.Take(ctx, suite); err != nil {
			return nil, fmt.Errorf("profiles: %w", err)
		}
	}
	return report, nil
}

// sayWritten names the files with samples and plots.
func sayWritten(o options) {
	for _, file := range []struct{ what, path string }{{"every sample", o.json},
		{"the report with plots", o.html}} {
		if file.path != "" {
			fmt.Fprintf(os.Stderr, "%s: %s\n", file.what, file.path)
		}
	}
}
