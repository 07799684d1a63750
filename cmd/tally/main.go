// Command tally reads the events of go test -json and prints what matters: when a check or a
// package begins, the rows of tables that tests made, and at the end which tests failed, which were
// skipped and why, and the number of each. make test pipes everything through tally, the checks of
// the Makefile included. With -complete, a test skipped because a Debian package is missing has
// failed.
//
// Invariant: the closing line counts every test once, also a test that began and never ended, as
// happens when a package panics or runs out of time; the exit status is 0 only if at least one test
// passed and none failed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is one line of go test -json, with the fields that tally uses (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build events
	Test        string
	Output      string
	FailedBuild string
	Key, Value  string // of attr events
	Elapsed     float64
}

func (e event) name() string {
	if e.Test == "" {
		return e.Package
	}
	return e.Package + " " + e.Test
}

// tally is the state after the events read so far.
type tally struct {
	out     io.Writer
	output  map[string][]string // the lines of each running test or package
	passed  int
	failed  []string
	skipped []string
	parents map[string]bool // tests with subtests: counted only if the parent itself fails

	begun    []event         // tests that have not ended, in the order in which they began
	paused   map[string]bool // tests of begun that wait for their turn
	complete bool            // a test skipped because a Debian package is missing has failed
}

// maxTrace is the number of lines printed of a test that did not end; the first lines show where
// the test hangs.
const maxTrace = 120

func main() {
	complete := flag.Bool("complete", false,
		"a test skipped because a Debian package is missing has failed")
	flag.Parse()
	t := newTally(os.Stdout)
	t.complete = *complete
	if err := t.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
	if !t.close() {
		os.Exit(1)
	}
}

func newTally(out io.Writer) *tally {
	return &tally{
		out:     out,
		output:  map[string][]string{},
		parents: map[string]bool{},
		paused:  map[string]bool{},
	}
}

// read consumes events until the end of the stream. Lines that are not events, the messages of go
// itself for example, are copied to the output.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				t.take(e)
			} else {
				fmt.Fprint(t.out, line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// take accounts for one event.
func (t *tally) take(e event) {
	name := e.name()
	switch e.Action {
	case "start":
		fmt.Fprintf(t.out, "begin %s\n", name)
	case "attr":
		if e.Key == "table" {
			fmt.Fprintln(t.out, e.Value)
		}
	case "pause", "cont":
		t.paused[name] = e.Action == "pause"
	case "run":
		t.begun = append(t.begun, e)
		for i, c := range e.Test {
			if c == '/' {
				t.parents[e.Package+" "+e.Test[:i]] = true
			}
		}
	case "output":
		t.output[name] = append(t.output[name], e.Output)
	case "build-output":
		t.output[e.ImportPath] = append(t.output[e.ImportPath], e.Output)
	case "pass":
		t.pass(e)
	case "skip":
		t.skip(e)
	case "fail":
		if e.Test == "" {
			t.abandon(e.Package)
		}
		t.fail(e)
	}
	if e.Action == "pass" || e.Action == "skip" || e.Action == "fail" {
		delete(t.output, name)
		t.begun = slices.DeleteFunc(t.begun, func(b event) bool {
			return b.Package == e.Package && b.Test == e.Test
		})
	}
}

// abandon counts as failed, and prints, the tests of a package that had not ended when the package
// ended. Of tests with subtests only the innermost count; tests that only waited for their turn are
// counted, and printed in one line.
func (t *tally) abandon(of string) {
	var waiting []string
	for _, b := range slices.Clone(t.begun) {
		if b.Package != of || slices.ContainsFunc(t.begun, func(o event) bool {
			return o.Package == of && strings.HasPrefix(o.Test, b.Test+"/")
		}) {
			continue
		}
		if t.paused[b.name()] {
			waiting = append(waiting, b.Test)
			t.failed = append(t.failed, b.name()+": did not end (it waited for its turn)")
			continue
		}
		fmt.Fprintf(t.out, "FAIL  %s did not end\n", b.name())
		output := t.output[b.name()]
		for _, line := range output[:min(len(output), maxTrace)] {
			fmt.Fprint(t.out, "      "+strings.TrimSuffix(line, "\n")+"\n")
		}
		if len(output) > maxTrace {
			fmt.Fprintf(t.out, "      ... and %d more lines\n", len(output)-maxTrace)
		}
		t.failed = append(t.failed, b.name()+": did not end")
	}
	if len(waiting) > 0 {
		fmt.Fprintf(t.out, "FAIL  %s: waited for their turn: %s\n", of, strings.Join(waiting, ", "))
	}
	t.begun = slices.DeleteFunc(t.begun, func(b event) bool { return b.Package == of })
}

// pass counts a passed test, or prints the line of a passed package.
func (t *tally) pass(e event) {
	switch {
	case e.Test == "":
		fmt.Fprintf(t.out, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	case !t.parents[e.name()]:
		t.passed++
	}
}

// skip counts a skipped test with its reason.
func (t *tally) skip(e event) {
	if e.Test == "" { // a package without tests
		return
	}
	why := reason(t.output[e.name()])
	if t.complete && strings.Contains(why, "Debian package") {
		t.failed = append(t.failed, e.name()+": skipped: "+why)
		return
	}
	t.skipped = append(t.skipped, e.name()+": "+why)
}

// fail prints the output of a failed test. A test whose subtests failed is not counted, as its
// subtests are.
func (t *tally) fail(e event) {
	name := e.name()
	inner := slices.ContainsFunc(t.failed, func(f string) bool {
		return e.Test == "" && strings.HasPrefix(f, name+" ") || strings.HasPrefix(f, name+"/")
	})
	fmt.Fprintf(t.out, "FAIL  %s\n", name)
	for _, line := range append(t.output[e.FailedBuild], t.output[name]...) {
		fmt.Fprint(t.out, "      "+strings.TrimSuffix(line, "\n")+"\n")
	}
	if !inner {
		t.failed = append(t.failed, name)
	}
}

// reason returns the last line that a skipped test printed, without the place in the source.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if place, rest, ok := strings.Cut(line, ": "); ok && strings.Contains(place, ".go:") {
			line = rest
		}
		if _, said, ok := strings.Cut(line, "skip '"); ok { // the skip command of a test script
			line = strings.TrimSuffix(said, "'")
		}
		return line
	}
	return "no reason given"
}

// close prints the closing lines and reports whether tests passed and none failed.
func (t *tally) close() bool {
	for _, s := range t.skipped {
		fmt.Fprintln(t.out, "skipped:", s)
	}
	for _, f := range t.failed {
		fmt.Fprintln(t.out, "failed:", f)
	}
	fmt.Fprintf(t.out, "%d passed, %d failed, %d skipped\n", t.passed, len(t.failed),
		len(t.skipped))
	return len(t.failed) == 0 && t.passed > 0
}
