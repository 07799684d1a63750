// Sidebyside measures ringnbd and the NBD servers of Debian on the same file in
// one run, prints a Markdown table and writes every sample as JSON. The README's
// table is made from such a JSON by -readme. What is counted, and how rounds are
// interleaved, is in the documentation of package bench.
//
// Usage, from the top of the repository (make sidebyside does it):
//
//	go run ./bench/sidebyside -ringnbd bin/ringnbd -json results.json -readme README.md
//	go run ./bench/sidebyside -from results.json -readme README.md
package main

// Invariant: nothing is left behind, whether the run ends by itself or by
// SIGINT or SIGTERM: no process, no socket, no file.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/docker/go-units"

	"ringnbd/bench"
)

func main() {
	o := parseFlags(os.Args[1:])
	if o.from == "" && o.isolate {
		bench.Isolate()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		os.Exit(1)
	}
}

// options are the flags as given.
type options struct {
	dir, size, json, readme, from          string
	ringnbd, ringnbdFlags, servers         string
	patterns, transports, jobs, block, cmd string
	seconds                                float64
	rounds, depth                          int
	isolate                                bool
}

func parseFlags(arguments []string) options {
	var o options
	f := flag.NewFlagSet("sidebyside", flag.ExitOnError)
	f.StringVar(&o.dir, "dir", os.TempDir(), "directory for the test file: decides which storage is measured")
	f.StringVar(&o.size, "size", "2GiB", "size of the test file")
	f.StringVar(&o.json, "json", "", "write all samples to this file")
	f.StringVar(&o.readme, "readme", "", "replace the block between the markers of this file by the table")
	f.StringVar(&o.from, "from", "", "do not run: take the samples from this file of an earlier run")
	f.StringVar(&o.ringnbd, "ringnbd", "bin/ringnbd", "the ringnbd to measure")
	f.StringVar(&o.ringnbdFlags, "ringnbd-flags", "", "more flags for ringnbd serve, separated by spaces")
	f.StringVar(&o.servers, "servers", "raw,ringnbd,ringnbd-cached,nbdkit,qemu-nbd,nbd-server", "who takes part")
	f.StringVar(&o.patterns, "patterns", "randread,randwrite", "fio patterns")
	f.StringVar(&o.transports, "transports", "unix,tcp", "transports")
	f.StringVar(&o.jobs, "jobs", "1,4", "numbers of connections")
	f.StringVar(&o.block, "bs", "4KiB", "bytes per request")
	f.IntVar(&o.depth, "depth", 32, "requests in flight per connection")
	f.Float64Var(&o.seconds, "seconds", 5, "time of one measurement")
	f.IntVar(&o.rounds, "rounds", 3, "rounds over everything")
	f.BoolVar(&o.isolate, "isolate", true, "as root: use a network namespace with a congestion control that does not pace")
	f.StringVar(&o.cmd, "command", "", "the command to name in the report (default: this one)")
	f.Parse(arguments)
	if o.cmd == "" {
		o.cmd = strings.Join(append([]string{"go run ./bench/sidebyside"}, arguments...), " ")
	}
	return o
}

// run makes or loads a report and publishes it.
func run(ctx context.Context, o options) error {
	report, err := obtain(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(report.Markdown())
	if o.json != "" {
		if err := report.Save(o.json); err != nil {
			return err
		}
	}
	if failures := report.Failures(); len(failures) > 0 {
		return fmt.Errorf("%d measurements failed, the first: %s", len(failures), failures[0])
	}
	if o.readme != "" {
		return report.WriteREADME(o.readme)
	}
	return nil
}

func obtain(ctx context.Context, o options) (*bench.Report, error) {
	if o.from != "" {
		return bench.LoadReport(o.from)
	}
	suite, err := newSuite(o)
	if err != nil {
		return nil, err
	}
	report, err := suite.Run(ctx)
	if err != nil {
		return nil, err
	}
	report.Command = o.cmd
	return report, nil
}

// newSuite checks the flags and finds the programs before anything is started.
func newSuite(o options) (*bench.Suite, error) {
	size, err := units.RAMInBytes(o.size)
	if err != nil || size < 1<<20 || size%4096 != 0 {
		return nil, fmt.Errorf("-size %s: give a multiple of 4 KiB of at least 1 MiB, such as 2GiB", o.size)
	}
	s := &bench.Suite{Dir: o.dir, Size: size, Seconds: o.seconds, Rounds: o.rounds, Progress: os.Stderr}
	if o.seconds < 0.2 || o.rounds < 1 || o.depth < 1 {
		return nil, errors.New("-seconds must be at least 0.2, -rounds and -depth at least 1")
	}
	if s.Loads, err = loads(o); err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(o.servers, ",") {
		if name == bench.RawName {
			s.Raw = true
			continue
		}
		p, err := program(name, o)
		if err != nil {
			return nil, err
		}
		if p.Path, err = p.Find(); err != nil {
			return nil, err
		}
		s.Programs = append(s.Programs, p)
	}
	return s, nil
}

func program(name string, o options) (bench.Program, error) {
	path, err := filepath.Abs(o.ringnbd)
	switch name {
	case "ringnbd":
		return bench.Ringnbd(path, strings.Fields(o.ringnbdFlags)...), err
	case "ringnbd-cached":
		return bench.RingnbdCached(path, strings.Fields(o.ringnbdFlags)...), err
	}
	peers := bench.Peers()
	i := slices.IndexFunc(peers, func(p bench.Program) bool { return p.Name == name })
	if i < 0 {
		return bench.Program{}, fmt.Errorf("-servers: %q is none of raw, ringnbd, ringnbd-cached, nbdkit, nbdkit-uncached, qemu-nbd, nbd-server", name)
	}
	return peers[i], nil
}

func loads(o options) ([]bench.Load, error) {
	block, err := units.RAMInBytes(o.block)
	if err != nil || block < 1 || block > 32<<20 {
		return nil, fmt.Errorf("-bs %s: give a size up to 32MiB, such as 4KiB", o.block)
	}
	var all []bench.Load
	for pattern := range strings.SplitSeq(o.patterns, ",") {
		for text := range strings.SplitSeq(o.jobs, ",") {
			jobs, err := strconv.Atoi(text)
			if err != nil || jobs < 1 {
				return nil, fmt.Errorf("-jobs: %q is no number of connections", text)
			}
			for transport := range strings.SplitSeq(o.transports, ",") {
				if transport != bench.Unix && transport != bench.TCP {
					return nil, fmt.Errorf("-transports: %q is neither unix nor tcp", transport)
				}
				all = append(all, bench.Load{Pattern: pattern, BlockSize: int(block), Depth: o.depth, Jobs: jobs, Transport: transport})
			}
		}
	}
	return all, nil
}
