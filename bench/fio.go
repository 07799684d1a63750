package bench

// fio as the load generator: its command lines and its JSON. Invariant: a run of
// which fio reports any error yields an error, never a number.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measure is what the generator itself saw.
type measure struct {
	requests       int64
	seconds, rps   float64
	p50, p99, p999 float64       // µs
	cpu            time.Duration // user and system of all its processes
}

// fioArguments are common to NBD and raw runs. The pattern covers the first size
// bytes; repeats are allowed (norandommap), so that the generator keeps no map.
func fioArguments(l Load, size int64, seconds float64) []string {
	return []string{
		"--name=load", "--rw=" + l.Pattern, "--bs=" + strconv.Itoa(l.BlockSize),
		"--iodepth=" + strconv.Itoa(l.Depth), "--numjobs=" + strconv.Itoa(l.Jobs),
		"--size=" + strconv.FormatInt(size, 10), "--norandommap", "--randrepeat=0", "--group_reporting",
		"--time_based", fmt.Sprintf("--runtime=%dms", int64(seconds*1000)),
		"--percentile_list=50:99:99.9", "--output-format=json", "--eta=never",
	}
}

// fioNBD is the command line against a server.
func fioNBD(l Load, size int64, seconds float64, uri string) []string {
	return append(fioArguments(l, size, seconds), "--ioengine=nbd", "--uri="+uri)
}

// fioRaw is the command line for the raw limit on a file.
func fioRaw(l Load, size int64, seconds float64, file string) []string {
	return append(fioArguments(l, size, seconds), "--ioengine=io_uring", "--direct=1",
		"--fixedbufs=1", "--registerfiles=1", "--filename="+file)
}

// runFio runs fio to its end; it is killed when ctx ends.
func runFio(ctx context.Context, dir string, arguments []string) (measure, error) {
	cmd := exec.CommandContext(ctx, "fio", arguments...)
	cmd.Dir = dir // fio leaves local files where it runs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return measure{}, fmt.Errorf("fio: %w: %s", err, lastLines(stderr.String()+stdout.String(), 5))
	}
	m, err := parseFio(stdout.Bytes())
	m.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return m, err
}

// fioOutput is the part of fio's JSON that is read here.
type fioOutput struct {
	Jobs []struct {
		Error int          `json:"error"`
		Read  fioDirection `json:"read"`
		Write fioDirection `json:"write"`
	} `json:"jobs"`
}

type fioDirection struct {
	TotalIOs int64   `json:"total_ios"`
	Runtime  int64   `json:"runtime"` // ms
	IOPS     float64 `json:"iops"`
	Latency  struct {
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

// parseFio reads fio's output. The NBD engine prints lines of its own before the
// JSON document.
func parseFio(out []byte) (measure, error) {
	start := bytes.IndexByte(out, '{')
	if start < 0 {
		return measure{}, fmt.Errorf("fio printed no JSON: %s", lastLines(string(out), 5))
	}
	var o fioOutput
	if err := json.NewDecoder(bytes.NewReader(out[start:])).Decode(&o); err != nil {
		return measure{}, fmt.Errorf("fio's JSON: %w", err)
	}
	if len(o.Jobs) != 1 {
		return measure{}, fmt.Errorf("fio reported %d groups of jobs, not 1", len(o.Jobs))
	}
	job := o.Jobs[0]
	if job.Error != 0 {
		return measure{}, fmt.Errorf("fio reports error %d (%w)", job.Error, syscall.Errno(job.Error))
	}
	d := job.Read
	if job.Write.TotalIOs > d.TotalIOs {
		d = job.Write
	}
	if d.TotalIOs == 0 || d.Runtime == 0 {
		return measure{}, fmt.Errorf("fio completed no request")
	}
	us := func(p string) float64 { return d.Latency.Percentile[p] / 1e3 }
	return measure{
		requests: d.TotalIOs, seconds: float64(d.Runtime) / 1e3, rps: d.IOPS,
		p50: us("50.000000"), p99: us("99.000000"), p999: us("99.900000"),
	}, nil
}

// lastLines shortens a program's output for an error message: its last n lines in one.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}
