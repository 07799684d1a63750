// A comparison as text: plain, for a terminal and a commit message, and as a Markdown table.
//
// Invariant: a plain line has at most textWidth columns, but for a word that is longer; both say
// the same.

package show

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

// textWidth is the usual width of a commit message.
const textWidth = 72

// ComparisonText is the comparison as a commit message can quote it.
func ComparisonText(c *judge.Comparison) string {
	var b strings.Builder
	for _, line := range comparisonHead(c) {
		b.WriteString(wrap(line))
	}
	const columns = "%-10s %6s %6s  %-12s  %-12s %5s %s\n"
	b.WriteString("\n")
	fmt.Fprintf(&b, columns, "new/base", "base", "median", "95 % sure", "min..max", "sees",
		"verdict")
	for _, l := range c.Loads {
		if len(l.Pairs) == 0 {
			continue // the foot says why
		}
		b.WriteString(l.Name + "\n")
		for _, r := range l.Ratios {
			if r.Pairs > 0 {
				fmt.Fprintf(&b, columns, r.Metric, shortNumber(r.Base), ratioText(r.Median),
					intervalText(r), extremesText(r), seesText(r), r.Verdict)
			}
		}
	}
	b.WriteString("\n")
	for _, line := range comparisonFoot(c) {
		b.WriteString(wrap(line))
	}
	return b.String()
}

// ComparisonMarkdown is the comparison as a table.
func ComparisonMarkdown(c *judge.Comparison) string {
	var b strings.Builder
	for _, line := range comparisonHead(c) {
		b.WriteString("- " + line + "\n")
	}
	b.WriteString("\n")
	t := newMarkdown("llrrrllrl", "load", "", "base", "new", "new/base", "95 % sure", "min..max",
		"sees", "verdict")
	for _, l := range c.Loads {
		name := l.Name
		for _, r := range l.Ratios {
			if r.Pairs == 0 {
				continue
			}
			t.row(name, r.Metric, shortNumber(r.Base), shortNumber(r.New), ratioText(r.Median),
				intervalText(r), extremesText(r), seesText(r), r.Verdict)
			name = ""
		}
	}
	b.WriteString(t.text() + "\n")
	for _, line := range comparisonFoot(c) {
		b.WriteString("- " + line + "\n")
	}
	return b.String()
}

// head says what was compared and where.
func comparisonHead(c *judge.Comparison) []string {
	pairs := 0
	for _, l := range c.Loads {
		pairs = max(pairs, len(l.Pairs))
	}
	lines := []string{
		"base: " + c.Base.String(),
		"new: " + c.New.String(),
		fmt.Sprintf("%d pairs of %g s each, in alternating order, servers started anew every time",
			pairs, c.Seconds),
		c.Machine.String(),
	}
	if c.Same() {
		lines = append(lines,
			"Both sides are the same program with the same flags: every difference is chance.")
	} else if c.Base.Go != c.New.Go {
		lines = append(lines,
			fmt.Sprintf("Built by different compilers, %s and %s: part of a difference may be "+
				"theirs.", c.Base.Go, c.New.Go))
	}
	if c.Command != "" {
		lines = append(lines, "made by: "+c.Command)
	}
	return lines
}

// foot says how to read it, and what the reader should know of the run.
func comparisonFoot(c *judge.Comparison) []string {
	all, apart, unsure, expected := 0, 0, 0, 0.0
	for _, l := range c.Loads {
		for _, r := range l.Ratios {
			if r.Sure == 0 {
				continue
			}
			all++
			expected += 1 - r.Sure
			if r.Chance <= 1-judge.Confidence {
				apart++
			}
			if strings.HasSuffix(r.Verdict, "?") {
				unsure++
			}
		}
	}
	lines := []string{"Ratios are medians over the pairs, intervals order statistics; \"sees\" " +
		"is half an interval's width, about the least difference that would have shown."}
	if all > 0 {
		lines = append(lines,
			fmt.Sprintf("%d of %d intervals exclude 1, where chance alone makes about %.1f. "+
				"A verdict stands when it does among all of them (Benjamini-Hochberg, 5 %% "+
				"false); %d with a ? do not.", apart, all, expected, unsure))
	}
	if noise := noiseNote(c); noise != "" {
		lines = append(lines, noise)
	}
	for _, l := range c.Loads {
		lines = append(lines, loadNotes(l)...)
	}
	return lines
}

// notes says what went wrong with a load.
func loadNotes(l judge.Compared) []string {
	var lines []string
	if disturbed := disturbedNote(l); disturbed != "" {
		lines = append(lines, disturbed)
	}
	for _, r := range l.Ratios {
		if n := len(l.Pairs) - r.Pairs; n > 0 {
			lines = append(lines,
				fmt.Sprintf("%s: %s leaves out %d of %d pairs, in which one side finished "+
					"nothing in its time.", l.Name, r.Metric, n, len(l.Pairs)))
		}
	}
	if l.Error != "" {
		lines = append(lines,
			fmt.Sprintf("%s ended after %d pairs: %s", l.Name, len(l.Pairs),
				strings.Join(strings.Fields(l.Error), " ")))
	}
	return lines
}

// disturbed lists the pairs that were flagged; they count like the others.
func disturbedNote(l judge.Compared) string {
	var pairs []string
	for i, p := range l.Pairs {
		if p.Disturbed {
			pairs = append(pairs, fmt.Sprintf("%.0f %% in pair %d", 100*p.Taken(), i+1))
		}
	}
	if pairs == nil {
		return ""
	}
	return fmt.Sprintf("%s: of the CPU time, steal and other programs took %s; usual %.0f %%. "+
		"Counted like the others.",
		l.Name, strings.Join(pairs, ", "), 100*judge.UsuallyTaken(l.Pairs))
}

// maxTaken is the share of CPU time taken by others from which on a reader is told.
const maxTaken = 0.1

// noise warns of a machine that had more to do.
func noiseNote(c *judge.Comparison) string {
	var pairs []measure.Pair
	for _, l := range c.Loads {
		pairs = append(pairs, l.Pairs...)
	}
	if taken := judge.UsuallyTaken(pairs); taken > maxTaken {
		return fmt.Sprintf("Steal and other programs took %.0f %% of the CPU time (median of "+
			"all pairs): on a quiet machine the intervals are narrower.", 100*taken)
	}
	return ""
}

func intervalText(r judge.Ratio) string {
	if r.Sure == 0 {
		return "-"
	}
	return ratioText(r.Low) + ".." + ratioText(r.High)
}

func extremesText(r judge.Ratio) string { return ratioText(r.Min) + ".." + ratioText(r.Max) }

func seesText(r judge.Ratio) string {
	if r.Sure == 0 {
		return "-"
	}
	if r.Sees >= 0.9995 {
		return fmt.Sprintf("%.0f%%", 100*r.Sees)
	}
	return fmt.Sprintf("%.1f%%", 100*r.Sees)
}

// ratioText prints a ratio in five columns.
func ratioText(r float64) string {
	switch {
	case r < 10:
		return fmt.Sprintf("%.3f", r)
	case r < 100:
		return fmt.Sprintf("%.2f", r)
	}
	return fmt.Sprintf("%.0f", r)
}

// wrap breaks a line between words; what follows the break is indented.
func wrap(line string) string {
	const indent = "  "
	var b strings.Builder
	column := 0
	for i, word := range slices.Collect(strings.FieldsSeq(line)) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > textWidth:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String() + "\n"
}
