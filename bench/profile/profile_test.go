// Tests of the profiles: no function of the engine is without a stage, and time is neither lost
// nor counted twice on its way into a report.

package profile

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"ringnbd/bench/measure"
	"ringnbd/cmd/ringnbd/testbed"
)

// engineSource are the functions of package engine as a profile names them, and the files that they
// stand in.
func engineSource(t *testing.T) map[string]string {
	files, err := filepath.Glob("../../engine/*.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := enginePackage + "." + f.Name.Name
			if f.Recv != nil {
				switch of := f.Recv.List[0].Type.(type) {
				case *ast.StarExpr:
					name = enginePackage + ".(*" + of.X.(*ast.Ident).Name + ")." + f.Name.Name
				case *ast.Ident:
					name = enginePackage + "." + of.Name + "." + f.Name.Name
				}
			}
			all[name] = path
		}
	}
	return all
}

func TestEveryFunctionOfTheEngineHasAStage(t *testing.T) {
	source := engineSource(t)
	if len(source) < 100 {
		t.Fatalf("only %d functions were found: the test looks in the wrong place", len(source))
	}
	stages := map[string]int{}
	exceptions := map[string]bool{}
	for name, path := range source {
		base := filepath.Base(path)
		if _, there := engineFiles[base]; !there {
			t.Errorf("engine/%s has no stage: give it one in engineFiles", base)
		}
		// Without a caller that has a stage, it must have a stage itself, unless it is marked.
		s := stageOf([]frame{{name, "/anywhere/" + path}})
		_, function := frame{name: name}.split()
		exceptions[function] = true
		if marked, exception := engineFunctions[function]; s == Other &&
			(exception && marked != callers || !exception && engineFiles[base] != callers) {
			t.Errorf("%s of %s has no stage", name, path)
		}
		if s != Other && !slices.Contains(StageOrder, s) {
			t.Errorf("%s has the stage %q, which no report lists", name, s)
		}
		stages[s]++
		// In a loop, whatever it is, it belongs somewhere.
		if s := stageOf([]frame{{name, path},
			{enginePackage + ".(*loop).turn", "loop.go"}}); s == Other {
			t.Errorf("%s, called by a loop, has no stage", name)
		}
	}
	for name := range engineFunctions {
		if !exceptions[name] {
			t.Errorf("engineFunctions names %s, which the engine does not have", name)
		}
	}
	for name := range engineFiles {
		if _, err := os.Stat("../../engine/" + name); err != nil {
			t.Errorf("engineFiles: %v", err)
		}
	}
	for _, s := range []string{Receive, Parse, Disk, Reply, Loop,
		Polling} {
		if stages[s] == 0 {
			t.Errorf("no function is in the stage %s", s)
		}
	}
}

// stack builds one from the leaf outwards: names, of the engine as "file:name".
func stack(names ...string) []frame {
	var all []frame
	for _, n := range names {
		if file, name, ok := strings.Cut(n, ".go:"); ok {
			all = append(all, frame{enginePackage + "." + name, "ringnbd/engine/" + file + ".go"})
		} else {
			all = append(all, frame{name: n})
		}
	}
	return all
}

