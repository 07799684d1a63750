// Servers under test: start, addresses, stop.
//
// Invariant: every server started here is gone when its test ends, and a server that ended
// otherwise than asked, or printed a stack trace, fails the test.

package live_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench/measure"
	"ringnbd/engine/testbed"
)

// transports are what clients are driven over.
var transports = []string{measure.Unix, measure.TCP}

// server is a running server with one or more exports on one address.
type server struct {
	t       testing.TB
	pid     int
	address measure.Address
	export  string   // name of the default export, for a peer that has none
	ready   []string // URIs of ringnbd's ready line
	ended   bool     // stopped or killed by the test itself

	cmd  *exec.Cmd // ringnbd only
	log  *testbed.LogBuffer
	exit chan error
	peer *measure.Server
}

// startTimeout and stopTimeout bound the life of a server around its test.
const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
)

// serve starts the server under test on one image, which becomes the default
// export. Flags are ringnbd's and ignored by peers.
func serve(t testing.TB, transport, image string, flags ...string) *server {
	t.Helper()
	if underTest == "ringnbd" {
		return serveRingnbd(t, transport, append(flags, image)...)
	}
	for _, p := range measure.Peers() {
		if p.Name != underTest {
			continue
		}
		s := &server{t: t, address: newAddress(t, transport), export: p.Export}
		var err error
		s.peer, err = measure.Start(p,
			measure.Stand{Dir: t.TempDir(), File: image, Address: s.address, Clients: 2000})
		if err != nil {
			t.Fatal(err)
		}
		s.pid = s.peer.PID
		t.Cleanup(func() { s.peer.Stop() })
		return s
	}
	t.Fatalf("RINGNBD_LIVE_SERVER: no server %q", underTest)
	return nil
}

// serveRingnbd starts `ringnbd serve --listen ADDRESS arguments...`.
func serveRingnbd(t testing.TB, transport string, arguments ...string) *server {
	t.Helper()
	address := newAddress(t, transport)
	listen := "unix:" + address.Path
	if transport == measure.TCP {
		listen = fmt.Sprintf("127.0.0.1:%d", address.Port)
	}
	s := startRingnbd(t, append([]string{"serve", "--listen", listen}, arguments...)...)
	s.address = address
	return s
}

// startRingnbd runs the binary and waits for its ready line.
func startRingnbd(t testing.TB, arguments ...string) *server {
	t.Helper()
	if underTest != "ringnbd" {
		t.Skipf("%s has not ringnbd's command line", underTest)
	}
	dependOnSources()
	if os.Getenv("RINGNBD_LIVE_CONFIG") != "" {
		arguments = throughFile(t, arguments)
	}
	s := &server{t: t, cmd: exec.Command(ringnbd, arguments...), log: new(testbed.LogBuffer),
		exit: make(chan error, 1)}
	s.cmd.Stderr = s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pid = s.cmd.Process.Pid
	t.Cleanup(s.cleanup)
	line, rest := make(chan string, 1), make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		first, _ := r.ReadString('\n')
		line <- first
		more, _ := io.ReadAll(r)
		rest <- string(more)
		s.exit <- s.cmd.Wait()
	}()
	select {
	case first := <-line:
		s.ready = strings.Fields(first)
		if len(s.ready) < 2 || s.ready[0] != "ready" {
			t.Fatalf("ringnbd %s printed %q, not \"ready URI\"; log:\n%s",
				strings.Join(arguments, " "), first, s.log)
		}
		s.ready = s.ready[1:]
	case <-time.After(startTimeout):
		t.Fatalf("ringnbd %s was not ready in %s; log:\n%s", strings.Join(arguments, " "),
			startTimeout, s.log)
	}
	return s
}

// throughFile makes a configuration of a command line, and a command line of that.
func throughFile(t testing.TB, arguments []string) []string {
	t.Helper()
	text, err := exec.Command(ringnbd,
		append([]string{"config", "convert", "--"}, arguments...)...).Output()
	if err != nil {
		return arguments // a command line that is wrong is to be refused
	}
	path := filepath.Join(t.TempDir(), "ringnbd.toml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"serve", "--config", path}
}

// cleanup ends a server that its test did not end.
func (s *server) cleanup() {
	if !s.ended {
		s.stop()
	}
	text := s.log.String()
	for _, trace := range []string{"panic:", "fatal error:", "goroutine 1 ["} {
		if strings.Contains(text, trace) {
			s.t.Errorf("the server's log has a stack trace:\n%s", text)
			return
		}
	}
	if s.t.Failed() && text != "" {
		s.t.Logf("the server's log:\n%s", text)
	}
}

// stop ends the server with SIGTERM and expects exit status 0.
func (s *server) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.awaitExit(stopTimeout)
}

// awaitExit waits for a server that was told to end.
func (s *server) awaitExit(timeout time.Duration) {
	s.t.Helper()
	s.ended = true
	if s.peer != nil {
		s.peer.Stop()
		return
	}
	select {
	case err := <-s.exit:
		if err != nil {
			s.t.Errorf("the server ended with %v, not 0; log:\n%s", err, s.log)
		}
	case <-time.After(timeout):
		syscall.Kill(s.pid, syscall.SIGQUIT) // its stacks say where it hangs
		select {
		case <-s.exit:
		case <-time.After(5 * time.Second):
			s.cmd.Process.Kill()
			<-s.exit
		}
		s.t.Errorf("the server did not end within %s of SIGTERM; log:\n%.20000s", timeout, s.log)
	}
}

// kill ends the server with SIGKILL.
func (s *server) kill() {
	s.ended = true
	if s.peer != nil {
		s.peer.Kill()
		return
	}
	s.signal(syscall.SIGKILL)
	<-s.exit
}

func (s *server) signal(sig syscall.Signal) { syscall.Kill(s.pid, sig) }

// uri addresses an export; "" is the default one.
func (s *server) uri(export string) string {
	if export == "" {
		export = s.export
	}
	return s.address.URI(export)
}

// status reads a field of /proc/PID/status in bytes (for memory) or as it is.
func (s *server) status(field string) int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			var n int64
			var unit string
			if fmt.Sscan(value, &n, &unit); unit == "kB" {
				n <<= 10
			}
			return n
		}
	}
	s.t.Fatalf("no %s in /proc/%d/status", field, s.pid)
	return 0
}

// descriptors counts the server's open files.
func (s *server) descriptors() int {
	s.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}

// newAddress is an unused address. A Unix socket gets a short path of its own: 108
// bytes is all a socket address holds. It has a free port as well: nbd-server
// wants one in any case.
func newAddress(t testing.TB, transport string) measure.Address {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return measure.Address{Transport: transport, Path: filepath.Join(dir, "s"),
		Port: l.Addr().(*net.TCPAddr).Port}
}
