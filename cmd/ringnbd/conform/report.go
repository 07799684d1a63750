// What a run prints: a table for people, JSON, JUnit XML; and the list of checks.
//
// Invariant: all formats have the same results; nothing is decided here.

package conform

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// order is the order of the verdicts in the summary.
var order = []Verdict{Pass, Fail, Differs, Skip}

// Summary returns the line of counts.
func (r *Report) Summary() string {
	var words []string
	for _, v := range order {
		words = append(words, fmt.Sprintf("%d %s", r.Counts[v], v))
	}
	text := fmt.Sprintf("%d checks: %s", len(r.Results), strings.Join(words, ", "))
	gone := 0
	for _, x := range r.Results {
		if x.Verdict == Skip && strings.HasPrefix(x.Detail, goneReason) {
			gone++
		}
	}
	if gone > 0 {
		text += fmt.Sprintf(" (%d because the server was gone)", gone)
	}
	return text
}

// Screen is where a report is shown.
type Screen struct {
	Colour bool
	Width  int // in columns; 0 means that lines are not broken
}

// The longest text before that of a result, which is as long as before that of a check in a list.
const (
	resultIndent = len("differs XH-10a  ")
	listIndent   = 17
)

// room returns how wide a text can be after an indent; never so narrow that it cannot be read.
func (s Screen) room(indent int) int {
	if s.Width <= 0 {
		return 1 << 16
	}
	return max(s.Width-indent, 24)
}

// lines breaks a text at spaces.
func lines(all string, room int) []string {
	var list []string
	for line := range strings.SplitSeq(text.WrapSoft(all, room), "\n") {
		list = append(list, strings.TrimRight(line, " "))
	}
	return list
}

// Table prints the results, with what was seen if a check did not pass; with verbose, the reasons
// of skips and the times as well.
func (r *Report) Table(w io.Writer, verbose bool, on Screen) error {
	t := table.NewWriter()
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft = ""
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	for _, x := range r.Results {
		title := lines(x.Title, on.room(resultIndent))
		t.AppendRow(row(x, paint(x.Verdict, on.Colour), strings.Join(title, "\n")))
		if x.Detail != "" && (verbose || x.Verdict == Fail || x.Verdict == Differs) {
			for _, line := range lines(x.Detail, min(on.room(resultIndent+2), 120)) {
				t.AppendRow(table.Row{"", "", "  " + line})
			}
		}
		if x.Verdict == Fail || verbose {
			for _, line := range lines(fmt.Sprintf("why %s: %s",
				x.Level, x.Why), on.room(resultIndent+2)) {
				t.AppendRow(table.Row{"", "", "  " + line})
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n", t.Render(), r.Summary())
	if problems := r.problems(); len(problems) > 0 {
		b.WriteString("\n" + strings.Join(lines("What went wrong before the first check; the "+
			"checks know less of the server than there is:", on.room(0)), "\n") + "\n")
		for _, p := range problems {
			fmt.Fprintf(&b, "  %s\n", strings.Join(lines(p, min(on.room(4), 150)), "\n    "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) problems() []string {
	if r.Profile == nil {
		return nil
	}
	return r.Profile.Problems
}

// Err returns what the exit status should tell: that checks failed, or that the suite could not
// find out what there is to check.
func (r *Report) Err() error {
	failed, problems := r.Counts[Fail], r.problems()
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %d checks failed", failed, len(r.Results))
	case len(problems) > 0:
		return fmt.Errorf("no check failed, but the server did not answer the questions before "+
			"the first check: %s", clip(join(problems)))
	}
	return nil
}

func row(x Result, verdict, title string) table.Row { return table.Row{verdict, x.ID, title} }

func paint(v Verdict, colour bool) string {
	if !colour {
		return string(v)
	}
	return map[Verdict]text.Color{Pass: text.FgGreen, Fail: text.FgRed, Differs: text.FgYellow,
		Skip: text.FgHiBlack}[v].Sprint(string(v))
}

// JSON prints the whole report.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// List prints the checks; with verbose also why they matter and what they need, and after a list of
// all checks the rules without a check.
func List(w io.Writer, checks []Check, verbose bool, on Screen) error {
	var b strings.Builder
	indent := strings.Repeat(" ", listIndent)
	folded := func(all string) string {
		return strings.Join(lines(all, on.room(listIndent)), "\n"+indent)
	}
	for _, c := range checks {
		fmt.Fprintf(&b, "%-7s %-8s %s\n", c.ID, c.Level, folded(c.Title))
		if verbose {
			fmt.Fprintf(&b, "%s%s\n", indent, folded("why: "+c.Why))
			for _, n := range c.Needs {
				fmt.Fprintf(&b, "%s%s\n", indent, folded("needs "+n.name))
			}
		}
	}
	if verbose && len(checks) == len(Checks()) {
		b.WriteString("\nRules without a check:\n")
		for _, id := range slices.Sorted(maps.Keys(unchecked)) {
			fmt.Fprintf(&b, "%-7s %-8s %s\n", id, "none", folded(unchecked[id]))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

type junitSuite struct {
	XMLName  xml.Name `xml:"testsuite"`
	Name     string   `xml:"name,attr"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Skipped  int      `xml:"skipped,attr"`
	Time     string   `xml:"time,attr"`
	// Properties has the version of the suite's program.
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Class   string     `xml:"classname,attr"`
	Name    string     `xml:"name,attr"`
	Time    string     `xml:"time,attr"`
	Failure *junitText `xml:"failure"`
	Skipped *junitText `xml:"skipped"`
	Output  string     `xml:"system-out,omitempty"`
}

type junitText struct {
	Message string `xml:"message,attr"`
}

// JUnit prints the results as JUnit XML, which continuous integration servers read; a check that
// differs passes, with its text as output.
func (r *Report) JUnit(w io.Writer) error {
	s := junitSuite{Name: "ringnbd conform " + r.Server, Tests: len(r.Results),
		Failures: r.Counts[Fail], Skipped: r.Counts[Skip],
		Properties: []junitProperty{{"ringnbd", r.Version}}}
	for _, p := range r.problems() {
		s.Tests++
		s.Failures++
		s.Cases = append(s.Cases,
			junitCase{Class: "nbd.facts", Name: "before the first check", Time: "0.000",
				Failure: &junitText{p}})
	}
	total := 0.0
	for _, x := range r.Results {
		c := junitCase{Class: "nbd." + string(x.Level), Name: x.ID + " " + x.Title,
			Time: fmt.Sprintf("%.3f", x.Took.Seconds())}
		switch x.Verdict {
		case Fail:
			c.Failure = &junitText{x.Detail}
		case Skip:
			c.Skipped = &junitText{x.Detail}
		case Differs:
			c.Output = "differs: " + x.Detail
		}
		total += x.Took.Seconds()
		s.Cases = append(s.Cases, c)
	}
	s.Time = fmt.Sprintf("%.3f", total)
	b, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, b)
	return err
}
