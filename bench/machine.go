package bench

// Facts about the machine that a reader needs to judge a number. Invariant: a
// fact that cannot be read is left empty; nothing is guessed.

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes where a report was made.
type Machine struct {
	CPU        string            `json:"cpu"`
	Cores      int               `json:"cores"`
	Hypervisor bool              `json:"hypervisor"` // the CPU says that it is virtual
	Memory     int64             `json:"memory"`     // bytes
	Kernel     string            `json:"kernel"`
	OS         string            `json:"os"`
	Filesystem string            `json:"filesystem"` // type and device of the test file's directory
	Congestion string            `json:"congestion"` // TCP congestion control of both ends
	Versions   map[string]string `json:"versions"`   // of fio and of each server
}

// machineFacts reads them; dir is where the test file lies.
func machineFacts(dir string) Machine {
	m := Machine{Cores: runtime.NumCPU(), Versions: map[string]string{}}
	cpuinfo := readText("/proc/cpuinfo")
	m.CPU = colonField(cpuinfo, "model name")
	m.Hypervisor = strings.Contains(" "+colonField(cpuinfo, "flags")+" ", " hypervisor ")
	m.Memory = parseStatusField(readText("/proc/meminfo"), "MemTotal")
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	for line := range strings.Lines(readText("/etc/os-release")) {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			m.OS = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	if absolute, err := filepath.Abs(dir); err == nil {
		m.Filesystem = filesystemOf(readText("/proc/self/mountinfo"), absolute)
	}
	m.Congestion = strings.TrimSpace(readText("/proc/sys/net/ipv4/tcp_congestion_control"))
	return m
}

func (m *Machine) addVersions(programs []Program) {
	if out, err := exec.Command("fio", "--version").Output(); err == nil {
		m.Versions["fio"] = strings.TrimSpace(string(out))
	}
	for _, p := range programs {
		m.Versions[p.Name] = p.VersionLine()
	}
}

// String is the machine in one line.
func (m Machine) String() string {
	kind := ""
	if m.Hypervisor {
		kind = " (virtual machine)"
	}
	return fmt.Sprintf("%s, %d cores%s, %.0f GiB, Linux %s, %s, file on %s, TCP %s",
		m.CPU, m.Cores, kind, float64(m.Memory)/(1<<30), m.Kernel, m.OS, m.Filesystem, m.Congestion)
}

// filesystemOf finds the mount that holds path in the text of mountinfo
// (proc_pid_mountinfo(5)) and names its type and source. Later mounts cover
// earlier ones at the same point.
func filesystemOf(mountinfo, path string) string {
	var best, point string
	scan := bufio.NewScanner(strings.NewReader(mountinfo))
	for scan.Scan() {
		left, right, ok := strings.Cut(scan.Text(), " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(g) < 2 {
			continue
		}
		p := f[4]
		inside := p == "/" || path == p || strings.HasPrefix(path, p+"/")
		if inside && len(p) >= len(point) {
			best, point = g[0]+" on "+g[1], p
		}
	}
	return best
}

// colonField reads "name : value" from text such as /proc/cpuinfo.
func colonField(text, name string) string {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func readText(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}
