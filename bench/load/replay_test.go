// Replaying and recording, against the server of the tests.

package load

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

// replay is the options that replay a trace.
func replay(t *testing.T, uri, path string) Options {
	t.Helper()
	o := options(t, uri, "randread", "4k")
	o.Pattern, o.Sizes, o.Count = Pattern{}, Mix{}, 0
	o.Replay = Replay{Path: path, Speed: 1}
	return o
}

// listener keeps what a peer is asked for, in the order in which it comes.
type listener struct {
	peer
	list []proto.Request
}

func newListener() *listener {
	l := &listener{}
	l.answer = func(_ *peer, r *proto.Request) (proto.Errno, bool) {
		if r.Command != proto.CmdDisc {
			l.list = append(l.list,
				proto.Request{Command: r.Command, Offset: r.Offset, Length: r.Length,
					Flags: r.Flags})
		}
		return 0, false
	}
	return l
}

const mixedTrace = "fio version 3 iolog\n0 d add\n0 d open\n10 d read 4096 8192\n20 d write " +
	"8192 4096\n30 d sync 0 0\n40 d trim 0 512\n50 d write_zeroes 512 1024\n" +
	"20000 d read 1044480 4096\n20010 d datasync 0 0\n20020 d close\n"

var mixedRequests = []proto.Request{
	{Command: proto.CmdRead, Offset: 4096, Length: 8192}, {Command: proto.CmdWrite, Offset: 8192,
		Length: 4096}, {Command: proto.CmdFlush},
	{Command: proto.CmdTrim, Length: 512},
	{Command: proto.CmdWriteZeroes, Offset: 512, Length: 1024},
	{Command: proto.CmdRead, Offset: 1044480, Length: 4096}, {Command: proto.CmdFlush},
}

func TestReplayAsksForWhatWasRecorded(t *testing.T) {
	for _, timed := range []bool{false, true} {
		l := newListener()
		o := replay(t, serve(t, &l.peer), traceFile(t, mixedTrace))
		o.Connections, o.Replay.Timed = 1, timed
		begin := time.Now()
		r := runs(t, o)
		l.end()
		if !slices.Equal(l.list, mixedRequests) {
			t.Errorf("timed %v: %+v", timed, l.list)
		}
		if d := time.Since(begin); timed && d < 20*time.Millisecond {
			t.Errorf("20 ms were replayed in %v", d)
		}
		if r.Requests != 7 || r.RequestsTotal != 7 || r.Replay.Started != 7 ||
			r.Replay.File != "d" || r.BlockSizes != "4k-8k" || (r.Open != nil) != timed ||
			r.ReadPercent != nil {
			t.Errorf("%+v", r)
		}
		var table strings.Builder
		if err := r.Table(&table, 0); err != nil || !strings.Contains(table.String(),
			"replay: 7 of 7 requests, recorded on d in 20.0 ms") {
			t.Errorf("%v: %s", err, table.String())
		}
	}
}

// Late answers make later requests late only if nothing is free, and their
// latency then counts from when they were due.
func TestReplayInItsOwnTime(t *testing.T) {
	var text strings.Builder
	text.WriteString("fio version 3 iolog\n")
	for i := range 100 {
		fmt.Fprintf(&text, "%d d read 0 4096\n", i*4000)
	}
	path := traceFile(t, text.String())
	var began, last time.Time
	p := &peer{stall: func(n int) time.Duration {
		if n == 1 {
			began = time.Now()
			return 100 * time.Millisecond
		}
		last = time.Now()
		return 0
	}}
	o := replay(t, serve(t, p), path)
	o.Connections, o.Depth, o.Replay.Timed, o.Replay.Speed = 1, 1, true, 2
	r := runs(t, o)
	p.end()
	if d := last.Sub(began); d < 190*time.Millisecond {
		t.Errorf("100 requests, one in 2 ms, came within %v", d)
	}
	// Those that were due in the stall's 100 ms waited, half of them for 50 ms and more.
	if l := r.Kinds[0].Latency; l.Max < 100e3 || l.P90 < 40e3 || r.Open.MaxBacklog < 30 ||
		r.Open.BacklogEnd != 0 || r.Open.Arrivals != "recorded" {
		t.Errorf("%+v %+v", l, r.Open)
	}
	if r.Open.Rate < 490 || r.Open.Rate > 510 {
		t.Errorf("%v requests per second", r.Open.Rate)
	}
}

