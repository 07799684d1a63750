// The profile for the compiler: it stands for many loads.
//
// Invariant: it holds names and lines only, nothing of the machine that it was taken on.

package profile

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/pprof/profile"

	"ringnbd/bench/measure"
)

// mergeWeight is the CPU seconds to which every load is scaled: enough that no sample is rounded
// away.
const mergeWeight = 100

// Merge takes the program's profile under each of the suite's loads and puts them together for the
// compiler (go build -pgo). Each load has the same weight, however much CPU time it takes.
func Merge(ctx context.Context, s *measure.Suite,
	p measure.Program) (merged *profile.Profile, err error) {
	defer func() {
		if e := s.Close(); err == nil {
			err = e
		}
	}()
	var all []*profile.Profile
	for i, l := range s.Loads {
		t, err := take(ctx, s, l, p, "")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l, err)
		}
		if s.Progress != nil {
			fmt.Fprintf(s.Progress, "%d/%d  %s: %.2f s of CPU time in %d samples\n", i+1,
				len(s.Loads), l, cpuSeconds(t.profile), len(t.profile.Sample))
		}
		t.profile.Scale(mergeWeight / cpuSeconds(t.profile))
		all = append(all, t.profile)
	}
	return distill(all)
}

// distill merges profiles and drops what the compiler does not use: labels, addresses, mappings,
// the time and the command line.
func distill(all []*profile.Profile) (*profile.Profile, error) {
	for _, p := range all {
		for _, s := range p.Sample {
			s.Label, s.NumLabel, s.NumUnit = nil, nil, nil
		}
		for _, l := range p.Location {
			l.Address, l.Mapping = 0, nil
		}
		p.Mapping, p.Comments, p.TimeNanos, p.DurationNanos = nil, nil, 0, 0
	}
	p, err := profile.Merge(all)
	if err != nil {
		return nil, err
	}
	for _, f := range p.Function {
		f.Filename = "" // a path of this machine; the compiler goes by names and lines
	}
	p.Sample = slices.DeleteFunc(p.Sample, func(s *profile.Sample) bool {
		return len(s.Location) == 0
	})
	return p.Compact(), p.CheckValid()
}
