package bench

// The report: everything a run measured, as JSON. Invariant: tables are made from
// a report that was, or could have been, read back from its file.

import (
	"encoding/json"
	"fmt"
	"os"
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
func (r *Report) raw(l Load) *Result {
	l.Transport = ""
	return r.result(l, RawName)
}

// loads lists the loads of the servers in the order of the run.
func (r *Report) loads() []Load {
	var all []Load
	for _, result := range r.Results {
		if result.Server != RawName && (len(all) == 0 || all[len(all)-1] != result.Load) {
			all = append(all, result.Load)
		}
	}
	return all
}

// Save writes the report to path as JSON.
func (r *Report) Save(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// LoadReport reads a report that Save wrote.
func LoadReport(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s is no report of this program: %w", path, err)
	}
	return r, nil
}