// Without times, a FLUSH comes when all that it is to cover has
// been answered.
func TestFlushWaitsForWhatWentBefore(t *testing.T) {
	var text strings.Builder
	text.WriteString("fio version 2 iolog\n")
	for i := range 1000 {
		if i%10 == 9 {
			text.WriteString("d sync 0 0\n")
		} else {
			fmt.Fprintf(&text, "d write %d 512\n", i*512)
		}
	}
	writes, flushes := 0, 0
	p := &peer{}
	p.answer = func(_ *peer, r *proto.Request) (proto.Errno, bool) {
		switch r.Command {
		case proto.CmdWrite:
			writes++
		case proto.CmdFlush:
			if flushes++; writes < 9*flushes {
				t.Errorf("flush %d comes after %d writes, want %d at least", flushes, writes,
					9*flushes)
			}
		}
		return 0, false
	}
	o := replay(t, serve(t, p), traceFile(t, text.String()))
	o.Connections, o.Depth = 4, 8
	if r := runs(t, o); r.Requests != 1000 {
		t.Errorf("%d requests", r.Requests)
	}
}

// Requests that overlap keep their order, so that all but trims has one answer.
func TestReplayVerifies(t *testing.T) {
	var text strings.Builder
	text.WriteString("fio version 3 iolog\n")
	r, kinds := random(7), []string{"read", "read", "read", "write", "write", "write_zeroes",
		"trim", "sync"}
	for i := range 5000 {
		fmt.Fprintf(&text, "%d d %s %d %d\n", i*5, kinds[r.below(uint64(len(kinds)))],
			r.below(64)*512, (1+r.below(16))*512)
	}
	path := traceFile(t, text.String())
	for _, timed := range []bool{false, true} {
		o := replay(t, serve(t, &peer{}), path)
		o.Connections, o.Verify, o.Fill, o.Replay.Timed = 3, true, true, timed
		if r := runs(t, o); r.Verify.Judged == 0 || r.Requests != 5000 {
			t.Errorf("%+v", r)
		}
		o.Target, _ = client.ParseTarget(serve(t, &peer{zero: func(_ *peer, r *proto.Request) bool {
			return r.Offset != 4096
		}}))
		fails(t, o, "not as written")
	}
	noMulti := proto.Export{Facts: proto.Facts{Flags: everyFlag &^ proto.FlagCanMultiConn}}
	o := replay(t, serve(t, &peer{export: noMulti}), path)
	o.Verify = true
	fails(t, o, "use --connections 1")
	o.Connections = 1
	runs(t, o)
}

// withFlags is an export with these transmission flags.
func withFlags(f uint16) proto.Export {
	return proto.Export{Facts: proto.Facts{Flags: proto.FlagHasFlags | f}}
}

