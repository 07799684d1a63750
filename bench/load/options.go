// What a run is asked to do, and the rules that do not depend on the target.
//
// Invariant: Options that pass Check may not fit a target (plan.go), but contradict nothing in
// themselves.

package load

import (
	"fmt"
	"strings"
	"time"

	"ringnbd/engine/client"
)

// requestKind is what a request asks for.
type requestKind uint8

// The kinds of request.
const (
	kindRead requestKind = iota
	kindWrite
	kindTrim
	kindFlush
	kindZero // WRITE_ZEROES
	kinds    = iota
)

var kindNames = [kinds]string{"read", "write", "trim", "flush", "zeroes"}

func (k requestKind) String() string { return kindNames[k] }

// Pattern is the order and the kinds of requests.
type Pattern struct {
	Name   string
	Random bool // offsets are drawn; else each connection goes through its part in order
	Does   [kinds]bool
	Help   string
}

// Patterns lists them all.
var patterns = []Pattern{
	{"randread", true, [kinds]bool{kindRead: true}, "read at random offsets"},
	{"randwrite", true, [kinds]bool{kindWrite: true}, "write at random offsets"},
	{"randrw", true, [kinds]bool{kindRead: true, kindWrite: true},
		"read and write at random offsets"},
	{"read", false, [kinds]bool{kindRead: true}, "read in order"},
	{"write", false, [kinds]bool{kindWrite: true}, "write in order"},
	{"rw", false, [kinds]bool{kindRead: true, kindWrite: true}, "read and write in order"},
	{"randtrim", true, [kinds]bool{kindTrim: true}, "trim at random offsets"},
	{"trim", false, [kinds]bool{kindTrim: true}, "trim in order"},
	{"randzeroes", true, [kinds]bool{kindZero: true},
		"write zeroes without sending them, at random offsets"},
	{"zeroes", false, [kinds]bool{kindZero: true}, "write zeroes without sending them, in order"},
	{"flush", false, [kinds]bool{kindFlush: true}, "nothing but flushes"},
}

// ParsePattern finds a pattern by its name.
func ParsePattern(name string) (Pattern, error) {
	for _, p := range patterns {
		if p.Name == name {
			return p, nil
		}
	}
	return Pattern{}, fmt.Errorf("there is no pattern %q; there are %s", name, PatternNames())
}

// PatternNames lists the names of all patterns, for people.
func PatternNames() string {
	text := ""
	for i, p := range patterns {
		if i > 0 {
			text += ", "
		}
		text += p.Name
	}
	return text
}

// Options is one run.
type Options struct {
	// Prefix is what the program writes before the name of an option: "--" on a command line.
	// Errors name the options so.
	Prefix string

	Target      client.Target
	Pattern     Pattern
	ReadPercent int // of a mixed pattern
	ZeroPercent int // of its writes, these are WRITE_ZEROES
	Replay      Replay
	Raw         bool   // the file is a raw disk, whatever it looks like
	Force       bool   // go on although other programs or mounts use the file
	Record      string // path of a trace in which the run's requests are written; "": none
	Sizes       Mix
	Connections int
	Depth       int // requests in flight on each connection
	Threads     int // loops; connections are divided among them
	Idle        int // further connections that negotiate and then stay silent

	Offset uint64 // bytes: where the window begins
	Size   uint64 // bytes of the window; 0: to the end of the export
	Seed   uint64

	Rate    float64 // requests per second, all connections together; 0: closed loop
	Poisson bool    // arrivals are a Poisson process; else evenly spaced

	Duration time.Duration // 0: until Count
	Count    uint64        // requests; 0: until Duration
	Warmup   time.Duration

	Verify     bool
	Fill       bool // write the whole window before the run
	FUA        bool // on every request that changes data
	NoHole     bool // on WRITE_ZEROES: the range is to stay allocated
	FastZero   bool // on WRITE_ZEROES: fail rather than be as slow as writing
	FlushEvery int  // a FLUSH after this number of changes by a connection; 0: never

	// Timeout is how long connecting and negotiating may take, and how long a target may be silent
	// while requests are in flight.
	Timeout time.Duration
}

// Bounds that catch slips of the finger; beyond them a run fails in stranger ways.
const (
	maxConnections = 1 << 16
	maxDepth       = 1 << 14
	maxThreads     = 1024
	maxInflight    = 1 << 20
	maxBlock       = 64 << 20 // bytes
)

// errorf is an error about options. The format names options in braces, as {read-percent}.
func (o *Options) errorf(format string, values ...any) error {
	return fmt.Errorf(o.spelled(format), values...)
}

// spelled names the options of a text, which are in braces, as the program does.
func (o *Options) spelled(text string) string {
	return strings.NewReplacer("{", o.Prefix, "}", "").Replace(text)
}

