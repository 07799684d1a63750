// Server programs: what each can serve, and its arguments for that.
//
// Invariant: a program is only ever asked for a back end that it lists.

package measure

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"ringnbd/engine/gate"
	trees "ringnbd/engine/tree"
)

// Program is one server program.
type Program struct {
	Name     string
	Path     string   // of the executable, absolute or to be looked up in PATH
	Package  string   // Debian package that it is in
	Storage  string   // how it reaches a file
	Backends []string // that it can serve
	Direct   bool     // reaches a file by O_DIRECT
	Many     bool     // can serve further exports
	// Arguments serve the stand on its address until the process is told to stop, in the
	// foreground. They may write files into stand.Dir for that.
	Arguments func(stand Stand) ([]string, error)
	Version   []string // arguments that make it print its version first
	Export    string   // name of the export, when it cannot be the default one
	Daemon    bool     // cannot stay in the foreground: leaves its number in stand.Dir/pid
}

// Stand is what a server serves, and where, for one measurement.
type Stand struct {
	Dir     string // private, removed afterwards
	Backend string // File, Loop, Null, Memory, Overlay, Mapped
	File    string // file or device, unless the back end is Null or Memory
	Top     string // of Overlay and Mapped: the file that is to be made over File
	Size    int64  // bytes, of Null and Memory
	Exports []string
	Address Address
	Clients int // connections to expect at most
}

// Serves reports whether the program can meet a load.
func (p Program) Serves(l Load) bool {
	return slices.Contains(p.Backends, l.Backend) && (l.Exports == 0 || p.Many)
}

// Ringnbd is the server of this project; extra flags go before the path.
func Ringnbd(path string, extra ...string) Program {
	return Program{
		Name: "ringnbd", Path: path, Storage: "O_DIRECT, io_uring", Direct: true, Many: true,
		Backends:  []string{File, Loop, Null, Memory, Overlay, Mapped},
		Version:   []string{"--version"},
		Arguments: func(s Stand) ([]string, error) { return ringnbdArguments(s, extra), nil },
	}
}

// RingnbdCached is the server of this project on the page cache, as most others are.
func RingnbdCached(path string, extra ...string) Program {
	p := Ringnbd(path, append([]string{"--direct", "off"}, extra...)...)
	p.Name, p.Storage, p.Direct = "ringnbd-cached", "page cache (--direct off), io_uring", false
	p.Backends = []string{File, Loop, Overlay, Mapped}
	return p
}

// RingnbdPoll is the server of this project when it looks for completions without sleeping for up
// to 50 µs: lower latency at the price of CPU time.
func RingnbdPoll(path string, extra ...string) Program {
	p := Ringnbd(path, append([]string{"--poll", "50"}, extra...)...)
	p.Name, p.Storage = "ringnbd-poll", "O_DIRECT, io_uring, busy polling (--poll 50)"
	return p
}

func ringnbdArguments(s Stand, extra []string) []string {
	listen := "unix:" + s.Address.Path
	if s.Address.Transport == TCP {
		listen = fmt.Sprintf("127.0.0.1:%d", s.Address.Port)
	}
	a := append([]string{"serve", "--listen", listen}, extra...)
	if s.Clients > gate.DefaultMaxConnections {
		a = append(a, "--max-connections", fmt.Sprint(s.Clients+8))
	}
	for i, path := range s.Exports {
		a = append(a, "--export", fmt.Sprintf("further%d=%s", i+1, path))
	}
	if s.Backend == Null || s.Backend == Memory {
		return append(a, fmt.Sprintf("%s:%d", s.Backend, s.Size))
	}
	if s.Top != "" {
		overlay := trees.Node{Layer: trees.Overlay,
			Parts:   []trees.Node{{Path: s.File}, {Path: s.Top}},
			Options: []trees.Option{{Key: trees.OptionCreate, Value: trees.IfMissing}}}
		return append(a, overlay.String())
	}
	return append(a, s.File)
}

