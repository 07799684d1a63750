// Streams of events and the closing lines that must come of them.

package main

import (
	"strings"
	"testing"
)

// streams are events, whether all is well with them, and lines that must come of them.
var streams = map[string]struct {
	events string
	ok     bool
	want   []string
}{
	"all is well": {`{"Action":"run","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Elapsed":0.5}`, true, []string{"ok    p  0.5s", "1 passed, 0 failed, 0 skipped"}},
	"a skipped test is named with its reason": {`{"Action":"run","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Test":"B","Output":"=== RUN   B\n"}
{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:7: needs root: mounts\n"}
{"Action":"output","Package":"p","Test":"B","Output":"--- SKIP: B (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"B"}
{"Action":"pass","Package":"p","Test":"A"}`, true, []string{"skipped: p B: needs root: mounts", "1 passed, 0 failed, 1 skipped"}},
	"only leaves are counted": {`{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"run","Package":"p","Test":"A/y"}
{"Action":"output","Package":"p","Test":"A/y","Output":"broken\n"}
{"Action":"fail","Package":"p","Test":"A/y"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`, false, []string{"      broken", "failed: p A/y", "1 passed, 1 failed, 0 skipped"}},
	"a package that does not build": {`{"ImportPath":"p [p.test]","Action":"build-output","Output":"p.go:1: undefined: x\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`, false, []string{"      p.go:1: undefined: x", "failed: p", "0 passed, 1 failed, 0 skipped"}},
	"a package that dies outside of its tests": {`{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Output":"exit status 2\n"}
{"Action":"fail","Package":"p"}`, false, []string{"      exit status 2", "failed: p", "1 passed, 1 failed, 0 skipped"}},
	"a test that runs out of time": {`{"Action":"run","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"run","Package":"p","Test":"B/waits"}
{"Action":"pause","Package":"p","Test":"B/waits"}
{"Action":"run","Package":"p","Test":"B/hangs"}
{"Action":"output","Package":"p","Test":"B/hangs","Output":"panic: test timed out after 1s\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t1.0s\n"}
{"Action":"fail","Package":"p"}`, false, []string{"FAIL  p B/hangs did not end", "      panic: test timed out after 1s",
		"FAIL  p: waited for their turn: B/waits", "failed: p B/hangs: did not end",
		"failed: p B/waits: did not end (it waited for its turn)",
		"1 passed, 2 failed, 0 skipped"}},
	"a test that panics": {`{"Action":"run","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"A","Output":"--- FAIL: A (0.00s)\n"}
{"Action":"output","Package":"p","Test":"A","Output":"panic: no\n"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`, false, []string{"      panic: no", "failed: p A", "0 passed, 1 failed, 0 skipped"}},
	"what begins and what is a table is told": {`{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"A"}
{"Action":"attr","Package":"p","Test":"A","Key":"table","Value":"qemu 7.2 10.0"}
{"Action":"pass","Package":"p","Test":"A"}`, true, []string{"begin p", "qemu 7.2 10.0", "1 passed, 0 failed, 0 skipped"}},
	"nothing ran": {``, false, []string{"0 passed, 0 failed, 0 skipped"}},
	"other lines pass through": {"go: updates needed\n" +
		`{"Action":"pass","Package":"p","Test":"A"}`, true, []string{"go: updates needed"}},
}

func TestTally(t *testing.T) {
	for name, c := range streams {
		var out strings.Builder
		seen := newTally(&out)
		if err := seen.read(strings.NewReader(c.events)); err != nil {
			t.Fatal(err)
		}
		if ok := seen.close(); ok != c.ok {
			t.Errorf("%s: %v, want %v", name, ok, c.ok)
		}
		for _, f := range seen.failed {
			if n := strings.Count(out.String(), "failed: "+f+"\n"); n != 1 {
				t.Errorf("%s: %s is told %d times", name, f, n)
			}
		}
		for _, line := range c.want {
			if !strings.Contains("\n"+out.String(), "\n"+line+"\n") {
				t.Errorf("%s: no line %q in\n%s", name, line, out.String())
			}
		}
	}
}

func TestSkipForWantOfAPackage(t *testing.T) {
	const events = `{"Action":"run","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:7: fio is not installed (Debian package fio)\n"}
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
