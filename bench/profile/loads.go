// Which loads are worth a profile.
//
// Invariant: only ringnbd is profiled, and after the measurements.

package profile

import (
	"context"
	"errors"
	"fmt"

	"ringnbd/bench/measure"
)

// worthProfiling reports whether a load is busy in one way only: closed loops of small requests
// over several connections, and large transfers.
func worthProfiling(l measure.Load) bool {
	return l.Rate == 0 && l.Transport == measure.Unix && l.Depth > 1 &&
		(l.Connections == 4 || l.BlockSize == measure.LargeBlock)
}

// Take takes profiles of ringnbd under those of the suite's loads that are worth it. It is called
// after the measurements: a profile would disturb them.
func Take(ctx context.Context, s *measure.Suite) (all []measure.Profile, err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	for _, l := range s.Loads {
		for _, p := range s.Programs {
			if p.Name != "ringnbd" || !worthProfiling(l) || !measure.Invited(l, p.Name) ||
				!p.Serves(l) {
				continue
			}
			one, err := ofLoad(ctx, s, l, p)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l, err)
			}
			all = append(all, one)
		}
	}
	return all, nil
}