func TestStacksFindTheirStage(t *testing.T) {
	const syscall6, turn = "internal/runtime/syscall/linux.Syscall6", "loop.go:(*loop).turn"
	for _, c := range []struct {
		want  string
		stack []frame
	}{
		{Kernel,
			stack(syscall6, "syscall.Syscall6", "ringnbd/engine/uring.(*Ring).Enter",
				"kernel.go:(*systemKernel).Enter", turn)},
		{Receive,
			stack("runtime.memmove", "receive.go:(*loop).fill", "receive.go:(*loop).parse", turn)},
		{Parse,
			stack("ringnbd/proto.Check", "admit.go:(*loop).admit", "receive.go:(*loop).parse",
				turn)},
		{Parse,
			stack("lease.go:(*leasePool).take", "admit.go:(*loop).takeTag",
				"admit.go:(*loop).admit", turn)},
		{Reply,
			stack("lease.go:(*leasePool).give", "tag.go:(*loop).release",
				"reply.go:(*loop).sent", turn)},
		{Reply, stack("reply.go:(*batch).add", "reply.go:(*loop).reply", turn)},
		{Disk, stack("sync/atomic.(*Uint32).CompareAndSwap", "guard.go:(*guardShard).lock",
			"guard.go:(*guard).enter", "tag.go:(*loop).begin", turn)},
		{Disk, stack("ringnbd/engine/uring.PrepReadFixed", "disk.go:(*loop).issue", turn)},
		{Loop, stack("ringnbd/engine/uring.(*Ring).Reap", turn)},
		{Loop,
			stack("runtime.nanotime", "time.Since", "ringnbd/engine/uring.Now",
				"kernel.go:systemKernel.Now", turn)},
		{Loop,
			stack("internal/runtime/atomic.Store", "ringnbd/engine/uring.(*Ring).poll",
				"kernel.go:(*systemKernel).Enter", turn)},
		{Polling,
			stack("runtime.nanotime", "time.Since", "ringnbd/engine/uring.Now",
				"kernel.go:(*systemKernel).Enter", turn)},
		{Loop, stack("ringnbd/engine/uring.Notify", "engine.go:(*loop).openRing.func2")},
		{Runtime, stack("internal/runtime/atomic.(*Uint32).Add", "runtime.exitsyscall",
			"syscall.Syscall6", "ringnbd/engine/uring.(*Ring).Enter", turn)},
		{Runtime, stack("runtime.futex", "runtime.futexsleep", "runtime.notesleep")},
		{Other, stack("net/http.(*conn).serve")},
		{Other, stack("runtime.memmove", "compress/flate.(*compressor).fillWindow")},
		{Other, nil},
	} {
		if got := stageOf(c.stack); got != c.want {
			t.Errorf("%v: %s, want %s", c.stack, got, c.want)
		}
	}
	poll := stack(syscall6, "syscall.RawSyscall6", "ringnbd/engine/uring.(*Ring).poll",
		"ringnbd/engine/uring.(*Ring).Enter")
	if got := functionOf(poll); got != "kernel: called by uring.Ring.poll" {
		t.Errorf("a system call is listed as %q", got)
	}
}

