// Tests of the targets with reports made by hand.

package judge

import (
	"strings"
	"testing"

	"ringnbd/bench/measure"
)

// diskReport has the random reads of the disk section with 4 connections over TCP in two rounds.
func diskReport() *measure.Report {
	l := measure.Load{Section: "disk", Pattern: "randread", BlockSize: 4096, Depth: 32,
		Connections: 4, Transport: measure.TCP, Backend: measure.File}
	result := func(l measure.Load, server string, rate, cpu float64) measure.Result {
		s := measure.Sample{Round: 1, RequestsPerSecond: rate, ServerSystem: cpu, ClientCPU: 4}
		second := s
		second.Round, second.RequestsPerSecond = 2, 2*rate
		return measure.Result{Load: l, Server: server, Samples: []measure.Sample{s, second}}
	}
	r := &measure.Report{Rounds: 2, Machine: measure.Machine{Cores: 2},
		Direct: []string{"ringnbd", "qemu-nbd"},
		Results: []measure.Result{result(l.Limit(), measure.RawName, 40000, 0),
			result(l, "ringnbd", 36000, 8), result(l, "nbdkit", 24000, 24),
			result(l, "qemu-nbd", 18000, 16)}}
	medians(r)
	return r
}

func medians(r *measure.Report) {
	for i := range r.Results {
		r.Results[i].Median = measure.MedianSample(r.Results[i].Samples)
	}
}

// verdict finds a target by the beginning of its name.
func verdict(t *testing.T, r *measure.Report, name string) Target {
	t.Helper()
	for _, x := range Targets(r) {
		if strings.HasPrefix(x.Name, name) {
			return x
		}
	}
	t.Fatalf("no target %q", name)
	return Target{}
}

// over adds the same samples over the other transport.
func over(r *measure.Report, transport string) {
	for _, result := range r.Results {
		if result.Server != measure.RawName {
			result.Load.Transport = transport
			r.Results = append(r.Results, result)
		}
	}
}

func TestTargetNeedsEveryLoad(t *testing.T) {
	r := diskReport()
	name := "4 KiB random read, depth 32, file O_DIRECT, 4 connections: requests/s"
	if x := verdict(t, r, name); x.Verdict() != "not judged" || x.Got != "0.90" {
		t.Errorf("over one transport: %+v", x)
	}
	over(r, measure.Unix)
	if x := verdict(t, r, name); x.Verdict() != "met" || x.Got != "0.90 (tcp); 0.90 (unix)" {
		t.Errorf("over both: %+v", x)
	}
	if x := verdict(t, r, "4 KiB random write"); x.Verdict() != "not judged" ||
		x.Got != "not measured" {
		t.Errorf("writes: %+v", x)
	}
}

func TestTargetIsMissedByOneLoad(t *testing.T) {
	r := diskReport()
	over(r, measure.Unix)
	for i := range r.Results[1].Samples {
		r.Results[1].Samples[i].RequestsPerSecond /= 2
	}
	medians(r)
	name := "4 KiB random read, depth 32, file O_DIRECT, 4 connections: requests/s"
	if x := verdict(t, r, name); x.Verdict() != "missed" {
		t.Errorf("at half the rate: %+v", x)
	}
	for i := range r.Results[1].Samples { // now the cores are busy
		r.Results[1].Samples[i].ServerSystem = 80
	}
	medians(r)
	if x := verdict(t, r, name); x.Verdict() != "not judged" ||
		!strings.Contains(x.Got, "CPU is the bound: 2.3 of 2 cores") {
		t.Errorf("with busy cores: %+v", x)
	}
}

// twice is the same sample in two rounds.
func twice(s measure.Sample) []measure.Sample {
	t := s
	s.Round, t.Round = 1, 2
	return []measure.Sample{s, t}
}

// pair is a report of ringnbd on two loads.
func pair(a, b measure.Load, x, y measure.Sample) *measure.Report {
	r := &measure.Report{Results: []measure.Result{{Load: a, Server: "ringnbd", Samples: twice(x)},
		{Load: b, Server: "ringnbd", Samples: twice(y)}}}
	medians(r)
	return r
}

