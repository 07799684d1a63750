// ringnbd ctl: a running server is looked at and changed through its control socket.
//
// Invariant: the command decides nothing: the server says what may be done, and does it. A flag
// that means nothing to the verb is refused.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine/backing"
	"ringnbd/engine/units"
)

// ctl is one call of the command.
type ctl struct {
	socket  controlFlag
	json    bool
	watch   time.Duration
	force   bool
	replace bool
	dry     bool
	save    bool
	create  uint64

	client *control.Client
	out    io.Writer
}

// verb is what the command can do.
type verb struct {
	name  string
	args  string   // as usage shows them
	count []int    // how many there may be
	flags []string // that mean something to it
	do    func(*ctl, context.Context, []string) error
}

// verbs are all of them, in the order of the help.
var verbs = []verb{
	{"status", "", []int{0}, []string{"watch"}, (*ctl).status},
	{"exports", "", []int{0}, []string{"watch"}, (*ctl).exports},
	{"connections", "", []int{0}, []string{"watch"}, (*ctl).connections},
	{"events", "", []int{0}, nil, (*ctl).events},
	{"add", "NAME=PATH[,ro][,format=raw][,description=TEXT]", []int{1},
		[]string{"create", "force", "replace", "save"}, (*ctl).add},
	{"remove", "NAME", []int{1}, []string{"force", "save"}, (*ctl).remove},
	{"read-only", "NAME on|off", []int{2}, []string{"replace", "save"}, (*ctl).readOnly},
	{"resize", "NAME [SIZE]", []int{1, 2}, []string{"force"}, (*ctl).resize},
	{"flush", "NAME", []int{1}, nil, (*ctl).flush},
	{"kick", "ID", []int{1}, nil, (*ctl).kick},
	{"overlay", "commit|drop NAME", []int{2}, nil, (*ctl).overlay},
	{"config", "", []int{0}, nil, (*ctl).config},
	{"diff", "", []int{0}, nil, (*ctl).diff},
	{"reload", "", []int{0}, []string{"dry-run"}, (*ctl).reload},
}

func newCtl() *cobra.Command {
	x := &ctl{socket: defaultControl()}
	var names []string
	for i := range verbs {
		names = append(names, verbs[i].name)
	}
	c := &cobra.Command{
		Use:       "ctl [flags] VERB [ARGUMENT...]",
		Short:     "Look at a running server, and change it",
		ValidArgs: names,
		RunE: func(c *cobra.Command, args []string) error {
			v, err := findVerb(c.Flags(), args)
			if err != nil {
				return visibleError{err}
			}
			ctx, stop := interruptible()
			defer stop()
			path, _ := strings.CutPrefix(string(x.socket), "unix:")
			x.client, x.out = control.NewClient(path), c.OutOrStdout()
			defer x.client.Close()
			if x.watch == 0 && v.name != "events" {
				quiet := time.AfterFunc(startQuiet, func() {
					writeLastLine(c.ErrOrStderr(), "ringnbd: waiting for the server's answer")
				})
				defer quiet.Stop()
			}
			err = x.repeat(ctx, func() error { return v.do(x, ctx, args[1:]) })
			var usage usageError
			switch {
			case errors.As(err, &usage):
				return visibleError{err}
			case err != nil && ctx.Err() != nil:
				return failure{errors.New("interrupted")}
			case err != nil:
				return failure{visibleError{adviser(ctlAdvice).about(err)}}
			}
			return nil
		},
	}
	x.register(c.Flags())
	return c
}

// register registers the flags.
func (x *ctl) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.Var(&x.socket, "control", "the server's control socket, `unix:PATH`")
	flags.BoolVar(&x.json, "json", false, "print what the server answers, as JSON")
	flags.Var((*timeFlag)(&x.watch), "watch", "print again every `TIME`, without one every second")
	flags.Lookup("watch").NoOptDefVal = "1s"
	flags.BoolVar(&x.force, "force", false,
		"add: serve what other programs use; remove: cut connections; resize: shrink all the same")
	flags.BoolVar(&x.replace, "replace", false,
		"add, read-only: open the export again, which ends its connections")
	flags.Var((*sizeFlag)(&x.create), "create", "add: create a missing image, sparse, of `SIZE`")
	flags.BoolVar(&x.dry, "dry-run", false, "reload: only show what would change")
	flags.BoolVar(&x.save, "save", false,
		"add, remove, read-only: keep the change in a file that the configuration includes")
}

