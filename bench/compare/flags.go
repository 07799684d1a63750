// The command line.
//
// Invariant: mistakes in it are reported before anything is built or started.

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"ringnbd/bench/flags"
	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// usualPairs is one more for each order than the ten that an interval with an outlier on either
// side needs. A single ratio among the 36 of a usual run stands by itself only from 12 pairs on:
// chance alone puts all of 12 on the same side 1 time in 2048, but all of 10 1 time in 512, which
// among 36 ratios is not rare.
const usualPairs = 12

// workingTree is what the tree as it is on disk is called, as a revision.
const workingTree = "."

// options are the flags as given, checked.
type options struct {
	base, new           string   // revisions, or workingTree
	baseFlags, newFlags []string // of serve
	loads               []namedLoad
	pairs               int
	seconds, warmup     float64
	dir                 string
	size                int64
	json, markdown      bool
	isolate             bool
	command             string
}

// namedLoad is a load and the name that the user gave it.
type namedLoad struct {
	name string
	load measure.Load
}

// parseFlags reads the command line; --help prints the flags to w.
func parseFlags(arguments []string, w io.Writer) (options, error) {
	var o options
	var baseFlags, newFlags, loads, size string
	f := flags.New("go run ./bench/compare", w)
	f.StringVar(&o.base, "base", "",
		"the `REVISION` to compare with, as git names it; . is the working tree")
	f.StringVar(&o.new, "new", workingTree, "the `REVISION` to compare")
	f.StringVar(&baseFlags, "base-flags", "", "more `FLAGS` of serve for base, separated by spaces")
	f.StringVar(&newFlags, "new-flags", "", "more `FLAGS` of serve for new")
	f.StringVar(&loads, "loads", "", "`LOADS`, separated by commas, as "+
		"BACKEND/PATTERN/SIZE/CONNECTIONSxDEPTH/TRANSPORT (default: "+
		strings.Join(usualLoads, ", ")+")")
	f.IntVar(&o.pairs, "pairs", usualPairs,
		"measure each side and load `N` times; even, 6 or more for intervals")
	f.Float64Var(&o.seconds, "seconds", 1, "`SECONDS` of one measurement")
	f.Float64Var(&o.warmup, "warmup", 0.25, "`SECONDS` of load before each measurement")
	f.StringVar(&o.dir, "dir", os.TempDir(),
		"`DIRECTORY` for the test file: decides which storage is measured")
	f.StringVar(&size, "size", "1GiB", "`SIZE` of the test file")
	f.BoolVar(&o.json, "json", false, "print every sample and every ratio as JSON")
	f.BoolVar(&o.markdown, "markdown", false, "print a Markdown table")
	f.BoolVar(&o.isolate, "isolate", true,
		"as root: use a network namespace with a congestion control that does not pace")
	f.StringVar(&o.command, "command", "",
		"the `COMMAND` to name in the output (default: this command line)")
	if err := flags.Parse(f, arguments); err != nil {
		return o, err
	}
	if o.command == "" {
		o.command = commandLine(f)
	}
	o.baseFlags, o.newFlags = strings.Fields(baseFlags), strings.Fields(newFlags)
	var err error
	if o.loads, err = parseLoads(loads); err != nil {
		return o, fmt.Errorf("--loads: %w", err)
	}
	bytes, err := units.ParseSize(size)
	if err != nil || bytes < 4<<20 || bytes%4096 != 0 {
		return o, fmt.Errorf("--size %s: give a multiple of 4 KiB of at least 4 MiB, such as 1GiB",
			size)
	}
	o.size = int64(bytes)
	return o, o.check()
}

// check sees what the flags say together.
func (o options) check() error {
	switch {
	case o.base == "":
		return errors.New("--base is missing: name the revision to compare with, such as " +
			"--base HEAD")
	case strings.HasPrefix(o.base, "-") || strings.HasPrefix(o.new, "-") || o.new == "":
		return fmt.Errorf("--base %q and --new %q: give revisions, such as HEAD~1, or . for the "+
			"working tree", o.base, o.new)
	case o.pairs < 2 || o.pairs > 500 || o.pairs%2 != 0:
		return fmt.Errorf("--pairs %d: give an even number from 2 to 500, so that each side is "+
			"first equally often", o.pairs)
	case !(o.seconds >= 0.05 && o.seconds <= 3600): // false for NaN, too
		return fmt.Errorf("--seconds %g: give from 0.05 to 3600", o.seconds)
	case !(o.warmup >= 0 && o.warmup <= 3600):
		return fmt.Errorf("--warmup %g: give from 0 to 3600", o.warmup)
	case o.json && o.markdown:
		return errors.New("--json and --markdown: give one of them")
	}
	return nil
}

// commandLine is a call of this program that compares the same: every flag that was given, without
// those about printing and those at their defaults.
func commandLine(f *pflag.FlagSet) string {
	line := "go run ./bench/compare"
	f.Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if f.Name == "json" || f.Name == "markdown" || value == f.DefValue {
			return
		}
		if strings.ContainsAny(value, " \t\n'\"$\\`*?[&|;<>()#{}") {
			value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		}
		line += " --" + f.Name + "=" + value
	})
	return line
}
