// Profiles: where a server's CPU time went during a load, by stage of a request's way through
// it.
//
// Invariant: the shares of all stages sum to 1; every function of the engine has a stage, by the
// file that it stands in.

package profile

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"ringnbd/bench/measure"
)

// The stages.
const (
	Receive = "receive" // bytes from sockets: where they go, copying payloads
	Parse   = "parse"   // headers: the rules, a tag, memory
	Disk    = "disk"    // waves of segments, ordering of writes, flushes, ranges
	Reply   = "reply"   // replies into batches, tags and memory released
	Loop    = "loop"    // the turn itself: submission, completions, whose turn is next
	Polling = "polling" // looking for work before sleeping (--poll)
	Kernel  = "kernel"  // inside a system call; what it does there is among the functions
	Runtime = "runtime" // of Go: its scheduler, collector, timers, signals
	Other   = "other"   // handshakes, the debug endpoint, start and end
)

// StageOrder is the order of a request's way.
var StageOrder = []string{Receive, Parse, Disk, Reply, Loop, Polling,
	Kernel, Runtime, Other}

// KernelPrefix begins the names of the parts of the kernel's time among the functions: by the
// caller of the system call, as the Go profile has it, or by the work done there, if perf is here.
const KernelPrefix = "kernel: "

// callers marks a function whose time belongs to its caller.
const callers = ""

// engineFiles is the stage of each source file of package engine.
var engineFiles = map[string]string{
	"receive.go": Receive, "stage.go": Receive,
	"tag.go": Parse, "admit.go": Parse, "feed.go": Parse, "queue.go": Parse,
	"disk.go": Disk, "guard.go": Disk, "flush.go": Disk, "range.go": Disk,
	"pagecache.go": Disk, "readahead.go": Disk, "memory.go": Disk, "device.go": Disk,
	"workers.go": Disk, "parts.go": Disk, "lookup.go": Disk, "lookup_workers.go": Disk,
	"plan.go": Disk, "rows.go": Disk, "own.go": Disk,
	"reply.go": Reply, "chunk.go": Reply, "holes.go": Reply,
	"loop.go": Loop, "conn.go": Loop, "mail.go": Loop, "stall.go": Loop,
	"engine.go": Loop, "trace.go": Loop, "count.go": Loop,
	"budget.go": Loop, "patience.go": Loop, "shutdown.go": Loop,
	"incident.go": Loop, "reports.go": Loop, "crew.go": Loop, "locked.go": Loop,
	"check_on.go": Loop, "check_tags_on.go": Loop, "check_off.go": Loop, "check_rows_on.go": Loop,
	"change.go": Loop, "changeover.go": Loop, "departure.go": Loop, "places.go": Loop,
	"clients.go": Loop,
	"kernel.go":  Polling, "poll.go": Polling,
	"list.go": callers, "lease.go": callers, "ledger.go": callers, "token.go": callers,
	"layout.go": callers, "must.go": callers, "table.go": callers,
}

// engineFunctions are the exceptions: functions that stand in the file of another stage, because
// what they work on does.
var engineFunctions = map[string]string{
	"loop.parse": Parse,
	"loop.begin": Disk, "loop.run": Disk, "loop.stepDone": Disk,
	"loop.unclaim": Disk,
	"loop.answer":  Reply, "loop.release": Reply, "loop.earn": Reply,
	"loop.claimIndex": callers, "loop.deviceOf": callers, "leaseCost": callers, "loop.sqe": callers,
	"systemKernel.Now": callers,
}

// Packages of the module, and functions of Go's runtime that work for their callers.
const (
	enginePackage = "ringnbd/engine"
	ringPackage   = "ringnbd/engine/uring"
)

// runtimeCallers are functions of the runtime that compiled code calls instead of doing the work in
// place: copying, clearing, comparing, the clock.
var runtimeCallers = []string{"runtime.mem", "runtime.duff", "runtime.nanotime", "runtime.walltime",
	"runtime.vdso", "runtime.panicCheck"}

// frame is one function of a stack.
type frame struct{ name, file string }

// split takes a function's name apart: its package, and receiver and name without decoration, of
// closures those of the function that they stand in.
func (f frame) split() (pkg, name string) {
	slash := strings.LastIndexByte(f.name, '/') + 1
	dot := strings.IndexByte(f.name[slash:], '.')
	if dot < 0 {
		return f.name, ""
	}
	pkg, name = f.name[:slash+dot], f.name[slash+dot+1:]
	name = strings.NewReplacer("(*", "", ")", "", "[...]", "").Replace(name)
	for _, mark := range []string{".func", ".gowrap", ".deferwrap", "-fm"} {
		name, _, _ = strings.Cut(name, mark)
	}
	return pkg, name
}

// stage is the frame's own, or none (ok is false): its time is its caller's.
func (f frame) stage() (name string, ok bool) {
	pkg, function := f.split()
	switch {
	case pkg == enginePackage:
		s, there := engineFunctions[function]
		if !there {
			s = engineFiles[path.Base(f.file)]
		}
		return s, s != callers
	case pkg == ringPackage &&
		(function == "Ring.Enter" || function == "Ring.poll" || function == "Ring.entered"):
		return Loop, true
	case pkg == "runtime" || strings.HasPrefix(pkg, "runtime/internal/") ||
		strings.HasPrefix(pkg, "internal/runtime/"):
		for _, prefix := range runtimeCallers {
			if strings.HasPrefix(f.name, prefix) {
				return "", false
			}
		}
		return Runtime, pkg == "runtime" // atomics belong to their callers
	}
	return "", false
}