// defaultControl is where a server of this user has its control socket.
func defaultControl() controlFlag {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Getuid() != 0 {
		path := filepath.Join(dir, "ringnbd", "control")
		if _, err := os.Stat(path); err == nil {
			return controlFlag("unix:" + path)
		}
	}
	return "unix:/run/ringnbd/control"
}

// usageError is a mistake in the command line that a verb finds.
type usageError struct{ error }

// findVerb finds the verb, and checks its arguments and flags.
func findVerb(flags *pflag.FlagSet, args []string) (*verb, error) {
	var names []string
	for i := range verbs {
		names = append(names, verbs[i].name)
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("what is to be done? say one of %s", strings.Join(names, ", "))
	}
	at := slices.Index(names, args[0])
	if at < 0 {
		advice := suggest(args[0], names)
		if advice == "" {
			advice = "; there are " + strings.Join(names, ", ")
		}
		return nil, fmt.Errorf("unknown verb %q%s", args[0], advice)
	}
	v := &verbs[at]
	if !slices.Contains(v.count, len(args)-1) {
		return nil, fmt.Errorf("write: ringnbd ctl %s", strings.TrimSpace(v.name+" "+v.args))
	}
	var err error
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != "control" && f.Name != "json" && !slices.Contains(v.flags, f.Name) {
			err = fmt.Errorf("--%s means nothing to %s", f.Name, v.name)
		}
	})
	return v, err
}

// repeat does something once, or with --watch until a signal.
func (x *ctl) repeat(ctx context.Context, do func() error) error {
	if x.watch <= 0 {
		return do()
	}
	terminal := isTerminal(x.out)
	for {
		if terminal {
			_, _ = io.WriteString(x.out, "\x1b[H\x1b[2J")
		}
		if err := do(); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(x.watch):
		}
		if !terminal && !x.json {
			if _, err := io.WriteString(x.out, "\n"); err != nil {
				return err
			}
		}
	}
}

// ask asks the server; with --json the answer is printed, and done is true.
func (x *ctl) ask(ctx context.Context, method, path string, query url.Values, body,
	to any) (done bool, err error) {
	var raw json.RawMessage
	if err := x.client.Do(ctx, method, path, query, body, &raw); err != nil {
		return true, err
	}
	if x.json {
		_, err := x.out.Write(raw)
		return true, err
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return true, fmt.Errorf("the server does not answer as ringnbd does: %w", err)
	}
	return false, nil
}

// change asks for a change and prints what became of it.
func (x *ctl) change(ctx context.Context, method, path string, query url.Values, body any,
	what string) error {
	var c control.Changed
	done, err := x.ask(ctx, method, path, query, body, &c)
	if done || err != nil {
		return err
	}
	if !c.Changed {
		what = "nothing to do: it is so already"
	}
	for _, note := range c.Notes {
		what += "\nnote: " + visible(note)
	}
	_, err = fmt.Fprintln(x.out, what)
	return err
}

// named is the query of a route that is about an export.
func named(name string) url.Values { return url.Values{"name": {name}} }

// with adds a parameter that is true.
func with(query url.Values, on bool, name string) url.Values {
	if on {
		query.Set(name, "true")
	}
	return query
}

func (x *ctl) add(ctx context.Context, args []string) error {
	spec, err := parseExport(args[0])
	if err != nil {
		return usageError{err}
	}
	spec.SetPath(wholeStore(spec.Text()))
	if !utf8.ValidString(spec.Text()) { // JSON would make another path of it
		return usageError{fmt.Errorf("%s is not UTF-8, which the control socket takes alone; make "+
			"a link to it under another name", visible(spec.Text()))}
	}
	spec.Force, spec.Create = x.force, x.create
	file, err := x.saveFile(ctx)
	if err != nil {
		return err
	}
	err = x.change(ctx, http.MethodPut, "/v1/export", with(named(spec.Name), x.replace, "replace"),
		wantedOf(spec), "added "+exportTitle(spec.Name))
	return x.keep(err, file, spec)
}

