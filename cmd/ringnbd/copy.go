// ringnbd copy: the command line of ringnbd/cmd/ringnbd/transfer.
//
// Invariant: standard error has the progress, on a terminal or when asked for, a line for each
// refusal that was overridden and each fact that cannot be known, and one line when the exit status
// is not 0; standard output has only the copy itself.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/activation"
	"ringnbd/cmd/ringnbd/transfer"
	"ringnbd/engine/client"
	"ringnbd/engine/units"
)

// The defaults of copy, found by measuring: larger requests only take more of the processor's
// caches. The number of requests in flight, on all connections together, is transfer.DefaultSlots,
// which has its own measurement.
const (
	defaultConnections = 4
	defaultRequestSize = 256 << 10
)

// copyOptions are the values of copy's flags.
type copyOptions struct {
	transfer.Options
	progress bool
	quiet    bool
}

func newCopy() *cobra.Command {
	var o copyOptions
	c := &cobra.Command{
		Use:   "copy [flags] SOURCE DESTINATION",
		Short: "Copy an export, a file or a block device to another",
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return asFailure(adviser(copyAdvice).about(copyAll(&o, c.ErrOrStderr())))
		},
	}
	o.register(c.Flags())
	return c
}

func (o *copyOptions) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	o.RequestSize, o.Timeout = defaultRequestSize, client.DefaultTimeout
	s := sections{flags: flags}
	s.begin("What is written")
	flags.BoolVar(&o.DestinationIsZero, "destination-is-zero", false,
		"the destination reads as zeroes already: write no zeroes")
	flags.BoolVar(&o.Allocated, "allocated", false,
		"write zeroes, too, and leave no holes: allocate all space")
	flags.BoolVar(&o.Verify, "verify", false,
		"read both ends again afterwards, from the disk, and compare them")
	flags.StringVar(&o.Resume, "resume", "",
		"save the progress in this `FILE`, and continue from it")
	flags.Var((*rawFlag)(&o.Raw), "format",
		"`FORMAT` of a source file: raw is the only one; it copies the file whatever it looks like")
	flags.BoolVar(&o.Force, "force", false,
		"continue although other programs or mounts use a file or device")
	s.begin("Tuning")
	flags.IntVarP(&o.Connections, "connections", "c", defaultConnections,
		"number `N` of connections to a server that allows several")
	flags.IntVarP(&o.Requests, "requests", "r", 0,
		fmt.Sprintf("requests `N` in flight on each connection (default %d, shared by the "+
			"connections)", transfer.DefaultSlots))
	flags.Var((*powerFlag)(&o.RequestSize), "request-size",
		"`SIZE` of a request; smaller if a server accepts less")
	flags.Var((*timeFlag)(&o.Timeout), "timeout",
		"give up on a server that is silent for this `TIME`; FLUSH and zeroes may take an hour")
	s.begin("Progress")
	flags.BoolVarP(&o.progress, "progress", "p", false, "show progress, terminal or not")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	s.end()
}

// powerFlag is a size that is a power of two.
type powerFlag uint64

// Bounds of --request-size: a block, and the largest payload that every server accepts.
const (
	minRequestSize = 4 << 10
	maxRequestSize = 32 << 20
)

func (f *powerFlag) Type() string   { return "SIZE" }
func (f *powerFlag) String() string { return units.Exact(uint64(*f)) }
func (f *powerFlag) Set(text string) error {
	n, err := units.ParseSize(text)
	if err == nil && (n&(n-1) != 0 || n < minRequestSize || n > maxRequestSize) {
		err = fmt.Errorf("must be a power of two from 4k to 32M")
	}
	*f = powerFlag(n)
	return err
}

