package bench

// The load and the measurement: what is asked of a server, and what came of it.
// Invariant: a Sample is one meeting of one load with one server in one round; it
// is never corrected afterwards.

import "fmt"

// Load is one column of work that every server meets.
type Load struct {
	Pattern   string `json:"pattern"`   // fio's name: randread, randwrite, read, write
	BlockSize int    `json:"blockSize"` // bytes per request
	Depth     int    `json:"depth"`     // requests in flight per connection
	Jobs      int    `json:"jobs"`      // connections, one fio job each
	Transport string `json:"transport"` // Unix, TCP; empty for the raw limit
}

// The two transports. TCP is loopback only.
const (
	Unix = "unix"
	TCP  = "tcp"
)

// String names a load the way the tables do: "randread 4 KiB, 4 x 32, unix".
func (l Load) String() string {
	s := fmt.Sprintf("%s %s, %d × %d", l.Pattern, sizeText(int64(l.BlockSize)), l.Jobs, l.Depth)
	if l.Transport != "" {
		s += ", " + l.Transport
	}
	return s
}

// Writes tells whether the load changes the file.
func (l Load) Writes() bool {
	return l.Pattern != "randread" && l.Pattern != "read"
}

// Sample is what one meeting measured. Times are in microseconds.
type Sample struct {
	Round             int     `json:"round"`
	Requests          int64   `json:"requests"`
	Seconds           float64 `json:"seconds"`
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	P50               float64 `json:"p50"`
	P99               float64 `json:"p99"`
	P999              float64 `json:"p999"`
	ServerUser        float64 `json:"serverUser"`   // CPU µs per request
	ServerSystem      float64 `json:"serverSystem"` // CPU µs per request
	ClientCPU         float64 `json:"clientCPU"`    // CPU µs per request of the generator, user and system
	Switches          float64 `json:"switches"`     // context switches of the server per request
	PeakRSS           int64   `json:"peakRSS"`      // bytes
	Steal             float64 `json:"steal"`        // share of the machine's CPU time, 0..1
	WriteBack         float64 `json:"writeBack"`    // seconds from the end of the load until the file was on disk
}

// ServerCPU is the server's user and system time per request in microseconds.
func (s Sample) ServerCPU() float64 { return s.ServerUser + s.ServerSystem }

// Result is one load on one server over all rounds.
type Result struct {
	Load    Load     `json:"load"`
	Server  string   `json:"server"`
	Samples []Sample `json:"samples"`
	Median  Sample   `json:"median"` // field by field
	Errors  []string `json:"errors,omitempty"`
}

// sizeText prints bytes in the largest binary unit that divides them.
func sizeText(n int64) string {
	for _, u := range []struct {
		name string
		unit int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.unit && n%u.unit == 0 {
			return fmt.Sprintf("%d %s", n/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
