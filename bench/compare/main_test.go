// Tests of the command: what it refuses, the names of loads, and a tiny run of it from building
// to the verdicts.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

func TestBadFlagsAreRefusedBeforeAnythingIsBuilt(t *testing.T) {
	for flags, want := range map[string]string{
		"":                                   "--base is missing",
		"--base=":                            "--base is missing",
		"--base=--help":                      "give revisions",
		"--base=a --new=":                    "give revisions",
		"--base=a b":                         `"b" is not a flag`,
		"--base=a --pairs=0":                 "--pairs 0: give an even number",
		"--base=a --pairs=7":                 "--pairs 7: give an even number",
		"--base=a --pairs=1000":              "--pairs 1000",
		"--base=a --seconds=0":               "--seconds 0",
		"--base=a --seconds=NaN":             "--seconds NaN",
		"--base=a --warmup=-1":               "--warmup -1",
		"--base=a --size=12":                 "multiple of 4 KiB",
		"--base=a --size=lots":               "--size lots",
		"--base=a --json --markdown":         "give one of them",
		"--base=a --loads=null":              "BACKEND/PATTERN/SIZE",
		"--base=a --pears=3":                 "--pears",
		"--base=a --loads=null/a/4k/1x1/tcp": `there is no pattern "a"`,
	} {
		_, err := parseFlags(strings.Fields(flags), io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", flags, err, want)
		}
	}
}

