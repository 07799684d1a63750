// The gate with real sockets: which connections are handed over, which are refused, and that no
// descriptor or goroutine is left.

package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

const (
	ack = proto.RepAck
	ms  = time.Millisecond
)

// read28 is a READ request, as it may follow GO in the same segment.
func read28() []byte {
	b := make([]byte, proto.RequestSize)
	proto.PutRequest(b, &proto.Request{Cookie: 0x1122334455667788, Length: 512})
	return b
}

func TestNothingBehindGoIsSwallowed(t *testing.T) {
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, spec, nil)
		for _, way := range [][]byte{
			proto.AppendInfo(nil, proto.OptGo, "other", proto.InfoName, proto.InfoBlockSize),
			proto.AppendOption(nil, proto.OptExportName, "other"),
		} {
			c := s.dial(t)
			all := proto.AppendClientFlags(nil, 3)
			all = proto.AppendOption(all, 0x1234, "unknown")
			all = append(append(all, way...), read28()...)
			c.send(all)
			fd := s.adopted(t)
			b := make([]byte, 100)
			n, err := syscall.Read(fd, b) // blocks if it is not there
			if err != nil || !bytes.Equal(b[:n], read28()) {
				t.Errorf("the engine reads %x, %v", b[:n], err)
			}
		}
		if s.engine.export[0] != 2 || s.engine.export[1] != 2 {
			t.Errorf("exports %v", s.engine.export)
		}
		s.wait(t, reasonServed, 2)
	})
}

func TestHandedOverSocket(t *testing.T) {
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, spec, nil)
		if kind, text := s.hello(t).go_("disk"); kind != ack {
			t.Fatal(text)
		}
		fd := s.adopted(t)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil ||
			flags&unix.O_NONBLOCK != 0 {
			t.Errorf("not in blocking mode: %#x %v", flags, err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil ||
			flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("not close-on-exec: %#x %v", flags, err)
		}
		option := func(level, name int) int {
			n, err := unix.GetsockoptInt(fd, level, name)
			if err != nil {
				t.Errorf("option %d: %v", name, err)
			}
			return n
		}
		if strings.HasPrefix(spec, "unix:") {
			var plain [2]int
			plain, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(plain[0])
			defer unix.Close(plain[1])
			usual, _ := unix.GetsockoptInt(plain[0], unix.SOL_SOCKET, unix.SO_SNDBUF)
			if n := option(unix.SOL_SOCKET, unix.SO_SNDBUF); n < usual {
				t.Errorf("send buffer of %d bytes, usual is %d", n, usual)
			}
			return
		}
		if option(unix.SOL_SOCKET, unix.SO_PROTOCOL) != unix.IPPROTO_TCP {
			t.Error("not a TCP socket")
		}
		if option(unix.IPPROTO_TCP, unix.TCP_NODELAY) == 0 ||
			option(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 {
			t.Error("TCP_NODELAY or SO_KEEPALIVE is off")
		}
		if option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) != int(userTimeout/ms) ||
			option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE) != 60 {
			t.Error("TCP_USER_TIMEOUT or TCP_KEEPIDLE is not ours")
		}
	})
}

func TestHandshakeTimeout(t *testing.T) {
	const limit = time.Second
	s := serve(t, "localhost:0", func(c *Config) { c.HandshakeTimeout = limit })
	began := time.Now()
	silent := s.dial(t)
	half := s.hello(t)
	half.send(proto.AppendInfo(nil, proto.OptGo, "disk")[:21])
	slow := s.hello(t) // never still, never done
	go func() {
		for _, b := range bytes.Repeat(proto.AppendOption(nil, 0x1234, "data"), 100) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(10 * ms)
		}
	}()
	silent.closed()
	half.closed()
	io.Copy(io.Discard, slow)
	if took := time.Since(began); took < limit || took > limit+20*time.Second {
		t.Errorf("closed after %v", took)
	}
	s.wait(t, reasonTimeout, 3)
}

