// What is written below plots: what follows from them, and what their marks mean.

package show

import (
	"fmt"
	"slices"
	"strings"

	"ringnbd/bench/measure"
)

// markNotes explain the marks of a plot with lines.
func markNotes(all []series) (notes []string) {
	some := func(is func(point) bool) bool {
		return slices.ContainsFunc(all, func(s series) bool {
			return slices.ContainsFunc(s.points, is)
		})
	}
	if some(func(p point) bool { return p.strained }) {
		notes = append(notes, "Hollow: the offered rate was not reached, or requests that were "+
			"due had not been started at the end.")
	}
	if some(func(p point) bool { return p.noisy() && !p.strained }) {
		notes = append(notes, "Crossed out: noisy, the rounds differ by more than half of the "+
			"median.")
	}
	return notes
}

// strainedNotes names the bars of servers that did less than they were asked for.
func (p *plots) strainedNotes(loads []measure.Load, own []string) []string {
	var words []string
	for i, l := range loads {
		for _, server := range p.report.Servers(l) {
			if result := p.report.Result(l, server); len(result.Samples) > 0 &&
				isStrained(l, result.Median) {
				words = append(words, strings.TrimSuffix(server+" at "+own[i], " at "))
			}
		}
	}
	return sentence("The offered rate was not reached, or requests that were due had not been "+
		"started at the end: ", words, "; ")
}

// sentence lists words after a beginning; without words it says nothing.
func sentence(beginning string, words []string, separator string) []string {
	if len(words) == 0 {
		return nil
	}
	return []string{beginning + strings.Join(words, separator) + "."}
}

// growthNotes say by how much each line rises from its first point to its last.
func growthNotes(all []series) []string {
	var words []string
	for _, s := range all {
		first, last := s.points[0], s.points[len(s.points)-1]
		if last.x > first.x {
			word := fmt.Sprintf("%s %+.0f %% from %s to %s", s.name, 100*(last.y/first.y-1),
				plainNumber(first.x), plainNumber(last.x))
			if first.strained || last.strained {
				word += " (hollow)"
			}
			words = append(words, word)
		}
	}
	return sentence("CPU per request with more connections: ", words, "; ")
}

// perIdle says what a silent connection costs in memory: what the peak grew by with all of them,
// divided by their number.
func (p *plots) perIdle(loads []measure.Load) []string {
	var words []string
	for _, l := range loads {
		alone := l
		alone.Idle = 0
		for _, server := range p.report.Servers(l) {
			with, without := p.report.Result(l, server), p.report.Result(alone, server)
			if l.Idle == 0 || without == nil || len(with.Samples) == 0 ||
				len(without.Samples) == 0 {
				continue
			}
			each := float64(with.Median.PeakRSS-without.Median.PeakRSS) / float64(l.Idle) / 1024
			words = append(words, fmt.Sprintf("%s %s KiB", server, digits(each)))
		}
	}
	return sentence("For each idle connection: ", words, ", ")
}

// isStrained reports whether an open loop asked for more than was done. A hundredth is what the
// ends of a run blur.
func isStrained(l measure.Load, s measure.Sample) bool {
	return l.Rate > 0 &&
		(s.RequestsPerSecond < 0.99*l.Rate || float64(s.Backlog) > 0.01*float64(s.Requests))
}
