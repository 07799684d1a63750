// The load and the measurement: what is asked of a server, and what came of it.
//
// Invariant: a Sample is one meeting of one load with one server in one round; it is never
// corrected afterwards.

package measure

import (
	"fmt"
	"strconv"

	"ringnbd/engine/units"
)

// Load is what is asked of every server. Loads are compared by ==.
type Load struct {
	// name of the section that it belongs to
	Section string `json:"section"`
	// of ringnbd bench: randread, randwrite, randrw, read, write
	Pattern     string  `json:"pattern"`
	ReadPercent int     `json:"readPercent,omitempty"` // of randrw
	BlockSize   int     `json:"blockSize"`             // bytes per request
	Depth       int     `json:"depth"`                 // requests in flight per connection
	Connections int     `json:"connections"`
	Transport   string  `json:"transport"`         // Unix, TCP; empty for the raw limit
	Backend     string  `json:"backend"`           // File, Loop, Null, Memory, Overlay, Mapped
	Rate        float64 `json:"rate,omitempty"`    // requests per second, open loop; 0: closed loop
	Idle        int     `json:"idle,omitempty"`    // further connections that stay silent
	Exports     int     `json:"exports,omitempty"` // further exports, unused
}

// The two transports. TCP is loopback only.
const (
	Unix = "unix"
	TCP  = "tcp"
)

// The back ends: what holds the bytes of the export.
const (
	File   = "file"   // a file on Suite.Dir's file system
	Loop   = "loop"   // a loop device on that file, with direct I/O
	Null   = "null"   // reads zeroes, drops writes: the server alone
	Memory = "memory" // kept in the server's memory

	// Overlay is a new overlay on that file, without anything in it: reads go through to the file.
	Overlay = "overlay"
	// Mapped is an overlay on that file that has all bytes which the load touches.
	Mapped = "overlay-mapped"
)

// String names a load as the tables do: "randread 4 KiB, 4 × 32, unix".
func (l Load) String() string {
	s := l.Shape()
	if l.Backend != "" && l.Backend != File {
		s += ", " + l.Backend
	}
	if l.Transport != "" {
		s += ", " + l.Transport
	}
	return s
}

// Shape is a load without its back end and its transport.
func (l Load) Shape() string {
	pattern := l.Pattern
	if l.Pattern == "randrw" && l.ReadPercent > 0 {
		pattern += fmt.Sprintf(" %d:%d", l.ReadPercent, 100-l.ReadPercent)
	}
	s := fmt.Sprintf("%s %s, %d × %d", pattern, units.Exact(uint64(l.BlockSize)), l.Connections,
		l.Depth)
	if l.Rate > 0 {
		s += ", " + RateText(l.Rate) + "/s"
	}
	if l.Idle > 0 {
		s += fmt.Sprintf(", %d idle", l.Idle)
	}
	if l.Exports > 0 {
		s += fmt.Sprintf(", %d exports", l.Exports+1)
	}
	return s
}

// Writes reports whether the load changes the file.
func (l Load) Writes() bool {
	return l.Pattern != "randread" && l.Pattern != "read"
}

// OnDisk reports whether the load reaches the machine's storage.
func (l Load) OnDisk() bool {
	return l.Backend == File || l.Backend == Loop || l.Layered()
}

// Layered reports whether the export is made of the file and of another file over it.
func (l Load) Layered() bool { return l.Backend == Overlay || l.Backend == Mapped }

// Limit is the load that the raw limit meets instead: without a transport, idle connections and
// further exports.
func (l Load) Limit() Load {
	l.Transport, l.Idle, l.Exports = "", 0, 0
	return l
}

// Sample is what one meeting measured. Latencies are in microseconds, of all kinds of requests
// together: those of the slower kind where a load has two.
type Sample struct {
	Round             int     `json:"round"`
	Requests          int64   `json:"requests"`
	Seconds           float64 `json:"seconds"`
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	BytesPerSecond    float64 `json:"bytesPerSecond"`
	P50               float64 `json:"p50"`
	P90               float64 `json:"p90,omitempty"` // not in old reports
	P99               float64 `json:"p99"`
	P999              float64 `json:"p999"`
	P9999             float64 `json:"p9999,omitempty"` // not in old reports
	ServerUser        float64 `json:"serverUser"`      // CPU µs per request
	ServerSystem      float64 `json:"serverSystem"`    // CPU µs per request
	// CPU µs per request of the generator, user and system
	ClientCPU float64 `json:"clientCPU"`
	Switches  float64 `json:"switches"` // context switches of the server per request
	PeakRSS   int64   `json:"peakRSS"`  // bytes
	// from starting the server until it greeted a client
	StartSeconds float64 `json:"startSeconds"`
	Steal        float64 `json:"steal"` // share of the machine's CPU time, 0..1
	// share of the machine's CPU time that other programs and the kernel's own threads used, 0..1
	Others float64 `json:"others"`
	// seconds from the end of the load until the file was on disk
	WriteBack float64 `json:"writeBack"`
	// open loop: requests that were due and never started
	Backlog uint64 `json:"backlog"`
}

// ServerCPU is the server's user and system time per request in microseconds.
func (s Sample) ServerCPU() float64 { return s.ServerUser + s.ServerSystem }

// RequestsPerCPUSecond is what the server does for a second of its CPU time; 0 when its CPU time
// was not measured.
func (s Sample) RequestsPerCPUSecond() float64 {
	if s.ServerCPU() == 0 {
		return 0
	}
	return 1e6 / s.ServerCPU()
}

// Result is one load on one server over all rounds.
type Result struct {
	Load    Load     `json:"load"`
	Server  string   `json:"server"`
	Samples []Sample `json:"samples"`
	Median  Sample   `json:"median"` // field by field
	Errors  []string `json:"errors,omitempty"`
}

// RateText prints requests per second, whole thousands as "k".
func RateText(rate float64) string {
	if n := int64(rate); n >= 1000 && n%1000 == 0 {
		return strconv.FormatInt(n/1000, 10) + "k"
	}
	return strconv.FormatFloat(rate, 'g', -1, 64)
}

// Micros prints a latency: short ones with a decimal.
func Micros(t float64) string {
	if t < 100 {
		return fmt.Sprintf("%.1f", t)
	}
	return fmt.Sprintf("%.0f", t)
}