func TestTargetsOfCrowds(t *testing.T) {
	base := measure.Load{Pattern: "randread", BlockSize: measure.SmallBlock, Depth: 8,
		Connections: 1, Transport: measure.Unix,
		Backend: measure.Null, Rate: measure.CrowdRate}
	load := func(section string, vary func(*measure.Load)) measure.Load {
		l := base
		l.Section = section
		vary(&l)
		return l
	}
	nothing := func(*measure.Load) {}
	for _, c := range []struct {
		name, want, got string
		r               *measure.Report
	}{
		{"1,000 idle connections", "met", "8.0 KiB",
			pair(load("idle", nothing), load("idle", func(l *measure.Load) {
				l.Idle = 1000
			}),
				measure.Sample{PeakRSS: 100 << 20}, measure.Sample{PeakRSS: 100<<20 + 8000<<10})},
		{"1,000 idle connections", "missed", "17.0 KiB",
			pair(load("idle", nothing), load("idle", func(l *measure.Load) {
				l.Idle = 1000
			}),
				measure.Sample{PeakRSS: 100 << 20}, measure.Sample{PeakRSS: 100<<20 + 17000<<10})},
		{"1,000 exports: start-up", "not judged", "0.40 s",
			pair(load("exports", nothing), load("exports", func(l *measure.Load) {
				l.Exports = 999
			}),
				// null only, the file is missing
				measure.Sample{StartSeconds: 0.1}, measure.Sample{StartSeconds: 0.4})},
		{"1 to 1,000 exports: server CPU", "missed", "2.00: 4.00 after 2.00 µs",
			pair(load("exports", nothing), load("exports", func(l *measure.Load) {
				l.Exports = 999
			}),
				measure.Sample{ServerSystem: 2}, measure.Sample{ServerSystem: 4})},
		{"1 to 1,000 connections", "missed", "1.30: 13.00 after 10.00 µs",
			pair(load("connections", nothing), load("connections", func(l *measure.Load) {
				l.Connections = measure.Crowd
			}),
				measure.Sample{ServerSystem: 10}, measure.Sample{ServerSystem: 13})},
		{"1 to 1,000 connections", "not judged", "1.10: 11.00 after 10.00 µs",
			pair(load("connections", nothing), load("connections", func(l *measure.Load) {
				l.Connections = measure.Crowd
			}),
				measure.Sample{ServerSystem: 10},
				measure.Sample{ServerSystem: 11})}, // null only, the file is missing
	} {
		if x := verdict(t, c.r, c.name); x.Verdict() != c.want || !strings.HasPrefix(x.Got, c.got) {
			t.Errorf("%s: %s, %s; want %s, %s", c.name, x.Verdict(), x.Got, c.want, c.got)
		}
	}
}

func TestTargetOfAddedLatencyTakesTheBestPeer(t *testing.T) {
	l := measure.Load{Section: "depth", Pattern: "randread", BlockSize: measure.SmallBlock,
		Depth: 1, Connections: 1,
		Transport: measure.Unix, Backend: measure.File}
	s := func(p50 float64) []measure.Sample { return twice(measure.Sample{P50: p50}) }
	r := &measure.Report{Results: []measure.Result{{Load: l.Limit(), Server: measure.RawName,
		Samples: s(100)},
		{Load: l, Server: "ringnbd", Samples: s(110)},
		{Load: l, Server: "nbdkit", Samples: s(140)},
		{Load: l, Server: "qemu-nbd", Samples: s(125)}}}
	medians(r)
	if x := verdict(t, r, "4 KiB random read, depth 1: p50"); x.Verdict() != "met" ||
		!strings.HasPrefix(x.Got, "0.40 × qemu-nbd: +10 and +25 µs on 100") {
		t.Errorf("%+v", x)
	}
}

