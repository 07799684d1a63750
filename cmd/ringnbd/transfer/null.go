// null: as a destination discards everything, which shows how fast a source is.
//
// Invariant: it has room for every source, and none of its methods fails.

package transfer

import (
	"context"
	"math"

	"ringnbd/engine/client"
)

// null is only a destination.
type null struct{}

func (null) size() uint64    { return math.MaxInt64 }
func (null) block() uint64   { return 1 }
func (null) payload() uint64 { return 1 << 30 }
func (null) stretch() uint64 { return 1 << 30 }
func (null) grain() uint64   { return 4 << 10 }
func (null) lanes() int      { return 1 }
func (null) mapped() bool    { return false }
func (null) dropCache()      {}
func (null) name() string    { return nullText }
func (null) close() error    { return nil }

func (null) extents(_ context.Context, end uint64, visit func(extent) error) error {
	return visit(extent{0, end, true})
}

func (null) read(_ context.Context, _ int, _ *client.Request, b []byte, _ uint64) error {
	clear(b)
	return nil
}
func (null) write(context.Context, int, *client.Request, []byte, uint64) error { return nil }
func (null) zero(context.Context, int, *client.Request, uint64, uint64, bool) (bool, error) {
	return true, nil
}
func (null) flush(context.Context) error { return nil }
func (null) identity() identity          { return identity{Place: nullText} }