// complete checks the flags together, and parses the places.
func (o *copyOptions) complete(args []string) error {
	var err error
	switch {
	case len(args) != 2:
		return fmt.Errorf("name a source and a destination: paths, nbd://HOST/EXPORT or " +
			"nbd+unix:///EXPORT?socket=PATH")
	case o.Connections < 1 || o.Connections > 64:
		return fmt.Errorf("--connections %d: must be from 1 to 64", o.Connections)
	case o.Requests < 0 || o.Requests > 1024:
		return fmt.Errorf("--requests %d: must be from 1 to 1024", o.Requests)
	case o.Timeout < time.Second:
		return fmt.Errorf("--timeout %v: must be at least 1s", o.Timeout)
	case o.progress && o.quiet:
		return fmt.Errorf("--progress and --quiet exclude each other")
	case o.DestinationIsZero && o.Allocated:
		return fmt.Errorf("--destination-is-zero and --allocated exclude each other: one leaves " +
			"zeroes out, the other writes them")
	}
	if o.Source, err = parsePlace(args[0]); err != nil {
		return err
	}
	if uri := client.Meant(args[0]); uri != "" && o.Source.Target.File() && !fileExists(args[0]) {
		return fmt.Errorf("%s: no such file; a server is named by its URI: %s", args[0], uri)
	}
	if o.Destination, err = parsePlace(args[1]); err != nil {
		return err
	}
	return o.CheckPlaces()
}

// parsePlace is transfer.ParsePlace for words that may also be commands in brackets.
func parsePlace(word string) (transfer.Place, error) {
	if words := bracketCommand(word); words != nil {
		return transfer.Place{Text: activation.Text(words), Command: words}, nil
	}
	return transfer.ParsePlace(word)
}

// copyAll copies, and starts and ends the servers that it needs. The first signal ends the copy in
// order, the second ends the program.
func copyAll(o *copyOptions, stderr io.Writer) (err error) {
	if err := checkAddressSpace(0); err != nil {
		return err
	}
	if o.Blocked, err = reserveThreads(minBlockedThreads, transfer.DefaultSlots, 0); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	var started []*transfer.Place
	var commands [][]string
	for _, p := range []*transfer.Place{&o.Source, &o.Destination} {
		if len(p.Command) > 0 {
			started, commands = append(started, p), append(commands, p.Command)
		}
	}
	return withServers(commands, func(servers []*activation.Server) error {
		for i, s := range servers {
			started[i].Target = s.Target
		}
		o.Opened = func() { // so that no socket is left if the program is ended at once
			for _, s := range servers {
				s.Close()
			}
		}
		return runCopy(ctx, o, stderr)
	})
}

func runCopy(ctx context.Context, o *copyOptions, stderr io.Writer) error {
	var line *transfer.Line
	screen := newBacklog(stderr, progressBacklog) // it may have no reader
	defer screen.close()
	if o.progress || !o.quiet && isTerminal(stderr) {
		line = transfer.NewLine(screen, terminalWidth(stderr))
		o.Show = line.Show
	}
	o.Note = func(text string) { fmt.Fprintln(screen, "ringnbd: "+oneLine(visible(text))) }
	var report transfer.Report
	var err error
	if leftBehind(ctx, o.Timeout, func() { report, err = transfer.Run(ctx, o.Options) }) {
		return fmt.Errorf("interrupted, and the storage has not answered within %v (--timeout);"+
			" the destination is incomplete", o.Timeout)
	}
	if line != nil {
		line.Finish(report, err == nil)
	}
	if errors.Is(err, transfer.ErrUncompared) {
		return fmt.Errorf("interrupted while comparing: the copy is complete and on the disk, " +
			"but only partly compared")
	}
	if errors.Is(err, transfer.ErrInterrupted) {
		what := "interrupted"
		if errors.Is(err, transfer.ErrUnanswered) {
			what = fmt.Sprintf("interrupted; requests in flight were not answered within %v "+
				"(--timeout)", o.Timeout)
		}
		if o.Source.Stream() || o.Destination.Stream() {
			return fmt.Errorf("%s; the destination is incomplete", what)
		}
		if o.Resume != "" {
			return fmt.Errorf("%s; the same command continues from here (--resume %s)", what,
				o.Resume)
		}
		return fmt.Errorf("%s; the destination is incomplete (with --resume FILE a copy can be "+
			"continued)", what)
	}
	return err
}
