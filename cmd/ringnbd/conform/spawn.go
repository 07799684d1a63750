// A server of the suite's own: a command for the shell, a scratch image, a port or a socket.
//
// Invariant: the command runs in a process group of its own, which is killed before start returns
// again and before remove returns; if the suite itself is killed, by any signal, the keeper kills
// the group.

package conform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ringnbd/cmd/ringnbd/activation"
)

// startup is how long a server may take to listen; three times a check's time if that is longer.
const startup = 15 * time.Second

// server is a command and what it serves.
type server struct {
	template string
	export   string
	dir      string // everything that the suite has on disk
	startup  time.Duration
	image    string // "" if the command has no {img}

	keeper  keeper
	command *exec.Cmd
	ended   chan struct{} // closed when the command has ended
	state   string        // how it ended; read after ended is closed
	stderr  activation.Tail
}

// CheckSpawn returns what is wrong with a command for --spawn.
func CheckSpawn(template string) error {
	if !strings.Contains(template, "{port}") && !strings.Contains(template, "{socket}") {
		return errors.New("the command must say where it listens: {port} is a free TCP port of " +
			"localhost, {socket} the path of a Unix socket")
	}
	return nil
}

func newServer(template, export string, size int64, timeout time.Duration) (*server, error) {
	dir, err := os.MkdirTemp("", "ringnbd-conform-")
	if err != nil {
		return nil, err
	}
	s := &server{template: template, export: export, dir: dir, startup: max(startup, 3*timeout)}
	if strings.Contains(template, "{img}") {
		s.image = filepath.Join(dir, "scratch.img")
		if err := layImage(s.image, size); err != nil {
			return nil, errors.Join(fmt.Errorf("scratch image: %w", err), s.remove())
		}
	}
	return s, nil
}

// start starts the command, for the first time or again, and waits until it listens.
func (s *server) start(ctx context.Context) (Target, error) {
	s.kill()
	port, err := freePort()
	if err != nil {
		return Target{}, err
	}
	socket := filepath.Join(s.dir, "nbd.sock")
	_ = os.Remove(socket) // left by a server that was killed
	t := Target{Text: s.template, Network: "tcp", Address: net.JoinHostPort("localhost", port),
		Export: s.export}
	if strings.Contains(s.template, "{socket}") {
		t.Network, t.Address = "unix", socket
	}
	text := strings.NewReplacer("{port}", port, "{socket}", quote(socket), "{img}", quote(s.image),
		"{dir}", quote(s.dir)).Replace(s.template)
	if err := s.run(text); err != nil {
		return t, fmt.Errorf("%s: %w", text, err)
	}
	for begin := time.Now(); time.Since(begin) < s.startup &&
		ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		died := s.died()
		c, err := t.Connect(ctx, new(net.Dialer))
		switch {
		case err == nil && died != "" && s.succeeded():
			return t, errors.Join(fmt.Errorf("%s: %w", text, errBackground), c.Close())
		case err == nil:
			return t, c.Close()
		case died != "" && s.succeeded() && time.Since(begin) < time.Second:
			// it may have left behind a child that will listen
		case died != "":
			return t, fmt.Errorf("%s: the server ended before it listened: %s", text, died)
		}
	}
	if ctx.Err() != nil {
		return t, fmt.Errorf("interrupted while the suite waited for the server: %s", text)
	}
	return t, fmt.Errorf("%s: it does not listen at %s after %v%s",
		text, t.Address, s.startup, s.stderr.Words())
}

// run starts the command from a thread that lives as long as the command, because the kernel takes
// the end of that thread for the end of the parent.
func (s *server) run(text string) error {
	if err := s.keeper.start(s.dir); err != nil {
		return err
	}
	s.command = exec.Command("/bin/sh", "-c", text)
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: s.keeper.group(),
		Pdeathsig: syscall.SIGKILL}
	s.stderr.Reset()
	s.command.Stderr = &s.stderr
	s.ended = make(chan struct{})
	started := make(chan error, 1)
	go func(command *exec.Cmd, ended chan struct{}) {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(ended)
		err := command.Start()
		started <- err
		if err != nil {
			s.state = err.Error()
			return
		}
		command.WaitDelay = time.Second // do not wait longer for children that keep stderr open
		_ = command.Wait()              // the state says how the command ended
		s.state = command.ProcessState.String()
	}(s.command, s.ended)
	return <-started
}

// errBackground is about a command that ends while its server goes on: the suite cannot see when
// such a server dies, nor end it.
var errBackground = errors.New("the command must stay in the foreground: it ended with status " +
	"0, and its server runs on without it (look for its option, such as nbdkit -f)")

// succeeded reports whether the command, which has ended, has the status 0.
func (s *server) succeeded() bool {
	return s.command.ProcessState != nil && s.command.ProcessState.Success()
}

// died returns how the command ended, and the last line that it printed; "" while it runs.
func (s *server) died() string {
	select {
	case <-s.ended:
		return s.state + s.stderr.Words()
	default:
		return ""
	}
}

// kill ends the command and everything that it started.
func (s *server) kill() {
	s.keeper.kill()
	if s.command != nil && s.command.Process != nil {
		<-s.ended
	}
}

// remove kills the group and removes what the suite has on disk.
func (s *server) remove() error {
	s.kill()
	return os.RemoveAll(s.dir)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // localhost without a lookup
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// quote makes one word for the shell. A path of ordinary characters stays as it is, so that users
// may have it between quotes of their own.
func quote(text string) string {
	ordinary := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("/._-", r)
	}
	if strings.IndexFunc(text, func(r rune) bool { return !ordinary(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
