// The report: everything a run measured, as JSON. Invariant: tables are made from
// a report that was, or could have been, read back from its file.

package bench

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
	Command string            `json:"command"` // that makes such a report
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

// usualOthers is the share of CPU time beyond which what others use is worth a word.
const usualOthers = 0.05

// warning tells that the machine was not left to the measurements; empty when it was.
func (r *Report) warning() string {
	var v []float64
	for _, result := range r.Results {
		for _, s := range result.Samples {
			v = append(v, s.Others)
		}
	}
	x := median(v)
	if x <= usualOthers {
		return ""
	}
	return fmt.Sprintf("other programs and the kernel's own threads used %.0f %% of the CPU "+
		"time (median of all measurements): on a quiet machine the figures are better and steadier.", 100*x)
}

// result finds one load on one server; nil when it was not part of the run.
func (r *Report) result(l Load, server string) *Result {
	for i := range r.Results {
		if r.Results[i].Load == l && r.Results[i].Server == server {
			return &r.Results[i]
		}
	}
	return nil
}

// raw finds the raw limit for a load of any transport.
func (r *Report) raw(l Load) *Result { return r.result(l.limit(), RawName) }

// loads lists the loads of the servers in the order of the run.
func (r *Report) loads() []Load {
	var all []Load
	for _, result := range r.Results {
		if result.Server != RawName && !slices.Contains(all, result.Load) {
			all = append(all, result.Load)
		}
	}
	return all
}

// section lists the loads of one section in the order of the run.
func (r *Report) section(name string) []Load {
	return slices.DeleteFunc(r.loads(), func(l Load) bool { return l.Section != name })
}

// servers lists who met a load, in the order of the run.
func (r *Report) servers(l Load) []string {
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

// Save writes the report to path as JSON, compressed if the name ends so, and with it
// the targets as they were judged; reading it back judges anew.
func (r *Report) Save(path string) error {
	b, err := json.MarshalIndent(struct {
		*Report
		Targets []Target `json:"targets"`
	}{r, r.Targets()}, "", " ")
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

// LoadReport reads a report that Save wrote.
func LoadReport(path string) (*Report, error) {
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
		return nil, fmt.Errorf("%s is no report of this program: %w", path, err)
	}
	return r, nil
}
