// ringnbd info: the command line of ringnbd/cmd/ringnbd/describe.
//
// Invariant: standard output has what was asked for and nothing else, and all of it if the exit
// status is 0.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/activation"
	"ringnbd/cmd/ringnbd/describe"
	"ringnbd/engine/backing"
	"ringnbd/engine/client"
	"ringnbd/proto"
)

func newInfo() *cobra.Command {
	var o describe.Options
	c := &cobra.Command{
		Use:               "info [flags] URI",
		Short:             "Show what a server says about an export, or list its exports",
		ValidArgsFunction: cobra.NoFileCompletions, // URIs are not files
		RunE: func(c *cobra.Command, args []string) error {
			if err := completeInfo(&o, c.Flags(), args); err != nil {
				return err
			}
			if err := reserveRoom(minBlockedThreads); err != nil {
				return asFailure(err)
			}
			return asFailure(adviser(clientAdvice).about(
				infoOf(&o, args[0], c.OutOrStdout())))
		},
	}
	flags := c.Flags()
	flags.SortFlags = false
	flags.BoolVarP(&o.List, "list", "L", false, "show all exports of the server, as a table")
	flags.StringVarP(&o.Map, "map", "m", "",
		"show the map of the export, as `KIND` picture, extents or totals")
	flags.Lookup("map").NoOptDefVal = "picture"
	flags.StringVar(&o.Context, "context", proto.ContextAllocation,
		"with --map: the metadata context `NAME`")
	o.Timeout = client.DefaultTimeout
	flags.Var((*timeFlag)(&o.Timeout), "timeout",
		"give up on a server that is silent for this `TIME`")
	flags.BoolVarP(&o.JSON, "json", "j", false, "print JSON, with the names of nbdinfo")
	// The only error is a flag that does not exist, which a test would see.
	_ = c.RegisterFlagCompletionFunc("map", cobra.FixedCompletions(maps,
		cobra.ShellCompDirectiveNoFileComp))
	return c
}

func completeInfo(o *describe.Options, flags *pflag.FlagSet, args []string) error {
	if i := slices.IndexFunc(args, isMap); len(args) == 2 && i >= 0 && flags.Changed("map") {
		return fmt.Errorf("write --map=%s, with a =", args[i])
	}
	if len(args) != 1 {
		return fmt.Errorf("name one server: nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH")
	}
	if o.Map != "" && !isMap(o.Map) {
		return fmt.Errorf("--map=%s: must be one of %s", o.Map, strings.Join(maps, ", "))
	}
	if o.Timeout < time.Second {
		return fmt.Errorf("--timeout %v: must be at least 1s", o.Timeout)
	}
	if flags.Changed("context") && o.Map == "" {
		return fmt.Errorf("--context needs --map")
	}
	if o.List && o.Map != "" {
		return fmt.Errorf("--list and --map exclude each other: a map is of one export")
	}
	if bracketCommand(args[0]) != nil {
		return nil // the target is known when the command runs
	}
	t, err := parseServer(args[0], " (a file is described by qemu-img info or stat)")
	if err != nil {
		return err
	}
	o.Target = t
	return nil
}

// maps are the kinds of --map.
var maps = []string{"picture", "extents", "totals"}

func isMap(kind string) bool { return slices.Contains(maps, kind) }

// infoOf runs info on the server that a word names, which it starts first if the word is a command.
func infoOf(o *describe.Options, word string, stdout io.Writer) error {
	ctx, stop := interruptible()
	defer stop()
	words := bracketCommand(word)
	if words == nil {
		return info(ctx, o, stdout)
	}
	return withServers([][]string{words}, func(servers []*activation.Server) error {
		o.Target = servers[0].Target
		return info(ctx, o, stdout)
	})
}

func info(ctx context.Context, o *describe.Options, stdout io.Writer) error {
	if width := terminalWidth(stdout); width > 0 {
		o.Width, o.Fancy = width, localeHasUnicode()
	}
	o.Plain = func(w io.Writer) io.Writer { return visibleJSON{w} }
	err := backing.Await(ctx, func() error { return describe.Show(ctx, o, stdout) })
	if errors.Is(err, backing.ErrHangs) { // most likely a full pipe
		err = errors.New("interrupted; the output is not read")
	}
	return err
}