func TestServedConnectionOutlivesTheTimeout(t *testing.T) {
	s := serve(t, "localhost:0", func(c *Config) { c.HandshakeTimeout = time.Second })
	c := s.hello(t)
	c.go_("disk")
	fd := s.adopted(t)
	time.Sleep(1200 * ms)
	c.send(read28())
	b := make([]byte, 100)
	if n, err := syscall.Read(fd, b); n != proto.RequestSize || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := syscall.Write(fd, b[:1]); err != nil || c.read(1)[0] != b[0] {
		t.Error(err)
	}
}

func TestThousandCyclesLeaveNothing(t *testing.T) {
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, spec, nil)
		session := proto.AppendClientFlags(nil, 3)
		session = proto.AppendOption(session, proto.OptList, "")
		session = proto.AppendInfo(session, proto.OptInfo, "disk", proto.InfoName)
		session = proto.AppendInfo(session, proto.OptGo, "nosuch")
		session = proto.AppendOption(session, proto.OptAbort, "")
		for i := range 1000 {
			c, err := net.Dial(s.addr.Network(), s.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			// hangs up at every byte in turn, and aborts without reading
			c.Write(session[:i%(len(session)+1)])
			c.Close()
		}
		for end := time.Now().Add(10 * time.Second); s.sum() < 1000 && time.Now().Before(end); {
			time.Sleep(ms)
		}
		if s.sum() != 1000 || s.accepted.Load() != 1000 || s.count(reasonServed) != 0 ||
			s.count(reasonTimeout) != 0 || s.count(reasonBroken) != 0 {
			t.Errorf("accepted %d, ended %d, of them %d broken", s.accepted.Load(), s.sum(),
				s.count(reasonBroken))
		}
		if log := s.log.String(); log != "" {
			t.Errorf("who just leaves is no news: %s", log)
		}
	})
}

// sum is how many connections ended.
func (s *served) sum() (n uint64) {
	for r := range reason(reasons) {
		n += s.count(r)
	}
	return n
}

func TestFullServer(t *testing.T) {
	s := serve(t, "localhost:0", func(c *Config) { c.MaxConnections = 2 })
	for range 2 {
		s.hello(t).go_("disk")
		s.adopted(t)
	}
	c := s.hello(t)
	if kind, text := c.go_("disk"); kind != proto.RepErrPolicy ||
		!strings.Contains(text, "at most 2 connections") {
		t.Fatalf("%#x %s", kind, text)
	}
	if c.list() != ack {
		t.Error("a full server does not list")
	}
	old := s.hello(t)
	old.send(proto.AppendOption(nil, proto.OptExportName, "disk"))
	old.closed()
	s.wait(t, reasonFull, 1)
	s.engine.drop()
	if kind, text := c.go_("disk"); kind != ack {
		t.Errorf("after others left: %s", text)
	}
	s.adopted(t)
	s.wait(t, reasonServed, 3)
	if !strings.Contains(s.log.String(), "server full") {
		t.Errorf("log: %s", s.log)
	}
}

func TestNeverMoreThanMaxConnections(t *testing.T) {
	const limit, clients = 5, 40
	s := serve(t, "localhost:0", func(c *Config) { c.MaxConnections = limit })
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			c, err := net.Dial("tcp", s.addr.String())
			if err != nil {
				return
			}
			defer c.Close()
			c.Write(proto.AppendInfo(proto.AppendClientFlags(nil, 3), proto.OptGo, "disk"))
			c.SetReadDeadline(time.Now().Add(30 * time.Second))
			io.ReadFull(c, make([]byte, 18+20)) // the server's greeting, and how its answer begins
			c.SetReadDeadline(time.Now().Add(300 * ms))
			io.Copy(io.Discard, c)
		})
	}
	group.Wait()
	s.engine.mu.Lock()
	most := s.engine.most
	s.engine.mu.Unlock()
	if most == 0 || most > limit {
		t.Errorf("%d connections at a time, limit %d", most, limit)
	}
}

