// The sections: which loads there are, what question each answers, and which servers take part.
//
// Invariant: a load carries its section's name, and no load is in a section twice.

package measure

import (
	"fmt"
	"slices"
	"strings"
)

// Section is a named list of loads.
type Section struct {
	Name     string
	Question string   // that the section answers, in one line
	Servers  []string // that take part, RawName included
	Loads    []Load
}

// The servers that take part. A program that cannot serve a back end is left out there.
var (
	everyServer = []string{RawName, "ringnbd", "ringnbd-cached", "nbdkit", "qemu-nbd",
		"qemu-nbd-cached", "nbd-server"}
	fastest = []string{RawName, "ringnbd", "nbdkit", "qemu-nbd"}
	servers = []string{"ringnbd", "nbdkit", "qemu-nbd"} // no raw limit
)

// Numbers that the sections share.
const (
	SmallBlock  = 4 << 10  // bytes
	MediumBlock = 64 << 10 // bytes
	LargeBlock  = 1 << 20  // bytes
	UsualDepth  = 32
	Crowd       = 1000  // connections or exports
	CrowdRate   = 20000 // requests per second that all connections of a crowd make together
)

// ladders are the rates of the curve section, in requests per second.
var ladders = map[string][]float64{
	File: {10e3, 20e3, 40e3, 60e3, 80e3, 100e3},
	Null: {50e3, 100e3, 200e3, 400e3, 800e3},
}

// Sections lists all sections of a usual run.
func Sections() []Section {
	return named([]Section{
		{Name: "disk",
			Question: "How near to the disk's own limit is a server, and at what price in CPU " +
				"time?",
			Servers: everyServer, Loads: diskLoads()},
		{Name: "depth", Question: "What does a server add to one request alone, and what does " +
			"it make of many at a time?", Servers: fastest, Loads: depthLoads()},
		{Name: "large", Question: "How much data goes through in large requests?", Servers: fastest,
			Loads: largeLoads()},
		{Name: "null", Question: "What does the server itself cost, without any storage?",
			Servers: servers, Loads: nullLoads()},
		{Name: "memory", Question: "What does it cost to move data out of and into memory?",
			Servers: servers,
			Loads: combine(Load{BlockSize: SmallBlock, Depth: UsualDepth, Connections: 4,
				Transport: Unix, Backend: Memory}, patterns("randread", "randwrite"))},
		{Name: "loop", Question: "Is a block device served as well as a file?",
			Servers: append(slices.Clone(fastest), "nbd-server"),
			Loads: combine(Load{BlockSize: SmallBlock, Depth: UsualDepth, Transport: Unix,
				Backend: Loop}, patterns("randread", "randwrite"), connections(1, 4))},
		{Name: "connections",
			Question: "Does a request cost more when the same load comes over many connections?",
			Servers:  servers,
			Loads: combine(Load{Pattern: "randread", BlockSize: SmallBlock, Depth: 8,
				Transport: Unix,
				Rate:      CrowdRate}, backends(Null, File), connections(1, 4, 16, 256, Crowd))},
		{Name: "idle", Question: "What do idle connections cost?", Servers: servers,
			Loads: combine(Load{Pattern: "randread", BlockSize: SmallBlock, Depth: UsualDepth,
				Connections: 1, Transport: Unix, Backend: Null, Rate: CrowdRate}, idle(0, Crowd))},
		{Name: "exports", Question: "What do unused exports cost?",
			Servers: []string{"ringnbd", "nbd-server"},
			Loads: combine(Load{Pattern: "randread", BlockSize: SmallBlock, Depth: UsualDepth,
				Connections: 1, Transport: Unix, Rate: CrowdRate}, backends(Null, File),
				exports(0, Crowd-1))},
		{Name: "overlay", Question: "What does it cost to keep writes in another file, and the " +
			"first one as it is?",
			Servers: []string{"ringnbd", "ringnbd-cached", "qemu-nbd", "qemu-nbd-cached"},
			Loads: combine(Load{BlockSize: SmallBlock, Depth: UsualDepth, Connections: 4,
				Transport: Unix}, patterns("randread", "randwrite"),
				backends(File, Overlay, Mapped))},
		{Name: "unaligned", Question: "What becomes of writes that do not fill the disk's blocks?",
			Servers: everyServer[1:],
			Loads: combine(Load{Pattern: "randwrite", BlockSize: 512, Depth: UsualDepth,
				Transport: Unix, Backend: File}, connections(1, 4))},
		{Name: "curve", Question: "How does latency grow with the load?", Servers: fastest,
			Loads: curveLoads()},
		{Name: "poll", Question: "How low does the latency of one request go, and what does " +
			"busy polling add?", Servers: append(slices.Clone(fastest), "ringnbd-poll"),
			Loads: combine(Load{Pattern: "randread", BlockSize: SmallBlock, Depth: 1,
				Connections: 1, Transport: Unix}, backends(Null, File))},
	})
}

