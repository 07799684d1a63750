// The entry: this file builds the command tree, runs it, and turns its result into an exit status
// and at most one line on standard error.
//
// Invariant: status 0 is success, 1 a failure at run time, 2 a mistake in the command line; every
// error is one line that begins with "ringnbd: ".

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/version"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	keepFirstThread()
	keepPipes()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	joined, err := joinBrackets(args)
	if err != nil {
		return printUsageError(stderr, err, "ringnbd "+args[0])
	}
	args = joined
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		plainUsage(root)
	}
	if c, _, err := root.Find(args); err == nil {
		if err := checkDashes(c, args); err != nil {
			return printUsageError(stderr, err, c.CommandPath())
		}
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var f failure
	if errors.As(err, &f) {
		writeLastLine(stderr, "ringnbd: "+oneLine(visibleText(f)))
		return exitFailure
	}
	return printUsageError(stderr, err, command.CommandPath())
}

// printUsageError prints a mistake in the command line of a command, and returns the exit status.
func printUsageError(stderr io.Writer, err error, command string) int {
	writeLastLine(stderr,
		fmt.Sprintf("ringnbd: %s (see: %s --help)", oneLine(visibleText(err)), command))
	return exitUsage
}

// failure marks an error of run time; every other error that a command returns is a usage error.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// asFailure marks an error, if there is one, as an error of run time.
func asFailure(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

// oneLine makes one line of a text, whatever it contains; joined errors are separated by
// semicolons.
func oneLine(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "ringnbd",
		Short:         "Serve disks over NBD through io_uring",
		Args:          unknownCommand,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetHelpFunc(printHelp)
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServe(), newConfig(), newCtl(), newPlan(), newInfo(), newCopy(), newBench(),
		newConform(), newVersion())
	cobra.EnableCommandSorting = false
	refineHelp(root)
	refineCompletion(root)
	for _, c := range append(root.Commands(), root) {
		addHelp(c)
		c.Version = version.Text()
		c.InitDefaultHelpFlag()
		c.InitDefaultVersionFlag()
		for name, usage := range map[string]string{"help": "print this help",
			"version": "print the version"} {
			if f := c.Flags().Lookup(name); f != nil {
				f.Usage = usage
			}
		}
		// cobra prints this name before the version, and shows it nowhere else.
		c.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "ringnbd"}
	}
	return root
}

// newVersion makes the command that people try first.
func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "ringnbd version %s\n", version.Text())
			return asFailure(err)
		},
	}
}

// refineHelp makes it an error to ask for the help of a command that does not exist.
func refineHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic(err)
	}
	help.Short = "Print the help of a command"
	help.Run, help.RunE = nil, func(_ *cobra.Command, args []string) error {
		c, rest, err := root.Find(args)
		if err != nil {
			return err
		}
		if len(rest) > 0 {
			return unknownCommand(c, rest)
		}
		c.InitDefaultHelpFlag()
		c.InitDefaultVersionFlag()
		return c.Help()
	}
}

// refineCompletion makes an unknown shell a usage error, and a script that cannot be written an
// error of run time.
func refineCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	completion, _, err := root.Find([]string{"completion"})
	if err != nil {
		panic(err)
	}
	completion.Short = "Print the completion script for a shell"
	completion.Args = cobra.ArbitraryArgs
	completion.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return fmt.Errorf("no completion for %q; there are %s", args[0],
			strings.Join(subcommands(c), ", "))
	}
	for _, shell := range completion.Commands() {
		write := shell.RunE
		shell.RunE = func(c *cobra.Command, args []string) error {
			return asFailure(write(c, args))
		}
	}
}

// plainUsage removes the backquotes around the names of values from the texts of flags: shells show
// these texts as they are.
func plainUsage(root *cobra.Command) {
	for _, c := range append(root.Commands(), root) {
		c.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") })
	}
}