// inKernel reports whether the stack ends in the function that makes system calls.
func inKernel(stack []frame) bool {
	return len(stack) > 0 && strings.HasSuffix(stack[0].name, ".Syscall6")
}

// stageOf gives a whole stack, the leaf first, to a stage.
func stageOf(stack []frame) string {
	if inKernel(stack) {
		return Kernel
	}
	for _, f := range stack {
		if s, ok := f.stage(); ok {
			return s
		}
	}
	return Other
}

// frames are a sample's stack, the leaf first, with inlined functions.
func frames(s *profile.Sample) []frame {
	var stack []frame
	for _, location := range s.Location {
		for _, line := range location.Line {
			if line.Function != nil {
				stack = append(stack, frame{line.Function.Name, line.Function.Filename})
			}
		}
	}
	return stack
}

// cpuIndex is the place of CPU nanoseconds in a profile's values; -1: it is not a CPU profile.
func cpuIndex(p *profile.Profile) int {
	return slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool {
		return t.Type == "cpu" && t.Unit == "nanoseconds"
	})
}

// cpuSeconds is the CPU time that a profile has samples of.
func cpuSeconds(p *profile.Profile) float64 {
	var sum int64
	if i := cpuIndex(p); i >= 0 {
		for _, s := range p.Sample {
			sum += s.Value[i]
		}
	}
	return float64(sum) / 1e9
}

// shares adds up the time of a CPU profile by the name that of gives each stack, the largest share
// first.
func shares(p *profile.Profile, of func([]frame) string) []measure.Function {
	index, total := cpuIndex(p), cpuSeconds(p)*1e9
	if index < 0 || total == 0 {
		return nil
	}
	sums := map[string]float64{}
	for _, s := range p.Sample {
		sums[of(frames(s))] += float64(s.Value[index]) / total
	}
	var list []measure.Function
	for name, share := range sums {
		list = append(list, measure.Function{Name: name, Share: share})
	}
	slices.SortFunc(list, byShare)
	return list
}

// byShare orders functions, the largest share first.
func byShare(a, b measure.Function) int {
	return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name))
}

// Stages divides a CPU profile of ringnbd. All stages are listed, also those without a sample.
// MicrosPerRequest is not known here and stays 0.
func Stages(p *profile.Profile) []measure.Stage {
	seen := map[string]float64{}
	for _, f := range shares(p, stageOf) {
		seen[f.Name] = f.Share
	}
	var list []measure.Stage
	for _, name := range StageOrder {
		list = append(list, measure.Stage{Name: name, Share: seen[name]})
	}
	return list
}

// maxTop is how many functions a report lists.
const maxTop = 25

// Functions are those with the largest shares of their own. The kernel has the name of its caller:
// Ring.Enter waits, Ring.poll only submits and takes.
func Functions(p *profile.Profile) []measure.Function {
	list := shares(p, functionOf)
	return list[:min(len(list), maxTop)]
}

// functionOf names the leaf of a stack.
func functionOf(stack []frame) string {
	if len(stack) == 0 {
		return "unknown"
	}
	if inKernel(stack) {
		for _, f := range stack {
			if pkg, name := f.split(); pkg != "syscall" &&
				!strings.HasPrefix(pkg, "internal/runtime/") {
				return KernelPrefix + "called by " + path.Base(pkg) + "." + name
			}
		}
	}
	return stack[0].name
}

// Read reads a CPU profile from a file that go tool pprof or the debug endpoint wrote, and divides
// it.
func Read(file string) (measure.Profile, error) {
	f, err := os.Open(file)
	if err != nil {
		return measure.Profile{}, err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return measure.Profile{}, fmt.Errorf("%s is not a profile: %w", file, err)
	}
	if cpuIndex(p) < 0 || len(p.Sample) == 0 {
		return measure.Profile{},
			fmt.Errorf("%s holds no CPU time: take it with /debug/pprof/profile while the "+
				"server has work", file)
	}
	return measure.Profile{Seconds: cpuSeconds(p), Stages: Stages(p), Top: Functions(p)}, nil
}

// Text is a table for a terminal.
func Text(p measure.Profile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.2f s of CPU time", p.Seconds)
	if p.Server != "" {
		fmt.Fprintf(&b, ": %s, %s", p.Server, p.Load)
	}
	b.WriteString("\n")
	for _, s := range p.Stages {
		fmt.Fprintf(&b, "  %5.1f %%", 100*s.Share)
		if s.MicrosPerRequest > 0 {
			fmt.Fprintf(&b, "  %8.3f µs/request", s.MicrosPerRequest)
		}
		fmt.Fprintf(&b, "  %s\n", s.Name)
	}
	for _, f := range p.Top {
		fmt.Fprintf(&b, "  %5.1f %%  %s\n", 100*f.Share, f.Name)
	}
	return b.String()
}
