// Exports: one, or all that a server has.
//
// Invariant: an export that cannot be opened does not hide the others.

package describe

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/docker/go-units"
	"github.com/jedib0t/go-pretty/v6/table"

	"ringnbd/engine/peer"
	"ringnbd/proto"
)

// Options of a description.
type Options struct {
	Target  peer.Target
	List    bool
	Map     string // "", picture, extents or totals
	Context string // whose map
	JSON    bool
	Width   int  // of the terminal, in columns; 0: none
	Fancy   bool // the output is a terminal, which has more than ASCII
}

// Show prints what was asked for.
func Show(ctx context.Context, o *Options, w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	var err error
	switch {
	case o.List:
		err = list(ctx, o, b)
	case o.Map != "":
		err = showMap(ctx, o, b)
	default:
		err = one(ctx, o, b)
	}
	return errors.Join(err, b.Flush())
}

// one is the export of the URI.
func one(ctx context.Context, o *Options, w io.Writer) error {
	c, err := peer.Dial(ctx, &o.Target, peer.Options{Offered: true, Contexts: []string{proto.ContextAllocation}})
	if err != nil {
		return err
	}
	f := factsOf(&c.Session, o.Target.Text)
	if o.JSON {
		s := newServer(&c.Session)
		s.Exports = []Facts{f}
		err = writeJSON(w, s)
	} else {
		f.text(w, protocolText(&c.Session))
	}
	return errors.Join(err, c.Close())
}

// list asks for the names, and then for each export by itself: some servers only tell the truth about one that is opened.
func list(ctx context.Context, o *Options, w io.Writer) error {
	names, err := peer.List(ctx, &o.Target, peer.Options{})
	if err != nil {
		return err
	}
	var server Server
	for _, n := range names {
		t := o.Target
		t.Export = n.Name
		c, err := peer.Dial(ctx, &t, peer.Options{Offered: true, Contexts: []string{proto.ContextAllocation}})
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			server.Exports = append(server.Exports, Facts{Name: n.Name, Description: n.Description, Error: err.Error()})
			continue
		}
		f := factsOf(&c.Session, "")
		f.Name = n.Name
		if f.Description == "" {
			f.Description = n.Description
		}
		exports := append(server.Exports, f)
		server = newServer(&c.Session)
		server.Exports = exports
		_ = c.Close() // all was said
	}
	if o.JSON {
		return writeJSON(w, server)
	}
	return writeTable(server.Exports, w)
}

func writeTable(exports []Facts, w io.Writer) error {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.AppendHeader(table.Row{"export", "size", "flags", "description"})
	for i := range exports {
		f := &exports[i]
		row := table.Row{strconv.QuoteToGraphic(f.Name), units.BytesSize(float64(f.Size)), f.words(), ""}
		if f.Description != "" {
			row[3] = strconv.QuoteToGraphic(f.Description)
		}
		if f.Error != "" {
			row[1], row[2] = "", strconv.QuoteToGraphic(f.Error)
		}
		t.AppendRow(row)
	}
	_, err := io.WriteString(w, t.Render()+"\n")
	return err
}
