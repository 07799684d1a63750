// What ringnbd ctl prints: tables for people.
//
// Invariant: names, paths and messages of others are made visible before they go to a terminal.

package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine/units"
)

// newTable makes a table without lines, whose first row is its head.
func newTable(head ...any) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.Style{Name: "plain", Box: table.BoxStyle{PaddingRight: "  "}})
	if len(head) > 0 {
		t.AppendRow(head)
	}
	return t
}

// print prints a table, without spaces at the ends of lines.
func (x *ctl) print(t table.Writer) error {
	var b strings.Builder
	for line := range strings.Lines(t.Render() + "\n") {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	_, err := fmt.Fprint(x.out, b.String())
	return err
}

// title shows the name of an export in a table.
func title(name string) string {
	if name == "" {
		return `""`
	}
	return visible(name)
}

func (x *ctl) status(ctx context.Context, _ []string) error {
	var s control.Status
	done, err := x.ask(ctx, http.MethodGet, "/v1/status", nil, nil, &s)
	if done || err != nil {
		return err
	}
	t := newTable()
	row := func(name string, value any) { t.AppendRow([]any{name, value}) }
	row("version", visible(s.Version))
	row("process", fmt.Sprintf("%d, for %s", s.PID, ago(s.Started)))
	row("loops", s.Loops)
	row("memory", units.Size(s.Memory))
	row("exports", s.Exports)
	row("connections", fmt.Sprintf("%d of %d", s.Connections, s.MaxConnections))
	row("requests", units.Count(s.Requests)+", "+units.Plural(s.Errors, "error"))
	row("read", units.Size(s.BytesRead))
	row("written", units.Size(s.BytesWritten))
	for _, address := range s.Listen {
		row("address", visible(address))
	}
	if s.Config != "" {
		row("configuration", visible(s.Config))
	}
	if s.Reloaded != nil {
		row("loaded again", ago(*s.Reloaded)+" ago")
	}
	if s.Trouble != "" {
		row("trouble", visible(s.Trouble))
	}
	for _, change := range s.Changes {
		row("change", visible(change))
	}
	return x.print(t)
}

// ago is the time since something, in whole seconds.
func ago(since time.Time) string {
	return time.Since(since).Round(time.Second).String()
}

func (x *ctl) exports(ctx context.Context, _ []string) error {
	var all control.Exports
	done, err := x.ask(ctx, http.MethodGet, "/v1/exports", nil, nil, &all)
	if done || err != nil {
		return err
	}
	t := newTable("EXPORT", "SIZE", "MODE", "STATE", "CONNECTIONS", "READS", "WRITES", "ERRORS",
		"PATH")
	for i := range all.Exports {
		e := &all.Exports[i]
		mode := "rw"
		if e.ReadOnly {
			mode = "ro"
		}
		state := visible(e.State)
		if e.FlushFailed {
			state += ", a flush failed"
		}
		t.AppendRow([]any{title(e.Name), units.Size(e.Size), mode, state, e.Connections,
			units.Count(e.Reads), units.Count(e.Writes), e.Errors, visible(e.Path)})
	}
	return x.print(t)
}

func (x *ctl) connections(ctx context.Context, _ []string) error {
	var all control.Connections
	done, err := x.ask(ctx, http.MethodGet, "/v1/connections", nil, nil, &all)
	if done || err != nil {
		return err
	}
	t := newTable("ID", "PEER", "EXPORT", "SINCE", "REQUESTS", "ERRORS", "READ", "WRITTEN")
	for _, c := range all.Connections {
		t.AppendRow([]any{c.ID, visible(c.Peer), title(c.Export), ago(c.Since) + " ago",
			units.Count(c.Requests), c.Errors, units.Size(c.BytesRead),
			units.Size(c.BytesWritten)})
	}
	return x.print(t)
}

// events prints events as they happen.
func (x *ctl) events(ctx context.Context, _ []string) error {
	return x.client.Events(ctx, func(line []byte, e control.Event) error {
		if x.json {
			_, err := fmt.Fprintf(x.out, "%s\n", line)
			return err
		}
		text := e.Time.Local().Format("15:04:05.000") + " " + visible(e.Event)
		for _, part := range []struct{ name, value string }{{"export", e.Export},
			{"peer", e.Peer}, {"by", e.By}} {
			if part.value != "" {
				text += " " + part.name + "=" + strconv.Quote(visible(part.value))
			}
		}
		if e.Connection != 0 {
			text += fmt.Sprintf(" connection=%d", e.Connection)
		}
		if e.Missed != 0 {
			text += fmt.Sprintf(" missed=%d", e.Missed)
		}
		if e.Text != "" {
			text += ": " + visible(e.Text)
		}
		_, err := fmt.Fprintln(x.out, text)
		return err
	})
}

func (x *ctl) config(ctx context.Context, _ []string) error {
	var c control.Configuration
	done, err := x.ask(ctx, http.MethodGet, "/v1/config", nil, nil, &c)
	if done || err != nil {
		return err
	}
	for line := range strings.Lines(c.Text) {
		if _, err := fmt.Fprintln(x.out, visible(strings.TrimRight(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

func (x *ctl) diff(ctx context.Context, _ []string) error {
	return x.differences(ctx, "/v1/config/diff", nil)
}

func (x *ctl) reload(ctx context.Context, _ []string) error {
	query := map[string][]string{}
	return x.differences(ctx, "/v1/reload", with(query, x.dry, "dry-run"))
}

// differences prints the differences between the configuration and what is served.
func (x *ctl) differences(ctx context.Context, path string, query map[string][]string) error {
	var d control.Differences
	done, err := x.ask(ctx, http.MethodPost, path, query, nil, &d)
	if done || err != nil {
		return err
	}
	for _, line := range d.Differences {
		if _, err := fmt.Fprintln(x.out, visible(line)); err != nil {
			return err
		}
	}
	if len(d.Differences) == 0 {
		_, err = fmt.Fprintln(x.out, "no differences")
	}
	return err
}