// FullSection is the whole matrix: it takes hours.
func FullSection() Section {
	base := Load{Section: "full"}
	var all []Load
	for _, shape := range []struct {
		size, depth int
		patterns    []string
	}{{SmallBlock, 1, mixed}, {SmallBlock, 32, mixed}, {SmallBlock, 128, mixed}, {MediumBlock, 32,
		mixed[:2]}, {LargeBlock,
		16, sequential}} {
		base.BlockSize, base.Depth = shape.size, shape.depth
		all = append(all, combine(base, backends(File, Loop, Null, Memory),
			patterns(shape.patterns...), connections(1, 4, 16, 256), transports(Unix, TCP))...)
	}
	// Beyond this, the buffers of the requests in flight would not fit into memory.
	all = slices.DeleteFunc(all, func(l Load) bool {
		return l.BlockSize*l.Depth*l.Connections > 512<<20
	})
	return Section{Name: "full", Question: "The whole matrix.", Servers: everyServer, Loads: all}
}

var (
	mixed      = []string{"randread", "randwrite", "randrw"}
	sequential = []string{"read", "write"}
)

func diskLoads() []Load {
	return combine(Load{BlockSize: SmallBlock, Depth: UsualDepth, Backend: File},
		patterns(mixed...),
		connections(1, 4), transports(Unix, TCP))
}

func depthLoads() []Load {
	return combine(Load{BlockSize: SmallBlock, Connections: 1, Transport: Unix, Backend: File},
		patterns(mixed[:2]...), depths(1, 32, 128))
}

func largeLoads() []Load {
	return append(
		combine(Load{BlockSize: MediumBlock, Depth: UsualDepth, Connections: 1, Backend: File},
			patterns(mixed[:2]...), transports(Unix, TCP)),
		combine(Load{BlockSize: LargeBlock, Depth: 16, Connections: 1, Backend: File},
			patterns(sequential...), transports(Unix, TCP))...)
}

func nullLoads() []Load {
	base := Load{Pattern: "randread", BlockSize: SmallBlock, Depth: UsualDepth, Backend: Null}
	alone := base
	alone.Depth = 1
	return append(combine(base, connections(1, 4), transports(Unix, TCP)),
		combine(alone, connections(1), transports(Unix, TCP))...)
}

func curveLoads() []Load {
	base := Load{Pattern: "randread", BlockSize: SmallBlock, Depth: UsualDepth, Connections: 4,
		Transport: Unix}
	return append(combine(base, backends(File), rates(ladders[File]...)),
		combine(base, backends(Null), rates(ladders[Null]...))...)
}

// An axis is what varies from load to load; combine makes every combination, the last axis varying
// fastest.
type axis []func(*Load)

func combine(base Load, axes ...axis) []Load {
	all := []Load{base}
	for _, a := range axes {
		var next []Load
		for _, l := range all {
			for _, vary := range a {
				varied := l
				vary(&varied)
				next = append(next, varied)
			}
		}
		all = next
	}
	return all
}

// along makes an axis of values.
func along[T any](values []T, set func(*Load, T)) axis {
	var a axis
	for _, v := range values {
		a = append(a, func(l *Load) { set(l, v) })
	}
	return a
}

func patterns(names ...string) axis {
	return along(names, func(l *Load, name string) {
		l.Pattern = name
		if name == "randrw" {
			l.ReadPercent = 70
		}
	})
}

func connections(n ...int) axis {
	return along(n, func(l *Load, n int) { l.Connections = n })
}

func depths(n ...int) axis {
	return along(n, func(l *Load, n int) { l.Depth = n })
}

func transports(names ...string) axis {
	return along(names, func(l *Load, name string) { l.Transport = name })
}

func backends(names ...string) axis {
	return along(names, func(l *Load, name string) { l.Backend = name })
}

func idle(n ...int) axis {
	return along(n, func(l *Load, n int) { l.Idle = n })
}

func exports(n ...int) axis {
	return along(n, func(l *Load, n int) { l.Exports = n })
}

func rates(perSecond ...float64) axis {
	return along(perSecond, func(l *Load, rate float64) { l.Rate = rate })
}

// named writes each section's name into its loads.
func named(all []Section) []Section {
	for _, s := range all {
		for i := range s.Loads {
			s.Loads[i].Section = s.Name
		}
	}
	return all
}

// Select picks sections by their names; none means all of them.
func Select(names []string) ([]Section, error) {
	all := Sections()
	if len(names) == 0 {
		return all, nil
	}
	var picked []Section
	for _, name := range names {
		i := slices.IndexFunc(all, func(s Section) bool { return s.Name == name })
		if i < 0 {
			var known []string
			for _, s := range all {
				known = append(known, s.Name)
			}
			return nil, fmt.Errorf("there is no section %q; there are %s", name,
				strings.Join(known, ", "))
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

// SectionNamed finds a section of a usual or the full run; ok is false for a name that is neither.
func SectionNamed(name string) (s Section, ok bool) {
	all := append(Sections(), FullSection())
	i := slices.IndexFunc(all, func(s Section) bool { return s.Name == name })
	if i < 0 {
		return Section{}, false
	}
	return all[i], true
}

// rosters are the servers that take part, by section.
var rosters = func() map[string][]string {
	m := map[string][]string{}
	for _, s := range append(Sections(), FullSection()) {
		m[s.Name] = s.Servers
	}
	return m
}()

// Invited reports whether a server takes part in the section of a load. Loads without a known
// section meet every server.
func Invited(l Load, server string) bool {
	roster, known := rosters[l.Section]
	return !known || slices.Contains(roster, server)
}