// sampled is a CPU profile of stacks with these milliseconds each.
func sampled(times map[string]int64) *profile.Profile {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"},
		{Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1e7}
	for _, names := range slices.Sorted(maps.Keys(times)) {
		s := &profile.Sample{Value: []int64{1, times[names] * 1e6}}
		for _, f := range stack(strings.Fields(names)...) {
			id := uint64(len(p.Function) + 1)
			function := &profile.Function{ID: id, Name: f.name, Filename: f.file, StartLine: 10}
			location := &profile.Location{ID: id, Address: 0x1000 + id,
				Line: []profile.Line{{Function: function, Line: 12}}}
			p.Function, p.Location = append(p.Function, function), append(p.Location, location)
			s.Location = append(s.Location, location)
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

// share finds a stage or a function, -1 when it is not there.
func share(p measure.Profile, name string) float64 {
	for _, s := range p.Stages {
		if s.Name == name {
			return s.Share
		}
	}
	for _, f := range p.Top {
		if f.Name == name {
			return f.Share
		}
	}
	return -1
}

// checkSum: the stages are all there is, and so are the functions if they all are listed.
func checkSum(t *testing.T, p measure.Profile) {
	t.Helper()
	var stages float64
	var names []string
	for _, s := range p.Stages {
		stages += s.Share
		names = append(names, s.Name)
	}
	if math.Abs(stages-1) > 1e-9 || !slices.Equal(names, StageOrder) {
		t.Errorf("stages %v have the sum %v", names, stages)
	}
}

func closeTo(got, want float64) bool { return math.Abs(got-want) < 1e-9 }

func TestProfileInAFileIsDivided(t *testing.T) {
	p := sampled(map[string]int64{
		"internal/runtime/syscall/linux.Syscall6 syscall.Syscall6 " +
			"ringnbd/engine/uring.(*Ring).Enter kernel.go:(*systemKernel).Enter": 600,
		"runtime.memmove receive.go:(*loop).fill receive.go:(*loop).parse":    100,
		"ringnbd/proto.Check admit.go:(*loop).admit":                          200,
		"ringnbd/proto.Check admit.go:(*loop).admit receive.go:(*loop).parse": 50,
		"net/http.(*conn).serve":                                              50,
	})
	path := filepath.Join(t.TempDir(), "cpu.pb.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	checkSum(t, got)
	for name, want := range map[string]float64{Kernel: 0.6, Receive: 0.1,
		Parse: 0.25, Other: 0.05, Disk: 0,
		"ringnbd/proto.Check": 0.25, "kernel: called by uring.Ring.Enter": 0.6} {
		if !closeTo(share(got, name), want) {
			t.Errorf("%s: %v, want %v", name, share(got, name), want)
		}
	}
	if !closeTo(got.Seconds, 1) || got.Top[0].Share != 0.6 {
		t.Errorf("%v s, %v", got.Seconds, got.Top)
	}
	perRequest(&got, 1000)
	if text := Text(got); !strings.Contains(text, " 25.0 %   250.000 µs/request  parse\n") {
		t.Errorf("text: %s", text)
	}
}

func TestProfileThatIsNoneIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "is not a profile") {
		t.Errorf("not a profile: %v", err)
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := sampled(nil).Write(file); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "no CPU time") {
		t.Errorf("a profile without samples: %v", err)
	}
	if _, err := Read(path + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestPerfIsRead(t *testing.T) {
	text, err := os.ReadFile("testdata/perf.txt")
	if err != nil {
		t.Fatal(err)
	}
	got := parsePerf(text)
	want := map[string]int{"send": 1, "receive": 1, "wake-ups": 1, "block layer": 1,
		"system call": 1}
	if got.all != 7 || got.workers != 1 || !maps.Equal(got.kernel, want) {
		t.Errorf("got %+v, want 7 samples, 1 of workers, and %v", got, want)
	}
	if empty := parsePerf(nil); empty.all != 0 || empty.workers != 0 {
		t.Errorf("nothing: %+v", empty)
	}
}

func TestKernelIsDividedInProportion(t *testing.T) {
	p := sampled(map[string]int64{
		"internal/runtime/syscall/linux.Syscall6 ringnbd/engine/uring.(*Ring).Enter": 600,
		"admit.go:(*loop).admit": 400,
	})
	got := measure.Profile{Seconds: 1, Stages: Stages(p), Top: Functions(p)}
	perRequest(&got, 1000)
	splitKernel(&got, kernelSplit{all: 100, kernel: map[string]int{"send": 30, "receive": 10},
		workers: 25})
	checkSum(t, got)
	// For each second of Go's there was a quarter of workers': 1.25 s, of which 0.6 in calls, a
	// quarter of it to receive.
	for name, want := range map[string]float64{Kernel: 0.85 / 1.25, Parse: 0.4 / 1.25,
		"kernel: send": 0.45 / 1.25, "kernel: receive": 0.15 / 1.25,
		"kernel: workers": 0.25 / 1.25, "ringnbd/engine.(*loop).admit": 0.4 / 1.25,
		"kernel: called by uring.Ring.Enter": -1} {
		if !closeTo(share(got, name), want) {
			t.Errorf("%s: %v, want %v", name, share(got, name), want)
		}
	}
	var micros float64
	for _, s := range got.Stages {
		micros += s.MicrosPerRequest
	}
	if !closeTo(got.Seconds, 1.25) || !closeTo(micros, 1250) {
		t.Errorf("%v s, %v µs per request, want 1.25 and 1250", got.Seconds, micros)
	}
	before := slices.Clone(got.Top)
	if splitKernel(&got, kernelSplit{}); !slices.Equal(got.Top, before) {
		t.Error("a split without samples changed something")
	}
}

func TestMergedProfileIsForTheCompilerOnly(t *testing.T) {
	const admit, check = "admit.go:(*loop).admit receive.go:(*loop).parse",
		"ringnbd/proto.Check admit.go:(*loop).admit"
	var all []*profile.Profile
	for i, times := range []map[string]int64{{admit: 30, check: 10}, {admit: 700}} {
		p := sampled(times)
		mapping := &profile.Mapping{ID: 1, Start: uint64(i+1) << 20, File: "/home/somebody/ringnbd",
			BuildID: "x"}
		p.Mapping, p.Comments, p.TimeNanos = []*profile.Mapping{mapping}, []string{"secret"}, 1
		for _, l := range p.Location {
			l.Mapping = mapping
		}
		p.Sample[0].Label = map[string][]string{"who": {"somebody"}}
		p.Scale(mergeWeight / cpuSeconds(p))
		all = append(all, p)
	}
	p, err := distill(all)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sample) != 2 || math.Abs(cpuSeconds(p)-2*mergeWeight) > 1e-3 {
		t.Errorf("%d stacks and %v s, want 2, and the same for each profile", len(p.Sample),
			cpuSeconds(p))
	}
	for _, s := range p.Sample {
		if s.Value[0] < 100 {
			t.Errorf("a stack with %d samples: the compiler goes by their number", s.Value[0])
		}
	}
	if text := p.String(); strings.Contains(text, "somebody") || strings.Contains(text, "secret") ||
		strings.Contains(text, "admit.go") {
		t.Errorf("traces of the machine: %s", text)
	}
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "default.pgo"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Write(file), file.Close()); err != nil {
		t.Fatal(err)
	}
	// What go build makes of a profile before it gives it to the compiler.
	out, err := exec.Command("go", "tool", "preprofile", "-i", file.Name(), "-o",
		filepath.Join(dir, "out")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil ||
		!strings.Contains(string(got), "ringnbd/engine.(*loop).admit\nringnbd/proto.Check\n2 ") {
		t.Errorf("%v, %q", err, got)
	}
}

// tiny is a suite in a place of its own, which is empty at the end. Its path is short, for sockets
// are made in it.
func tiny(t *testing.T) (s *measure.Suite, ringnbd string) {
	t.Helper()
	testbed.DependOnSources()
	path, err := testbed.Ringnbd(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "smoke-")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("files are left: %v, %v", left, err)
		}
		os.RemoveAll(dir)
	})
	return &measure.Suite{Generator: path, Dir: dir, Size: 16 << 20, Null: 1 << 30,
		Memory: 8 << 20, Seconds: 0.2, Warmup: 0.05, Rounds: 1}, path
}