func TestTargetOfBandwidthTakesTheLowerBound(t *testing.T) {
	l := measure.Load{Section: "large", Pattern: "read", BlockSize: measure.LargeBlock, Depth: 16,
		Connections: 1, Transport: measure.TCP, Backend: measure.File}
	s := func(b float64) []measure.Sample { return twice(measure.Sample{BytesPerSecond: b}) }
	r := &measure.Report{Machine: measure.Machine{Loopback: map[string]float64{measure.TCP: 2e9}},
		Results: []measure.Result{{Load: l.Limit(), Server: measure.RawName, Samples: s(4e9)},
			{Load: l, Server: "ringnbd", Samples: s(1.8e9)}}}
	medians(r)
	name := "1 MiB sequential read and write, depth 16: bandwidth"
	if x := verdict(t, r, name); x.Verdict() != "missed" ||
		x.Got != "0.90 of the loopback's 2.0 GB/s, measured once" {
		t.Errorf("a slow loopback: %+v", x)
	}
	r.Machine.Loopback[measure.TCP] = 9e9
	if x := verdict(t, r, name); x.Got != "0.45 of raw" {
		t.Errorf("a fast loopback: %+v", x)
	}
}

// alone is a report of one load on several servers, each with one figure per round.
func alone(l measure.Load, set func(*measure.Sample, float64), servers []string,
	figures map[string][]float64) *measure.Report {
	r := &measure.Report{Direct: []string{"ringnbd", "ringnbd-poll", "qemu-nbd"},
		Machine: measure.Machine{Cores: 2}}
	for _, server := range servers {
		result := measure.Result{Load: l, Server: server}
		if server == measure.RawName {
			result.Load = l.Limit()
		}
		for i, x := range figures[server] {
			s := measure.Sample{Round: i + 1}
			set(&s, x)
			result.Samples = append(result.Samples, s)
		}
		r.Results = append(r.Results, result)
	}
	medians(r)
	return r
}

func TestTargetIsCloseWhenRoundsDisagree(t *testing.T) {
	l := measure.Load{Section: "null", Pattern: "randread", BlockSize: measure.SmallBlock,
		Depth: measure.UsualDepth, Connections: 4, Transport: measure.Unix, Backend: measure.Null}
	const name = "null export, 4 KiB read, 4 × 32: server CPU"
	for _, c := range []struct {
		rounds       []float64
		verdict, got string
	}{
		{[]float64{1.9, 1.7, 2.0}, "met", "1.90 µs (unix); 1.90 µs (tcp)"},
		{[]float64{1.9, 1.7, 2.1}, "close",
			"1.90 [1.70..2.10] µs (unix); 1.90 [1.70..2.10] µs (tcp)"},
		{[]float64{2.2, 1.7, 2.1}, "close",
			"2.10 [1.70..2.20] µs (unix); 2.10 [1.70..2.20] µs (tcp)"},
		{[]float64{2.2, 2.1}, "missed", "2.15 µs (unix); 2.15 µs (tcp)"},
		{[]float64{1.5}, "not judged", "1.50 µs (unix); 1.50 µs (tcp), one round only"},
		{[]float64{2.5}, "not judged", "2.50 µs (unix); 2.50 µs (tcp), one round only"},
	} {
		r := alone(l, func(s *measure.Sample, x float64) {
			s.ServerSystem = x
		}, []string{"ringnbd"}, map[string][]float64{"ringnbd": c.rounds})
		over(r, measure.TCP)
		x := verdict(t, r, name)
		if x.Verdict() != c.verdict || x.Got != c.got {
			t.Errorf("%v: %s, %s; want %s, %s", c.rounds, x.Verdict(), x.Got, c.verdict, c.got)
		}
	}
}

func TestTargetTellsWhichLoadWasMeasuredOnce(t *testing.T) {
	l := measure.Load{Section: "null", Pattern: "randread", BlockSize: measure.SmallBlock,
		Depth: measure.UsualDepth, Connections: 4, Transport: measure.Unix, Backend: measure.Null}
	r := alone(l, func(s *measure.Sample, x float64) {
		s.ServerSystem = x
	}, []string{"ringnbd"}, map[string][]float64{"ringnbd": {1.5, 1.5}})
	over(r, measure.TCP)
	r.Results[1].Samples = r.Results[1].Samples[:1]
	if x := verdict(t, r,
		"null export, 4 KiB read, 4 × 32: server CPU"); x.Verdict() != "not judged" ||
		x.Got != "1.50 µs (unix); 1.50 µs, one round only (tcp)" {
		t.Errorf("%+v", x)
	}
}