// Peers are the servers of Debian that ringnbd is measured against.
func Peers() []Program {
	version := []string{"--version"}
	return []Program{
		{Name: "nbdkit", Path: "nbdkit", Package: "nbdkit", Storage: "page cache, threads",
			Backends: []string{File, Loop, Null, Memory}, Version: version,
			Arguments: nbdkitArguments},
		{Name: "qemu-nbd", Path: "qemu-nbd", Package: "qemu-utils",
			Storage: "O_DIRECT, io_uring (--cache=none --aio=io_uring)", Direct: true,
			Backends: []string{File, Loop, Null, Overlay, Mapped}, Version: version,
			Arguments: qemuArguments("--cache=none", "--aio=io_uring")},
		{Name: "qemu-nbd-cached", Path: "qemu-nbd", Package: "qemu-utils",
			Storage:  "page cache, threads (its defaults)",
			Backends: []string{File, Loop, Overlay, Mapped}, Version: version,
			Arguments: qemuArguments()},
		{Name: "nbd-server", Path: "nbd-server", Package: "nbd-server",
			Storage: "page cache, process per client", Many: true,
			Backends: []string{File, Loop}, Version: []string{"-V"}, Arguments: nbdServerArguments,
			Export: "disk", Daemon: true},
	}
}

func nbdkitArguments(s Stand) ([]string, error) {
	a := []string{"-f", "-P", filepath.Join(s.Dir, "pid")}
	if s.Address.Transport == Unix {
		a = append(a, "-U", s.Address.Path)
	} else {
		a = append(a, "-i", "127.0.0.1", "-p", fmt.Sprint(s.Address.Port))
	}
	if s.Backend == Null || s.Backend == Memory {
		return append(a, s.Backend, fmt.Sprint(s.Size)), nil
	}
	return append(a, "file", s.File), nil
}

// qemuArguments makes the arguments of qemu-nbd with flags for the way to a file.
func qemuArguments(storage ...string) func(Stand) ([]string, error) {
	return func(s Stand) ([]string, error) {
		a := []string{"-t", "-e", fmt.Sprint(s.Clients + 8)}
		if s.Address.Transport == Unix {
			a = append(a, "-k", s.Address.Path)
		} else {
			a = append(a, "-b", "127.0.0.1", "-p", fmt.Sprint(s.Address.Port))
		}
		if s.Backend == Null {
			return append(a, "--image-opts",
				fmt.Sprintf("driver=null-co,size=%d,read-zeroes=on", s.Size)), nil
		}
		format, path := "raw", s.File
		if s.Top != "" {
			if err := makeQcow2(s.Top, s.File); err != nil {
				return nil, err
			}
			format, path = "qcow2", s.Top
		}
		return append(append(append(a, "-f", format), storage...), path), nil
	}
}

// makeQcow2 makes an empty qcow2 image with a backing file, as QEMU makes it by default.
func makeQcow2(path, backing string) error {
	out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing,
		path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img create: %w: %s", err, LastLines(string(out), 3))
	}
	return nil
}

// nbdServerArguments writes the configuration that nbd-server needs. It has no foreground mode that
// serves more than one client, and no default export.
func nbdServerArguments(s Stand) ([]string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "[generic]\nlistenaddr = 127.0.0.1\nport = %d\nallowlist = true\n",
		s.Address.Port)
	if s.Address.Transport == Unix {
		fmt.Fprintf(&text, "unixsock = %s\n", s.Address.Path)
	}
	export := func(name, path string) {
		fmt.Fprintf(&text, "[%s]\nexportname = %s\nflush = true\nfua = true\n", name, path)
	}
	export("disk", s.File)
	for i, path := range s.Exports {
		export(fmt.Sprintf("further%d", i+1), path)
	}
	config := filepath.Join(s.Dir, "nbd-server.conf")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	return []string{"-C", config, "-p", filepath.Join(s.Dir, "pid")}, nil
}

// Find says where the program is, or which package would install it.
func (p Program) Find() (string, error) {
	path, err := exec.LookPath(p.Path)
	if err == nil {
		return filepath.Abs(path)
	}
	if p.Package != "" {
		return "", fmt.Errorf("%s is not installed (Debian package %s)", p.Name, p.Package)
	}
	return "", fmt.Errorf("%s: %w", p.Path, err)
}

// versionLine is the first line of what the program prints about its version.
func (p Program) versionLine() string {
	out, _ := exec.Command(p.Path, p.Version...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