// misfits are traces that an export or the options do not allow, and words of the error.
var misfits = []struct {
	export proto.Export
	trace  string
	change func(o *Options)
	words  string
}{
	{proto.Export{}, "0 d read 0 512\n0 d read 1048064 1024\n", nil,
		"line 4: ends at 1049088, beyond the end of the export, which has 1048576 bytes"},
	{proto.Export{}, "0 d read 0 512\n", func(o *Options) {
		o.Offset = 1048576 - 511
	}, "line 3: ends at 512 after --offset"},
	{proto.Export{}, "0 d read 0 512\n", func(o *Options) {
		o.Size = 511
	}, "beyond --size 511"},
	{proto.Export{Facts: proto.Facts{MinBlock: 1024}}, "0 d read 0 1024\n0 d read 0 512\n", nil,
		"line 4: the export takes only multiples of 1024 bytes"},
	{proto.Export{Facts: proto.Facts{MinBlock: 1024}}, "0 d read 0 1024\n", func(o *Options) {
		o.Offset = 512
	}, "--offset 512"},
	{proto.Export{Facts: proto.Facts{MinBlock: 512, MaxPayload: 65536}},
		"0 d trim 0 131072\n0 d write 0 66048\n", nil,
		"line 4: 66048 bytes: the server takes at most 64 KiB"},
	{withFlags(proto.FlagReadOnly), "0 d read 0 512\n0 d write 0 512\n", nil,
		"line 4: the export is read-only"},
	{withFlags(0), "0 d read 0 512\n0 d sync 0 512\n", nil,
		"line 4: the export does not offer FLUSH"},
	{withFlags(0), "0 d trim 0 512\n", nil, "line 3: the export does not offer TRIM"},
	{withFlags(0), "0 d write_zeroes 0 512\n", nil,
		"line 3: the export does not offer WRITE_ZEROES"},
	{withFlags(0), "0 d write 0 512\n", func(o *Options) { o.FUA = true }, "does not offer FUA"},
	{proto.Export{}, "0 d read 0 512\n", func(o *Options) {
		o.FUA = true
	}, "--fua with a trace that writes nothing"},
	{proto.Export{}, "0 d read 0 512\n", func(o *Options) {
		o.NoHole = true
	}, "no write_zeroes"},
	{proto.Export{}, "0 d read 0 512\n", func(o *Options) { o.Verify = true }, "add --fill"},
	{proto.Export{}, "0 d write 0 512\n", func(o *Options) {
		o.Verify = true
	}, "reads nothing"},
	{proto.Export{}, "0 d write 0 512\n0 d read 1 512\n", func(o *Options) {
		o.Verify = true
	}, "line 4: --verify needs offsets and lengths that are multiples of 512"},
	{proto.Export{}, "0 d sync 0 0\n", func(o *Options) {
		o.Fill = true
	}, "--fill with nothing in the trace"},
	{proto.Export{}, "0 d read 0 512\n", func(o *Options) {
		o.Record = o.Replay.Path
	}, "is the trace that is to be replayed"},
	{proto.Export{}, "0 d read 0 512\n", func(o *Options) {
		o.Record = "/proc/self/exe"
	}, "--record"},
}

func TestReplayThatDoesNotFit(t *testing.T) {
	const head = "fio version 3 iolog\n0 d add\n"
	uri := func(e proto.Export) string { return serve(t, &peer{export: e}) }
	for _, c := range misfits {
		o := replay(t, uri(c.export), traceFile(t, head+c.trace))
		if c.change != nil {
			c.change(&o)
		}
		if r := fails(t, o, c.words); r != nil {
			t.Errorf("%q: a report although nothing was started", c.trace)
		}
	}
	o := replay(t, uri(withFlags(0)), traceFile(t, head+"0 d read 0 512\n"))
	for words, change := range map[string]func(o *Options){
		"one thread keeps":         func(o *Options) { o.Threads = 2 },
		"--rate with --replay":     func(o *Options) { o.Rate = 1 },
		"--flush-every":            func(o *Options) { o.FlushEvery = 1 },
		"--replay-speed NaN":       func(o *Options) { o.Replay.Speed = math.NaN() },
		"--replay-speed 0":         func(o *Options) { o.Replay.Speed = 0 },
		"needs --replay-timing re": func(o *Options) { o.Replay.Speed = 2 },
	} {
		o := o
		change(&o)
		fails(t, o, words)
	}
}

