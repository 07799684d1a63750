// A server that is started by socket activation, and its end.
//
// Invariant: a started server is ended by End, by Kill, by the death of the process that started
// it, or by itself; the folder of the socket is open to this user alone, and End removes it.

package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"ringnbd/engine/client"
)

// Text shows a command as it was written.
func Text(words []string) string { return "[ " + strings.Join(words, " ") + " ]" }

// Server is a running command that serves Target.
type Server struct {
	Target client.Target

	dir     string
	command *exec.Cmd
	ended   chan struct{} // closed when the command has ended; state is valid then
	state   string
	output  Tail
}

const (
	// grace is how long a server may take to end after SIGTERM: it may have to flush.
	grace = 10 * time.Second
	// haste is the same when this program must end at once.
	haste = 250 * time.Millisecond
)

// Start starts a command. A client can connect as soon as Start returns: the connection waits in
// the socket until the server accepts it.
func Start(words []string) (*Server, error) {
	path, err := exec.LookPath(words[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Text(words), err)
	}
	s := &Server{ended: make(chan struct{})}
	if s.dir, err = os.MkdirTemp("", "ringnbd-"); err != nil {
		return nil, err
	}
	socket := filepath.Join(s.dir, "nbd.sock")
	s.Target = client.Target{Text: Text(words), Network: "unix", Address: socket}
	if err := s.start(path, words, socket); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.Target.Text, err), os.RemoveAll(s.dir))
	}
	return s, nil
}

func (s *Server) start(path string, words []string, socket string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	_ = l.Close() // otherwise a connection to a server that has died would wait for ever
	if err != nil {
		return err
	}
	defer f.Close()
	// LISTEN_PID is the process number of the server, which only the server itself knows before it
	// runs: the shell has the same number, and becomes the server.
	shell := []string{"-c", `LISTEN_PID=$$; export LISTEN_PID; exec "$@"`, "sh", path}
	s.command = exec.Command("/bin/sh", append(shell, words[1:]...)...)
	s.command.Env = append(environment(), "LISTEN_FDS=1", "LISTEN_FDNAMES=nbd")
	s.command.ExtraFiles = []*os.File{f}
	s.command.Stdout, s.command.Stderr = &s.output, &s.output // our own may be the copy
	s.command.WaitDelay = time.Second                         // for children that keep them open
	// Ctrl-C is for this program alone, which must finish with the server first. If this program is
	// killed, the kernel sends SIGTERM to the server.
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go s.run(started)
	return <-started
}

// run starts the command from a thread that lives as long as the command: for Pdeathsig the kernel
// takes the end of that thread for the end of the parent.
func (s *Server) run(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := s.command.Start()
	started <- err
	if err != nil {
		return
	}
	_ = s.command.Wait() // the state has the reason
	s.state = s.command.ProcessState.String()
	close(s.ended)
}

// environment is the environment of this process without variables about its own inherited sockets.
func environment() []string {
	var list []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LISTEN_") {
			list = append(list, v)
		}
	}
	return list
}

// Explain adds the server's last words to an error if the server has ended, which is then the
// cause.
func (s *Server) Explain(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-s.ended:
	case <-time.After(200 * time.Millisecond): // it may be ending
		return err
	}
	return fmt.Errorf("%w; %s has ended: %s%s", err, s.Target.Text, s.state, s.output.Words())
}

// Close removes the socket once no further client will connect.
func (s *Server) Close() { _ = os.RemoveAll(s.dir) } // End tries again, and returns the error

// End ends the server by SIGTERM, and by SIGKILL after grace; then it removes the socket.
func (s *Server) End() error {
	var err error
	if !s.end(grace) {
		err = fmt.Errorf("%s: did not end within %v after SIGTERM, and was killed",
			s.Target.Text, grace)
	}
	<-s.ended
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Kill is End for a program that must end at once. It may run at the same time as End.
func (s *Server) Kill() {
	s.end(haste)
	_ = os.RemoveAll(s.dir)
}

// end sends SIGTERM to the server, and SIGKILL after patience. It reports whether the server ended
// in time.
func (s *Server) end(patience time.Duration) (inTime bool) {
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGTERM) // fails if it has ended
	select {
	case <-s.ended:
		inTime = true
	case <-time.After(patience):
	}
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL) // also its children
	return inTime
}