// Check applies the rules that need no look at the target.
func (o *Options) Check() error {
	switch {
	case o.Connections < 1 || o.Connections > maxConnections:
		return o.errorf("{connections} %d: must be from 1 to %d", o.Connections, maxConnections)
	case o.Idle < 0 || o.Idle > maxConnections:
		return o.errorf("{idle} %d: must be from 0 to %d", o.Idle, maxConnections)
	case o.Idle > 0 && o.Target.File():
		return o.errorf("{idle} is only for servers: a file has no connections")
	case o.Depth < 1 || o.Depth > maxDepth:
		return o.errorf("{depth} %d: must be from 1 to %d", o.Depth, maxDepth)
	case o.Connections*o.Depth > maxInflight:
		return o.errorf("{connections} %d with {depth} %d: more than %d requests in flight",
			o.Connections, o.Depth, maxInflight)
	case o.Threads < 1 || o.Threads > maxThreads:
		return o.errorf("{threads} %d: must be from 1 to %d", o.Threads, maxThreads)
	case o.Threads > o.Connections:
		return o.errorf("{threads} %d with {connections} %d: a thread needs a connection of "+
			"its own", o.Threads, o.Connections)
	case o.ReadPercent < 0 || o.ReadPercent > 100:
		return o.errorf("{read-percent} %d: must be from 0 to 100", o.ReadPercent)
	case o.ZeroPercent < 0 || o.ZeroPercent > 100:
		return o.errorf("{zero-percent} %d: must be from 0 to 100", o.ZeroPercent)
	case o.Rate < 0 || o.Rate > 1e9 || o.Rate != o.Rate:
		return o.errorf("{rate} %v: must be more than 0 requests per second, and at most 1e9",
			o.Rate)
	case o.Poisson && o.Rate == 0:
		return o.errorf("{arrivals} poisson needs a {rate}")
	case o.Duration < 0 || o.Warmup < 0:
		return o.errorf("{duration} and {warmup} cannot be negative")
	case o.Duration == 0 && o.Count == 0 && o.Replay.Path == "":
		return o.errorf("{duration} 0 without {count} would never end")
	case o.Timeout <= 0:
		return o.errorf("{timeout} %v: must be more than 0", o.Timeout)
	case o.FlushEvery < 0:
		return o.errorf("{flush-every} %d: must be 1 or more", o.FlushEvery)
	}
	if o.Replay.Path != "" {
		return o.checkReplay() // the rest when the trace is known
	}
	return o.checkTogether()
}

// checkTogether checks the pattern together with the other options.
func (o *Options) checkTogether() error {
	name := o.Pattern.Name
	switch {
	case o.ZeroPercent > 0 && !o.Pattern.Does[kindWrite]:
		return o.errorf("{zero-percent} needs a pattern that writes; %s does not", name)
	case o.Fill && !o.does(kindRead) && !o.does(kindWrite) && !o.does(kindZero):
		return o.errorf("{fill} with {pattern} %s: there is nothing in it that data would "+
			"matter to", name)
	case (o.FUA || o.FlushEvery > 0) && !o.changes():
		return o.errorf("{fua} and {flush-every} are about writing, which {pattern} %s does "+
			"not do", name)
	case (o.NoHole || o.FastZero) && !o.does(kindZero):
		return o.errorf("{no-hole} and {fast-zero} are about WRITE_ZEROES, which {pattern} %s "+
			"does not do; use zeroes, randzeroes or {zero-percent}", name)
	case !o.Verify:
		return nil
	case !o.does(kindRead) && !o.does(kindWrite):
		return o.errorf("{verify} with {pattern} %s: there is no data to verify", name)
	case !o.does(kindRead):
		return o.errorf("{verify} with {pattern} %s: nothing would be read back; use randrw "+
			"or rw", name)
	case !o.does(kindWrite) && !o.does(kindZero) && !o.Fill:
		return o.errorf("{verify} with {pattern} %s: only what this run has written can be "+
			"judged; add {fill}, or use randrw or rw", name)
	case o.Sizes.unit()%sector != 0:
		return o.errorf("{verify} with {bs} %s: sizes must be multiples of %d bytes, for each "+
			"sector is stamped", o.Sizes, sector)
	}
	return nil
}

// does reports whether the run has requests of a kind. With Verify, zeroes are read back among the
// other requests.
func (o *Options) does(k requestKind) bool {
	switch {
	case o.Pattern.Does[k]:
		return true
	case k == kindRead:
		return o.Verify && o.Pattern.Does[kindZero]
	case k == kindZero:
		return o.ZeroPercent > 0
	}
	return k == kindFlush && o.FlushEvery > 0
}

// Mixed reports whether it is drawn if a request reads or writes.
func (o *Options) Mixed() bool {
	return o.Replay.Path == "" && o.does(kindRead) &&
		(o.Pattern.Does[kindWrite] || o.Pattern.Does[kindZero])
}

// changes reports whether the run's requests change data.
func (o *Options) changes() bool {
	return o.does(kindWrite) || o.does(kindTrim) || o.does(kindZero)
}

// Writes reports whether the target will be written to.
func (o *Options) Writes() bool { return o.Fill || o.changes() }