func TestReplayInSmallPieces(t *testing.T) {
	path := traceFile(t, mixedTrace)
	o := replay(t, serve(t, &peer{}), path)
	o.Count = 3
	if r := runs(t, o); r.Requests != 3 || r.Replay.Started != 3 {
		t.Errorf("%+v", r.Replay)
	}
	o = replay(t, serve(t, &peer{}), path)
	o.Warmup, o.Duration = time.Hour, time.Second
	if r := runs(t, o); r.Requests != 0 || r.RequestsTotal != 7 || len(r.Notes) != 1 ||
		!strings.Contains(r.Notes[0], "over before the warm-up was") {
		t.Errorf("%+v", r)
	}
	o = replay(t, serve(t, &peer{}), traceFile(t, "fio version 2 iolog\nd sync 0 0\nd sync 0 0\n"))
	if r := runs(t, o); r.Requests != 2 || r.BlockSizes != "" {
		t.Errorf("%+v", r)
	}
	o = replay(t, serve(t, &peer{}), traceFile(t, "fio version 2 iolog\nd trim 0 1048576\n"))
	runs(t, o)
}

// lines is what a trace asks for, without times.
func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		list = append(list, rest)
	}
	return list
}

// A run that was recorded and is replayed asks for the same in the same order,
// and so does the recording of that.
func TestRecordAndReplay(t *testing.T) {
	folder := t.TempDir()
	first, second, third := filepath.Join(folder, "1"), filepath.Join(folder,
		"2"), filepath.Join(folder, "3")
	l := newListener()
	o := options(t, serve(t, &l.peer), "randrw", "4k:2,512:1")
	o.Connections, o.ZeroPercent, o.FlushEvery, o.Warmup, o.Fill, o.Record = 1, 10, 7,
		5*time.Millisecond, true, first
	runs(t, o)
	l.end()
	asked := l.list
	for asked[0].Command == proto.CmdWrite &&
		asked[0].Offset == uint64(4096*(len(l.list)-len(asked))) && len(l.list)-len(asked) < 256 {
		asked = asked[1:] // --fill is not recorded
	}
	again := newListener()
	o = replay(t, serve(t, &again.peer), first)
	o.Connections, o.Record = 1, second
	r := runs(t, o)
	again.end()
	if len(asked) < 2000 || !slices.Equal(asked, again.list) || int(r.RequestsTotal) != len(asked) {
		t.Errorf("%d requests were made, and %d replayed, others or in another order", len(asked),
			len(again.list))
	}
	o = replay(t, serve(t, &peer{}), second)
	o.Connections, o.Replay.Timed, o.Record = 4, true, third
	runs(t, o)
	if one, two, three := lines(t, first), lines(t, second), lines(t,
		third); len(one) != len(asked)+4 || !slices.Equal(one, two) || !slices.Equal(one, three) {
		t.Errorf("recordings of one trace have %d, %d and %d lines, or differ", len(one), len(two),
			len(three))
	}
}

// Everything is there, in the order of time.
func TestRecordOfSeveralThreads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	o := options(t, serve(t, &peer{}), "randrw", "4k")
	o.Connections, o.Threads, o.Count, o.Record = 7, 3, 10000, path
	runs(t, o)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last, n := 0, 0
	for line := range strings.Lines(string(b)) {
		var at int
		if _, err := fmt.Sscanf(line, "%d export ", &at); err == nil {
			n++
			if at < last {
				t.Fatalf("line %d: time goes back", n)
			}
			last = at
		}
	}
	if n != 10000+3 {
		t.Errorf("%d lines", n)
	}
}

func TestTapesOfManyLoops(t *testing.T) {
	for loops := 1; loops <= maxThreads; loops++ {
		if n := tapeOf(loops); n&(n-1) != 0 || n*loops > maxTapes || n < 1<<10 {
			t.Errorf("%d loops have tapes of %d", loops, n)
		}
	}
}

