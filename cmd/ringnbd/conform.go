// ringnbd conform: the command line of the conformance suite, which is in cmd/ringnbd/conform.
//
// Invariant: results go to standard output or to the named file; standard error has the progress
// line, on a terminal only, and one line when the exit status is not 0.

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/conform"
	"ringnbd/cmd/ringnbd/version"
	"ringnbd/engine/backing"
	"ringnbd/engine/progress"
	"ringnbd/engine/units"
)

// conformOptions are the values of conform's flags.
type conformOptions struct {
	conform.Config
	only    []string
	list    bool
	json    bool
	junit   string
	verbose bool
}

func newConform() *cobra.Command {
	var o conformOptions
	c := &cobra.Command{
		Use:               "conform [flags] URI | conform [flags] --spawn 'COMMAND'",
		Short:             "Check that an NBD server follows the protocol",
		ValidArgsFunction: cobra.NoFileCompletions, // URIs are not files
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.complete(c.Flags(), args); err != nil {
				return err
			}
			if o.list {
				return asFailure(conform.List(c.OutOrStdout(), o.Checks, o.verbose,
					conform.Screen{Width: terminalWidth(c.OutOrStdout())}))
			}
			return asFailure(runConform(&o, c.OutOrStdout(), c.ErrOrStderr()))
		},
	}
	o.register(c.Flags())
	// The only error is a flag that does not exist, which a test would see.
	_ = c.RegisterFlagCompletionFunc("only", offerChecks)
	return c
}

func (o *conformOptions) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	o.Size, o.Timeout = conform.DefaultSize, conform.DefaultTimeout
	s := sections{flags: flags}
	s.begin("Which server")
	flags.StringVar(&o.Spawn, "spawn", "",
		"start this `COMMAND` of the shell, with {port} or {socket}, {img} and {dir}, and check "+
			"it; start it again whenever it dies")
	flags.StringVar(&o.SpawnReadOnly, "spawn-read-only", "",
		"also start this `COMMAND`, for the checks of a read-only export")
	flags.StringVar(&o.Export, "export", "",
		"with --spawn, the export's `NAME` (default: the default export)")
	flags.Var((*imageFlag)(&o.Size), "size", "`SIZE` of the scratch image, {img}, 32 MiB or more")
	flags.BoolVar(&o.Writable, "writable", false,
		"OVERWRITE the export at URI, for the checks that write")
	s.begin("Which checks")
	flags.StringSliceVar(&o.only, "only", nil,
		"run only the checks that `PATTERN` selects: H-03, H, 'RQ-*'; repeatable, or with commas")
	flags.Var((*timeFlag)(&o.Timeout), "timeout", "limit each check to this `TIME`")
	s.begin("Results")
	flags.BoolVar(&o.list, "list", false, "print the checks, and run none of them")
	flags.BoolVar(&o.json, "json", false, "print the results as JSON")
	flags.StringVar(&o.junit, "junit", "",
		"write the results as JUnit XML to `FILE`; - is standard output, and replaces the table")
	flags.BoolVarP(&o.verbose, "verbose", "v", false,
		"also print the reasons of skips and of rules")
	s.end()
}

// imageFlag is a size with room for the suite's data.
type imageFlag int64

func (f *imageFlag) Type() string   { return "SIZE" }
func (f *imageFlag) String() string { return units.Exact(uint64(*f)) }
func (f *imageFlag) Set(text string) error {
	var n sizeFlag
	if err := n.Set(text); err != nil {
		return err
	}
	if n < 32<<20 || n > 1<<50 || n%4096 != 0 {
		return fmt.Errorf("must be a multiple of 4096, from 32 MiB to 1 PiB")
	}
	*f = imageFlag(n)
	return nil
}

// complete checks flags and arguments together.
func (o *conformOptions) complete(flags *pflag.FlagSet, args []string) error {
	if err := o.completeOnly(flags); err != nil {
		return err
	}
	var idle string
	if o.Checks, idle = conform.Only(conform.Checks(), o.only); idle != "" {
		return fmt.Errorf("--only %s selects no check; ringnbd conform --list shows them", idle)
	}
	switch {
	case o.json && o.junit == "-":
		return fmt.Errorf("--json and --junit - both want standard output")
	case o.Timeout <= 0:
		return fmt.Errorf("--timeout %v: must be more than 0", o.Timeout)
	case o.list && (o.json || o.junit != ""):
		return fmt.Errorf("--list prints the checks, and has no results for %s; leave out one of "+
			"the two", map[bool]string{true: "--json", false: "--junit"}[o.json])
	case o.list && len(args) == 0:
		return nil
	case o.Spawn == "" && len(args) != 1:
		return fmt.Errorf("name one server: nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH, " +
			"or --spawn 'COMMAND'")
	case o.Spawn != "" && len(args) > 0:
		return fmt.Errorf("--spawn starts the server itself; leave out %s", args[0])
	case o.Spawn != "":
		return o.completeSpawn()
	case flags.Changed("export"):
		return fmt.Errorf("--export is only for --spawn; write the name into the URI")
	case flags.Changed("size"):
		return fmt.Errorf("--size is only for the image of --spawn")
	}
	target, err := parseServer(args[0], "")
	if err != nil {
		return err
	}
	o.Target = target
	return o.checkReadOnly()
}

