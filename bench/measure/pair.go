// Pairs of measurements, and what disturbed them.
//
// Invariant: a pair is either whole or an error; a disturbed one is marked, never dropped.

package measure

import (
	"context"
	"fmt"
)

// Pair is one measurement of each side, one right after the other.
type Pair struct {
	Base     Sample `json:"base"`
	New      Sample `json:"new"`
	NewFirst bool   `json:"newFirst"`
	// share of the machine's CPU time that other programs and the kernel's own threads used, 0..1
	Others float64 `json:"others"`
	// much more steal and others than in the load's other pairs
	Disturbed bool `json:"disturbed"`
}

// Taken is the share of the machine's CPU time that was stolen, on the worse of the two sides, or
// used by others, 0..1.
func (p Pair) Taken() float64 { return max(p.Base.Steal, p.New.Steal) + p.Others }

// MeasurePair measures a load once on each side; the pair's number (from 0) seeds the load on both.
func (s *Suite) MeasurePair(ctx context.Context, l Load, base, new *Program, pair int,
	newFirst bool) (p Pair, err error) {
	raiseDescriptors()
	measure := func(program *Program, into *Sample) {
		if err != nil {
			return
		}
		if *into, err = s.measure(ctx, l, program, pair); err != nil {
			err = fmt.Errorf("%s: %w", program.Name, err)
		}
	}
	before := readCPUUse()
	p.NewFirst = newFirst
	if newFirst {
		measure(new, &p.New)
		measure(base, &p.Base)
	} else {
		measure(base, &p.Base)
		measure(new, &p.New)
	}
	if err != nil {
		return Pair{}, err
	}
	p.Others = readCPUUse().others(before)
	return p, nil
}
