// One meeting for the sake of a profile: the server is started with its debug endpoint, asked
// during the load, and stopped.
//
// Invariant: nothing that was measured while a profile was taken becomes a sample.

package profile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/google/pprof/profile"

	"ringnbd/bench/measure"
)

// profileSeconds is how long a load is profiled: five times as long as it is measured. At the
// runtime's 100 samples per second of CPU time, five seconds make a share of 10 % good to a percent
// or two.
func profileSeconds(s *measure.Suite) int { return min(max(1, int(math.Ceil(5*s.Seconds))), 30) }

// taken is the profile of one load.
type taken struct {
	profile  *profile.Profile
	requests float64 // that were answered while the profile was taken
	kernel   kernelSplit
}

// ofLoad profiles ringnbd under a load.
func ofLoad(ctx context.Context, s *measure.Suite, l measure.Load,
	p measure.Program) (measure.Profile, error) {
	t, err := take(ctx, s, l, p, findPerf())
	if err != nil {
		return measure.Profile{}, err
	}
	result := measure.Profile{Load: l, Server: p.Name, Seconds: cpuSeconds(t.profile),
		Stages: Stages(t.profile), Top: Functions(t.profile)}
	perRequest(&result, t.requests)
	splitKernel(&result, t.kernel)
	return result, nil
}

// take is the meeting: start, warm up, drive, profile, stop. Without the path of perf, the work of
// the kernel is not sampled.
func take(ctx context.Context, s *measure.Suite, l measure.Load, p measure.Program,
	perf string) (t taken, err error) {
	err = s.Serve(ctx, l, withDebug(p), func(d measure.Driven) error {
		t, err = takeDriven(ctx, d, profileSeconds(s), perf)
		return err
	})
	return t, err
}

// debugSocket is the name of the debug endpoint in the private folder of a server.
const debugSocket = "debug"

// withDebug is a program with its debug endpoint on a Unix socket.
func withDebug(p measure.Program) measure.Program {
	arguments := p.Arguments
	p.Arguments = func(stand measure.Stand) ([]string, error) {
		a, err := arguments(stand)
		if err != nil || len(a) == 0 {
			return nil, errors.Join(err,
				errors.New("a server without a debug endpoint cannot be profiled"))
		}
		socket := filepath.Join(stand.Dir, debugSocket)
		return append([]string{a[0], "--debug", "unix:" + socket}, a[1:]...), nil
	}
	return p
}

// profileLead is what a driven profile needs besides its own time: to begin, to count, to be
// written, and, in seconds of load, to be on the safe side.
const profileLead = 1.5

// takeDriven takes the profile while the generator runs, and then, with perf, what the kernel does;
// if perf fails, the profile is still good.
func takeDriven(ctx context.Context, d measure.Driven, seconds int, perf string) (taken, error) {
	e := newEndpoint(filepath.Join(d.Dir, debugSocket))
	before, err := e.requests(ctx)
	if err != nil {
		return taken{}, err
	}
	needed := float64(seconds) + profileLead
	if perf != "" {
		needed *= 2
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	driven := make(chan error, 1)
	go func() { driven <- d.Drive(ctx, needed) }()
	t, err := e.takeBusy(ctx, before, seconds)
	if err == nil && perf != "" {
		t.kernel, _ = recordKernel(ctx, perf, d.PID, seconds)
	}
	if err != nil {
		cancel()
	}
	return t, errors.Join(err, <-driven)
}

// endpoint is a server's debug endpoint on a Unix socket.
type endpoint struct{ client http.Client }

func newEndpoint(socket string) *endpoint {
	return &endpoint{http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context,
		_, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}}
}

// get fetches a page.
func (e *endpoint) get(ctx context.Context, page string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+page, nil)
	if err != nil {
		return nil, err
	}
	response, err := e.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the debug endpoint: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the debug endpoint: %s: %s", response.Status,
			measure.LastLines(string(body), 1))
	}
	return body, err
}

// requests is how many the server has counted.
func (e *endpoint) requests(ctx context.Context) (uint64, error) {
	body, err := e.get(ctx, "/debug/counters")
	if err != nil {
		return 0, err
	}
	var counted struct{ Requests map[string]uint64 }
	if err := json.Unmarshal(body, &counted); err != nil {
		return 0, fmt.Errorf("the debug endpoint's counters: %w", err)
	}
	var n uint64
	for _, of := range counted.Requests {
		n += of
	}
	return n, nil
}

// busyTimeout bounds the wait for the generator's first requests; it may have to open a thousand
// connections.
const busyTimeout = 30 * time.Second

// takeBusy waits until requests come, and takes a profile.
func (e *endpoint) takeBusy(ctx context.Context, before uint64, seconds int) (taken, error) {
	first, err := e.awaitRequests(ctx, before)
	if err != nil {
		return taken{}, err
	}
	began := time.Now()
	body, err := e.get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds))
	if err != nil {
		return taken{}, err
	}
	last, err := e.requests(ctx)
	if err != nil {
		return taken{}, err
	}
	took := time.Since(began)
	p, err := profile.ParseData(body)
	if err != nil {
		return taken{}, fmt.Errorf("the debug endpoint's profile: %w", err)
	}
	if cpuSeconds(p) == 0 {
		return taken{}, errors.New("the profile holds no CPU time: the server had no work")
	}
	// Requests went on being counted while the profile was written.
	return taken{profile: p,
		requests: float64(last-first) * float64(p.DurationNanos) / float64(took.Nanoseconds())}, nil
}

// awaitRequests waits until the server has counted more than it had before.
func (e *endpoint) awaitRequests(ctx context.Context, before uint64) (uint64, error) {
	for end := time.Now().Add(busyTimeout); ; {
		n, err := e.requests(ctx)
		if err != nil || n > before {
			return n, err
		}
		if time.Now().After(end) {
			return 0, errors.New("no request came that a profile could be taken of")
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// perRequest works out the time of each stage in µs.
func perRequest(p *measure.Profile, requests float64) {
	for i := range p.Stages {
		if requests > 0 {
			p.Stages[i].MicrosPerRequest = p.Stages[i].Share * p.Seconds * 1e6 / requests
		}
	}
}
