// What a copy needs of its two ends.
//
// Invariant: offsets and lengths that an end is given are multiples of its block, or end with it.

package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ringnbd/engine/client"
)

// extent is a range of an end's map.
type extent struct {
	offset, length uint64 // bytes
	zero           bool   // reads as zeroes
}

// end is a file, a block device or an export. Several slots use it at the same time; lane says over
// which connection.
type end interface {
	size() uint64
	block() uint64   // bytes, power of two: what offsets and lengths must be multiples of
	payload() uint64 // bytes at most of one read or write
	stretch() uint64 // bytes at most of one zero
	grain() uint64   // bytes: zeroes shorter than this are better written
	lanes() int
	mapped() bool // its map says more than "data"
	// extents tells the map in order, without gaps, up to an offset or the end. What an end refuses
	// to tell is data, and no error.
	extents(ctx context.Context, end uint64, tell func(extent) error) error
	read(ctx context.Context, lane int, r *client.Request, b []byte, offset uint64) error
	write(ctx context.Context, lane int, r *client.Request, b []byte, offset uint64) error
	// zero makes a range read as zeroes, with holes if it may; false means that it has no way but
	// writing them.
	zero(ctx context.Context, lane int, r *client.Request, offset, length uint64, hole bool) (bool,
		error)
	flush(ctx context.Context) error
	forget() // what memory holds of it, so that reading shows what the disk has
	identity() Identity
	name() string
	close() error
}

// Place is a source or destination as the user names it.
type Place struct {
	Text   string
	Target client.Target // of a server; Network is "file" for a path, which is Address
	// starts the server, which the caller does before Run, and fills in the Target
	Command []string
}

// What is neither a server nor a file, as users write it.
const (
	streamText = "-"     // standard input or output
	nullText   = "null:" // a destination that keeps nothing
)

// Stream says whether the place is standard input or output.
func (p *Place) Stream() bool { return p.Text == streamText }

// Null says whether the place is null:.
func (p *Place) Null() bool { return p.Text == nullText }

// ParsePlace takes an NBD URI, the path of a file or block device (file:PATH is the same), - or
// null:.
func ParsePlace(text string) (Place, error) {
	if text == streamText || text == nullText {
		return Place{Text: text}, nil
	}
	scheme, _, uri := strings.Cut(text, "://")
	if uri && !strings.ContainsAny(scheme, "/.") || strings.HasPrefix(text, "file:") ||
		strings.HasPrefix(strings.ToLower(text), "nbd:") {
		t, err := client.ParseTarget(text)
		return Place{Text: text, Target: t}, err
	}
	if text == "" || strings.IndexByte(text, 0) >= 0 {
		return Place{}, fmt.Errorf("%q is not a path", text)
	}
	return Place{Text: text, Target: client.Target{Text: text, Network: "file", Address: text}}, nil
}

// CheckPlaces refuses what two places, and what is wanted of them, cannot be together.
func (o *Options) CheckPlaces() error {
	s, d := &o.Source, &o.Destination
	seekless := s.Stream() || d.Stream()
	switch {
	case s.Null():
		return errors.New("null: is a destination alone: it keeps nothing, and there is nothing " +
			"to read")
	case s.Stream() && d.Stream():
		return errors.New("- is the source and the destination: cat does that")
	case o.Verify && seekless:
		return errors.New("--verify reads both again, and standard input and output pass by " +
			"once (-)")
	case o.Verify && d.Null():
		return errors.New("--verify has nothing to compare with: null: keeps nothing")
	case o.Resume != "" && seekless:
		return errors.New("--resume goes on in the middle, and standard input and output begin " +
			"anew (-)")
	case o.Resume != "" && d.Null():
		return errors.New("--resume has nothing to go on with: null: keeps nothing")
	case o.DestinationIsZero && d.Stream():
		return errors.New("--destination-is-zero leaves zeroes out, and of a stream nothing can " +
			"be left out (-)")
	}
	return nil
}
