package bench

// A run: loads times servers times rounds, interleaved. Invariant: at any moment
// at most one server and one load generator run, and none outlives Run.

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// RawName is the entry for the raw limit in a list of servers and in a report.
const RawName = "raw"

// Suite is what to run.
type Suite struct {
	Dir      string  // where the file is made; decides which storage is measured
	Size     int64   // bytes of the file
	Seconds  float64 // per measurement
	Rounds   int
	Loads    []Load
	Programs []Program
	Raw      bool      // measure the raw limit as well
	Progress io.Writer // one line per measurement
}

// Run measures everything and returns the report. A server that fails in a
// measurement gets an error in its result; only failures of the bench itself end
// the run. When ctx ends, the run stops, cleans up and returns ctx's error.
func (s *Suite) Run(ctx context.Context) (*Report, error) {
	disk, err := createDisk(s.Dir, s.Size)
	if err != nil {
		return nil, fmt.Errorf("the test file: %w", err)
	}
	defer os.Remove(disk)
	r := &Report{Date: time.Now().UTC().Truncate(time.Second), Machine: machineFacts(s.Dir),
		Size: s.Size, Seconds: s.Seconds, Rounds: s.Rounds, Storage: map[string]string{}}
	r.Machine.addVersions(s.Programs)
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
	for round := range s.Rounds {
		for i := range meetings {
			k := s.turn(round, i, meetings)
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s.meet(ctx, meetings[k], disk, round, &r.Results[k])
		}
	}
	for i := range r.Results {
		r.Results[i].Median = medianSample(r.Results[i].Samples)
	}
	return r, ctx.Err()
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

// meetings lists what one round holds: the same load on all servers side by side.
// The raw limit knows no transport, so it takes part once per load but transport.
func (s *Suite) meetings() []meeting {
	var all []meeting
	var seen []Load
	for _, l := range s.Loads {
		raw := l
		raw.Transport = ""
		if s.Raw && !slices.Contains(seen, raw) {
			seen = append(seen, raw)
			all = append(all, meeting{load: raw})
		}
		for i := range s.Programs {
			all = append(all, meeting{load: l, program: &s.Programs[i]})
		}
	}
	return all
}

// turn maps the i-th place of a round to a meeting: the order of the loads stays,
// the servers within a load move on by one every round.
func (s *Suite) turn(round, i int, all []meeting) int {
	first := i
	for first > 0 && all[first-1].load == all[i].load {
		first--
	}
	end := i + 1
	for end < len(all) && all[end].load == all[i].load {
		end++
	}
	return first + (i-first+round)%(end-first)
}

// meet measures once and files the sample or the error.
func (s *Suite) meet(ctx context.Context, m meeting, disk string, round int, into *Result) {
	var sample Sample
	var err error
	if m.program == nil {
		sample, err = s.measureRaw(ctx, m.load, disk)
	} else {
		sample, err = s.measureServer(ctx, m.load, *m.program, disk)
	}
	sample.Round = round + 1
	if err != nil {
		into.Errors = append(into.Errors, fmt.Sprintf("round %d: %v", round+1, err))
		fmt.Fprintf(s.Progress, "round %d  %-36s %-10s FAILED: %v\n", round+1, m.load, m.name(), err)
		return
	}
	into.Samples = append(into.Samples, sample)
	fmt.Fprintf(s.Progress, "round %d  %-36s %-10s %7.0f req/s  p50 %6.0f µs  p99 %6.0f µs  cpu %5.1f µs  steal %4.1f %%\n",
		round+1, m.load, m.name(), sample.RequestsPerSecond, sample.P50, sample.P99, sample.ServerCPU(), 100*sample.Steal)
}

// grace is what a load may take on top of its time: start, connect, end.
const grace = 20 * time.Second

func (s *Suite) generate(ctx context.Context, dir string, arguments []string) (measure, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.Seconds*float64(time.Second))+grace)
	defer cancel()
	return runFio(ctx, dir, arguments)
}

// measureRaw measures the file without any server.
func (s *Suite) measureRaw(ctx context.Context, l Load, disk string) (Sample, error) {
	dir, err := os.MkdirTemp("", "sidebyside-")
	if err != nil {
		return Sample{}, err
	}
	defer os.RemoveAll(dir)
	if err := evict(disk, nil); err != nil {
		return Sample{}, err
	}
	before := readMachineTicks()
	m, err := s.generate(ctx, dir, fioRaw(l, s.Size, s.Seconds, disk))
	if err != nil {
		return Sample{}, err
	}
	sample := m.sample()
	sample.Steal = readMachineTicks().stealSince(before)
	return sample, nil
}

// measureServer starts the program on the disk, drives it, stops it.
func (s *Suite) measureServer(ctx context.Context, l Load, p Program, disk string) (sample Sample, err error) {
	dir, err := os.MkdirTemp("", "sidebyside-") // the default: a socket path must stay short
	if err != nil {
		return Sample{}, err
	}
	defer os.RemoveAll(dir)
	address := Address{Transport: l.Transport, Path: filepath.Join(dir, "socket")}
	if address.Port, err = freePort(); err != nil {
		return Sample{}, err
	}
	if err := evict(disk, nil); err != nil {
		return Sample{}, err
	}
	server, err := Start(p, Stand{Dir: dir, File: disk, Address: address, Clients: l.Jobs})
	if err != nil {
		return Sample{}, err
	}
	pid := server.PID
	switches := treeSwitches(pid)
	user, system := treeCPU(pid)
	memory := watchMemory(pid)
	before := readMachineTicks()
	m, err := s.generate(ctx, dir, fioNBD(l, s.Size, s.Seconds, address.URI(p.Export)))
	after := readMachineTicks()
	server.awaitClients()
	userAfter, systemAfter := treeCPU(pid)
	peak := memory()
	usage := server.Stop()
	if err != nil {
		return Sample{}, fmt.Errorf("%w; the server said: %s", err, lastLines(server.output.String(), 3))
	}
	sample = m.sample()
	sample.ServerUser = perRequest(userAfter-user, m.requests)
	sample.ServerSystem = perRequest(systemAfter-system, m.requests)
	sample.PeakRSS = peak
	sample.Steal = after.stealSince(before)
	sample.Switches = switchesPerRequest(usage, switches, m.requests)
	var took time.Duration
	err = evict(disk, &took)
	sample.WriteBack = took.Seconds()
	return sample, err
}

// sample carries over what the generator saw.
func (m measure) sample() Sample {
	return Sample{Requests: m.requests, Seconds: m.seconds, RequestsPerSecond: m.rps,
		P50: m.p50, P99: m.p99, P999: m.p999, ClientCPU: perRequest(m.cpu, m.requests)}
}

func perRequest(t time.Duration, requests int64) float64 {
	return float64(t.Nanoseconds()) / 1e3 / float64(requests)
}

func switchesPerRequest(usage syscall.Rusage, before, requests int64) float64 {
	return float64(usage.Nvcsw+usage.Nivcsw-before) / float64(requests)
}

// watchMemory samples a process tree's resident memory until the returned
// function is called, which tells the peak in bytes.
func watchMemory(pid int) func() int64 {
	stop, peak := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		var highest int64
		for {
			sum, single := treeRSS(pid)
			highest = max(highest, sum, single)
			select {
			case <-stop:
				peak <- highest
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 { close(stop); return <-peak }
}
