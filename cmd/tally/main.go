// Command tally reads the events of go test -json and says at the end what matters: what failed, what was skipped and why, and how many there were of
// each. make test pipes everything through it, its own checks included.
//
// Invariant: the closing line counts every test once, and the exit status is 0 only if at least one passed and none failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is one line of go test -json; only the fields that are used (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build events
	Test        string
	Output      string
	FailedBuild string
	Elapsed     float64
}

func (e event) name() string {
	if e.Test == "" {
		return e.Package
	}
	return e.Package + " " + e.Test
}

// tally is what was seen so far.
type tally struct {
	out     io.Writer
	output  map[string][]string // what each running test or package printed
	passed  int
	failed  []string
	skipped []string
	parents map[string]bool // tests that have subtests: only the leaves are counted, unless the parent fails by itself
}

func main() {
	t := &tally{out: os.Stdout, output: map[string][]string{}, parents: map[string]bool{}}
	if err := t.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
	if !t.close() {
		os.Exit(1)
	}
}

// read takes events until the end. Lines that are none, such as the messages of go itself, are passed on.
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

func (t *tally) take(e event) {
	name := e.name()
	switch e.Action {
	case "run":
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
		t.fail(e)
	}
	if e.Action == "pass" || e.Action == "skip" || e.Action == "fail" {
		delete(t.output, name)
	}
}

func (t *tally) pass(e event) {
	switch {
	case e.Test == "":
		fmt.Fprintf(t.out, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	case !t.parents[e.name()]:
		t.passed++
	}
}

func (t *tally) skip(e event) {
	if e.Test == "" { // a package without tests
		return
	}
	t.skipped = append(t.skipped, e.name()+": "+reason(t.output[e.name()]))
}

// fail shows what the test printed. A test whose subtests failed is told by them.
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

// reason is the last thing that a skipped test said, without the place in the source.
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

// close prints the closing lines and reports whether all is well.
func (t *tally) close() bool {
	for _, s := range t.skipped {
		fmt.Fprintln(t.out, "skipped:", s)
	}
	for _, f := range t.failed {
		fmt.Fprintln(t.out, "failed:", f)
	}
	fmt.Fprintf(t.out, "%d passed, %d failed, %d skipped\n", t.passed, len(t.failed), len(t.skipped))
	return len(t.failed) == 0 && t.passed > 0
}
