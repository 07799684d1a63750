// The defaults of serve: loops, connections and memory, from the resources that this process may
// use.
//
// Invariant: a default fits: together with the rest of the process it stays below the limits of the
// control groups, of the machine and of the address space. Options that cannot fit are refused
// before anything is opened; later the kernel would kill the process without a message.

package main

import (
	"fmt"
	"math"
	"runtime"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/cgroup"
	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine"
	"ringnbd/engine/gate"
	"ringnbd/engine/units"
)

const (
	// defaultLoopMemory keeps a request of the largest size, some 80 of 1 MiB, or thousands of 4
	// KiB, in flight per loop.
	defaultLoopMemory = 160 << 20
	// maxDefaultLoops and maxDefaultMemory bound the defaults on large machines: more loops than a
	// fast network card keeps busy, and more memory than they have in flight, must be asked for.
	maxDefaultLoops  = 8
	maxDefaultMemory = 1 << 30
	// processMemory is what the process takes in addition to --memory, in bytes: the program, Go's
	// runtime, the engine's tables, and what the kernel charges for rings and sockets. An idle
	// process is charged 7 MiB; minProcessMemory is always enough to start.
	processMemory    = 24 << 20
	minProcessMemory = 12 << 20
	// minSocketMemory is the least that the kernel may hold of replies for each connection, in
	// bytes.
	minSocketMemory = 128 << 10
)

// allowance is how much of the machine this process may use.
type allowance struct {
	memory uint64 // bytes
	group  bool   // memory is the limit of a control group, not the size of the machine's
	cpus   int
	space  uint64 // bytes of address space; 0: no limit
}

func readAllowance() allowance {
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
func (a allowance) loops() int { return min(a.cpus, maxDefaultLoops) }

// connections is the default of --max-connections: the socket memory of all connections and their
// rows fit together with the process and the default of --memory.
func (a allowance) connections() int {
	if !a.group {
		return gate.DefaultMaxConnections
	}
	return int(min(max(a.half()/(minSocketMemory+8<<10), 16), gate.DefaultMaxConnections))
}

// socketMemory is how many bytes the kernel may hold for a client that does not read its replies.
// They are charged to the control group.
func (a allowance) socketMemory(c engine.Config) int {
	if !a.group {
		return gate.SocketMemory
	}
	rest := a.memory - min(a.memory, c.Memory+processMemory)
	return int(min(max(rest/uint64(c.MaxConnections), minSocketMemory), gate.SocketMemory))
}

// half is half of the memory that is left after the process itself.
func (a allowance) half() uint64 { return (max(a.memory, processMemory) - processMemory) / 2 }

// memoryFor is the default of --memory: at most half of the memory that is left after the process,
// so that the kernel has as much for sockets and the page cache, and at most half of the address
// space, so that Go's runtime has room as well; at least the engine's minimum.
func (a allowance) memoryFor(c engine.Config) uint64 {
	usual := min(uint64(c.Loops)*defaultLoopMemory, maxDefaultMemory)
	if a.space > 0 {
		usual = min(usual, a.space/2)
	}
	return max(min(usual, a.half()), engine.MinMemory(c))
}

// check returns an error if an engine with this much memory does not fit.
func (a allowance) check(c engine.Config) error {
	if least := engine.MinMemory(c); c.Memory < least {
		return fmt.Errorf("--memory %s is too small: %s and %s need %s%s; give that, or fewer "+
			"--loops or --max-connections",
			units.Size(c.Memory), units.Plural(c.Loops, "loop"),
			units.Plural(c.MaxConnections, "connection"), config.WholeMiB(least),
			config.WhyHomed(c))
	}
	if c.Memory <= a.memory && a.memory-c.Memory >= minProcessMemory {
		return nil
	}
	whose := "this machine has"
	if a.group {
		whose = "the control group of this process allows"
	}
	return fmt.Errorf("%s %s of memory, but --memory is %s for %s, and the process itself takes "+
		"some %s: give less --memory, fewer --loops or --max-connections, or more memory",
		whose, units.Size(a.memory), units.Size(c.Memory), units.Plural(c.Loops, "loop"),
		units.Size(minProcessMemory))
}

// socketMemory is the socket memory of a client of the server that the options describe.
func (o *options) socketMemory() uint64 { return uint64(o.allowance.socketMemory(o.engine())) }
