// The options of a description, and a single export.
//
// Invariant: an error of writing is returned once, and hides all other errors.

package describe

import (
	"bufio"
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

// Options of a description.
type Options struct {
	Target  client.Target
	List    bool
	Map     string // "", picture, extents or totals
	Context string // of the map
	JSON    bool
	// of each connection: for the negotiation, and for silence; 0: client.DefaultTimeout
	Timeout time.Duration
	Width   int  // of the terminal, in columns; 0: none
	Fancy   bool // the output is a terminal that shows more than ASCII
	// Plain makes JSON harmless for a terminal without changing its meaning; its input is whole
	// characters. nil: JSON stays as it is.
	Plain func(io.Writer) io.Writer
}

// Show prints what was asked for.
func Show(ctx context.Context, o *Options, w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	out := io.Writer(b)
	if o.JSON && o.Plain != nil {
		out = o.Plain(b)
	}
	var err error
	switch {
	case o.List:
		err = list(ctx, o, out, b.Flush)
	case o.Map != "":
		err = showMap(ctx, o, out)
	default:
		err = one(ctx, o, out)
	}
	// An error of writing is returned again by Flush, and nothing else matters after it.
	if failed := b.Flush(); errors.Is(failed, syscall.EPIPE) {
		return errors.New("the reader of the output has gone away")
	} else if failed != nil {
		return failed
	}
	return err
}

// one shows the export of the URI.
func one(ctx context.Context, o *Options, w io.Writer) error {
	c, err := client.Dial(ctx, &o.Target,
		client.Options{Timeout: o.Timeout, Offered: true, Nameless: true,
			Contexts: []string{proto.ContextAllocation}})
	if err != nil {
		return err
	}
	f := exportOf(&c.Negotiated, o.Target.Text)
	if o.JSON {
		s := newServer(&c.Negotiated)
		s.Exports = []exportInfo{f}
		err = writeJSON(w, s)
	} else {
		f.text(w, protocolText(&c.Negotiated, o.Target.Export), o.Width)
	}
	return errors.Join(err, c.Close())
}
