// One meeting: evict, start the server, warm up, drive, stop.
//
// Invariant: when measure returns, its server is gone and its private folder is removed; the
// file and the loop device, which the next meeting needs too, stay until Suite.Close.

package measure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Sizes of the exports without a file, unless the suite says otherwise.
const (
	nullSize   = 1 << 40
	memorySize = 256 << 20
)

// mappedSize is how much of an overlay is filled before a load that is to find everything in it.
const mappedSize = 256 << 20

// minOpenSeconds is the shortest time of an open loop with many connections: only a window inside
// it counts (see window).
const minOpenSeconds = 1.5

// duration is how long a load is measured, in seconds.
func (s *Suite) duration(l Load) float64 {
	if l.Connections+l.Idle > 64 {
		return max(s.Seconds, min(minOpenSeconds, 2*s.Seconds))
	}
	return s.Seconds
}

// measure is one meeting of a load with a program, or with the raw limit when the program is nil.
// The round (from 0) seeds the load and is kept in the sample.
func (s *Suite) measure(ctx context.Context, l Load, p *Program, round int) (sample Sample,
	err error) {
	raiseDescriptors()
	stand, err := s.stand(l)
	if err != nil {
		return Sample{}, err
	}
	defer stand.remove()
	if p == nil {
		sample, err = s.measureRaw(ctx, l, stand, round)
	} else {
		sample, err = s.measureServer(ctx, l, *p, stand, round)
	}
	sample.Round = round + 1
	return sample, err
}

// stand makes the private folder of one meeting and prepares what the export is made of.
func (s *Suite) stand(l Load) (Stand, error) {
	dir, err := os.MkdirTemp("", "ringnbd-bench-") // the default: a socket path must stay short
	if err != nil {
		return Stand{}, err
	}
	stand := Stand{Dir: dir, Backend: l.Backend, Clients: l.Connections + l.Idle,
		Address: Address{Transport: l.Transport, Path: filepath.Join(dir, "socket")}}
	err = s.furnish(&stand, l)
	if err == nil {
		stand.Address.Port, err = freePort()
	}
	if err != nil {
		stand.remove()
	}
	return stand, err
}

// remove removes what belongs to one meeting.
func (s *Stand) remove() {
	os.RemoveAll(s.Dir)
	if s.Top != "" {
		os.RemoveAll(filepath.Dir(s.Top))
	}
}

// Driven is a server that was started for a load and warmed up.
type Driven struct {
	Dir   string // its private folder
	PID   int
	suite *Suite
	drive drive
}

// Drive runs the load on the server for the given time, and drops what it measured.
func (d Driven) Drive(ctx context.Context, seconds float64) error {
	d.drive.seconds = seconds
	_, err := d.suite.generate(ctx, d.drive)
	return err
}

// Serve starts a program for a load, warms it up, calls use and stops the program.
func (s *Suite) Serve(ctx context.Context, l Load, p Program, use func(Driven) error) error {
	raiseDescriptors()
	stand, err := s.stand(l)
	if err != nil {
		return err
	}
	defer stand.remove()
	server, err := Start(p, stand)
	if err != nil {
		return err
	}
	defer server.Stop()
	d := s.drive(l, stand.Address.URI(p.Export), 0)
	if err = s.warm(ctx, d); err == nil {
		err = use(Driven{Dir: stand.Dir, PID: server.PID, suite: s, drive: d})
	}
	if err != nil {
		return server.explain(err)
	}
	return nil
}

// furnish prepares the file or device of the export, or chooses its size.
func (s *Suite) furnish(stand *Stand, l Load) (err error) {
	switch l.Backend {
	case File:
		stand.File, err = s.storage.alone(s.Dir, s.Size)
	case Overlay, Mapped:
		stand.File, err = s.storage.alone(s.Dir, s.Size)
		var folder string
		if err == nil {
			folder, err = os.MkdirTemp(s.Dir, "ringnbd-bench-")
		}
		if err == nil {
			stand.Top = filepath.Join(folder, "top")
		}
	case Loop:
		stand.File, err = s.storage.loop(s.Dir, s.Size)
	case Null:
		stand.Size = orElse(s.Null, nullSize)
	case Memory:
		stand.Size = orElse(s.Memory, memorySize)
	default:
		err = fmt.Errorf("there is no back end %q", l.Backend)
	}
	if err == nil && l.Exports > 0 {
		stand.Exports, err = s.storage.further(s.Dir, l.Exports)
	}
	if err == nil && l.OnDisk() {
		_, err = s.storage.evict("")
	}
	return err
}

