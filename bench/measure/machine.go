// Facts about the machine that a reader needs to judge a number.
//
// Invariant: a fact that cannot be read is left empty; nothing is guessed.

package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Machine describes where a report was made.
type Machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Hypervisor bool   `json:"hypervisor"` // the CPU says that it is virtual
	Memory     int64  `json:"memory"`     // bytes
	Kernel     string `json:"kernel"`
	OS         string `json:"os"`
	// type and device of the test file's directory
	Filesystem string `json:"filesystem"`
	Device     string `json:"device,omitempty"` // that the file system lies on
	// TCP congestion control of both ends
	Congestion string `json:"congestion"`
	Governor   string `json:"governor,omitempty"`   // of the CPU's frequency
	IdleDriver string `json:"idleDriver,omitempty"` // of the CPU's sleeping states
	// bytes per second that one stream carries, by transport
	Loopback map[string]float64 `json:"loopback,omitempty"`
	// of the load generator and of each server
	Versions map[string]string `json:"versions"`
}

// ReadMachine reads the facts; the test file lies in dir.
func ReadMachine(dir string) Machine {
	m := Machine{Cores: runtime.NumCPU(), Versions: map[string]string{}}
	if cpus, err := proc.CPUInfo(); err == nil && len(cpus) > 0 {
		m.CPU = cpus[0].ModelName
		m.Hypervisor = slices.Contains(cpus[0].Flags, "hypervisor")
	}
	if memory, err := proc.Meminfo(); err == nil && memory.MemTotalBytes != nil {
		m.Memory = int64(*memory.MemTotalBytes)
	}
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
		mounts, _ := proc.GetMounts()
		m.Filesystem = filesystemOf(mounts, absolute)
		m.Device = deviceOf(absolute)
	}
	m.Congestion = congestion()
	m.Governor = readLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	if driver := readLine("/sys/devices/system/cpu/cpuidle/current_driver"); driver != "none" {
		m.IdleDriver = driver
	}
	return m
}

// GeneratorName is the load generator's entry among the versions.
const GeneratorName = "load generator"

func (m *Machine) addVersions(generator string, programs []Program) {
	m.Versions[GeneratorName] = Program{Path: generator,
		Version: []string{"--version"}}.versionLine()
	for _, p := range programs {
		m.Versions[p.Name] = p.versionLine()
	}
}

// String describes the machine in one line.
func (m Machine) String() string {
	kind := ""
	if m.Hypervisor {
		kind = " (virtual machine)"
	}
	s := fmt.Sprintf("%s, %d cores%s, %.0f GiB, Linux %s, %s, file on %s", m.CPU, m.Cores, kind,
		float64(m.Memory)/(1<<30), m.Kernel, m.OS, m.Filesystem)
	for _, fact := range []struct{ name, value string }{{"TCP ", m.Congestion},
		{"frequency governor ", m.Governor}, {"idle driver ", m.IdleDriver}} {
		if fact.value != "" {
			s += ", " + fact.name + fact.value
		}
	}
	return s
}

// filesystemOf names the type and the source of the mount that holds path. Later mounts cover
// earlier ones at the same point.
func filesystemOf(mounts []*procfs.MountInfo, path string) string {
	var best, point string
	for _, m := range mounts {
		p := m.MountPoint
		inside := p == "/" || path == p || strings.HasPrefix(path, p+"/")
		if inside && len(p) >= len(point) {
			best, point = m.FSType+" on "+m.Source, p
		}
	}
	return best
}

// deviceOf says what the kernel knows about the block device under a path: model, scheduler, block
// size, write cache. Empty when the path is not on a single device.
func deviceOf(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	folder := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat(folder + "/partition"); err == nil {
		folder += "/.." // the queue is the whole disk's
	}
	real, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return ""
	}
	facts := []string{filepath.Base(real)}
	if model := readLine(real + "/device/model"); model != "" {
		facts = append(facts, model)
	}
	for _, fact := range []struct{ name, file string }{{"scheduler ", "scheduler"},
		{"logical block ", "logical_block_size"},
		{"cache ", "write_cache"}, {"requests ", "nr_requests"}} {
		if value := chosen(readLine(real + "/queue/" + fact.file)); value != "" {
			facts = append(facts, fact.name+value)
		}
	}
	return strings.Join(facts, ", ")
}

// chosen is the word in brackets of a list such as "none [mq-deadline]", or the whole text if there
// are none.
func chosen(list string) string {
	if _, rest, ok := strings.Cut(list, "["); ok {
		if word, _, ok := strings.Cut(rest, "]"); ok {
			return word
		}
	}
	return list
}

func readText(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

func readLine(path string) string { return strings.TrimSpace(readText(path)) }
