// A report like one of a real run, for the tests of the page: every section, every server that
// is invited, failures, a profile.
//
// Invariant: the same bytes every time, and figures that hang together (latency follows from
// load and rate, CPU time bounds the rate).

package show

import (
	"math"
	"math/rand/v2"
	"time"

	"ringnbd/bench/measure"
)

// model is a server as arithmetic.
type model struct {
	user, system float64 // CPU µs per small request over a Unix socket
	lone         float64 // µs that it adds to a request alone
	threads      float64 // how many cores it can keep busy
	cached       bool
	memory       float64 // MiB
	start        float64 // s
}

var models = map[string]model{
	measure.RawName: {lone: 0, threads: 2},
	"ringnbd":       {user: 0.4, system: 3.4, lone: 14, threads: 2, memory: 196, start: 0.03},
	"ringnbd-cached": {user: 0.4, system: 4.8, lone: 19, threads: 2, cached: true, memory: 196,
		start: 0.03},
	"ringnbd-poll": {user: 11, system: 29, lone: 6, threads: 2, memory: 196, start: 0.03},
	"nbdkit": {user: 1.3, system: 10.9, lone: 38, threads: 1.4, cached: true, memory: 5,
		start: 0.02},
	"qemu-nbd": {user: 2.7, system: 7.2, lone: 31, threads: 1, memory: 9, start: 0.06},
	"qemu-nbd-cached": {user: 3.1, system: 11.8, lone: 44, threads: 1.3, cached: true, memory: 12,
		start: 0.06},
	"nbd-server": {user: 1.9, system: 11.5, lone: 41, threads: 1.6, cached: true, memory: 17,
		start: 0.04},
}

// diskLimit is what the imagined disk does at most, per second.
func diskLimit(l measure.Load) float64 {
	limit := map[string]float64{"randread": 128e3, "randwrite": 57e3, "randrw": 88e3, "read": 128e3,
		"write": 57e3}[l.Pattern]
	return min(limit, 1.9e9/float64(l.BlockSize))
}

// sampleOf is one round of one server.
func (m model) sampleOf(l measure.Load, round int, random *rand.Rand) measure.Sample {
	blocks := max(1, float64(l.BlockSize)/4096)
	growth := math.Pow(blocks, 0.72)
	user, system := m.user, m.system*growth
	if l.Transport == measure.TCP {
		system *= 1.25
	}
	if l.Connections >= 16 {
		system *= 1 + 0.03*math.Log2(float64(l.Connections))
	}
	client := 3.5 * growth
	limit, alone := 1e9, 4.0+m.lone
	if l.OnDisk() {
		limit, alone = diskLimit(l), 78*growth+m.lone
		if m.cached && l.Writes() {
			limit *= 3.2
		}
	} else {
		system *= 0.35
	}
	cpu := user + system
	capacity := min(limit, 1e6*m.threads/max(cpu, 0.1), 2e6/(cpu+client))
	wobble := func(by float64) float64 { return 1 + by*(random.Float64()*2-1) }
	inFlight := float64(l.Depth * l.Connections)
	s := measure.Sample{Round: round, Seconds: 5, ServerUser: user * wobble(.04),
		ServerSystem: system * wobble(.04), ClientCPU: client * wobble(.05),
		Switches: cpu / 12 * wobble(.1),
		PeakRSS: int64((m.memory +
			0.009*float64(l.Idle+l.Connections)) * wobble(.02) * (1 << 20)),
		StartSeconds: (m.start + 0.0004*float64(l.Exports)) * wobble(.1),
		Steal:        random.Float64() * 0.004}
	rate := min(capacity, inFlight*1e6/alone) * wobble(.05)
	median := inFlight / rate * 1e6
	tail := 1.9
	if l.Rate > 0 {
		load := l.Rate / capacity
		if load < 0.97 {
			rate, median, tail = l.Rate*wobble(.001), alone*(1+0.35*load/(1-load)), 1.6+
				1.8*load/(1-load)
		} else {
			s.Backlog = uint64(max(0, l.Rate-rate) * s.Seconds)
			median += float64(s.Backlog) / rate * 0.5e6
		}
	}
	s.RequestsPerSecond, s.BytesPerSecond = rate, rate*float64(l.BlockSize)
	s.Requests = int64(rate * s.Seconds)
	s.P50 = median * wobble(.04)
	s.P99 = s.P50 * tail * wobble(.12)
	s.P999 = s.P99 * 1.7 * wobble(.2)
	if m.cached && l.Writes() && l.OnDisk() {
		s.WriteBack = 1.2 * wobble(.3)
	}
	if m.threads == 2 && m.memory == 0 {
		s.ServerUser, s.ServerSystem, s.Switches, s.PeakRSS, s.StartSeconds = 0, 0, 0, 0, 0
	}
	return s
}