func TestTargetMissedByOneLoadIsNotClose(t *testing.T) {
	l := measure.Load{Section: "null", Pattern: "randread", BlockSize: measure.SmallBlock,
		Depth: measure.UsualDepth, Connections: 4, Transport: measure.Unix, Backend: measure.Null}
	r := alone(l, func(s *measure.Sample, x float64) {
		s.ServerSystem = x
	}, []string{"ringnbd"}, map[string][]float64{"ringnbd": {1.9, 2.1}})
	over(r, measure.TCP)
	r.Results[1].Samples = twice(measure.Sample{ServerSystem: 3})
	medians(r)
	if x := verdict(t, r, "null export, 4 KiB read, 4 × 32: server CPU"); x.Verdict() != "missed" {
		t.Errorf("%+v", x)
	}
}

func TestTargetOfCPUTakesTheCheapestOfAllPeers(t *testing.T) {
	l := measure.Load{Section: "large", Pattern: "read", BlockSize: measure.LargeBlock, Depth: 16,
		Connections: 1, Transport: measure.Unix, Backend: measure.File}
	set := func(s *measure.Sample, x float64) { s.ServerSystem = x }
	const name = "1 MiB sequential read and write, depth 16: server CPU per GiB"
	servers := []string{"ringnbd", "nbdkit", "qemu-nbd"}
	r := alone(l, set, servers,
		map[string][]float64{"ringnbd": {8, 8}, "nbdkit": {10, 10}, "qemu-nbd": {20, 20}})
	if x := verdict(t, r, name); x.Verdict() != "missed" ||
		x.Got != "0.80 × nbdkit on the page cache, 0.40 × qemu-nbd on O_DIRECT" {
		t.Errorf("a cheap peer on the page cache: %+v", x)
	}
	r = alone(l, set, servers,
		map[string][]float64{"ringnbd": {8, 8}, "nbdkit": {40, 40}, "qemu-nbd": {20, 20}})
	if x := verdict(t, r, name); x.Got != "0.40 × qemu-nbd on O_DIRECT" {
		t.Errorf("a cheap peer on O_DIRECT: %+v", x)
	}
}

func TestTargetOfUnalignedWritesKnowsAllPeers(t *testing.T) {
	l := measure.Load{Section: "unaligned", Pattern: "randwrite", BlockSize: 512,
		Depth: measure.UsualDepth, Connections: 1, Transport: measure.Unix, Backend: measure.File}
	r := alone(l, func(s *measure.Sample, x float64) {
		s.RequestsPerSecond = x
	}, []string{"ringnbd", "nbdkit", "qemu-nbd"},
		map[string][]float64{"ringnbd": {80, 80}, "nbdkit": {100, 100}, "qemu-nbd": {40, 40}})
	if x := verdict(t, r, "512 B random write: requests/s"); x.Got != "2.00 × qemu-nbd" {
		t.Errorf("by O_DIRECT: %+v", x)
	}
	if x := verdict(t, r, "512 B random write by O_DIRECT: requests/s"); x.Verdict() != "missed" ||
		x.Got != "0.80 × nbdkit" {
		t.Errorf("of all: %+v", x)
	}
}

