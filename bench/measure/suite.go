// A run: loads times servers times rounds, interleaved.
//
// Invariant: at any moment at most one server and one load generator run, and both have ended when
// Run returns.

package measure

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

// RawName is the entry for the raw limit in a list of servers and in a report.
const RawName = "raw"

// Suite is what to run. Sizes are in bytes, times in seconds.
type Suite struct {
	Generator string // the ringnbd whose bench drives every server
	Dir       string // where the file is made; decides which storage is measured
	Size      int64  // of the file
	Null      int64  // size of null exports; 0: 1 TiB
	Memory    int64  // size of memory exports; 0: 256 MiB
	Seconds   float64
	Warmup    float64 // before each measurement
	Rounds    int
	Loads     []Load
	Programs  []Program
	Raw       bool      // measure the raw limit as well
	Progress  io.Writer // one line per measurement; nil: none

	storage storage // what meetings have made so far
}

// Close removes what the measurements needed: the file, the loop device. The suite can be used
// again afterwards.
func (s *Suite) Close() error { return s.storage.close() }

// Run measures everything and returns the report. A server that fails in a measurement gets an
// error in its result; only failures of the bench itself end the run. When ctx ends, the run stops,
// cleans up and returns ctx's error.
func (s *Suite) Run(ctx context.Context) (report *Report, err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		if e := s.Close(); err == nil && e != nil {
			report, err = nil, e
		}
	}()
	r := &Report{Date: time.Now().UTC().Truncate(time.Second), Machine: ReadMachine(s.Dir),
		Size: s.Size, Seconds: s.Seconds, Rounds: s.Rounds, Storage: map[string]string{}}
	if r.Machine.Loopback, err = loopbackCarries(ctx); err != nil {
		return nil, err
	}
	r.Machine.addVersions(s.Generator, s.Programs)
	for _, p := range s.Programs {
		r.Storage[p.Name] = p.Storage
		if p.Direct {
			r.Direct = append(r.Direct, p.Name)
		}
	}
	meetings := s.meetings()
	for _, m := range meetings {
		r.Results = append(r.Results, Result{Load: m.load, Server: m.name()})
	}
	progress := newProgress(s.Progress, s.Rounds, meetings, s.cost)
	for round := range s.Rounds {
		for _, k := range order(round, meetings) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s.meet(ctx, meetings[k], round, &r.Results[k], progress)
		}
	}
	for i := range r.Results {
		r.Results[i].Median = MedianSample(r.Results[i].Samples)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r, nil
}

// meeting is one load on one program; a nil program is the raw limit.
type meeting struct {
	load    Load
	program *Program
}

func (m meeting) name() string {
	if m.program == nil {
		return RawName
	}
	return m.program.Name
}

// meetings lists what one round holds: the same load on all servers side by side. The raw limit has
// no transport, so it takes part once for the loads that differ in theirs.
func (s *Suite) meetings() []meeting {
	var all []meeting
	var seen []Load
	for _, l := range s.Loads {
		if limit := l.Limit(); s.Raw && Invited(l, RawName) && l.OnDisk() && !l.Layered() &&
			!slices.Contains(seen, limit) {
			seen = append(seen, limit)
			all = append(all, meeting{load: limit})
		}
		for i := range s.Programs {
			if p := &s.Programs[i]; Invited(l, p.Name) && p.Serves(l) {
				all = append(all, meeting{load: l, program: p})
			}
		}
	}
	return all
}

// order is that of a round's meetings, by their indices: the loads stay in their order, but those
// that share a raw limit are one group, in which the transports and the servers within each are
// shuffled and the raw limit takes any place. The shuffle follows from round and load alone, so a
// run can be repeated.
func order(round int, all []meeting) []int {
	var turns []int
	for first := 0; first < len(all); {
		end := first + 1
		for end < len(all) && all[end].load.Limit() == all[first].load.Limit() {
			end++
		}
		turns = append(turns, shuffled(round, first, all[first:end])...)
		first = end
	}
	return turns
}

// shuffled is the order of one group, whose first meeting has the index first.
func shuffled(round, first int, group []meeting) []int {
	seed := fnv.New64a()
	fmt.Fprintf(seed, "%+v", group[0].load.Limit())
	random := rand.New(rand.NewPCG(uint64(round), seed.Sum64()))
	var sides [][]int // one for each transport
	var raw, turns []int
	for i, m := range group {
		switch {
		case m.program == nil:
			raw = append(raw, first+i)
		case len(sides) == 0 || m.load != group[i-1].load:
			sides = append(sides, []int{first + i})
		default:
			sides[len(sides)-1] = append(sides[len(sides)-1], first+i)
		}
	}
	random.Shuffle(len(sides), func(i, j int) { sides[i], sides[j] = sides[j], sides[i] })
	for _, side := range sides {
		random.Shuffle(len(side), func(i, j int) { side[i], side[j] = side[j], side[i] })
		turns = append(turns, side...)
	}
	return slices.Insert(turns, random.IntN(len(turns)+1), raw...)
}

// meet measures once and keeps the sample or the error.
func (s *Suite) meet(ctx context.Context, m meeting, round int, into *Result, progress *progress) {
	sample, err := s.measure(ctx, m.load, m.program, round)
	if err != nil {
		into.Errors = append(into.Errors, fmt.Sprintf("round %d: %v", round+1, err))
	} else {
		into.Samples = append(into.Samples, sample)
	}
	progress.met(m, round, sample, err)
}
