// The command line.
//
// Invariant: mistakes in it are reported before anything is started.

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"ringnbd/bench/flags"
	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// options are the flags as given.
type options struct {
	dir, size, null, memory           string
	json, html, from, stages          string
	results, readme                   string
	ringnbd, generator                string
	ringnbdFlags                      string
	servers, sections                 []string
	command                           string
	seconds, warmup                   float64
	rounds                            int
	isolate, quick, full, list, pprof bool
	given                             func(flag string) bool
}

// parseFlags reads the command line; --help prints the flags to w.
func parseFlags(arguments []string, w io.Writer) (o options, err error) {
	f := flags.New("go run ./bench/suite", w)
	o.given = f.Changed
	o.addLoads(f)
	o.addOutputs(f)
	if err := flags.Parse(f, arguments); err != nil {
		return o, err
	}
	if o.command == "" {
		o.command = strings.Join(append([]string{"go run ./bench/suite"}, arguments...), " ")
	}
	return o, nil
}

// addLoads adds the flags that say what is measured.
func (o *options) addLoads(f *pflag.FlagSet) {
	f.BoolVar(&o.quick, "quick", false, "one short round: about five minutes")
	f.StringSliceVar(&o.sections, "sections", nil,
		"only these `SECTIONS`, separated by commas (default: all)")
	f.BoolVar(&o.list, "list", false, "list the sections and end")
	f.BoolVar(&o.full, "full", false,
		"the whole matrix, which takes hours, instead of the sections")
	f.StringSliceVar(&o.servers, "servers", nil, "only these `SERVERS`, separated by commas "+
		"(default: those installed of "+strings.Join(names(), ", ")+")")
	f.Float64Var(&o.seconds, "seconds", 1, "`SECONDS` of one measurement")
	f.Float64Var(&o.warmup, "warmup", 0.25, "`SECONDS` of load before each measurement")
	f.IntVar(&o.rounds, "rounds", 3, "`N` rounds over everything")
	f.StringVar(&o.dir, "dir", os.TempDir(),
		"`DIRECTORY` for the test file: decides which storage is measured")
	f.StringVar(&o.size, "size", "2GiB", "`SIZE` of the test file")
	f.StringVar(&o.null, "null-size", "1TiB", "`SIZE` of null exports")
	f.StringVar(&o.memory, "memory-size", "256MiB", "`SIZE` of memory exports")
	f.StringVar(&o.ringnbd, "ringnbd", "bin/ringnbd", "the `PROGRAM` to measure")
	f.StringVar(&o.ringnbdFlags, "ringnbd-flags", "",
		"more `FLAGS` for ringnbd serve, separated by spaces")
	f.StringVar(&o.generator, "generator", "",
		"the ringnbd whose bench drives every server (default: the `PROGRAM` to measure)")
	f.BoolVar(&o.isolate, "isolate", true,
		"as root: use a network namespace with a congestion control that does not pace")
}

// addOutputs adds the flags that say what becomes of the samples.
func (o *options) addOutputs(f *pflag.FlagSet) {
	f.BoolVar(&o.pprof, "pprof", false,
		"afterwards (with --from: only) show where ringnbd's CPU time goes in some of the loads")
	f.StringVar(&o.json, "json", "", "write all samples to this `FILE`")
	f.StringVar(&o.html, "html", "", "write a report with plots to this `FILE`")
	f.StringVar(&o.results, "results", "", "write the tables as Markdown to this `FILE`")
	f.StringVar(&o.readme, "readme", "",
		"replace the block between the markers of this `FILE` by a summary")
	f.StringVar(&o.from, "from", "",
		"do not run: take the samples from this `FILE` of an earlier run")
	f.StringVar(&o.stages, "stages", "",
		"do not run: show the stages of a CPU profile `FILE`, as from serve --debug")
	f.StringVar(&o.command, "command", "",
		"the `COMMAND` to name in the report (default: this command line)")
}

