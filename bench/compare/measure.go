// The measuring: pair by pair, load by load.
//
// Invariant: both sides of a pair get the same requests, from the same seed, on the same file.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/engine/progress"
)

var errInterrupted = errors.New("interrupted")

// measurePairs takes all pairs. A load that fails on either side ends with that error; the others
// go on.
func measurePairs(ctx context.Context, o options, b *built,
	stderr io.Writer) (c *judge.Comparison, err error) {
	s := &measure.Suite{Generator: b.Generator, Dir: o.dir, Size: o.size, Seconds: o.seconds,
		Warmup: o.warmup}
	defer func() {
		if e := s.Close(); err == nil && e != nil {
			c, err = nil, e
		}
	}()
	base, new := measure.Ringnbd(b.Base.Path, b.Base.Side.Flags...), measure.Ringnbd(b.New.Path,
		b.New.Side.Flags...)
	base.Name, new.Name = "base", "new"
	c = judge.NewComparison(b.Base.Side, b.New.Side, o.dir, o.size, o.seconds)
	for _, l := range o.loads {
		c.Loads = append(c.Loads, judge.Compared{Name: l.name, Load: l.load})
	}
	left := newCountdown(stderr, o)
	defer left.clear()
	for pair := range o.pairs {
		for i := range c.Loads {
			l := &c.Loads[i]
			left.show(pair, l.Name)
			if l.Error != "" {
				continue
			}
			// Odd loads begin the other way round: no side begins all of a round.
			p, err := s.MeasurePair(ctx, l.Load, &base, &new, pair, (pair+i)%2 == 1)
			if ctx.Err() != nil {
				return nil, errInterrupted
			}
			if err != nil {
				l.Error = err.Error()
				left.say(l.Name + " FAILED: " + l.Error)
				continue
			}
			l.Pairs = append(l.Pairs, p)
		}
	}
	if every(c.Loads, func(l judge.Compared) bool { return len(l.Pairs) == 0 }) {
		return nil, fmt.Errorf("no load could be measured; %s: %s", c.Loads[0].Name,
			c.Loads[0].Error)
	}
	c.Judge()
	return c, nil
}

func every[T any](all []T, is func(T) bool) bool {
	for _, v := range all {
		if !is(v) {
			return false
		}
	}
	return true
}

// countdown shows how far the run has come: a bar on a terminal, elsewhere a line for each round of
// pairs.
type countdown struct {
	w       io.Writer
	line    *progress.Line // nil elsewhere
	begun   time.Time
	all     int
	done    int
	pairs   int
	planned time.Duration // of one pair
}

// around is what a measurement takes besides its own time and the warm-up, as a first guess; the
// pace of the run replaces it.
const around = 500 * time.Millisecond

func newCountdown(w io.Writer, o options) *countdown {
	c := &countdown{w: w, begun: time.Now(), all: o.pairs * len(o.loads), pairs: o.pairs}
	c.planned = 2 * (time.Duration((o.seconds+o.warmup)*float64(time.Second)) + around)
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		width, _, _ := term.GetSize(int(f.Fd())) // 0 if it is not known
		c.line = progress.New(w, width)
	}
	return c
}

// left is the estimated time to the end.
func (c *countdown) left() time.Duration {
	pace := c.planned
	if c.done > 0 {
		pace = time.Since(c.begun) / time.Duration(c.done)
	}
	return (time.Duration(c.all-c.done) * pace).Round(time.Second)
}

// show announces the next pair.
func (c *countdown) show(pair int, load string) {
	if c.line != nil {
		c.line.Show(fmt.Sprintf("%s, %v left", load, c.left()), float64(c.done)/float64(c.all))
	} else if c.done%(c.all/c.pairs) == 0 {
		fmt.Fprintf(c.w, "pair %d of %d, about %v left\n", pair+1, c.pairs, c.left())
	}
	c.done++
}

// say prints a line of its own.
func (c *countdown) say(text string) {
	c.clear()
	fmt.Fprintln(c.w, text)
}

// clear takes the line away.
func (c *countdown) clear() {
	if c.line != nil {
		c.line.Clear()
	}
}