func TestCrowdedGate(t *testing.T) {
	s := serve(t, "localhost:0", func(c *Config) { c.MaxConnections = 1 })
	var inside []*caller
	for range 1 + slack {
		inside = append(inside, s.dial(t))
	}
	for range 3 {
		c, err := net.Dial("tcp", s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		(&caller{c, t}).closed()
		c.Close()
	}
	s.wait(t, reasonCrowded, 3)
	inside[0].Close()
	s.wait(t, reasonSilent, 1)
	if s.hello(t).list() != ack {
		t.Error("a place that was left is not given away")
	}
	// message and reason of one line
	if n := strings.Count(s.log.String(), "too many handshakes"); n != 2 {
		t.Errorf("%d mentions: %s", n, s.log)
	}
}

func TestCloseTellsClients(t *testing.T) {
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, spec, nil)
		asking, leaving, idle, half := s.hello(t), s.hello(t), s.hello(t), s.hello(t)
		for _, c := range []*caller{asking, leaving, idle, half} {
			c.list()
		}
		half.send(proto.AppendInfo(nil, proto.OptGo, "disk")[:21])
		served := s.hello(t)
		served.go_("disk")
		fd := s.adopted(t)
		began, done := time.Now(), make(chan struct{})
		go func() { s.Close(); close(done) }()
		<-s.closing
		if kind, _ := asking.go_("disk"); kind != proto.RepErrShutdown {
			t.Errorf("GO: %#x", kind)
		}
		if leaving.abort() != ack {
			t.Error("ABORT is not acknowledged")
		}
		half.send(proto.AppendInfo(nil, proto.OptGo, "disk")[21:])
		if r, err := proto.ParseOptionReply(half.read(proto.OptionReplySize),
			proto.OptGo); r.Type != proto.RepErrShutdown {
			t.Errorf("half a GO: %+v %v", r, err)
		}
		idle.closed()
		<-done
		if took := time.Since(began); took > shutdownGrace+2*time.Second {
			t.Errorf("took %v", took)
		}
		if s.count(reasonShutdown) != 4 || s.count(reasonServed) != 1 {
			t.Errorf("%d shut down, %d served", s.count(reasonShutdown), s.count(reasonServed))
		}
		served.send([]byte("x"))
		if n, err := syscall.Read(fd, make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("a connection being served: %d %v", n, err)
		}
		network, path := target(t, s.uri)
		if _, err := net.Dial(network, path); err == nil {
			t.Error("still listening")
		}
		if network == "unix" {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket file is still there: %v", err)
			}
		}
		s.Close() // a second time is harmless
		l, _ := listen(t, "localhost:0")
		if err := s.Serve(l); err != nil {
			t.Errorf("Serve of a closed gate: %v", err)
		}
		if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
			t.Error("Serve of a closed gate leaves the listener open")
		}
	})
}

func TestRefusedByEngine(t *testing.T) {
	s := serve(t, "localhost:0", nil)
	s.engine.refuse = errors.New("no loop takes it")
	c := s.hello(t)
	c.go_("disk")
	c.closed()
	s.wait(t, reasonRejected, 1)
	if !strings.Contains(s.log.String(), "no loop takes it") {
		t.Errorf("log: %s", s.log)
	}
}

func TestProtocolViolationsAreCounted(t *testing.T) {
	s := serve(t, "localhost:0", nil)
	for i := range 50 {
		c := s.dial(t)
		c.send([]byte("GET / HTTP/1.1\r\n\r\n"))
		c.closed()
		s.wait(t, reason(proto.CloseClientFlags), uint64(i+1))
	}
	c := s.hello(t)
	c.send(make([]byte, proto.OptionSize))
	c.closed()
	s.wait(t, reason(proto.CloseOptionMagic), 1)
	if n := strings.Count(s.log.String(), "\n"); n != 2 {
		t.Errorf("51 violations of two kinds wrote %d lines: %s", n, s.log)
	}
}

