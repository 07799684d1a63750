package bench

// Servers under measurement: how each program is started on a file and an
// address, and how it is stopped. Invariant: only processes that were started
// here, and their descendants, are ever signalled, and Stop returns after they
// are gone.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is one server program.
type Program struct {
	Name    string
	Path    string // of the executable, absolute or to be looked up in PATH
	Package string // Debian package that brings it
	Storage string // how it reaches the file
	// Arguments serves stand.File on stand.Address until it is told to stop, in
	// the foreground. It may write files into stand.Dir.
	Arguments func(stand Stand) ([]string, error)
	// Version are the arguments that make it print its version first.
	Version []string
	Direct  bool   // reaches the file by O_DIRECT
	Export  string // name of the export, when it cannot be the default one
	Daemon  bool   // cannot stay in the foreground: leaves its number in stand.Dir/pid
}

// Stand is where a server stands for one measurement.
type Stand struct {
	Dir     string // private, removed afterwards
	File    string
	Address Address
	Clients int // connections to expect at most
}

// Address is a Unix socket or a loopback TCP port.
type Address struct {
	Transport string // Unix or TCP
	Path      string // of the socket
	Port      int
}

// URI is the address as an NBD URI of an export; "" is the default export.
func (a Address) URI(export string) string {
	if a.Transport == Unix {
		return fmt.Sprintf("nbd+unix:///%s?socket=%s", export, a.Path)
	}
	return fmt.Sprintf("nbd://127.0.0.1:%d/%s", a.Port, export)
}

func (a Address) dial() (net.Conn, error) {
	if a.Transport == Unix {
		return net.DialTimeout("unix", a.Path, time.Second)
	}
	return net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", a.Port), time.Second)
}

// Ringnbd is the server of this project; extra flags go before the path.
func Ringnbd(path string, extra ...string) Program {
	return Program{
		Name: "ringnbd", Path: path, Storage: "O_DIRECT, io_uring", Direct: true, Version: []string{"--version"},
		Arguments: func(s Stand) ([]string, error) {
			listen := "unix:" + s.Address.Path
			if s.Address.Transport == TCP {
				listen = fmt.Sprintf("127.0.0.1:%d", s.Address.Port)
			}
			return append(append([]string{"serve", "--listen", listen}, extra...), s.File), nil
		},
	}
}

// RingnbdCached is the server of this project on the page cache, as most others are.
func RingnbdCached(path string, extra ...string) Program {
	p := Ringnbd(path, append([]string{"--direct", "off"}, extra...)...)
	p.Name, p.Storage, p.Direct = "ringnbd-cached", "page cache (--direct off), io_uring", false
	return p
}

// Peers are the servers of Debian that ringnbd is measured against.
func Peers() []Program {
	return []Program{
		{Name: "nbdkit", Path: "nbdkit", Package: "nbdkit", Storage: "page cache, threads",
			Version: []string{"--version"}, Arguments: nbdkitArguments},
		{Name: "nbdkit-uncached", Path: "nbdkit", Package: "nbdkit", Storage: "page cache, evicted (cache=none)",
			Version: []string{"--version"}, Arguments: nbdkitUncachedArguments},
		{Name: "qemu-nbd", Path: "qemu-nbd", Package: "qemu-utils", Storage: "O_DIRECT, io_uring", Direct: true,
			Version: []string{"--version"}, Arguments: qemuArguments},
		{Name: "nbd-server", Path: "nbd-server", Package: "nbd-server", Storage: "page cache, process per client",
			Version: []string{"-V"}, Arguments: nbdServerArguments, Export: "disk", Daemon: true},
	}
}

func nbdkitArguments(s Stand) ([]string, error) {
	a := []string{"-f", "-P", filepath.Join(s.Dir, "pid")}
	if s.Address.Transport == Unix {
		a = append(a, "-U", s.Address.Path)
	} else {
		a = append(a, "-i", "127.0.0.1", "-p", fmt.Sprint(s.Address.Port))
	}
	return append(a, "file", s.File), nil
}

func nbdkitUncachedArguments(s Stand) ([]string, error) {
	a, err := nbdkitArguments(s)
	return append(a, "cache=none"), err
}

func qemuArguments(s Stand) ([]string, error) {
	a := []string{"-f", "raw", "--cache=none", "--aio=io_uring", "-t", "-e", fmt.Sprint(s.Clients + 8)}
	if s.Address.Transport == Unix {
		a = append(a, "-k", s.Address.Path)
	} else {
		a = append(a, "-b", "127.0.0.1", "-p", fmt.Sprint(s.Address.Port))
	}
	return append(a, s.File), nil
}

// nbdServerArguments writes the configuration that nbd-server needs. It has no
// foreground mode that serves more than one client, and no default export.
func nbdServerArguments(s Stand) ([]string, error) {
	var socket string
	if s.Address.Transport == Unix {
		socket = "unixsock = " + s.Address.Path + "\n"
	}
	text := fmt.Sprintf("[generic]\nlistenaddr = 127.0.0.1\nport = %d\nallowlist = true\n%s[disk]\nexportname = %s\nflush = true\nfua = true\n",
		s.Address.Port, socket, s.File)
	config := filepath.Join(s.Dir, "nbd-server.conf")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return []string{"-C", config, "-p", filepath.Join(s.Dir, "pid")}, nil
}

