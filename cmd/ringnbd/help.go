// The help texts of the commands: text files, one for each command.
//
// Invariant: help/NAME.txt is what the command NAME prints at 80 columns, up to its flags: a
// summary, then examples, then paragraphs, of which the last is about the exit status. Every
// example works as it stands, given the file, device or server that it names.

package main

import (
	"embed"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed help/*.txt
var helpFiles embed.FS

// examplesTitle opens the examples of a help text.
const examplesTitle = "Examples:\n"

// addHelp gives a command its text. A command without a text is a mistake that every start shows.
func addHelp(c *cobra.Command) {
	all, err := helpFiles.ReadFile("help/" + c.Name() + ".txt")
	if err != nil {
		panic(err)
	}
	c.Long, c.Example = splitHelp(string(all))
}

// splitHelp takes a text apart: the summary and the paragraphs after the examples, and the
// examples.
func splitHelp(all string) (long, examples string) {
	summary, rest, _ := strings.Cut(all, "\n\n")
	after, found := strings.CutPrefix(rest, examplesTitle)
	if !found {
		return all, ""
	}
	for line := range strings.Lines(after) {
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, " ") {
			break
		}
		examples += line
	}
	return summary + "\n\n" + after[len(examples):], strings.TrimRight(examples, "\n")
}