func TestSlowReaderOfAListDelaysNobody(t *testing.T) {
	list := make([]proto.Export, 10_000)
	for i := range list {
		list[i] = proto.Export{Name: fmt.Sprintf("%04096d", i)}
	}
	many, err := proto.NewExports(list, -1)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, "localhost:0", func(c *Config) { c.Catalog = always(many) })
	slow := s.hello(t)
	slow.send(proto.AppendOption(nil, proto.OptList, ""))
	quick := s.hello(t)
	if kind, text := quick.go_(list[7].Name); kind != ack {
		t.Fatal(text)
	}
	s.adopted(t)
	for range list {
		r, err := proto.ParseOptionReply(slow.read(proto.OptionReplySize), proto.OptList)
		if err != nil {
			t.Fatal(err)
		}
		slow.read(int(r.Length))
	}
}

// faulty is a listener that fails with these errors first.
type faulty struct {
	net.Listener
	errors []error
}

func (f *faulty) Accept() (net.Conn, error) {
	if len(f.errors) == 0 {
		return f.Listener.Accept()
	}
	err := f.errors[0]
	f.errors = f.errors[1:]
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
}

func TestAcceptSurvives(t *testing.T) {
	checkLeaks(t)
	l, _ := listen(t, "localhost:0")
	g := New(Config{Catalog: always(&proto.Exports{})})
	ended := make(chan error, 1)
	go func() {
		ended <- g.Serve(&faulty{l,
			[]error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE, syscall.ENOBUFS,
				syscall.EPROTO}})
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, proto.BannerSize)); err != nil {
		t.Errorf("no banner: %v", err)
	}
	c.Close()
	g.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	l, _ = listen(t, "localhost:0")
	g = New(Config{Catalog: always(&proto.Exports{})})
	if err := g.Serve(&faulty{l, []error{syscall.EINVAL}}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a broken listener: %v", err)
	}
	g.Close()
}

func TestCloseDoesNotWaitForBackoff(t *testing.T) {
	l, _ := listen(t, "localhost:0")
	broken := &faulty{Listener: l}
	for range 12 {
		broken.errors = append(broken.errors, syscall.EMFILE)
	}
	g := New(Config{Catalog: always(&proto.Exports{})})
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(broken) }()
	time.Sleep(200 * ms)
	began := time.Now()
	g.Close()
	// the twelve pauses together are longer
	if err := <-ended; err != nil || time.Since(began) > 3*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// starve takes all descriptors of the process but some. What it gives gives them back.
func starve(t *testing.T, but int) (free func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = 64
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var filler []int
	for {
		fd, err := syscall.Dup(0)
		if err != nil {
			break
		}
		filler = append(filler, fd)
	}
	for _, fd := range filler[:but] {
		syscall.Close(fd)
	}
	filler = filler[but:]
	return func() {
		for _, fd := range filler {
			syscall.Close(fd)
		}
		filler = nil
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	}
}

func TestOutOfDescriptors(t *testing.T) {
	s := serve(t, "localhost:0", nil)
	c, err := net.Dial("tcp", s.addr.String()) // all that net has to open once
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.wait(t, reasonSilent, 1)
	free := starve(t, 1) // for our own socket; the gate finds none
	defer free()
	c, err = net.Dial("tcp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(5 * time.Second); !strings.Contains(s.log.String(),
		"cannot accept"); time.Sleep(ms) {
		if time.Now().After(end) {
			t.Fatalf("accept did not fail: %s", s.log)
		}
	}
	if !strings.Contains(s.log.String(), "ulimit -n") {
		t.Errorf("no advice: %s", s.log)
	}
	free()
	if _, err := io.ReadFull(c, make([]byte, proto.BannerSize)); err != nil {
		t.Errorf("no banner after descriptors came back: %v", err)
	}
}

