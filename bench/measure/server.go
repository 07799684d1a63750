// Servers under measurement: how a program is started and how it is stopped.
//
// Invariant: only processes that were started here, and their descendants, are ever signalled,
// and Stop returns after they are gone.

package measure

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

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"ringnbd/engine/client"
)

// Address is a Unix socket or a loopback TCP port.
type Address struct {
	Transport string // Unix or TCP
	Path      string // of the socket
	Port      int
}

// URI is the address as an NBD URI of an export; "" is the default export.
func (a Address) URI(export string) string {
	if a.Transport == Unix {
		t := client.Target{Network: "unix", Address: a.Path}
		return t.URI(export)
	}
	return fmt.Sprintf("nbd://127.0.0.1:%d/%s", a.Port, export)
}

func (a Address) dial() (net.Conn, error) {
	if a.Transport == Unix {
		return net.DialTimeout("unix", a.Path, time.Second)
	}
	return net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", a.Port), time.Second)
}

// Server is a running server process.
type Server struct {
	PID     int
	Ready   time.Duration // from starting it until it greeted a client
	address Address
	output  syncBuffer
	gone    chan struct{}  // closed when the process was waited for
	usage   syscall.Rusage // of it and the children it waited for; valid once gone is closed
}

// readyTimeout bounds the start: the slowest program here needs 0.2 s; ringnbd pins its arena.
const readyTimeout = 15 * time.Second

// stopTimeout is how long a server gets after SIGTERM before it is killed.
const stopTimeout = 10 * time.Second

// childAttributes are those of every process started here: a Ctrl-C is for the bench, which then
// stops it; and if the bench is killed, they are killed too. (The kernel ties that to the thread
// that started them, which Go keeps.)
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

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
	// A daemon that leaves its parent becomes our child then: it can be waited for, and its process
	// number cannot be that of another process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	s := &Server{address: stand.Address, gone: make(chan struct{})}
	cmd := exec.Command(path, arguments...)
	cmd.Dir = stand.Dir
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	cmd.SysProcAttr = childAttributes()
	cmd.WaitDelay = time.Second // children may still hold the output
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if s.PID = cmd.Process.Pid; p.Daemon {
		if s.PID, err = awaitDaemon(cmd, filepath.Join(stand.Dir, "pid")); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", p.Name, err, LastLines(s.output.String(), 5))
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
		return nil, fmt.Errorf("%s: %w: %s", p.Name, err, LastLines(s.output.String(), 5))
	}
	s.Ready = time.Since(begun)
	s.awaitClients()
	return s, nil
}

// awaitDaemon waits until the program has put itself into the background and has written its
// process number to a file.
func awaitDaemon(cmd *exec.Cmd, pidFile string) (int, error) {
	if err := cmd.Wait(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, err
	}
	deadline := time.Now().Add(readyTimeout)
	for ; time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if pid, err := strconv.Atoi(strings.TrimSpace(readText(pidFile))); err == nil && pid > 1 {
			return pid, nil
		}
	}
	return 0, errors.New("no process number in its pid file")
}

// reap waits for a daemon, whose parent this process became.
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
		case <-time.After(2 * time.Millisecond):
		}
		if c, err := s.address.dial(); err == nil {
			magic := make([]byte, 8)
			c.SetDeadline(deadline)
			_, err := io.ReadFull(c, magic)
			c.Close()
			if err == nil && string(magic) == "NBDMAGIC" {
				return nil
			}
		}
	}
	return errors.New("not ready in time")
}

// awaitClients waits (bounded) until a forking server has no child left, so that the time of its
// children is accounted for.
func (s *Server) awaitClients() {
	for range 100 {
		if len(tree(s.PID)) <= 1 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Stop ends the server with SIGTERM, after stopTimeout with SIGKILL, waits, and kills what it
// leaves behind. It returns the resource usage of the process and of the children it waited for.
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

// explain adds the last lines of the server's output to an error.
func (s *Server) explain(err error) error {
	return fmt.Errorf("%w; the server said: %s", err, LastLines(s.output.String(), 3))
}

// kill ends what is left of a process tree; members are from when it was whole.
func (s *Server) kill(members map[int]procfs.ProcStat) {
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
