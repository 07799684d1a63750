// The command line. Invariant: what is wrong with it is said before anything is
// started.

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// options are the flags as given.
type options struct {
	dir, size, null, memory           string
	json, html, readme, from, stages  string
	ringnbd, generator                string
	ringnbdFlags, servers             string
	sections, command                 string
	seconds, warmup                   float64
	rounds                            int
	isolate, quick, full, list, pprof bool
	given                             map[string]bool
}

func parseFlags(arguments []string) options {
	o := options{given: map[string]bool{}}
	f := flag.NewFlagSet("suite", flag.ExitOnError)
	f.StringVar(&o.sections, "sections", "",
		"only these sections, separated by commas (default: all)")
	f.BoolVar(&o.list, "list", false, "list the sections and end")
	f.BoolVar(&o.quick, "quick", false, "one short round: about five minutes")
	f.BoolVar(&o.full, "full", false,
		"the whole matrix, which takes hours, instead of the sections")
	f.BoolVar(&o.pprof, "pprof", false,
		"afterwards (with -from: only) show where ringnbd's CPU time goes in some of the loads")
	f.StringVar(&o.servers, "servers", "",
		"only these, separated by commas (default: those installed of "+strings.Join(names(), ",")+
			")")
	f.Float64Var(&o.seconds, "seconds", 1, "time of one measurement")
	f.Float64Var(&o.warmup, "warmup", 0.25, "seconds of load before each measurement")
	f.IntVar(&o.rounds, "rounds", 3, "rounds over everything")
	f.StringVar(&o.dir, "dir", os.TempDir(),
		"directory for the test file: decides which storage is measured")
	f.StringVar(&o.size, "size", "2GiB", "size of the test file")
	f.StringVar(&o.null, "null-size", "1TiB", "size of null exports")
	f.StringVar(&o.memory, "memory-size", "256MiB", "size of memory exports")
	f.StringVar(&o.ringnbd, "ringnbd", "bin/ringnbd", "the ringnbd to measure")
	f.StringVar(&o.ringnbdFlags, "ringnbd-flags", "",
		"more flags for ringnbd serve, separated by spaces")
	f.StringVar(&o.generator, "generator", "",
		"the ringnbd whose bench drives every server (default: the one to measure)")
	f.BoolVar(&o.isolate, "isolate", true,
		"as root: use a network namespace with a congestion control that does not pace")
	f.StringVar(&o.json, "json", "", "write all samples to this file")
	f.StringVar(&o.html, "html", "", "write a report with plots to this file")
	f.StringVar(&o.readme, "readme", "",
		"replace the block between the markers of this file by the tables")
	f.StringVar(&o.from, "from", "",
		"do not run: take the samples from this file of an earlier run")
	f.StringVar(&o.stages, "stages", "",
		"do not run: show the stages of a CPU profile that was saved, as from serve --debug")
	f.StringVar(&o.command, "command", "", "the command to name in the report (default: this one)")
	_ = f.Parse(arguments) // ends the program on errors
	f.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	if o.command == "" {
		o.command = strings.Join(append([]string{"go run ./bench/suite"}, arguments...), " ")
	}
	return o
}

// list prints the sections.
func list(w io.Writer) {
	for _, s := range measure.Sections() {
		fmt.Fprintf(w, "%-12s %s\n", s.Name, s.Question)
	}
}

// hurry is what -quick changes unless it was given.
func (o *options) hurry() {
	if !o.given["seconds"] {
		o.seconds = 0.4
	}
	if !o.given["warmup"] {
		o.warmup = 0.1
	}
	if !o.given["rounds"] {
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
			errors.New("-seconds must be at least 0.2, -rounds at least 1, -warmup at least 0")
	}
	if o.readme != "" && o.rounds < 2 {
		return nil, errors.New("-readme needs at least 2 rounds: give -rounds 2 or more")
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
				fmt.Errorf("-%s %s: give a multiple of 4 KiB of at least 4 MiB, such as 2GiB",
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
				"-ringnbd or -generator", err)
	}
	return s, o.addServers(s)
}

// loads are those of the chosen sections.
func loads(o options) ([]measure.Load, error) {
	if o.full {
		if o.sections != "" {
			return nil, errors.New("-full is the whole matrix: give it without -sections")
		}
		return measure.FullSection().Loads, nil
	}
	sections, err := measure.Select(split(o.sections))
	if err != nil {
		return nil, fmt.Errorf("-sections: %w", err)
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

// names are those of everybody who can take part.
func names() []string {
	all := []string{measure.RawName}
	for _, p := range programs("") {
		all = append(all, p.Name)
	}
	return all
}

// addServers finds those who take part.
func (o *options) addServers(s *measure.Suite) error {
	wanted := split(o.servers)
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-servers: %q is none of %s", name, strings.Join(names(), ", "))
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

func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}