func orElse(n, otherwise int64) int64 {
	if n > 0 {
		return n
	}
	return otherwise
}

// drive prepares a run of the generator on a target.
func (s *Suite) drive(l Load, target string, round int) drive {
	d := drive{load: l, target: target, seed: round + 1, seconds: s.duration(l)}
	if l.OnDisk() {
		d.size = s.Size
	}
	if l.Backend == Mapped {
		d.size = min(s.Size, mappedSize)
	}
	return d
}

// warm drives the target for the warm-up time and drops what it measured. The warm-up is a run of
// its own, so that the CPU time of the measured run is that of the requests which it reports. Open
// loops warm up within the run instead: their CPU time is read over a window (see window).
func (s *Suite) warm(ctx context.Context, d drive) error {
	d.seconds, d.seed = s.Warmup, d.seed+1000
	d.fill = d.load.Backend == Memory || d.load.Backend == Mapped
	if d.load.Rate > 0 || (s.Warmup <= 0 && !d.fill) {
		return nil
	}
	d.seconds = max(d.seconds, 0.01)
	_, err := s.generate(ctx, d)
	return err
}

// measureRaw measures the file or device without any server.
func (s *Suite) measureRaw(ctx context.Context, l Load, stand Stand, round int) (Sample, error) {
	d := s.drive(l, "file:"+stand.File, round)
	if err := s.warm(ctx, d); err != nil {
		return Sample{}, err
	}
	before := readCPUUse()
	r, err := s.generate(ctx, d)
	if err != nil {
		return Sample{}, err
	}
	sample := generated(r)
	now := readCPUUse()
	sample.Steal, sample.Others = now.stolen(before), now.others(before)
	return sample, nil
}

// measureServer starts the program, drives it, stops it.
func (s *Suite) measureServer(ctx context.Context, l Load, p Program, stand Stand,
	round int) (sample Sample, err error) {
	server, err := Start(p, stand)
	if err != nil {
		return Sample{}, err
	}
	sample, err = s.observe(ctx, s.drive(l, stand.Address.URI(p.Export), round), server)
	if err != nil {
		server.Stop()
		return Sample{}, server.explain(err)
	}
	if l.OnDisk() {
		var took time.Duration
		took, err = s.storage.evict(stand.Top)
		sample.WriteBack = took.Seconds()
	}
	return sample, err
}

// observe drives a running server, stops it, and joins the figures of the generator and of the
// kernel.
func (s *Suite) observe(ctx context.Context, d drive, server *Server) (Sample, error) {
	if err := s.warm(ctx, d); err != nil {
		return Sample{}, err
	}
	server.awaitClients()
	if d.load.Rate > 0 {
		d.warmup = s.Warmup
	}
	switches, cpu, before := treeSwitches(server.PID), treeCPU(server.PID), readCPUUse()
	watch := watchTree(server.PID, d.load.Rate > 0)
	r, err := s.generate(ctx, d)
	now := readCPUUse()
	seen := watch()
	if err != nil {
		return Sample{}, err
	}
	server.awaitClients()
	all := float64(r.Requests) + d.load.Rate*d.warmup
	used, requests := treeCPU(server.PID).since(cpu), all
	now.ours += used.total // the server is a child that was not waited for yet
	if d.load.Rate > 0 {
		if inner, seconds, ok := seen.window(r.Seconds); ok {
			used.total, requests = inner, r.RequestsPerSecond*seconds
		}
	}
	usage := server.Stop()
	sample := generated(r)
	user, system := used.divide()
	sample.ServerUser, sample.ServerSystem = perRequest(user, requests), perRequest(system,
		requests)
	sample.Switches = switchesPerRequest(usage, switches, all)
	sample.PeakRSS, sample.StartSeconds = seen.peak, server.Ready.Seconds()
	sample.Steal, sample.Others = now.stolen(before), now.others(before)
	return sample, nil
}

func perRequest(t time.Duration, requests float64) float64 {
	return float64(t.Nanoseconds()) / 1e3 / requests
}

func switchesPerRequest(usage syscall.Rusage, before int64, requests float64) float64 {
	return float64(usage.Nvcsw+usage.Nivcsw-before) / requests
}