// plausibleReport is a whole run of three rounds.
func plausibleReport() *measure.Report {
	random := rand.New(rand.NewPCG(3, 4))
	r := &measure.Report{Command: "make bench",
		Date: time.Date(2026, 11, 21, 6, 30, 0, 0, time.UTC),
		Size: 4 << 30, Seconds: 5, Rounds: 3,
		Machine: measure.Machine{CPU: "AMD EPYC 7R13 Processor", Cores: 2, Hypervisor: true,
			Memory: 24 << 30, Kernel: "6.18.44", OS: "Debian GNU/Linux 12 (bookworm)",
			Filesystem: "ext4 on /dev/vda", Congestion: "cubic",
			Loopback: map[string]float64{measure.Unix: 5.1e9, measure.TCP: 3.9e9},
			Versions: map[string]string{"ringnbd": "ringnbd 8486b43 (go1.26.8, linux/amd64)",
				"nbdkit":     "nbdkit 1.32.5",
				"qemu-nbd":   "qemu-nbd 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)",
				"nbd-server": "This is nbd-server version 3.24"}},
		Storage: map[string]string{"ringnbd": "O_DIRECT, io_uring",
			"ringnbd-cached": "page cache (--direct off), io_uring",
			"ringnbd-poll":   "O_DIRECT, io_uring, busy polling",
			"nbdkit":         "page cache, threads", "qemu-nbd": "O_DIRECT, io_uring",
			"qemu-nbd-cached": "page cache, threads",
			"nbd-server":      "page cache, process per client"},
		Direct: []string{"ringnbd", "ringnbd-poll", "qemu-nbd"}}
	for _, section := range measure.Sections() {
		for _, l := range section.Loads {
			for _, server := range section.Servers {
				meet(r, l, server, random)
			}
		}
	}
	r.Profiles = plausibleProfiles(r)
	return r
}

// meet adds one result, some of which failed.
func meet(r *measure.Report, l measure.Load, server string, random *rand.Rand) {
	if server == measure.RawName {
		if l = l.Limit(); !l.OnDisk() || r.Result(l, server) != nil {
			return
		}
	}
	if l.Backend == measure.Null && server == "nbd-server" {
		return
	}
	result := measure.Result{Load: l, Server: server}
	switch {
	case server == "qemu-nbd" && l.Connections == 1000:
		result.Errors = []string{"round 1: connect: connection refused",
			"round 2: connect: connection refused", "round 3: connect: connection refused"}
	case server == "nbdkit" && l.Section == "loop" && l.Pattern == "randwrite" &&
		l.Connections == 4:
		result.Errors = []string{"round 2: the server said: nbdkit: file.4: error: pwrite: " +
			"Input/output error"}
	case server == "nbd-server" && l.Section == "disk" && l.Pattern == "randrw" &&
		l.Transport == measure.TCP && l.Connections == 1:
		result.Errors = []string{"round 1: not ready in time", "round 2: not ready in time",
			"round 3: not ready in time"}
	}
	for round := 1; round <= r.Rounds && len(result.Errors) < 3; round++ {
		if len(result.Errors) == 1 && round == 2 {
			continue
		}
		result.Samples = append(result.Samples, models[server].sampleOf(l, round, random))
	}
	result.Median = measure.MedianSample(result.Samples)
	r.Results = append(r.Results, result)
}

func plausibleProfiles(r *measure.Report) []measure.Profile {
	var all []measure.Profile
	for _, l := range r.Section("disk") {
		if l.Transport != measure.Unix || l.Connections != 4 || l.Pattern == "randrw" {
			continue
		}
		p := measure.Profile{Load: l, Server: "ringnbd", Seconds: 4.7}
		cpu := r.Result(l, "ringnbd").Median.ServerCPU()
		for _, s := range []measure.Stage{{Name: "receive", Share: .21},
			{Name: "parse", Share: .05},
			{Name: "disk", Share: .31}, {Name: "reply", Share: .29},
			{Name: "loop", Share: .02}, {Name: "polling", Share: .01},
			{Name: "kernel", Share: .07}, {Name: "runtime", Share: .03},
			{Name: "other", Share: .01}} {
			s.MicrosPerRequest = cpu * s.Share
			p.Stages = append(p.Stages, s)
		}
		p.Top = []measure.Function{{Name: "internal/runtime/syscall.Syscall6", Share: .87},
			{Name: "ringnbd/engine.(*loop).settle", Share: .031},
			{Name: "ringnbd/engine.(*loop).record", Share: .022},
			{Name: "ringnbd/proto.ParseRequest", Share: .014},
			{Name: "runtime.memmove", Share: .011}}
		all = append(all, p)
	}
	return all
}
