// Package flags reads the command lines of the programs beside ringnbd, in the style of
// ringnbd's own: flags of several letters begin with two dashes.
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
		fmt.Fprintf(w, "usage: %s [flags]\n\n%s", usage, f.FlagUsagesWrapped(usageColumns))
	}
	return f
}

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
