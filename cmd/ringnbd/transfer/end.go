// What a copy needs of its two ends.
//
// Invariant: offsets and lengths that an end is given are multiples of its block, or end with it.

package transfer

import (
	"context"
	"fmt"
	"strings"

	"ringnbd/engine/peer"
)

// extent is a range of an end's map.
type extent struct {
	offset, length uint64 // bytes
	zero           bool   // reads as zeroes
}

// end is a file, a block device or an export. Several slots use it at the same time; lane says over which connection.
type end interface {
	size() uint64
	block() uint64   // bytes, power of two: what offsets and lengths must be multiples of
	payload() uint64 // bytes at most of one read or write
	stretch() uint64 // bytes at most of one zero
	grain() uint64   // bytes: zeroes shorter than this are better written
	lanes() int
	mapped() bool // its map says more than "data"
	// extents tells the map in order, without gaps, up to an offset or the end. What an end refuses to tell is data, and no error.
	extents(ctx context.Context, end uint64, tell func(extent) error) error
	read(ctx context.Context, lane int, r *peer.Request, b []byte, offset uint64) error
	write(ctx context.Context, lane int, r *peer.Request, b []byte, offset uint64) error
	// zero makes a range read as zeroes, with holes if it may; false means that it has no way but writing them.
	zero(ctx context.Context, lane int, r *peer.Request, offset, length uint64, hole bool) (bool, error)
	flush(ctx context.Context) error
	forget() // what memory holds of it, so that reading shows what the disk has
	identity() Identity
	name() string
	close() error
}

// Place is a source or destination as the user names it.
type Place struct {
	Text   string
	Target peer.Target // of a server; Network is "file" for a path, which is Address
}

// ParsePlace takes an NBD URI, or the path of a file or block device; file:PATH is the same.
func ParsePlace(text string) (Place, error) {
	scheme, _, uri := strings.Cut(text, "://")
	if uri && !strings.ContainsAny(scheme, "/.") || strings.HasPrefix(text, "file:") || strings.HasPrefix(strings.ToLower(text), "nbd:") {
		t, err := peer.ParseTarget(text)
		return Place{Text: text, Target: t}, err
	}
	if text == "" || strings.IndexByte(text, 0) >= 0 {
		return Place{}, fmt.Errorf("%q is no path", text)
	}
	return Place{Text: text, Target: peer.Target{Text: text, Network: "file", Address: text}}, nil
}
