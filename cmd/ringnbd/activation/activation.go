// Package activation starts an NBD server for as long as a command needs it, by systemd's socket
// activation: the server gets a socket that is bound and listens already, as descriptor 3. So there
// is nothing to wait for, and no port or path to be chosen.
//
// Invariants: a server that was started is ended by End, by the death of the process that started
// it, or by itself; the socket's folder is open to this user alone, and End removes it.
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

// Text is how a command is shown: as it was written.
func Text(words []string) string { return "[ " + strings.Join(words, " ") + " ]" }

// Server is a command that serves.
type Server struct {
	Target client.Target

	dir     string
	command *exec.Cmd
	ended   chan struct{} // closed when the command has ended; state counts then
	state   string
	said    Tail
}

const (
	// grace is how long a server may take to end when it is asked to: it may have to flush.
	grace = 10 * time.Second
	// haste is the same when we are to end at once.
	haste = 250 * time.Millisecond
)

// Start starts a command. It is not there yet when Start returns, but can be connected to: the
// connection waits in the socket.
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
	_ = l.Close() // else a connection to a server that has died would wait for ever
	if err != nil {
		return err
	}
	defer f.Close()
	// LISTEN_PID is the server's own number, which only itself can know before it is there: the
	// shell has the same one, and becomes the server.
	become := []string{"-c", `LISTEN_PID=$$; export LISTEN_PID; exec "$@"`, "sh", path}
	s.command = exec.Command("/bin/sh", append(become, words[1:]...)...)
	s.command.Env = append(environment(), "LISTEN_FDS=1", "LISTEN_FDNAMES=nbd")
	s.command.ExtraFiles = []*os.File{f}
	s.command.Stdout, s.command.Stderr = &s.said, &s.said // ours may be the copy
	s.command.WaitDelay = time.Second                     // for children that keep them open
	// Ctrl-C is for us alone, who have something to finish with the server first. Should we be
	// killed, the kernel asks it to end.
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go s.run(started)
	return <-started
}

// run starts the command from a thread that lives as long as the command: the kernel takes that
// thread's end for its parent's.
func (s *Server) run(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := s.command.Start()
	started <- err
	if err != nil {
		return
	}
	_ = s.command.Wait() // the state says it all
	s.state = s.command.ProcessState.String()
	close(s.ended)
}

// environment is ours without what somebody said to us about sockets.
func environment() []string {
	var list []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LISTEN_") {
			list = append(list, v)
		}
	}
	return list
}

// Explain adds to an error what the server said last, if it has ended: that is why.
func (s *Server) Explain(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-s.ended:
	case <-time.After(200 * time.Millisecond): // it may be about to
		return err
	}
	return fmt.Errorf("%w; %s has ended: %s%s", err, s.Target.Text, s.state, s.said.Words())
}

// Close removes the socket, when there is nobody left to connect.
func (s *Server) Close() { _ = os.RemoveAll(s.dir) } // End tries once more, and tells

// End asks the server to end, and after a time makes it; then it removes the socket.
func (s *Server) End() error {
	var err error
	if !s.end(grace) {
		err = fmt.Errorf("%s: did not end within %v when it was asked to (SIGTERM), and was killed",
			s.Target.Text, grace)
	}
	<-s.ended
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Kill is End for a program that is to end at once, beside an End that waits.
func (s *Server) Kill() {
	s.end(haste)
	_ = os.RemoveAll(s.dir)
}

// end asks the server to end, and kills it after a time. It says whether that was not needed.
func (s *Server) end(patience time.Duration) (inTime bool) {
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGTERM) // fails if it has ended
	select {
	case <-s.ended:
		inTime = true
	case <-time.After(patience):
	}
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL) // what it has left behind, too
	return inTime
}
