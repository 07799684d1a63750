// The layout of help: what the command does, its usage, examples, notes, and its flags in groups.
//
// Invariant: no line is wider than 80 columns, or than the terminal if that is narrower; only
// examples are printed as they are, because people copy them.

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/bench/flags"
)

const (
	helpWidth  = 80
	helpNarrow = 40 // a narrower terminal has no room for flags and their texts side by side
)

// sections puts flags into groups: a flag belongs to the title that was begun last before the flag
// was registered.
type sections struct {
	flags *pflag.FlagSet
	title string
}

// groupKey is the annotation of a flag that holds the title of its group.
const groupKey = "ringnbd group"

func (s *sections) begin(title string) {
	s.end()
	s.title = title
}

// end puts the flags that were registered since begin into the group.
func (s *sections) end() {
	s.flags.VisitAll(func(f *pflag.Flag) {
		if f.Annotations[groupKey] == nil && s.title != "" {
			f.Annotations = map[string][]string{groupKey: {s.title}}
		}
	})
}

// printHelp prints the help of a command.
func printHelp(c *cobra.Command, _ []string) {
	w := c.OutOrStdout()
	width := helpWidth
	if t := terminalWidth(w); t > 1 {
		width = max(min(t, helpWidth), helpNarrow)
	}
	_, _ = io.WriteString(w, helpText(c, width)) // a reader that has closed the pipe wants no more
}

func helpText(c *cobra.Command, width int) string {
	var b strings.Builder
	summary, notes, _ := strings.Cut(strings.TrimSpace(c.Long), "\n\n")
	fmt.Fprintf(&b, "%s\n\nUsage:\n  %s\n", wrapped(summary, width), usageLine(c))
	if c.Example != "" {
		fmt.Fprintf(&b, "\n%s%s\n", examplesTitle, c.Example)
	}
	if notes != "" {
		fmt.Fprintf(&b, "\n%s\n", wrapped(notes, width))
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n" + commandList(c, width))
	}
	b.WriteString(flagList(c.Flags(), width))
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s COMMAND --help tells more about a command.\n", c.CommandPath())
	}
	return b.String()
}

// usageLine shows how the command is called.
func usageLine(c *cobra.Command) string {
	switch {
	case c.HasParent():
		return c.Parent().CommandPath() + " " + c.Use
	case c.HasAvailableSubCommands():
		return c.Use + " COMMAND [flags] ..."
	}
	return c.Use
}

// wrapped breaks paragraphs into lines; lines that are indented stay as they are.
func wrapped(all string, width int) string {
	var paragraphs []string
	for paragraph := range strings.SplitSeq(strings.TrimSpace(all), "\n\n") {
		if strings.HasPrefix(paragraph, " ") {
			paragraphs = append(paragraphs, paragraph)
			continue
		}
		words := strings.Join(strings.Fields(paragraph), " ")
		paragraphs = append(paragraphs, trimmed(text.WrapSoft(words, width)))
	}
	return strings.Join(paragraphs, "\n\n")
}

// trimmed removes the spaces at the ends of lines.
func trimmed(all string) string {
	lines := strings.Split(all, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func commandList(c *cobra.Command, width int) string {
	const column = 14
	var b strings.Builder
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() && sub.Name() != "help" {
			continue
		}
		lines := strings.Split(wrapped(sub.Short, width-column), "\n")
		short := strings.Join(lines, "\n"+strings.Repeat(" ", column))
		fmt.Fprintf(&b, "  %-*s%s\n", column-2, sub.Name(), short)
	}
	return b.String()
}

// flagList returns all flags under the titles of their groups, in the order of their registration;
// flags without a group come last.
func flagList(f *pflag.FlagSet, width int) string {
	chunks := flagChunks(flags.Usages(f, width))
	var titles []string
	groups := map[string][]string{}
	f.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || len(chunks) == 0 {
			return
		}
		title := "Other"
		if a := f.Annotations[groupKey]; a != nil {
			title = a[0]
		}
		if groups[title] == nil && title != "Other" {
			titles = append(titles, title)
		}
		groups[title] = append(groups[title], chunks[0])
		chunks = chunks[1:]
	})
	var b strings.Builder
	for _, title := range append(titles, "Other") {
		if len(titles) == 0 {
			title = "Other"
			b.WriteString("\nFlags:\n")
		} else {
			fmt.Fprintf(&b, "\n%s:\n", title)
		}
		b.WriteString(strings.Join(groups[title], ""))
	}
	return b.String()
}

// flagChunks splits the usage of flags, a chunk for each flag; continuation lines are indented
// further.
func flagChunks(usages string) []string {
	var chunks []string
	for line := range strings.Lines(usages) {
		if strings.HasPrefix(line, "  -") || strings.HasPrefix(line, "      --") ||
			len(chunks) == 0 {
			chunks = append(chunks, "")
		}
		chunks[len(chunks)-1] += strings.TrimRight(line, " \n") + "\n"
	}
	return chunks
}
