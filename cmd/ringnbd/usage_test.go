// Every help text of every command: its width, its flags, and what shells are told of them.

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// walk calls for the program and each of its commands.
func walk(c *cobra.Command, each func(*cobra.Command)) {
	each(c)
	for _, sub := range c.Commands() {
		walk(sub, each)
	}
}

func TestHelpFits(t *testing.T) {
	commands := 0
	walk(newRoot(), func(c *cobra.Command) {
		commands++
		all := helpText(c, helpWidth)
		for line := range strings.SplitSeq(all, "\n") {
			if n := text.StringWidth(line); n > helpWidth {
				t.Errorf("%s: %d columns: %s", c.CommandPath(), n, line)
			}
			if line != strings.TrimRight(line, " \t") {
				t.Errorf("%s: spaces at the end of %q", c.CommandPath(), line)
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(all, "--"+f.Name) {
				t.Errorf("%s: the help lacks --%s", c.CommandPath(), f.Name)
			}
		})
	})
	if commands < 12 {
		t.Errorf("only %d commands were found", commands)
	}
}

// TestFlagsStandInGroups: of the commands with many flags, each flag is in a group, and only help
// and version are left over.
func TestFlagsStandInGroups(t *testing.T) {
	for _, name := range []string{"serve", "bench", "copy", "conform"} {
		c, _, err := newRoot().Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if grouped := f.Annotations[groupKey] != nil; grouped == (f.Name == "help" ||
				f.Name == "version") {
				t.Errorf("%s --%s: in a group is %t", name, f.Name, grouped)
			}
		})
		all := helpText(c, helpWidth)
		usage, examples, flags := strings.Index(all, "\nUsage:\n"), strings.Index(all,
			"\nExamples:\n"), strings.Index(all, "\nOther:\n")
		if usage < 0 || examples < usage || flags < examples {
			t.Errorf("%s: usage at %d, examples at %d, flags at %d", name, usage, examples, flags)
		}
	}
}

// TestCompletionsArePlain: shells show the text of a flag as it is, without the marks of its value.
func TestCompletionsArePlain(t *testing.T) {
	for _, name := range []string{"serve", "bench", "copy", "conform", "info"} {
		var out, errs bytes.Buffer
		if status := run([]string{"__complete", name, "--"}, &out, &errs); status != 0 {
			t.Errorf("%s: status %d: %s", name, status, errs.Bytes())
		}
		if strings.Contains(out.String(), "`") || strings.Count(out.String(), "\n") < 6 {
			t.Errorf("%s: %s", name, out.Bytes())
		}
	}
}