func TestTargetOfAddedLatencyCountsRoundsInWhichAPeerAddsNothing(t *testing.T) {
	l := measure.Load{Section: "depth", Pattern: "randread", BlockSize: measure.SmallBlock,
		Depth: 1, Connections: 1,
		Transport: measure.Unix, Backend: measure.File}
	set := func(s *measure.Sample, x float64) { s.P50 = x }
	const name = "4 KiB random read, depth 1: p50 added"
	servers := []string{measure.RawName, "ringnbd", "qemu-nbd"}
	r := alone(l, set, servers,
		map[string][]float64{measure.RawName: {100, 100, 100}, "ringnbd": {110, 110, 110},
			"qemu-nbd": {99, 130, 98}})
	if x := verdict(t, r, name); x.Verdict() != "close" ||
		!strings.HasPrefix(x.Got, "∞ [0.33..∞] × qemu-nbd") || *x.Met {
		t.Errorf("a peer that adds nothing in two rounds of three: %+v", x)
	}
	r = alone(l, set, servers,
		map[string][]float64{measure.RawName: {100, 100}, "ringnbd": {110, 110},
			"qemu-nbd": {99, 98}})
	if x := verdict(t, r, name); x.Verdict() != "missed" {
		t.Errorf("a peer that adds nothing: %+v", x)
	}
	r = alone(l, set, servers,
		map[string][]float64{measure.RawName: {100, 100, 100}, "ringnbd": {99, 99, 90},
			"qemu-nbd": {99, 98, 120}})
	if x := verdict(t, r, name); x.Verdict() != "met" {
		t.Errorf("ringnbd adds nothing: %+v", x)
	}
}

func TestTargetOfPollingTellsThePrice(t *testing.T) {
	l := measure.Load{Section: "poll", Pattern: "randread", BlockSize: measure.SmallBlock, Depth: 1,
		Connections: 1, Transport: measure.Unix, Backend: measure.Null}
	r := &measure.Report{Results: []measure.Result{{Load: l, Server: "ringnbd",
		Samples: twice(measure.Sample{P50: 10.3, P99: 24, ServerSystem: 4})},
		{Load: l, Server: "ringnbd-poll",
			Samples: twice(measure.Sample{P50: 8.4, P99: 40, ServerSystem: 12})}}}
	medians(r)
	if x := verdict(t, r, "4 KiB random read, depth 1, --poll 50"); !strings.Contains(x.Got,
		"0.82: p50 8.4 instead of 10.3, p99 40.0 instead of 24.0 µs, CPU 12.0 instead of 4.0 µs") {
		t.Errorf("%+v", x)
	}
}

func TestTargetOfAnOverlayComparesWhatIsAdded(t *testing.T) {
	plain := measure.Load{Section: "overlay", Pattern: "randread", BlockSize: measure.SmallBlock,
		Depth: measure.UsualDepth, Connections: 4, Transport: measure.Unix, Backend: measure.File}
	report := func(ours, theirs float64) *measure.Report {
		r := &measure.Report{Direct: []string{"ringnbd", "qemu-nbd"}}
		add := func(server, backend, pattern string, cpu float64) {
			l := plain
			l.Backend, l.Pattern = backend, pattern
			r.Results = append(r.Results, measure.Result{Load: l, Server: server,
				Samples: twice(measure.Sample{ServerUser: cpu, RequestsPerSecond: 1e5 / cpu})})
		}
		for _, pattern := range []string{"randread", "randwrite"} {
			add("ringnbd", measure.File, pattern, 3)
			add("qemu-nbd", measure.File, pattern, 10)
			for _, backend := range []string{measure.Overlay, measure.Mapped} {
				add("ringnbd", backend, pattern, 3+ours)
				add("qemu-nbd", backend, pattern, 10+theirs)
			}
		}
		medians(r)
		return r
	}
	name := "overlay, 4 KiB, 4 × 32: CPU that it adds to a request on the file"
	x := verdict(t, report(1, 4), name)
	if x.Verdict() != "met" || !strings.Contains(x.Got, "0.25 × qemu-nbd: +1.0 and +4.0 µs") {
		t.Errorf("a quarter of what qcow2 adds: %+v", x)
	}
	for theirs, want := range map[float64]string{1: "missed", 0: "missed", 0.5: "missed",
		1.1: "met"} {
		if x := verdict(t, report(1, theirs), name); x.Verdict() != want {
			t.Errorf("1 µs beside %v: %+v", theirs, x)
		}
	}
	if x := verdict(t, report(0, 0), name); x.Verdict() != "met" {
		t.Errorf("nothing is added: %+v", x)
	}
}
