// ringnbd config: configuration files are checked, shown, described and made.
//
// Invariant: no command changes anything, and none disturbs a server that runs: what --system opens
// is opened for reading, without a lock.

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine/backing"
	"ringnbd/engine/gate"
	"ringnbd/engine/units"
)

// usualConfig is the file of commands that name none.
const usualConfig = "/etc/ringnbd/ringnbd.toml"

func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check, show and make configuration files",
		Args:  unknownCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{newConfigCheck(), newConfigShow(), newConfigSchema(),
		newConfigConvert(), newConfigExample()} {
		sub.Long = sub.Long + "\n\nSee ringnbd config --help for examples."
		sub.ValidArgsFunction = configFiles
		c.AddCommand(sub)
	}
	return c
}

// configFiles completes the path of a configuration.
func configFiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"toml"}, cobra.ShellCompDirectiveFilterFileExt
}

// oneFile is the file that a command names, or the usual one.
func oneFile(args []string) (string, error) {
	switch len(args) {
	case 0:
		return usualConfig, nil
	case 1:
		return args[0], nil
	}
	return "", errors.New("one FILE at a time; a file names others by include")
}

func newConfigCheck() *cobra.Command {
	var system bool
	c := &cobra.Command{
		Use:   "check [flags] [FILE]",
		Short: "Show every mistake in a configuration",
		Long: "Show every mistake in FILE, or in " + usualConfig + ", and in all files that it " +
			"includes, each as FILE:LINE:COLUMN: what is wrong; what to do.",
		RunE: func(c *cobra.Command, args []string) error {
			path, err := oneFile(args)
			if err != nil {
				return err
			}
			return asFailure(checkConfig(c.OutOrStdout(), path, system))
		},
	}
	c.Flags().BoolVar(&system, "system", false,
		"look at this machine, too: open everything for reading, and a ring")
	return c
}

// checkConfig prints all mistakes of a configuration.
func checkConfig(w io.Writer, path string, system bool) error {
	awaitPath(path)
	file, mistakes := config.Load(path)
	if len(mistakes) == 0 && system {
		mistakes = lacking(file)
	}
	var b strings.Builder
	for _, m := range mistakes {
		b.WriteString(oneLine(visible(m.Error())) + "\n")
	}
	for _, n := range file.Notes {
		b.WriteString(oneLine(visible("note: "+n.Error())) + "\n")
	}
	if len(mistakes) == 0 {
		fmt.Fprintf(&b, "%s: good: %s in %s\n", visible(path),
			units.Plural(len(file.Exports), "export"), units.Plural(len(file.Files), "file"))
	}
	_, err := io.WriteString(w, b.String())
	if len(mistakes) > 0 {
		err = errors.Join(err, fmt.Errorf("%s: %s", path, units.Plural(len(mistakes), "mistake")))
	}
	return err
}

func newConfigShow() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show [flags] [FILE]",
		Short: "Show what is in force, and which line says it",
		Long: "Show every value that is in force with FILE, or with " + usualConfig + ", and the " +
			"file and line that it comes from, or that it is a default.",
		RunE: func(c *cobra.Command, args []string) error {
			path, err := oneFile(args)
			if err != nil {
				return err
			}
			return asFailure(showConfig(c.OutOrStdout(), path, asJSON))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a list of values, for programs")
	return c
}

// showConfig prints what is in force.
func showConfig(w io.Writer, path string, asJSON bool) error {
	file, err := loadConfig(path)
	if err != nil {
		return visibleError{err}
	}
	a := readAllowance()
	o := options{allowance: a, loops: a.loops(), connections: a.connections()}
	if _, err := o.configure(file); err != nil {
		return visibleError{err}
	}
	file.Fill(config.Defaults{Loops: o.loops, MaxConnections: o.connections, Memory: o.memory,
		Listen: gate.DefaultListen})
	text, rows, err := file.Show()
	if err != nil {
		return visibleError{err}
	}
	if asJSON {
		return printJSON(w, map[string]any{"files": file.Files, "values": rows})
	}
	_, err = io.WriteString(w, text)
	return err
}

// printJSON prints a value as JSON for programs and people.
func printJSON(w io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

func newConfigSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of a configuration",
		Long: "Print the JSON schema (draft 2020-12) of a configuration file, for editors and " +
			"other programs.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return asFailure(printJSON(c.OutOrStdout(), config.Schema()))
		},
	}
}

func newConfigExample() *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a configuration with every key",
		Long:  "Print a configuration in which every key stands, with what it is for.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := io.WriteString(c.OutOrStdout(), config.Example())
			return asFailure(err)
		},
	}
}

func newConfigConvert() *cobra.Command {
	c := &cobra.Command{
		Use:   "convert -- [serve] [FLAGS] [PORT] PATH...",
		Short: "Print the configuration of a command line",
		Long: "Print the configuration that says what a command line of serve says. Paths become " +
			"whole, because a path in a file is relative to the file.",
		RunE: func(c *cobra.Command, args []string) error {
			text, err := convertLine(args)
			if err != nil {
				return visibleError{adviser(serveAdvice).about(err)}
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return asFailure(err)
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w; write -- before the flags of serve: ringnbd config convert -- "+
			"--read-only disk.img", err)
	})
	return c
}

// convertLine is the text of the configuration of a command line.
func convertLine(args []string) (string, error) {
	file, _, _, err := configOf(args)
	if err != nil {
		return "", err
	}
	return file.Text()
}

// configOf is the configuration of a command line, with what serve makes of the line itself.
func configOf(args []string) (*config.Config, *options, []backing.Spec, error) {
	if len(args) > 1 && args[0] == "ringnbd" && args[1] == "serve" {
		args = args[1:]
	}
	if len(args) > 1 && args[0] == "serve" {
		args = args[1:]
	}
	o := new(options)
	serve := &cobra.Command{Use: "serve"}
	o.register(serve.Flags())
	if err := serve.Flags().Parse(args); err != nil {
		return nil, nil, nil, flagError(serve, err)
	}
	if serve.Flags().Changed("config") {
		return nil, nil, nil, errors.New("--config names a configuration already; ringnbd config " +
			"show shows it")
	}
	specs, err := o.arguments(serve.Flags().Args())
	if err != nil {
		return nil, nil, nil, err
	}
	file, err := o.configuration(serve.Flags(), slices.Clone(specs))
	return file, o, specs, err
}
