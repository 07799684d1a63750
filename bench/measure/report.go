// The report: everything a run measured, as JSON.
//
// Invariant: tables are made from a report that was, or could have been, read back from its
// file.

package measure

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Report is the outcome of a run.
type Report struct {
	Command string            `json:"command"` // that made it
	Date    time.Time         `json:"date"`
	Machine Machine           `json:"machine"`
	Size    int64             `json:"size"`    // bytes of the file
	Seconds float64           `json:"seconds"` // per measurement
	Rounds  int               `json:"rounds"`
	Storage map[string]string `json:"storage"` // by server: how it reaches the file
	Direct  []string          `json:"direct"`  // servers that reach the file by O_DIRECT
	Results []Result          `json:"results"` // grouped by load, in the order of the run

	Profiles []Profile `json:"profiles,omitempty"`
}

// Profile says where a server's CPU time went during one load.
type Profile struct {
	Load    Load       `json:"load"`
	Server  string     `json:"server"`
	Seconds float64    `json:"seconds"` // of CPU time sampled
	Stages  []Stage    `json:"stages"`
	Top     []Function `json:"top"`
}

// Stage is one part of the way of a request through the server.
type Stage struct {
	Name             string  `json:"name"`  // receive, parse, disk, reply, kernel, runtime, other
	Share            float64 `json:"share"` // 0..1
	MicrosPerRequest float64 `json:"microsPerRequest"`
}

// Function is one function's own share of the CPU time.
type Function struct {
	Name  string  `json:"name"`
	Share float64 `json:"share"` // 0..1
}

// Failures lists every measurement that failed, one line each.
func (r *Report) Failures() []string {
	var lines []string
	for _, result := range r.Results {
		for _, e := range result.Errors {
			lines = append(lines, fmt.Sprintf("%s, %s: %s", result.Load, result.Server, e))
		}
	}
	return lines
}

// Result finds one load on one server; nil when it was not part of the run.
func (r *Report) Result(l Load, server string) *Result {
	for i := range r.Results {
		if r.Results[i].Load == l && r.Results[i].Server == server {
			return &r.Results[i]
		}
	}
	return nil
}

// Raw finds the raw limit for a load of any transport.
func (r *Report) Raw(l Load) *Result { return r.Result(l.Limit(), RawName) }

// Loads lists the loads of the servers in the order of the run.
func (r *Report) Loads() []Load {
	var all []Load
	for _, result := range r.Results {
		if result.Server != RawName && !slices.Contains(all, result.Load) {
			all = append(all, result.Load)
		}
	}
	return all
}

// Section lists the loads of one section in the order of the run.
func (r *Report) Section(name string) []Load {
	return slices.DeleteFunc(r.Loads(), func(l Load) bool { return l.Section != name })
}

// Servers lists the servers that met a load, in the order of the run.
func (r *Report) Servers(l Load) []string {
	var names []string
	for _, result := range r.Results {
		if result.Load == l && result.Server != RawName {
			names = append(names, result.Server)
		}
	}
	return names
}

// packed ends the names of reports that are kept compressed.
const packed = ".gz"

// WriteJSON writes a value to path, compressed if the name ends in ".gz".
func WriteJSON(path string, value any) error {
	b, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if strings.HasSuffix(path, packed) {
		var small bytes.Buffer
		w := gzip.NewWriter(&small)
		if _, err := w.Write(b); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		b = small.Bytes()
	}
	return os.WriteFile(path, b, 0o644)
}

// ReadReport reads a report from a file.
func ReadReport(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, packed) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if b, err = io.ReadAll(z); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s is not a report of this program: %w", path, err)
	}
	return r, nil
}