// A client that is told that it is served is served, however few descriptors are left meanwhile:
// that of the engine was set aside before.
func TestAcknowledgedWithoutDescriptorsLeft(t *testing.T) {
	for _, spec := range []string{"localhost:0", "unix:" + shortDir(t) + "/s"} {
		s := serve(t, spec, nil)
		c := s.hello(t)
		c.list()
		free := starve(t, 0)
		kind, text := c.go_("disk")
		free()
		if kind != ack {
			t.Fatalf("%s: %s", spec, text)
		}
		s.adopted(t)
		s.wait(t, reasonServed, 1)
		if s.count(reasonBroken)+s.count(reasonRejected) != 0 {
			t.Errorf("%s: told that it is in, and closed", spec)
		}
	}
}

func TestConnectionWithoutDescriptor(t *testing.T) {
	checkLeaks(t)
	a, b := net.Pipe()
	defer b.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := detach(a, fd, 0, Keepalive{}.whole()); err == nil {
		t.Errorf("descriptor %d out of nothing", fd)
	}
	if _, err := b.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]reason{}
	for r := range reason(reasons) {
		if other, twice := seen[r.String()]; twice || r.String() == "unknown" {
			t.Errorf("reasons %d and %d: %s", r, other, r)
		}
		seen[r.String()] = r
	}
}

func TestNoticesAreLimited(t *testing.T) {
	log := &testbed.LogBuffer{}
	s := New(Config{}) // for its table
	n := &s.notices
	n.log = newLog(log)
	now := time.Now()
	for i := range 1000 {
		n.warn(now.Add(time.Duration(i)*ms), "one")
	}
	n.warn(now, "two")
	n.warn(now.Add(noticeInterval), "one")
	text := log.String()
	if strings.Count(text, "\n") != 3 || !strings.Contains(text, "left_out=999") {
		t.Error(text)
	}
}

func TestNbdinfoFindsUs(t *testing.T) {
	program, err := exec.LookPath("nbdinfo")
	if err != nil {
		t.Skip("nbdinfo is not installed (package libnbd-bin)")
	}
	run := func(t *testing.T, arguments ...string) string {
		t.Helper()
		out, err := exec.Command(program, arguments...).CombinedOutput()
		if err != nil {
			t.Errorf("nbdinfo %v: %v\n%s", arguments, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	dir := shortDir(t)
	for _, spec := range []string{"localhost:0", "127.0.0.1:0", "[::1]:0", "0.0.0.0:0",
		"unix:" + dir + "/s", "unix:" + dir + "/a b+c%&ß?"} {
		t.Run(spec, func(t *testing.T) {
			if p, err := Listen(spec); err != nil {
				t.Skip("this machine cannot listen there: " + err.Error())
			} else {
				p.Close()
			}
			s := serve(t, spec, nil)
			ended := make(chan struct{})
			defer close(ended)
			go func() { // a server that only understands DISC: it hangs up
				for {
					select {
					case fd := <-s.engine.came:
						syscall.Shutdown(fd, syscall.SHUT_WR)
					case <-ended:
						return
					}
				}
			}()
			if got := run(t, "--size", s.uri); got != "1073741824" {
				t.Errorf("size %s", got)
			}
			other := strings.Replace(s.uri, "nbd+unix:///?", "nbd+unix:///other?", 1)
			if other == s.uri {
				other += "/other"
			}
			if got := run(t, "--size", other); got != "1048576" {
				t.Errorf("size of the other %s", got)
			}
			list := run(t, "--list", "--no-content", s.uri)
			for _, want := range []string{`export="disk"`, `export="other"`,
				"description: the disk", "block_size_maximum: 33554432"} {
				if !strings.Contains(list, want) {
					t.Errorf("no %s in %s", want, list)
				}
			}
		})
	}
}
