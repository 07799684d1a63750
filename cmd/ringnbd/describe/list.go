// Exports: one, or all that a server has.
//
// Invariant: an export that cannot be opened does not hide the others, and nothing is said of it
// but its name, its description, and why.

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
	Context string // whose map
	JSON    bool
	// of each connection: for its negotiation, and for silence; 0: client.DefaultTimeout
	Timeout time.Duration
	Width   int  // of the terminal, in columns; 0: none
	Fancy   bool // the output is a terminal that has more than ASCII
	// Plain makes JSON harmless for a terminal without changing what it means; it is given whole
	// characters. nil: as it is.
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
	// An error of writing comes again from Flush, and is told once; and after it nothing else
	// matters.
	if failed := b.Flush(); errors.Is(failed, syscall.EPIPE) {
		return errors.New("whoever read the output has gone away")
	} else if failed != nil {
		return failed
	}
	return err
}

// one is the export of the URI.
func one(ctx context.Context, o *Options, w io.Writer) error {
	c, err := client.Dial(ctx, &o.Target,
		client.Options{Timeout: o.Timeout, Offered: true, Nameless: true,
			Contexts: []string{proto.ContextAllocation}})
	if err != nil {
		return err
	}
	f := factsOf(&c.Negotiated, o.Target.Text)
	if o.JSON {
		s := newServer(&c.Negotiated)
		s.Exports = []Facts{f}
		err = writeJSON(w, s)
	} else {
		f.text(w, protocolText(&c.Negotiated, o.Target.Export), o.Width)
	}
	return errors.Join(err, c.Close())
}
