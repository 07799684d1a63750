// Command ringnbd serves files and block devices over NBD (Network Block Device) through io_uring.
//
// This file is the entry: it builds the command tree, runs it, and turns its result into an exit status and at most one line on stderr.
// Invariant: 0 is success, 1 a failure at run time, 2 a mistake in the command line; every error is one line that begins with "ringnbd: ".
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// version is stamped by the linker (see the Makefile); a plain go build leaves it to the build information.
var version string

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
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var f failure
	if errors.As(err, &f) {
		sayLast(stderr, "ringnbd: "+oneLine(visibleText(f)))
		return exitFailure
	}
	sayLast(stderr, fmt.Sprintf("ringnbd: %s (see: %s --help)", oneLine(visibleText(err)), command.CommandPath()))
	return exitUsage
}

// failure marks an error of run time; every other error that a command returns is one of usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// wrapFailure is an error of run time, if it is one.
func wrapFailure(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

// oneLine keeps the promise of one line whatever an error holds; several joined errors become one sentence each.
func oneLine(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:               "ringnbd",
		Short:             "Serve disks over NBD through io_uring",
		Long:              rootHelp,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Version:           versionText(),
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("ringnbd {{.Version}}\n")
	root.AddCommand(newServe(), newBench(), newInfo(), newCopy(), newConform())
	return root
}

// versionText is the version, the compiler and the platform: what a bug report needs.
func versionText() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); v == "" && ok {
		v = info.Main.Version
	}
	if v == "" {
		v = "(devel)"
	}
	return fmt.Sprintf("%s (%s, %s/%s)", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// isTerminal says whether somebody may be looking.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