func TestSmokeProfile(t *testing.T) {
	l := measure.Load{Pattern: "randrw", ReadPercent: 50, BlockSize: 4096, Depth: 32,
		Connections: 2, Transport: measure.Unix, Backend: measure.Null}
	s, binary := tiny(t)
	p, err := ofLoad(t.Context(), s, l, measure.Ringnbd(binary))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	t.Log(Text(p))
	checkSum(t, p)
	if p.Load != l || p.Server != "ringnbd" || p.Seconds < 0.05 {
		t.Errorf("%v, %s, %v s", p.Load, p.Server, p.Seconds)
	}
	if k := share(p, Kernel); k < 0.2 || k > 0.95 {
		t.Errorf("the kernel has a share of %v", k)
	}
	if engine := share(p, Receive) + share(p, Parse) + share(p, Reply); engine < 0.02 {
		t.Errorf("the engine has a share of %v", engine)
	}
	if o := share(p, Other); o > 0.2 {
		t.Errorf("%v of the time has no stage", o)
	}
	var micros float64
	for _, s := range p.Stages {
		micros += s.MicrosPerRequest
	}
	if micros < 0.05 || micros > 100 {
		t.Errorf("%v µs per request", micros)
	}
	if findPerf() != "" && share(p, "kernel: send") <= 0 {
		t.Errorf("perf is here, and found no sending: %v", p.Top)
	}
	peer := measure.Program{Name: "peer", Path: binary, Backends: []string{measure.Null},
		Arguments: func(measure.Stand) ([]string, error) {
			return nil, nil
		}}
	if _, err := ofLoad(t.Context(), s, l, peer); err == nil ||
		!strings.Contains(err.Error(), "cannot be profiled") {
		t.Errorf("a server without an endpoint: %v", err)
	}
}
