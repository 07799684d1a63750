// What a copy needs of its two ends.
//
// Invariant: offsets and lengths passed to an end are multiples of its block, or end with the end.

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

// end is a file, a block device or an export. Several slots use it at the same time; a lane selects
// the connection.
type end interface {
	size() uint64
	block() uint64   // bytes, power of two: what offsets and lengths must be multiples of
	payload() uint64 // maximum of one read or write, in bytes
	stretch() uint64 // maximum of one zero, in bytes
	grain() uint64   // bytes: shorter zeroes are better written as data
	lanes() int
	mapped() bool // its map distinguishes data and zeroes
	// extents visits the map in order, without gaps, up to an offset or the end. A range that the
	// end cannot or will not describe counts as data, and is not an error.
	extents(ctx context.Context, end uint64, visit func(extent) error) error
	read(ctx context.Context, lane int, r *client.Request, b []byte, offset uint64) error
	write(ctx context.Context, lane int, r *client.Request, b []byte, offset uint64) error
	// zero makes a range read as zeroes, with holes if hole is set; false means that the only way
	// is to write them.
	zero(ctx context.Context, lane int, r *client.Request, offset, length uint64, hole bool) (bool,
		error)
	flush(ctx context.Context) error
	dropCache() // of this end, so that reading shows what is on the disk
	identity() identity
	name() string
	close() error
}

// Place is a source or destination as the user names it.
type Place struct {
	Text   string
	Target client.Target // of a server; Network is "file" for a path, which is Address
	// the command that starts the server; the caller starts it before Run and fills in Target
	Command []string
}

// Places that are neither a server nor a file, as users write them.
const (
	streamText = "-"     // standard input or output
	nullText   = "null:" // a destination that discards
)

// Stream reports whether the place is standard input or output.
func (p *Place) Stream() bool { return p.Text == streamText }

// Null reports whether the place is null:.
func (p *Place) Null() bool { return p.Text == nullText }

// ParsePlace parses an NBD URI, the path of a file or block device (file:PATH is the same), - or
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

// CheckPlaces refuses places and options that exclude each other.
func (o *Options) CheckPlaces() error {
	s, d := &o.Source, &o.Destination
	seekless := s.Stream() || d.Stream()
	switch {
	case s.Null():
		return errors.New("null: is only a destination: it discards everything, and there is " +
			"nothing to read")
	case s.Stream() && d.Stream():
		return errors.New("- is both the source and the destination: use cat")
	case o.Verify && seekless:
		return errors.New("--verify reads both ends again, which standard input and output (-) " +
			"do not allow")
	case o.Verify && d.Null():
		return errors.New("--verify has nothing to compare with: null: discards everything")
	case o.Resume != "" && seekless:
		return errors.New("--resume continues in the middle, which standard input and output (-) " +
			"do not allow")
	case o.Resume != "" && d.Null():
		return errors.New("--resume has nothing to continue: null: discards everything")
	case o.DestinationIsZero && d.Stream():
		return errors.New("--destination-is-zero leaves zeroes out, which standard output (-) " +
			"does not allow")
	}
	return nil
}