// offerChecks offers the checks to the shell, each with its title.
func offerChecks(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var all []cobra.Completion
	for _, check := range conform.Checks() {
		all = append(all, cobra.CompletionWithDesc(check.ID, check.Title))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeOnly trims the patterns. An empty pattern, as of an unset variable of the shell, must not
// mean all checks, some of which write.
func (o *conformOptions) completeOnly(flags *pflag.FlagSet) error {
	if flags.Changed("only") && len(o.only) == 0 {
		return fmt.Errorf("--only has no pattern; leave out --only for all checks")
	}
	for i, pattern := range o.only {
		if o.only[i] = strings.TrimSpace(pattern); o.only[i] == "" {
			return fmt.Errorf("--only has an empty pattern; leave it out, or --only itself for " +
				"all checks")
		}
	}
	return nil
}

func (o *conformOptions) completeSpawn() error {
	if err := conform.CheckSpawn(o.Spawn); err != nil {
		return fmt.Errorf("--spawn: %w", err)
	}
	if o.Writable {
		return fmt.Errorf("--writable is only for a URI; with --spawn the image is the suite's own")
	}
	return o.checkReadOnly()
}

func (o *conformOptions) checkReadOnly() error {
	if o.SpawnReadOnly == "" {
		return nil
	}
	if err := conform.CheckSpawn(o.SpawnReadOnly); err != nil {
		return fmt.Errorf("--spawn-read-only: %w", err)
	}
	return nil
}

// conformEvery is the shortest time between two updates of the progress line.
const conformEvery = 50 * time.Millisecond

// runConform runs the checks and prints the report. The first signal ends the questions before the
// first check, or the run after the current check, and the servers with it; the second ends the
// program.
func runConform(o *conformOptions, stdout, stderr io.Writer) error {
	if err := reserveRoom(minBlockedThreads); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	var file *os.File
	if o.junit != "" && o.junit != "-" { // fail now rather than after minutes of work
		create := func() (err error) {
			backing.Reach(o.junit)
			if err := backing.MayMakeNew(o.junit); err != nil {
				return fmt.Errorf("--junit %w", err)
			}
			if file, err = os.Create(o.junit); err != nil {
				return fmt.Errorf("--junit: %w", err)
			}
			return nil
		}
		err := backing.Await(ctx, create) // a FIFO waits for a reader
		if errors.Is(err, backing.ErrHangs) {
			return fmt.Errorf("--junit %s: %w", o.junit, err)
		}
		if err != nil {
			return err
		}
		defer file.Close()
	}
	screen := newBacklog(stderr, progressBacklog)
	line := new(progress.Line)
	if isTerminal(stderr) {
		line = progress.New(screen, terminalWidth(stderr))
	}
	var last time.Time
	o.Progress = func(done, all int, r conform.Result) {
		if time.Since(last) > conformEvery {
			last = time.Now()
			line.Show(fmt.Sprintf("%d/%d %s %s", done, all, r.ID, r.Verdict),
				float64(done)/float64(all))
		}
	}
	o.Version = version.Text()
	report, err := conform.Run(ctx, o.Config)
	line.Clear()
	screen.close()
	if report == nil {
		return err
	}
	stop() // from here on a signal ends the program: the reader of the results may have stopped
	if printErr := o.print(report, stdout, file); err == nil {
		err = printErr
	}
	if err == nil {
		err = report.Err()
	}
	return err
}

// print prints the report, and writes it as JUnit XML to file unless file is nil.
func (o *conformOptions) print(report *conform.Report, stdout io.Writer,
	file *os.File) (err error) {
	switch {
	case o.junit == "-":
		err = report.JUnit(stdout)
	case o.json:
		err = report.JSON(visibleJSON{stdout}) // it contains texts of the server
	default:
		err = report.Table(stdout, o.verbose, conform.Screen{Colour: isTerminal(stdout),
			Width: terminalWidth(stdout)})
	}
	if err != nil {
		return fmt.Errorf("the results could not be written to standard output: %w", err)
	}
	if file == nil {
		return nil
	}
	if err := errors.Join(report.JUnit(file), file.Close()); err != nil {
		return fmt.Errorf("--junit: %w", err)
	}
	return nil
}
