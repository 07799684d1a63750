// The host's ringnbd.
//
// Invariant: a server that was started is gone when its test ends; one that ended otherwise than
// asked, or printed a stack trace, fails the test.

package kernel

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/engine/tree"
)

// server is `ringnbd serve` on a TCP port that it keeps when it is started again.
type server struct {
	t         *testing.T
	port      string
	arguments []string
	log       string // path
	cmd       *exec.Cmd
}

// image makes a sparse file.
func image(t *testing.T, name string, mib int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".img")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve starts a server of images and trees, by name of their exports.
func serve(t *testing.T, exports map[string]string, flags ...string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, port: strconv.Itoa(l.Addr().(*net.TCPAddr).Port),
		log: filepath.Join(t.TempDir(), "ringnbd.log")}
	l.Close()
	s.arguments = append([]string{"serve", "--listen", "127.0.0.1:" + s.port}, flags...)
	for name, path := range exports {
		if !tree.Is(path) {
			path = strings.ReplaceAll(path, ",", ",,")
		}
		s.arguments = append(s.arguments, "--export", name+"="+path)
	}
	s.start()
	t.Cleanup(func() {
		s.stop()
		s.judge()
	})
	return s
}

func (s *server) start() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(ringnbd, s.arguments...)
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		ready <- line
	}()
	select {
	case line := <-ready:
		if !strings.HasPrefix(line, "ready ") {
			s.t.Fatalf("ringnbd printed %q, not \"ready URI\"; log:\n%s", line, tail(s.log, 30))
		}
	case <-time.After(20 * time.Second):
		s.t.Fatalf("ringnbd was not ready in 20 s; log:\n%s", tail(s.log, 30))
	}
}

// stop ends the server with SIGTERM and expects exit status 0.
func (s *server) stop() {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	ended := make(chan error, 1)
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Error("ringnbd had ended by itself: ", err, "\n", tail(s.log, 30))
	}
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			s.t.Errorf("ringnbd ended with %v, not 0; log:\n%s", err, tail(s.log, 30))
		}
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		<-ended
		s.t.Errorf("ringnbd did not end within 30 s of SIGTERM; log:\n%s", tail(s.log, 30))
	}
}

// kill ends the server with SIGKILL.
func (s *server) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
}

// judge looks for what a log must not have.
func (s *server) judge() {
	s.t.Helper()
	body, err := os.ReadFile(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, trace := range []string{"panic:", "fatal error:", "goroutine 1 [", "level=ERROR"} {
		if strings.Contains(string(body), trace) {
			s.t.Errorf("the server's log has %q:\n%s", trace, tail(s.log, 40))
		}
	}
	if s.t.Failed() {
		s.t.Logf("the end of the server's log:\n%s", tail(s.log, 20))
	}
}

// disk is a block device of QEMU that is an export, for a guest's Disks; number counts them.
func (s *server) disk(number int, export string) string {
	return fmt.Sprintf(`{"driver":"nbd","node-name":"disk%d",`+
		`"server":{"type":"inet","host":"127.0.0.1","port":"%s"},`+
		`"export":"%s","discard":"unmap"}`, number, s.port, export)
}
