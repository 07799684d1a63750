// What serve takes without being told: loops and memory, from what this process may have of the
// machine.
//
// Invariant: a default fits: together with the rest of the process it stays below the limits of the
// control groups, of the machine and on address space. What cannot fit is refused before anything
// is opened; it would be killed without a word later.

package main

import (
	"fmt"
	"math"
	"runtime"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/cgroup"
	"ringnbd/engine"
	"ringnbd/engine/gate"
	"ringnbd/engine/units"
)

const (
	// defaultLoopMemory keeps a request of the largest size, some 80 of 1 MiB, or thousands of 4
	// KiB, in flight per loop.
	defaultLoopMemory = 160 << 20
	// loopsDefaultMost and memoryDefaultMost bound the defaults on large machines: more loops than
	// a fast network card keeps busy, and more memory than they have in flight, are for those who
	// ask for them.
	loopsDefaultMost  = 8
	memoryDefaultMost = 1 << 30
	// processMemory is what the process takes beside --memory, in bytes: the program, Go's runtime,
	// the engine's tables, and what the kernel charges for rings and sockets. An idle one is
	// charged 7 MiB; what is never too little for a start is the second.
	processMemory = 24 << 20
	processLeast  = 12 << 20
	// socketLeast is the least that the kernel may hold of replies for each connection, in bytes.
	socketLeast = 128 << 10
)

// allowance is what this process may have.
type allowance struct {
	memory uint64 // bytes
	group  bool   // by a control group; else it is the machine's
	cpus   int
	space  uint64 // bytes of address space; 0: no limit
}

func findAllowance() allowance {
	a := allowance{memory: math.MaxUint64, cpus: runtime.GOMAXPROCS(0)}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		a.memory = info.Totalram * uint64(info.Unit)
	}
	if left := spaceLeft(); left < math.MaxUint64 {
		a.space = max(left, 1)
	}
	l := cgroup.Read()
	if l.Memory < a.memory {
		a.memory, a.group = l.Memory, true
	}
	a.cpus = int(max(1, min(float64(a.cpus), math.Ceil(l.CPUs))))
	return a
}

// loops is the default of --loops.
func (a allowance) loops() int { return min(a.cpus, loopsDefaultMost) }

// connections is the default of --max-connections: with what the kernel may hold for all of them,
// and their rows, they fit beside the process and the default of --memory.
func (a allowance) connections() int {
	if !a.group {
		return gate.DefaultMaxConnections
	}
	return int(min(max(a.half()/(socketLeast+8<<10), 16), gate.DefaultMaxConnections))
}

// socketMemory is what the kernel may hold for a client that takes no replies, in bytes. It is
// charged to the control group.
func (a allowance) socketMemory(c engine.Config) int {
	if !a.group {
		return gate.SocketMemory
	}
	rest := a.memory - min(a.memory, c.Memory+processMemory)
	return int(min(max(rest/uint64(c.MaxConnections), socketLeast), gate.SocketMemory))
}

// half of what there is beside the process.
func (a allowance) half() uint64 { return (max(a.memory, processMemory) - processMemory) / 2 }

// memoryFor is the default of --memory: half of what is there beside the process, so that the
// kernel has as much for sockets and the page cache, and half of the address space, so that Go's
// runtime has room as well; at least what the engine cannot do without.
func (a allowance) memoryFor(c engine.Config) uint64 {
	usual := min(uint64(c.Loops)*defaultLoopMemory, memoryDefaultMost)
	if a.space > 0 {
		usual = min(usual, a.space/2)
	}
	return max(min(usual, a.half()), engine.MinMemory(c))
}

// check says why an engine of that memory cannot be.
func (a allowance) check(c engine.Config) error {
	if least := engine.MinMemory(c); c.Memory < least {
		return fmt.Errorf("--memory %s is too small: %s and %s need %s; give that, or fewer "+
			"--loops or --max-connections",
			units.Size(c.Memory), units.Plural(c.Loops, "loop"),
			units.Plural(c.MaxConnections, "connection"), wholeMiB(least))
	}
	if c.Memory <= a.memory && a.memory-c.Memory >= processLeast {
		return nil
	}
	whose := "this machine has"
	if a.group {
		whose = "the control group of this process allows"
	}
	return fmt.Errorf("%s %s of memory, but --memory is %s for %s, and the process itself takes "+
		"some %s: "+
		"give less --memory, fewer --loops or --max-connections, or more memory",
		whose, units.Size(a.memory), units.Size(c.Memory), units.Plural(c.Loops, "loop"),
		units.Size(processLeast))
}

func wholeMiB(n uint64) string { return units.Exact((n + 1<<20 - 1) >> 20 << 20) }

// socketMemory is that of the server that the options describe.
func (o *options) socketMemory() uint64 { return uint64(o.allowance.socketMemory(o.engine())) }
