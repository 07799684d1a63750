// Package flags reads the command lines of the programs beside ringnbd, in the style of
// ringnbd's own: flags of several letters begin with two dashes. It also prints the flags of
// ringnbd, so that they look alike everywhere.
package flags

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// usageColumns is the width of the help text.
const usageColumns = 100

// ErrHelp says that the help text was asked for and printed.
var ErrHelp = pflag.ErrHelp

// New makes an empty set of flags of a program; usage is its line in the help text.
func New(usage string, w io.Writer) *pflag.FlagSet {
	f := pflag.NewFlagSet(usage, pflag.ContinueOnError)
	f.SetOutput(w)
	f.SortFlags = false
	f.Usage = func() {
		fmt.Fprintf(w, "usage: %s [flags]\n\n%s", usage, Usages(f, usageColumns))
	}
	return f
}

// Usages returns the flags and their texts, as pflag prints them, but without "[=true|false]" at
// each flag that needs no value.
func Usages(f *pflag.FlagSet, columns int) string {
	plain := pflag.NewFlagSet("", pflag.ContinueOnError)
	plain.SortFlags = false
	f.VisitAll(func(flag *pflag.Flag) {
		shown := *flag
		if shown.Value.Type() == "bool" {
			shown.Value = switchValue{shown.Value}
		}
		plain.AddFlag(&shown)
	})
	return plain.FlagUsagesWrapped(columns)
}

// switchValue is a value of true or false that is printed without a name.
type switchValue struct{ pflag.Value }

func (switchValue) Type() string { return "boolfunc" } // one that pflag knows

// Parse reads the arguments, which are flags only. A known flag with one dash is refused with its
// right spelling.
func Parse(f *pflag.FlagSet, arguments []string) error {
	for _, a := range arguments {
		name, _, _ := strings.Cut(strings.TrimPrefix(a, "-"), "=")
		if len(name) > 1 && a[0] == '-' && name[0] != '-' && f.Lookup(name) != nil {
			return fmt.Errorf("%s: write --%s: flags of several letters begin with two dashes", a,
				name)
		}
	}
	if err := f.Parse(arguments); err != nil {
		if errors.Is(err, ErrHelp) {
			return ErrHelp
		}
		return fmt.Errorf("%w (--help lists the flags)", err)
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is not a flag (--help lists the flags)", f.Arg(0))
	}
	return nil
}
