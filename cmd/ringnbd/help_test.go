// Every help text of every command: its width, its flags, and what shells are told of them.

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
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
			if n := text.StringWidth(line); n > helpWidth || strings.Contains(line, "[=true") {
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

// TestFlagsStandInGroups checks the commands with many flags: each flag is in a group, and only
// help and version are left over.
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

// TestCompletionsArePlain checks that shells see the text of a flag without the marks of its value.
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

var rewrite = flag.Bool("rewrite", false, "fill the paragraphs of the help texts anew")

// TestHelpTexts checks that there is a text for each command and for nothing else, filled as the
// command prints it at 80 columns.
func TestHelpTexts(t *testing.T) {
	texts, err := filepath.Glob("help/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot()
	commands := append(root.Commands(), root)
	if len(texts) != len(commands) {
		t.Errorf("%d commands have %d texts: %q", len(commands), len(texts), texts)
	}
	for _, c := range commands {
		file := "help/" + c.Name() + ".txt"
		all, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		long, examples := splitHelp(string(all))
		summary, notes, _ := strings.Cut(strings.TrimSpace(long), "\n\n")
		want := wrapped(summary, helpWidth) + "\n"
		if examples != "" {
			want += "\n" + examplesTitle + examples + "\n"
		}
		if notes != "" {
			want += "\n" + wrapped(notes, helpWidth) + "\n"
		}
		if string(all) == want {
			continue
		}
		if !*rewrite {
			t.Errorf("%s is not filled to %d columns; see -rewrite", file, helpWidth)
		} else if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHelpTextsEndWithTheStatus checks the texts of commands that do work.
func TestHelpTextsEndWithTheStatus(t *testing.T) {
	for _, c := range newRoot().Commands() {
		paragraphs := strings.Split(strings.TrimSpace(c.Long), "\n\n")
		last := paragraphs[len(paragraphs)-1]
		says := strings.HasPrefix(last, "Exit status: 0 ") && strings.Contains(last, ", 1 ") &&
			strings.Contains(strings.Join(strings.Fields(last), " "),
				", 2 for a wrong command line.")
		if works := c.Example != ""; says != works {
			t.Errorf("%s: the last paragraph is %q", c.Name(), last)
		}
	}
}

// othersFlags are in the help texts and belong to other programs.
var othersFlags = map[string]bool{"bench --name": true, "bench --filename": true,
	"bench --rw": true, "ctl --unix-socket": true, "ctl --export": true,
	"bench --write_iolog": true, "conform --socket": true,
	"serve --sector-size": true, "serve --find": true, "serve --show": true}

// hasFlag reports whether a command, or a command below it, has a flag; config converts the flags
// of serve.
func hasFlag(c *cobra.Command, name string) bool {
	found := false
	walk(c, func(c *cobra.Command) { found = found || c.Flags().Lookup(name) != nil })
	if c.Name() == "config" {
		found = found || hasFlag(newServe(), name)
	}
	return found
}

// TestFlagsInHelpTextsExist checks that the flags in a text are flags of its command.
func TestFlagsInHelpTextsExist(t *testing.T) {
	long := regexp.MustCompile(`--[a-z][a-z0-9_-]*`)
	short := regexp.MustCompile(`[ (]-([a-z])[ ,.;)]`)
	for _, c := range newRoot().Commands() {
		c.InitDefaultHelpFlag()
		for _, flag := range long.FindAllString(c.Long+c.Example, -1) {
			if !hasFlag(c, flag[2:]) && !othersFlags[c.Name()+" "+flag] {
				t.Errorf("%s has no %s", c.Name(), flag)
			}
		}
		for _, flag := range short.FindAllStringSubmatch(c.Long, -1) {
			if c.Flags().ShorthandLookup(flag[1]) == nil {
				t.Errorf("%s has no -%s", c.Name(), flag[1])
			}
		}
	}
}