// list prints the sections.
func list(w io.Writer) {
	for _, s := range measure.Sections() {
		fmt.Fprintf(w, "%-12s %s\n", s.Name, s.Question)
	}
}

// hurry makes a run short: what --quick changes unless it was given.
func (o *options) hurry() {
	if !o.given("seconds") {
		o.seconds = 0.4
	}
	if !o.given("warmup") {
		o.warmup = 0.1
	}
	if !o.given("rounds") {
		o.rounds = 1
	}
}

// newSuite checks the flags and finds the programs before anything is started.
func newSuite(o options) (*measure.Suite, error) {
	if o.quick {
		o.hurry()
	}
	if o.seconds < 0.2 || o.rounds < 1 || o.warmup < 0 {
		return nil,
			errors.New("--seconds must be at least 0.2, --rounds at least 1, --warmup at least 0")
	}
	if (o.readme != "" || o.results != "") && o.rounds < judge.Enough {
		return nil,
			errors.New("--results and --readme need at least 2 rounds: give --rounds 2 or more")
	}
	s := &measure.Suite{Dir: o.dir, Seconds: o.seconds, Warmup: o.warmup, Rounds: o.rounds,
		Progress: os.Stderr}
	for _, size := range []struct {
		name, text string
		into       *int64
	}{{"size", o.size, &s.Size}, {"null-size", o.null, &s.Null}, {"memory-size", o.memory,
		&s.Memory}} {
		n, err := units.ParseSize(size.text)
		if err != nil || n < 4<<20 || n%4096 != 0 {
			return nil,
				fmt.Errorf("--%s %s: give a multiple of 4 KiB of at least 4 MiB, such as 2GiB",
					size.name, size.text)
		}
		*size.into = int64(n)
	}
	var err error
	if s.Loads, err = loads(o); err != nil {
		return nil, err
	}
	if s.Generator, err = filepath.Abs(o.generator); o.generator == "" {
		s.Generator, err = filepath.Abs(o.ringnbd)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.Generator); err != nil {
		return nil,
			fmt.Errorf("the load generator: %w: build it first (make), or name another with "+
				"--ringnbd or --generator", err)
	}
	return s, o.addServers(s)
}

// loads are those of the chosen sections.
func loads(o options) ([]measure.Load, error) {
	if o.full {
		if len(o.sections) > 0 {
			return nil, errors.New("--full is the whole matrix: give it without --sections")
		}
		return measure.FullSection().Loads, nil
	}
	sections, err := measure.Select(o.sections)
	if err != nil {
		return nil, fmt.Errorf("--sections: %w", err)
	}
	var all []measure.Load
	for _, s := range sections {
		all = append(all, s.Loads...)
	}
	return all, nil
}

// programs are all that can be measured.
func programs(ringnbd string, flags ...string) []measure.Program {
	return append([]measure.Program{measure.Ringnbd(ringnbd, flags...),
		measure.RingnbdCached(ringnbd, flags...), measure.RingnbdPoll(ringnbd, flags...)},
		measure.Peers()...)
}

// names are those of all servers, with the raw limit.
func names() []string {
	all := []string{measure.RawName}
	for _, p := range programs("") {
		all = append(all, p.Name)
	}
	return all
}

// addServers finds the servers that take part.
func (o *options) addServers(s *measure.Suite) error {
	wanted := o.servers
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("--servers: %q is none of %s", name, strings.Join(names(), ", "))
		}
	}
	takesPart := func(name string) bool { return len(wanted) == 0 || slices.Contains(wanted, name) }
	s.Raw = takesPart(measure.RawName)
	path, err := filepath.Abs(o.ringnbd)
	if err != nil {
		return err
	}
	for _, p := range programs(path, strings.Fields(o.ringnbdFlags)...) {
		if !takesPart(p.Name) {
			continue
		}
		found, err := p.Find()
		if err != nil && len(wanted) == 0 {
			fmt.Fprintln(s.Progress, "left out:", err)
			continue
		}
		if err != nil {
			return err
		}
		p.Path = found
		s.Programs = append(s.Programs, p)
	}
	return nil
}
