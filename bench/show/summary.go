// The summary of a report in the README of the project: a row for each of six loads.

package show

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// summaryLoads are the rows, all over Unix sockets.
var summaryLoads = []struct {
	name string
	is   func(measure.Load) bool
}{
	{"4 KiB random read", func(l measure.Load) bool {
		return l.Section == "disk" && l.Pattern == "randread" && l.Connections == 4
	}},
	{"4 KiB random write", func(l measure.Load) bool {
		return l.Section == "disk" && l.Pattern == "randwrite" && l.Connections == 4
	}},
	{"1 MiB sequential read", func(l measure.Load) bool {
		return l.Section == "large" && l.Pattern == "read" && l.BlockSize == measure.LargeBlock
	}},
	{"1 MiB sequential write", func(l measure.Load) bool {
		return l.Section == "large" && l.Pattern == "write" && l.BlockSize == measure.LargeBlock
	}},
	{"4 KiB read, no storage", func(l measure.Load) bool {
		return l.Section == "null" && l.Connections == 4 && l.Depth == measure.UsualDepth
	}},
	{"4 KiB random read over 1,000 connections", func(l measure.Load) bool {
		return l.Section == "connections" && l.Backend == measure.File &&
			l.Connections == measure.Crowd
	}},
}

// WriteREADME replaces the block between the markers of a file by the summary.
func WriteREADME(measured *measure.Report, path string) error {
	r := report{measured}
	if err := r.enough(path); err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := replaceBlock(old, r.summaryBlock())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if bytes.Equal(old, text) {
		return nil
	}
	return os.WriteFile(path, text, 0o644)
}

// summaryBlock is the text between the markers.
func (r report) summaryBlock() string {
	t := newMarkdown("lrrrrr", "load (connections × depth)", "ringnbd", "× raw limit",
		"× fastest peer on O_DIRECT", "server CPU µs/request", "× cheapest of all peers")
	for _, row := range summaryLoads {
		i := slices.IndexFunc(r.Loads(), func(l measure.Load) bool {
			return l.Transport == measure.Unix && row.is(l)
		})
		if i < 0 {
			continue
		}
		l := r.Loads()[i]
		result := r.Result(l, "ringnbd")
		if result == nil || len(result.Samples) == 0 {
			continue
		}
		limit, fastest := r.limitText(l), r.against(l, "ringnbd", measure.RequestRate, true)
		if l.Rate > 0 { // every server does what is asked for
			limit, fastest = "", ""
		}
		t.row(fmt.Sprintf("%s, %d × %d", row.name, l.Connections, l.Depth),
			headFigure(l, result.Median), orNone(limit), orNone(fastest), cpuCell(result.Median),
			orNone(r.againstAll(l, "ringnbd")))
	}
	return fmt.Sprintf("Measured %s: %s, over Unix sockets, on %s, %s, Linux %s, %s. %s\n\n%s",
		r.Date.Format("2006-01-02"), r.rounds(), r.Machine.CPU,
		units.Plural(r.Machine.Cores, "core"), r.Machine.Kernel, r.Machine.Filesystem,
		r.verdicts(), t.text())
}

// headFigure is what matters most of a load: requests per second, bandwidth of large requests, or
// latency where the rate is fixed.
func headFigure(l measure.Load, s measure.Sample) string {
	switch {
	case l.Rate > 0:
		return fmt.Sprintf("p99 %s µs at %s/s", measure.Micros(s.P99), measure.RateText(l.Rate))
	case l.BlockSize >= measure.LargeBlock:
		return digits(s.BytesPerSecond/(1<<20)) + " MiB/s"
	}
	return digits(s.RequestsPerSecond) + "/s"
}

func orNone(text string) string {
	if text == "" {
		return none
	}
	return text
}
