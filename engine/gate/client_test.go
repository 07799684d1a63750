// What the tests of the gate stand on: a running gate with an engine that only collects sockets,
// and a client that speaks the negotiation by hand.

package gate

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

// engine stands for the engine: it keeps what it adopts.
type engine struct {
	mu     sync.Mutex
	fds    []int
	export []uint64 // IDs
	agreed []proto.Session
	refuse error
	peers  []string
	most   int // connections at one time
	came   chan int
}

func (e *engine) adopt(fd int, export proto.Export, session proto.Session, peer string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refuse != nil {
		return e.refuse
	}
	e.peers = append(e.peers, peer)
	e.fds, e.export, e.agreed = append(e.fds, fd), append(e.export, export.ID), append(e.agreed,
		session)
	e.most = max(e.most, len(e.fds))
	e.came <- fd
	return nil
}

func (e *engine) live() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.fds)
}

// drop closes all connections.
func (e *engine) drop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, fd := range e.fds {
		syscall.Close(fd)
	}
	e.fds = nil
}

// served is a running gate.
type served struct {
	*Gate
	engine *engine
	uri    string
	addr   net.Addr
	log    *testbed.LogBuffer
}

// serve starts a gate on spec. At the end of the test it must leave no descriptor and no goroutine
// behind.
func serve(t *testing.T, spec string, change func(*Config)) *served {
	t.Helper()
	checkLeaks(t)
	exports, err := proto.NewExports([]proto.Export{
		{Name: "disk", ID: 1, Description: "the disk",
			Facts: proto.Facts{Size: 1 << 30, Flags: proto.FlagHasFlags}},
		{Name: "other", ID: 2,
			Facts: proto.Facts{Size: 1 << 20, Flags: proto.FlagHasFlags | proto.FlagReadOnly}},
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &served{engine: &engine{came: make(chan int, 10_000)}, log: &testbed.LogBuffer{}}
	c := Config{Catalog: always(exports), Adopt: s.engine.adopt, Live: s.engine.live,
		Log: slog.New(slog.NewTextHandler(s.log, nil))}
	if change != nil {
		change(&c)
	}
	s.Gate = New(c)
	l, uri := listen(t, spec)
	s.uri, s.addr = uri, l.Addr()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		s.engine.drop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// always is a table of exports that does not change.
func always(c proto.Catalog) func() proto.Catalog { return func() proto.Catalog { return c } }

// listen listens on a place with one listener. Of localhost it takes 127.0.0.1.
func listen(t *testing.T, spec string) (net.Listener, string) {
	t.Helper()
	p, err := Listen(strings.Replace(spec, "localhost", "127.0.0.1", 1))
	if err != nil {
		t.Fatal(err)
	}
	return p.Listeners[0], p.URI
}

// checkLeaks compares descriptors and goroutines at the end of the test with those now.
func checkLeaks(t *testing.T) {
	t.Helper()
	count := func() (fds, goroutines int) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list), runtime.NumGoroutine()
	}
	// the runtime opens its epoll descriptor now, not later
	if c, err := net.Dial("unix", "/nonexistent"); err == nil {
		c.Close()
	}
	fds, goroutines := count()
	t.Cleanup(func() {
		var fdsNow, goroutinesNow int
		end := time.Now().Add(5 * time.Second)
		for ; time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if fdsNow, goroutinesNow = count(); fdsNow <= fds && goroutinesNow <= goroutines {
				return
			}
		}
		t.Errorf("descriptors %d, were %d; goroutines %d, were %d", fdsNow, fds, goroutinesNow,
			goroutines)
	})
}

// wait waits for a counter.
func (s *served) wait(t *testing.T, r reason, n uint64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); s.count(r) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: counted %d, want %d", r, s.count(r), n)
		}
	}
	if got := s.count(r); got != n {
		t.Errorf("%s: counted %d, want %d", r, got, n)
	}
}

// adopted waits for the next socket that the engine gets, and gives it as a connection.
func (s *served) adopted(t *testing.T) int {
	t.Helper()
	select {
	case fd := <-s.engine.came:
		return fd
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was adopted")
		return -1
	}
}

// caller is the other end.
type caller struct {
	net.Conn
	t *testing.T
}

// dial connects and reads the banner.
func (s *served) dial(t *testing.T) *caller {
	t.Helper()
	c, err := net.Dial(s.addr.Network(), s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	k := &caller{c, t}
	if _, err := proto.ParseBanner(k.read(proto.BannerSize)); err != nil {
		t.Fatal(err)
	}
	return k
}

// hello is dial and the client flags.
func (s *served) hello(t *testing.T) *caller {
	t.Helper()
	c := s.dial(t)
	c.send(proto.AppendClientFlags(nil, 3))
	return c
}

func (c *caller) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *caller) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// ask sends an option and gives type and data of its final reply.
func (c *caller) ask(option uint32, message []byte) (uint32, string) {
	c.t.Helper()
	c.send(message)
	for {
		r, err := proto.ParseOptionReply(c.read(proto.OptionReplySize), option)
		if err != nil {
			c.t.Fatal(err)
		}
		if data := c.read(int(r.Length)); r.Final() {
			return r.Type, string(data)
		}
	}
}

func (c *caller) go_(name string) (uint32, string) {
	c.t.Helper()
	return c.ask(proto.OptGo, proto.AppendInfo(nil, proto.OptGo, name))
}

func (c *caller) list() uint32 {
	c.t.Helper()
	kind, _ := c.ask(proto.OptList, proto.AppendOption(nil, proto.OptList, ""))
	return kind
}

func (c *caller) abort() uint32 {
	c.t.Helper()
	kind, _ := c.ask(proto.OptAbort, proto.AppendOption(nil, proto.OptAbort, ""))
	return kind
}

// closed expects that the server closes the connection without another byte.
func (c *caller) closed() {
	c.t.Helper()
	n, err := c.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("not closed: %d bytes, %v", n, err)
	}
}

// kinds runs a test over TCP and over a Unix socket.
func kinds(t *testing.T, test func(t *testing.T, spec string)) {
	t.Run("tcp", func(t *testing.T) { test(t, "localhost:0") })
	t.Run("unix", func(t *testing.T) { test(t, "unix:"+shortDir(t)+"/s") })
}

// target returns the address that a URI of the gate points to.
func target(t *testing.T, uri string) (network, address string) {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme == "nbd+unix" {
		return "unix", u.Query().Get("socket")
	}
	return "tcp", u.Host
}

func newLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// echoes checks that bytes of a client reach the descriptor that the engine has.
func echoes(t *testing.T, c *caller, fd int) {
	t.Helper()
	c.send(read28())
	b := make([]byte, proto.RequestSize+1)
	if n, err := syscall.Read(fd, b); err != nil || n != proto.RequestSize {
		t.Errorf("%d bytes of a connection that is served, %v", n, err)
	}
}
