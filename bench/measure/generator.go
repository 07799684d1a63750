// The load generator: `ringnbd bench --json` as a child process, the same binary for every
// server and for the raw limit.
//
// Invariant: a run of which the generator reports any trouble yields an error, never a number.

package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"ringnbd/bench/load"
)

// drive is one run of the generator.
type drive struct {
	load    Load
	target  string // URI, or file:PATH
	size    int64  // bytes of the window; 0: the whole export
	seed    int
	seconds float64
	warmup  float64 // seconds before the measuring ones
	fill    bool    // write the whole window first
}

// arguments are the generator's command line.
func (d drive) arguments() []string {
	milliseconds := func(s float64) string { return strconv.FormatInt(int64(s*1000), 10) + "ms" }
	l := d.load
	a := []string{
		"bench", "--json", "--pattern", l.Pattern, "--bs", strconv.Itoa(l.BlockSize), "--depth",
		strconv.Itoa(l.Depth),
		"--connections", strconv.Itoa(l.Connections), "--seed", strconv.Itoa(d.seed), "--duration",
		milliseconds(d.seconds),
	}
	if l.ReadPercent > 0 {
		a = append(a, "--read-percent", strconv.Itoa(l.ReadPercent))
	}
	if l.Rate > 0 {
		a = append(a, "--rate", strconv.FormatFloat(l.Rate, 'f', -1, 64))
	}
	if l.Idle > 0 {
		a = append(a, "--idle", strconv.Itoa(l.Idle))
	}
	if d.warmup > 0 {
		a = append(a, "--warmup", milliseconds(d.warmup))
	}
	if d.size > 0 {
		a = append(a, "--size", strconv.FormatInt(d.size, 10))
	}
	if d.fill {
		a = append(a, "--fill")
	}
	return append(a, d.target)
}

// grace is what a run may take on top of its time: start, connect a thousand times, fill, end.
const grace = 60 * time.Second

// generate runs the generator to its end; it is killed when ctx ends.
func (s *Suite) generate(ctx context.Context, d drive) (*load.Report, error) {
	ctx, cancel := context.WithTimeout(ctx,
		time.Duration((d.seconds+d.warmup)*float64(time.Second))+grace)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Generator, d.arguments()...)
	cmd.SysProcAttr = childAttributes()
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the load generator: %w: %s", err, LastLines(stderr.String(), 3))
	}
	return parseGenerated(stdout.Bytes())
}

// parseGenerated reads the generator's output.
func parseGenerated(out []byte) (*load.Report, error) {
	r := new(load.Report)
	if err := json.Unmarshal(out, r); err != nil {
		return nil, fmt.Errorf("the load generator's JSON: %w", err)
	}
	switch {
	case len(r.Trouble) > 0:
		return nil, errors.New(r.Trouble[0])
	case r.Failures > 0:
		return nil, fmt.Errorf("%d requests failed, the first: %s", r.Failures, r.FirstFailure)
	case r.Interrupted:
		return nil, errors.New("the load generator was interrupted")
	case r.Requests == 0 || r.Seconds <= 0:
		return nil, errors.New("no request was completed")
	}
	return r, nil
}

// generated is a sample with what the generator saw. Of several kinds of requests, the slowest at
// each percentile counts.
func generated(r *load.Report) Sample {
	s := Sample{Requests: int64(r.Requests), Seconds: r.Seconds,
		RequestsPerSecond: r.RequestsPerSecond, BytesPerSecond: r.BytesPerSecond,
		ClientCPU: r.Generator.CPUPerRequest}
	for _, k := range r.Kinds {
		s.P50, s.P90 = max(s.P50, k.Latency.P50), max(s.P90, k.Latency.P90)
		s.P99, s.P999 = max(s.P99, k.Latency.P99), max(s.P999, k.Latency.P999)
		s.P9999 = max(s.P9999, k.Latency.P9999)
	}
	if r.Open != nil {
		s.Backlog = r.Open.BacklogEnd
	}
	return s
}

// LastLines shortens a program's output for an error message: its last n lines in one.
func LastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}