// Find says where the program is, or that it is missing and what would bring it.
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

// VersionLine is the first line of what the program prints about its version.
func (p Program) VersionLine() string {
	out, _ := exec.Command(p.Path, p.Version...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// Server is a running server process.
type Server struct {
	PID     int
	address Address
	output  syncBuffer
	gone    chan struct{}  // closed when the process was waited for
	usage   syscall.Rusage // of it and the children it waited for; valid once gone is closed
}

// readyTimeout bounds the start: the slowest program here needs 0.2 s; ringnbd
// pins its arena.
const readyTimeout = 15 * time.Second

// stopTimeout is how long a server gets after SIGTERM before it is killed.
const stopTimeout = 10 * time.Second

// Start runs the program and returns when it has greeted a client.
func Start(p Program, stand Stand) (*Server, error) {
	path, err := p.Find()
	if err != nil {
		return nil, err
	}
	arguments, err := p.Arguments(stand)
	if err != nil {
		return nil, err
	}
	// A daemon that leaves its parent becomes our child then: it can be waited
	// for, and its process number cannot be anybody else's.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	s := &Server{address: stand.Address, gone: make(chan struct{})}
	cmd := exec.Command(path, arguments...)
	cmd.Dir = stand.Dir
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the bench, which then stops it
	cmd.WaitDelay = time.Second                           // children may still hold the output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if s.PID = cmd.Process.Pid; p.Daemon {
		if s.PID, err = awaitDaemon(cmd, filepath.Join(stand.Dir, "pid")); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", p.Name, err, lastLines(s.output.String(), 5))
		}
		go s.reap()
	} else {
		go func() {
			cmd.Wait()
			if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
				s.usage = *usage
			}
			close(s.gone)
		}()
	}
	if err := s.awaitGreeting(); err != nil {
		s.Stop()
		return nil, fmt.Errorf("%s: %w: %s", p.Name, err, lastLines(s.output.String(), 5))
	}
	return s, nil
}

// awaitDaemon waits until the program has put itself into the background and
// says, in a file, under which number.
func awaitDaemon(cmd *exec.Cmd, pidFile string) (int, error) {
	if err := cmd.Wait(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, err
	}
	for deadline := time.Now().Add(readyTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if pid, err := strconv.Atoi(strings.TrimSpace(readText(pidFile))); err == nil && pid > 1 {
			return pid, nil
		}
	}
	return 0, errors.New("no process number in its pid file")
}

// reap waits for a daemon, whose parent we became.
func (s *Server) reap() {
	defer close(s.gone)
	for {
		if _, err := syscall.Wait4(s.PID, nil, 0, &s.usage); err != syscall.EINTR {
			return
		}
	}
}

// awaitGreeting connects until the server sends the first bytes of the protocol.
func (s *Server) awaitGreeting() error {
	deadline := time.Now().Add(readyTimeout)
	for time.Now().Before(deadline) {
		select {
		case <-s.gone:
			return errors.New("stopped at once")
		case <-time.After(20 * time.Millisecond):
		}
		if c, err := s.address.dial(); err == nil {
			magic := make([]byte, 8)
			c.SetDeadline(deadline)
			_, err := io.ReadFull(c, magic)
			c.Close()
			if err == nil && string(magic) == "NBDMAGIC" {
				s.awaitClients()
				return nil
			}
		}
	}
	return errors.New("not ready in time")
}

// awaitClients waits (bounded) until a forking server has no child left, so that
// the time of its children is accounted for.
func (s *Server) awaitClients() {
	for range 100 {
		if len(tree(s.PID)) <= 1 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Stop ends the server with SIGTERM, after stopTimeout with SIGKILL, waits, and
// kills what it leaves behind. It returns the resource usage of the process and
// of the children it waited for.
func (s *Server) Stop() syscall.Rusage {
	members := tree(s.PID)
	syscall.Kill(s.PID, syscall.SIGTERM) // ours and not yet waited for, or gone: see Start
	select {
	case <-s.gone:
	case <-time.After(stopTimeout):
	}
	s.kill(members)
	return s.usage
}

// Kill ends the server and its descendants with SIGKILL and waits.
func (s *Server) Kill() { s.kill(tree(s.PID)) }

// kill ends what is left of a process tree; members are from when it was whole.
func (s *Server) kill(members map[int]processTimes) {
	select {
	case <-s.gone:
	default:
		syscall.Kill(s.PID, syscall.SIGKILL)
		<-s.gone
	}
	// Orphans of the server are our children now.
	ours := tree(os.Getpid())
	for pid := range members {
		if _, orphan := ours[pid]; orphan && pid != s.PID {
			syscall.Kill(pid, syscall.SIGKILL)
			syscall.Wait4(pid, nil, 0, nil)
		}
	}
}

// freePort asks the kernel for a TCP port that is free on the loopback now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// syncBuffer collects a process's output while others may read it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
