package bench

// Tests of the targets with reports made by hand.

import (
	"strings"
	"testing"
)

// verdict finds a target by the beginning of its name.
func verdict(t *testing.T, r *Report, name string) Target {
	t.Helper()
	for _, x := range r.Targets() {
		if strings.HasPrefix(x.Name, name) {
			return x
		}
	}
	t.Fatalf("no target %q", name)
	return Target{}
}

// over adds the same samples over the other transport.
func over(r *Report, transport string) {
	for _, result := range r.Results {
		if result.Server != RawName {
			result.Load.Transport = transport
			r.Results = append(r.Results, result)
		}
	}
}

func TestTargetNeedsEveryLoad(t *testing.T) {
	r := sampleReport()
	name := "4 KiB random read, depth 32, file O_DIRECT, 4 connections: requests/s"
	if x := verdict(t, r, name); x.Verdict() != "not judged" || x.Got != "0.90" {
		t.Errorf("over one transport: %+v", x)
	}
	over(r, Unix)
	if x := verdict(t, r, name); x.Verdict() != "met" || x.Got != "0.90 (tcp); 0.90 (unix)" {
		t.Errorf("over both: %+v", x)
	}
	if x := verdict(t, r, "4 KiB random write"); x.Verdict() != "not judged" || x.Got != "not measured" {
		t.Errorf("writes: %+v", x)
	}
}

func TestTargetIsMissedByOneLoad(t *testing.T) {
	r := sampleReport()
	over(r, Unix)
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
	if x := verdict(t, r, name); x.Verdict() != "not judged" || !strings.Contains(x.Got, "CPU is the bound: 2.3 of 2 cores") {
		t.Errorf("with busy cores: %+v", x)
	}
}

// pair is a report of ringnbd on two loads.
func pair(a, b Load, x, y Sample) *Report {
	x.Round, y.Round = 1, 1
	r := &Report{Results: []Result{{Load: a, Server: "ringnbd", Samples: []Sample{x}}, {Load: b, Server: "ringnbd", Samples: []Sample{y}}}}
	medians(r)
	return r
}

func TestTargetsOfCrowds(t *testing.T) {
	base := Load{Pattern: "randread", BlockSize: small, Depth: 8, Connections: 1, Transport: Unix, Backend: Null, Rate: crowdRate}
	load := func(section string, vary func(*Load)) Load {
		l := base
		l.Section = section
		vary(&l)
		return l
	}
	nothing := func(*Load) {}
	for _, c := range []struct {
		name, want, got string
		r               *Report
	}{
		{"1,000 idle connections", "met", "8.0 KiB", pair(load("idle", nothing), load("idle", func(l *Load) { l.Idle = 1000 }),
			Sample{PeakRSS: 100 << 20}, Sample{PeakRSS: 100<<20 + 8000<<10})},
		{"1,000 idle connections", "missed", "17.0 KiB", pair(load("idle", nothing), load("idle", func(l *Load) { l.Idle = 1000 }),
			Sample{PeakRSS: 100 << 20}, Sample{PeakRSS: 100<<20 + 17000<<10})},
		{"1,000 exports: start-up", "not judged", "0.40 s", pair(load("exports", nothing), load("exports", func(l *Load) { l.Exports = 999 }),
			Sample{StartSeconds: 0.1}, Sample{StartSeconds: 0.4})}, // null only, the file is missing
		{"1 to 1,000 exports, null: server CPU", "missed", "2.00: 4.00 after 2.00 µs", pair(load("exports", nothing), load("exports", func(l *Load) { l.Exports = 999 }),
			Sample{ServerSystem: 2}, Sample{ServerSystem: 4})},
		{"1 to 1,000 connections", "missed", "1.30: 13.00 after 10.00 µs", pair(load("connections", nothing), load("connections", func(l *Load) { l.Connections = crowd }),
			Sample{ServerSystem: 10}, Sample{ServerSystem: 13})},
		{"1 to 1,000 connections", "not judged", "1.10: 11.00 after 10.00 µs", pair(load("connections", nothing), load("connections", func(l *Load) { l.Connections = crowd }),
			Sample{ServerSystem: 10}, Sample{ServerSystem: 11})}, // null only, the file is missing
	} {
		if x := verdict(t, c.r, c.name); x.Verdict() != c.want || !strings.HasPrefix(x.Got, c.got) {
			t.Errorf("%s: %s, %s; want %s, %s", c.name, x.Verdict(), x.Got, c.want, c.got)
		}
	}
}

func TestTargetOfAddedLatencyTakesTheBestPeer(t *testing.T) {
	l := Load{Section: "depth", Pattern: "randread", BlockSize: small, Depth: 1, Connections: 1, Transport: Unix, Backend: File}
	s := func(p50 float64) []Sample { return []Sample{{Round: 1, P50: p50}} }
	r := &Report{Results: []Result{{Load: l.limit(), Server: RawName, Samples: s(100)}, {Load: l, Server: "ringnbd", Samples: s(110)},
		{Load: l, Server: "nbdkit", Samples: s(140)}, {Load: l, Server: "qemu-nbd", Samples: s(125)}}}
	medians(r)
	if x := verdict(t, r, "4 KiB random read, depth 1: p50"); x.Verdict() != "met" || !strings.HasPrefix(x.Got, "0.40 × qemu-nbd: +10 and +25 µs on 100") {
		t.Errorf("%+v", x)
	}
}

func TestTargetOfBandwidthTakesTheLowerBound(t *testing.T) {
	l := Load{Section: "large", Pattern: "read", BlockSize: large, Depth: 16, Connections: 1, Transport: TCP, Backend: File}
	s := func(b float64) []Sample { return []Sample{{Round: 1, BytesPerSecond: b}} }
	r := &Report{Machine: Machine{Loopback: map[string]float64{TCP: 2e9}},
		Results: []Result{{Load: l.limit(), Server: RawName, Samples: s(4e9)}, {Load: l, Server: "ringnbd", Samples: s(1.8e9)}}}
	medians(r)
	name := "1 MiB sequential read and write, depth 16: bandwidth"
	if x := verdict(t, r, name); x.Verdict() != "missed" || x.Got != "0.90 of loopback" {
		t.Errorf("a slow loopback: %+v", x)
	}
	r.Machine.Loopback[TCP] = 9e9
	if x := verdict(t, r, name); x.Got != "0.45 of raw" {
		t.Errorf("a fast loopback: %+v", x)
	}
}