// What finds no room is counted, and reported.
func TestTapeThatIsFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	s := new(shared)
	r, err := newRecorder(path, &client.Target{Network: "file", Address: "/a b"}, s, 2, 4)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		r.tapes[0].put(entry{at: int64(i) * us, offset: uint64(i), length: 1, kind: kindRead})
	}
	r.tapes[1].put(entry{at: 1500, length: 1, kind: kindZero})
	r.tapes[0].publish(10 * us)
	r.tapes[1].publish(1500) // what is younger has to wait for this tape
	if err := r.close(); err == nil ||
		!strings.Contains(err.Error(), "2 requests are missing from the trace") {
		t.Error(err)
	}
	want := []string{"version 3 iolog", "export add", "export open", "export read 0 1",
		"export read 1 1", "export write_zeroes 0 1", "export read 2 1", "export read 3 1",
		"export close"}
	if got := lines(t, path); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestRecordToPlacesThatAreNone(t *testing.T) {
	folder := t.TempDir()
	precious, pipe := filepath.Join(folder, "precious"), filepath.Join(folder, "pipe")
	if err := os.WriteFile(precious, []byte("my only copy"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	uri := serve(t, &peer{})
	for path, words := range map[string]string{precious: "exists and is not a trace",
		folder: "is a directory", filepath.Join(folder, "a", "b"): "there is no directory",
		pipe: "no such device or address"} {
		o := options(t, uri, "randread", "4k")
		o.Record = path
		if r := fails(t, o, "--record", words); r != nil {
			t.Errorf("%s: a report although nothing was started", path)
		}
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "my only copy" {
		t.Errorf("%q, %v", b, err)
	}
	o := options(t, uri, "randread", "4k")
	o.Record = "/dev/full"
	if r := fails(t, o, "--record", "no space left on device"); r == nil || r.Requests != o.Count {
		t.Error("the results are lost with the trace")
	}
	o.Record = "/dev/null"
	runs(t, o)
	old := filepath.Join(folder, "old")
	if err := os.WriteFile(old, []byte(mixedTrace+strings.Repeat("0 d read 0 512\n", 10000)),
		0o600); err != nil {
		t.Fatal(err)
	}
	o.Record = old
	runs(t, o)
	if n := len(lines(t, old)); n != int(o.Count)+4 {
		t.Errorf("%d lines after recording over an old trace", n)
	}
}

// On an NBD export, if its engine is there, and on the file itself.
func TestFioReplaysWhatWeWrite(t *testing.T) {
	fio, err := exec.LookPath("fio")
	if err != nil {
		t.Skip("fio is not installed")
	}
	folder := t.TempDir()
	path, image := filepath.Join(folder, "trace"), filepath.Join(folder, "d.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newListener()
	uri := serve(t, &l.peer)
	o := options(t, uri, "randrw", "4k")
	o.Connections, o.Count, o.FlushEvery, o.Record = 1, 200, 9, path
	runs(t, o)
	l.mu.Lock()
	want := slices.Clone(l.list)
	l.list = nil
	l.mu.Unlock()
	if out, err := exec.Command(fio, "--enghelp").CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "\tnbd\n") {
		t.Skip("fio has no engine nbd here")
	}
	cmd := exec.Command(fio, "--name=a", "--ioengine=nbd", "--uri="+uri, "--read_iolog="+path,
		"--replay_no_stall=1")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "bad iolog") {
		t.Fatalf("%v: %s", err, out)
	}
	l.end()
	for i := range l.list {
		l.list[i].Flags = 0
	}
	if !slices.Equal(l.list[:min(len(want), len(l.list))], want) {
		t.Errorf("fio asked for %d things, others than the %d that were recorded", len(l.list),
			len(want))
	}
	o = options(t, "file:"+image, "randrw", "4k")
	o.Count, o.Record = 100, path
	runs(t, o)
	cmd = exec.Command(fio, "--name=a", "--ioengine=psync", "--read_iolog="+path)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "bad iolog") ||
		!strings.Contains(string(out), "issued rwts: total=") {
		t.Fatalf("%v: %s", err, out)
	}
}