func (x *ctl) remove(ctx context.Context, args []string) error {
	file, err := x.saveFile(ctx)
	if err != nil {
		return err
	}
	err = x.change(ctx, http.MethodDelete, "/v1/export", with(named(args[0]), x.force, "force"),
		nil, "removed "+exportTitle(args[0]))
	if err != nil || file == "" {
		return err
	}
	_, err = config.Unsave(file, args[0])
	return notSaved(err)
}

func (x *ctl) readOnly(ctx context.Context, args []string) error {
	on := args[1] == "on"
	if !on && args[1] != "off" {
		return usageError{fmt.Errorf("%q: say on or off", args[1])}
	}
	file, err := x.saveFile(ctx)
	if err != nil {
		return err
	}
	var e control.Export
	if err := x.client.Do(ctx, http.MethodGet, "/v1/export", named(args[0]), nil,
		&e); err != nil {
		return err
	}
	want := e.Asked
	want.ReadOnly = on
	if on {
		want.Create = 0
	}
	err = x.change(ctx, http.MethodPut, "/v1/export", with(named(args[0]), x.replace, "replace"),
		want, exportTitle(args[0])+" is read-only: "+args[1])
	spec, wrong := specOf(args[0], want)
	return x.keep(errors.Join(err, wrong), file, spec)
}

// saveFile is the configuration that --save is to change; "" without --save.
func (x *ctl) saveFile(ctx context.Context) (string, error) {
	if !x.save {
		return "", nil
	}
	var s control.Status
	if err := x.client.Do(ctx, http.MethodGet, "/v1/status", nil, nil, &s); err != nil {
		return "", err
	}
	if s.Config == "" {
		return "", errors.New("the server was started without a configuration file, so there is " +
			"nothing to save to; leave out --save, or start the server with --config FILE")
	}
	return s.Config, nil
}

// keep saves an export after a change that succeeded.
func (x *ctl) keep(err error, file string, spec backing.Spec) error {
	if err != nil || file == "" {
		return err
	}
	saved, err := config.Save(file, exportOf(&spec))
	if err == nil && !x.json {
		_, err = fmt.Fprintln(x.out, "saved in "+visible(saved))
	}
	return notSaved(err)
}

// notSaved says that a change was made and not saved.
func notSaved(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the change is in force, but was not saved: %w", err)
}

func (x *ctl) resize(ctx context.Context, args []string) error {
	to := control.Resize{Force: x.force}
	if len(args) == 2 {
		n, err := units.ParseSize(args[1])
		if err != nil || n == 0 {
			return usageError{errors.Join(err, errors.New("write a SIZE of more than 0"))}
		}
		to.Size = control.Size(n)
	}
	var c control.Changed
	done, err := x.ask(ctx, http.MethodPost, "/v1/export/resize", named(args[0]), to, &c)
	if done || err != nil {
		return err
	}
	text := exportTitle(args[0])
	if c.Export != nil {
		text += fmt.Sprintf(" has %d bytes", c.Export.Size)
	}
	if !c.Changed {
		text += ", as before"
	}
	_, err = fmt.Fprintln(x.out, text)
	return err
}

func (x *ctl) flush(ctx context.Context, args []string) error {
	return x.change(ctx, http.MethodPost, "/v1/export/flush", named(args[0]), nil,
		"flushed "+exportTitle(args[0]))
}

func (x *ctl) kick(ctx context.Context, args []string) error {
	if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
		return usageError{fmt.Errorf("%q is not the number of a connection; `ringnbd ctl "+
			"connections` shows them", args[0])}
	}
	return x.change(ctx, http.MethodDelete, "/v1/connection", url.Values{"id": {args[0]}}, nil,
		"ended connection "+args[0])
}

func (x *ctl) overlay(ctx context.Context, args []string) error {
	if args[0] != "commit" && args[0] != "drop" {
		return usageError{fmt.Errorf("%q: say commit or drop", args[0])}
	}
	done := map[string]string{"commit": "committed the overlay of ",
		"drop": "dropped what was written to the overlay of "}[args[0]]
	return x.change(ctx, http.MethodPost, "/v1/export/overlay/"+args[0], named(args[1]), nil,
		done+exportTitle(args[1]))
}