func TestFlagsOfServeAreSplitAndTheCommandCanBeTypedAgain(t *testing.T) {
	o, err := parseFlags([]string{"--base", "HEAD~1", "--json", "--base-flags", "", "--new-flags",
		"--poll 50 --direct off", "--isolate=false"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(o.newFlags, "|") != "--poll|50|--direct|off" || len(o.baseFlags) != 0 ||
		o.new != workingTree || o.pairs != usualPairs {
		t.Errorf("%+v", o)
	}
	if want := "go run ./bench/compare --base=HEAD~1 --new-flags='--poll 50 --direct off' " +
		"--isolate=false"; o.command != want {
		t.Errorf("command %s", o.command)
	}
	if len(o.loads) != len(usualLoads) {
		t.Errorf("%d loads", len(o.loads))
	}
}

func TestEachLoadHasItsName(t *testing.T) {
	for name, want := range map[string]measure.Load{
		"null/randread/4k/4x32/unix": {Backend: measure.Null, Pattern: "randread", BlockSize: 4096,
			Connections: 4, Depth: 32, Transport: measure.Unix},
		"file/read/1m/1x16/tcp": {Backend: measure.File, Pattern: "read", BlockSize: 1 << 20,
			Connections: 1, Depth: 16, Transport: measure.TCP},
		"loop/randwrite/512/1x1/unix": {Backend: measure.Loop, Pattern: "randwrite", BlockSize: 512,
			Connections: 1, Depth: 1, Transport: measure.Unix},
		"memory/randrw:30/64k/1x1/unix": {Backend: measure.Memory, Pattern: "randrw",
			ReadPercent: 30,
			BlockSize:   64 << 10, Connections: 1, Depth: 1,
			Transport: measure.Unix},
		"null/randread/4k/1x32/unix/rate=20000/idle=1000/exports=9": {Backend: measure.Null,
			Pattern: "randread", BlockSize: 4096, Connections: 1,
			Depth: 32, Transport: measure.Unix, Rate: 20000, Idle: 1000, Exports: 9},
	} {
		l, err := parseLoad(name)
		if err != nil || l != want {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		if got := loadName(want); got != name {
			t.Errorf("%s is called %s", name, got)
		}
	}
	for _, name := range usualLoads {
		if l, err := parseLoad(name); err != nil || loadName(l) != name {
			t.Errorf("%s: %v, %s", name, err, loadName(l))
		}
	}
	all, err := parseLoads("null/randrw/4KiB/1x2/unix, null/write/1024/1x2/tcp")
	if err != nil || len(all) != 2 || all[0].name != "null/randrw:70/4k/1x2/unix" ||
		all[1].name != "null/write/1k/1x2/tcp" {
		t.Errorf("%v, %v", all, err)
	}
}

func TestNamesOfNoLoadAreExplained(t *testing.T) {
	for name, want := range map[string]string{
		// all of the usual ones, and then one of them
		"":                           "is there twice",
		"null/randread/4k/4x32":      "BACKEND/PATTERN/SIZE/CONNECTIONSxDEPTH/TRANSPORT",
		"disk/randread/4k/4x32/unix": `no back end "disk"; there are null, memory, file, loop`,

		"null/trim/4k/4x32/unix":                      `no pattern "trim"`,
		"null/read:70/4k/4x32/unix":                   "only randrw",
		"null/randrw:100/4k/4x32/unix":                "from 1 to 99",
		"null/read/100/4x32/unix":                     `"100" is not the size`,
		"null/read/1g/4x32/unix":                      `"1g" is not the size`,
		"null/read/4k/32/unix":                        "CONNECTIONSxDEPTH",
		"null/read/4k/0x32/unix":                      "CONNECTIONSxDEPTH",
		"null/read/4k/4x9999/unix":                    "CONNECTIONSxDEPTH",
		"null/read/4k/4x32/rdma":                      `no transport "rdma"`,
		"null/read/4k/4x32/unix/rate=0":               "further parts",
		"null/read/4k/4x32/unix/idle=x":               "further parts",
		"null/read/4k/4x32/unix/idle=1/idle=2":        "further parts",
		"null/read/4k/4x32/unix/rate=NaN":             "further parts",
		"null/read/4k/4x32/unix/exports":              "further parts",
		"null/read/4k/1x1/unix,file":                  `"file"`,
		"null/read/4k/1x1/tcp,null/read/4096/1x1/tcp": "is there twice",
	} {
		if name == "" {
			name = strings.Join(usualLoads, ",") + "," + usualLoads[0]
		}
		if _, err := parseLoads(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", name, err, want)
		}
	}
}

// tiny is a run of two pairs of the working tree against itself.
func tiny(t *testing.T, more ...string) options {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	o, err := parseFlags(append([]string{"--base", ".", "--pairs", "2", "--seconds", "0.1",
		"--warmup", "0.02", "--size", "4MiB", "--dir", t.TempDir(), "--isolate=false",
		"--loads", "null/randread/4k/2x8/unix"}, more...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// builtOnce is the working tree, for all tests; it is removed after them.
var (
	builtOnce = sync.OnceValues(func() (*built, error) {
		b, err := buildSides(context.Background(), options{base: workingTree, new: workingTree},
			io.Discard)
		if err == nil {
			builtDir = b.Dir
		}
		return b, err
	})
	builtDir string // empty as long as nothing was built
)

func TestMain(m *testing.M) {
	status := m.Run()
	os.RemoveAll(builtDir)
	os.Exit(status)
}

// tree is a copy of what builtOnce made; to be called before a test changes TMPDIR.
func tree(t *testing.T) *built {
	t.Helper()
	b, err := builtOnce()
	if err != nil {
		t.Fatal(err)
	}
	c := *b
	return &c
}

// nothingLeft asserts that the run's folders are empty, and that no process of ours runs anything
// from them.
func nothingLeft(t *testing.T, o options) {
	t.Helper()
	for _, dir := range []string{o.dir, os.TempDir()} {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
		}
	}
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil &&
			(strings.HasPrefix(path, os.TempDir()) ||
				builtDir != "" && strings.HasPrefix(path, builtDir)) {
			t.Errorf("still running: %s is %s", link, path)
		}
	}
}

func TestSmokeTheTreeAgainstItself(t *testing.T) {
	o := tiny(t, "--json", "--new-flags", "--max-connections 50", "--loads",
		"null/randread/4k/2x8/unix,file/randwrite/512/1x4/tcp")
	var stdout, stderr bytes.Buffer
	if err := compare(o, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	c := new(judge.Comparison)
	if err := json.Unmarshal(stdout.Bytes(), c); err != nil {
		t.Fatalf("%v: %s", err, &stdout)
	}
	if c.Base.SHA256 != c.New.SHA256 || c.Same() || c.Base.Go == "" {
		t.Errorf("one binary with other flags: %+v and %+v", c.Base, c.New)
	}
	if len(c.Loads) != 2 {
		t.Fatalf("%d loads", len(c.Loads))
	}
	for i, l := range c.Loads {
		if len(l.Pairs) != 2 || l.Error != "" || l.Pairs[0].NewFirst == l.Pairs[1].NewFirst ||
			l.Pairs[0].NewFirst != (i == 1) {
			t.Fatalf("%s: %+v", l.Name, l)
		}
		for _, r := range l.Ratios {
			if r.Pairs != 2 || r.Median <= 0 || r.Base <= 0 || r.New <= 0 ||
				r.Verdict != judge.TooFew {
				t.Errorf("%s: %+v", l.Name, r)
			}
		}
		if a, b := l.Pairs[0], l.Pairs[1]; a.Base.Round != a.New.Round ||
			a.Base.Round == b.Base.Round {
			t.Errorf("%s: rounds %d, %d, %d", l.Name, a.Base.Round, a.New.Round, b.Base.Round)
		}
	}
	if !strings.Contains(stderr.String(), "pair 2 of 2, about ") {
		t.Errorf("no progress: %s", &stderr)
	}
	nothingLeft(t, o)
}

func TestALoadThatOneSideRefusesDoesNotStopTheOthers(t *testing.T) {
	b, o := tree(t), tiny(t, "--loads", "null/randread/4k/1x1/unix,file/randread/4k/1x1/unix")
	o.loads[1].load.Pattern = "nonsense" // the generator refuses it
	c, err := measurePairs(t.Context(), o, b, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	if err := publish(c, o, &stdout); err == nil ||
		!strings.Contains(err.Error(), "not every load was measured: file/") {
		t.Errorf("%v", err)
	}
	text := strings.Join(strings.Fields(stdout.String()), " ")
	for _, want := range []string{"null/randread/4k/1x1/unix requests/s ",
		"file/randread/4k/1x1/unix ended after 0 pairs: ", "nonsense",
		"every difference is chance"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, &stdout)
		}
	}
	nothingLeft(t, o)
}

func TestASideThatDoesNotStartSaysWhy(t *testing.T) {
	b, o := tree(t), tiny(t)
	b.New.Side.Flags = []string{"--no-such-flag"}
	_, err := measurePairs(t.Context(), o, b, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no load could be measured") ||
		!strings.Contains(err.Error(), "new: ") || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("%v", err)
	}
	nothingLeft(t, o)
}

func TestInterruptedRunsLeaveNothing(t *testing.T) {
	b, o := tree(t), tiny(t, "--seconds", "30", "--loads", "file/randread/4k/1x1/unix")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := measurePairs(ctx, o, b, io.Discard); err != errInterrupted {
		t.Errorf("%v", err)
	}
	if took := time.Since(begun); took > 25*time.Second {
		t.Errorf("took %v to stop", took)
	}
	nothingLeft(t, o)
}
