// Streams of events in testdata, and the lines that tally must print for them.

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d streams in testdata, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			events, want, passes := strings.Cut(string(text), "-- passes, and prints\n")
			if !passes {
				events, want, _ = strings.Cut(string(text), "-- fails, and prints\n")
			}
			checkStream(t, events, passes, want)
		})
	}
}

// checkStream reads events and compares the result of close, and looks for lines in the output.
func checkStream(t *testing.T, events string, passes bool, want string) {
	t.Helper()
	var out strings.Builder
	seen := newTally(&out)
	if err := seen.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if ok := seen.close(); ok != passes {
		t.Errorf("close: %v, want %v", ok, passes)
	}
	for _, f := range seen.failed {
		if n := strings.Count(out.String(), "failed: "+f+"\n"); n != 1 {
			t.Errorf("%s is printed %d times", f, n)
		}
	}
	if want == "" {
		t.Error("the stream wants no line")
	}
	for line := range strings.Lines(want) {
		if !strings.Contains("\n"+out.String(), "\n"+line) {
			t.Errorf("no line %q in\n%s", line, out.String())
		}
	}
}

func TestSkippedForAMissingPackage(t *testing.T) {
	const events = `{"Action":"run","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Test":"B","Output":"b_test.go:7: fio is not installed (Debian package fio)\n"}
{"Action":"skip","Package":"p","Test":"B"}`
	for _, complete := range []bool{false, true} {
		var out strings.Builder
		seen := newTally(&out)
		seen.complete = complete
		if err := seen.read(strings.NewReader(events)); err != nil {
			t.Fatal(err)
		}
		if ok := seen.close(); ok == complete {
			t.Errorf("complete=%v: %v\n%s", complete, ok, out.String())
		}
	}
}
