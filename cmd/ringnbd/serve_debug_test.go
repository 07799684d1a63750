// The debug endpoint: which clients it serves, which it refuses, and its cost.
//
// Invariant: each refusal is tried against an endpoint that answers an honest client at the same
// moment.

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/pprof/profile"
	"github.com/rogpeppe/go-internal/testscript"

	"ringnbd/engine"
)

// fixed is an engine that has counted up to fixed.
type fixed engine.Counters

func (f fixed) Counters() (engine.Counters, bool) { return engine.Counters(f), true }
func (f fixed) Connections() int                  { return 7 }

// newDebug serves an endpoint until the test ends.
func newDebug(t *testing.T, address string, patience time.Duration) *debugServer {
	t.Helper()
	d, err := listenDebug(address)
	if err != nil {
		t.Fatal(err)
	}
	d.patience = patience
	d.serve(fixed{Errors: 3}, slog.New(slog.DiscardHandler))
	t.Cleanup(d.close)
	return d
}

// debugClient speaks to an endpoint wherever it is; every request has a connection of its own.
func debugClient(network, address string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}}
}

// ask makes one request and gives the status and the body.
func ask(t *testing.T, d *debugServer, edit func(*http.Request)) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://localhost/debug/counters", nil)
	if err != nil {
		t.Fatal(err)
	}
	edit(r)
	at := d.place.Listeners[0].Addr()
	response, err := debugClient(at.Network(), at.String()).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestDebugIsForThisMachineAlone(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":6060", "192.0.2.1:0",
		"[2001:db8::1]:0", "example.com:80", "localhost.example.com:80",
		"127.0.0.1.nip.io:80", "[fe80::1]:0", "[::ffff:192.0.2.1]:0", "*:6060", "10.0.0.1:0"} {
		var f debugFlag
		if err := f.Set(address); err == nil ||
			!strings.Contains(err.Error(), "this machine alone") ||
			strings.Contains(err.Error(), "\n") || f != "" {
			t.Errorf("%s: %v", address, err)
		}
		if d, err := listenDebug(address); err == nil {
			d.close()
			t.Errorf("%s: listened", address)
		}
	}
	for address, want := range map[string]string{"6060": "localhost:PORT",
		"localhost": "localhost:PORT", "": "localhost:PORT", "unix:": "unix:PATH",
		"localhost:http": "is not a port", "localhost:65536": "is not a port",
		"localhost:-1": "is not a port",
		"localhost:+1": "is not a port", "localhost:-0": "is not a port"} {
		if err := new(debugFlag).Set(address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", address, err, want)
		}
	}
	for _, address := range []string{"localhost:0", "LOCALHOST:0", "127.0.0.1:0", "127.8.9.10:6060",
		"[::1]:0", "unix:a", "unix:@a"} {
		if err := new(debugFlag).Set(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestDebugRefusesStrangersByTCP(t *testing.T) {
	d := newDebug(t, "127.0.0.1:0", debugPatience)
	for host, want := range map[string]int{"localhost": 200, "localhost:80": 200,
		"LocalHost:1": 200, "127.0.0.1:6060": 200, "[::1]:6060": 200, "[::1]": 200,
		"evil.example": 403, "evil.example:80": 403, "127.0.0.1.evil.example": 403,
		"localhost.evil.example": 403, "0.0.0.0": 403, "192.0.2.1:80": 403} {
		if status, body := ask(t, d, func(r *http.Request) { r.Host = host }); status != want {
			t.Errorf("Host %s: %d, want %d: %s", host, status, want, body)
		}
	}
	for site, want := range map[string]int{"": 200, "none": 200, "same-origin": 200,
		"same-site": 403, "cross-site": 403} {
		if status, _ := ask(t, d, func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", site)
		}); status != want {
			t.Errorf("Sec-Fetch-Site %s: %d, want %d", site, status, want)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete,
		http.MethodOptions} {
		if status, _ := ask(t, d, func(r *http.Request) { r.Method = method }); status != 405 {
			t.Errorf("%s: %d", method, status)
		}
	}
	if status, _ := ask(t, d, func(r *http.Request) { r.URL.Path = "/debug/vars" }); status != 404 {
		t.Errorf("a page that is not there: %d", status)
	}
}

func TestDebugIndexIsPlainText(t *testing.T) {
	d := newDebug(t, "127.0.0.1:0", debugPatience)
	_, index := ask(t, d, func(r *http.Request) { r.URL.Path = "/" })
	for line := range strings.Lines(index) {
		if path, _, _ := strings.Cut(line, " "); strings.HasPrefix(path, "/") &&
			!strings.Contains(path, "seconds=") {
			path, query, _ := strings.Cut(path, "?")
			if status, _ := ask(t, d, func(r *http.Request) {
				r.URL.Path, r.URL.RawQuery = path, query
			}); status != 200 {
				t.Errorf("the index names %s, which answers %d", path, status)
			}
		}
	}
	if strings.Contains(index, "<") || !strings.Contains(index, "/debug/pprof/") {
		t.Errorf("index: %s", index)
	}
}

func TestDebugCountersHaveAllNames(t *testing.T) {
	d := newDebug(t, "unix:"+filepath.Join(t.TempDir(), "s"), debugPatience)
	_, text := ask(t, d, func(*http.Request) {})
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[engine.Counters]()) {
		name := []rune(f.Name)
		name[0] = unicode.ToLower(name[0])
		value, fileExists := got[string(name)]
		if !fileExists {
			t.Errorf("%s is missing", string(name))
		}
		if _, list := value.([]any); list {
			t.Errorf("%s is a list, whose places have no names", string(name))
		}
	}
	if got["errors"] != 3.0 || got["connections"] != 7.0 {
		t.Errorf("got %s", text)
	}
	if n := len(engine.Counters{}.Requests); n != len(commandNames)+1 {
		t.Errorf("%d commands are counted, %d have names", n, len(commandNames))
	}
}

func TestDebugUnixSocketIsTheOwnersAndIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close() // as a server leaves it that was killed
	d := newDebug(t, "unix:"+path, debugPatience)
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v, want srw-------", info.Mode(), err)
	}
	if status, _ := ask(t, d, func(r *http.Request) { r.Host = "any.example" }); status != 200 {
		t.Errorf("a Host that no browser can have sent: %d", status)
	}
	if _, err := listenDebug("unix:" + path); err == nil ||
		!strings.Contains(err.Error(), "another server") {
		t.Errorf("a living endpoint's socket: %v", err)
	}
	d.close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	if file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
		t.Error(err)
	} else if info, _ := file.Stat(); info.Mode()&0o400 == 0 || file.Close() != nil {
		t.Errorf("the umask has stayed: %v", info.Mode())
	}
}

// slow opens a connection, says something, and tells how long it took until the other side closed
// it.
func slow(t *testing.T, d *debugServer, text string) time.Duration {
	t.Helper()
	c, err := net.Dial(d.place.Listeners[0].Addr().Network(), d.place.Listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(began.Add(patience))
	_, err = io.Copy(io.Discard, c)
	if wait, ok := err.(net.Error); ok && wait.Timeout() {
		t.Errorf("%q held its connection for %v", text, patience)
	}
	return time.Since(began)
}

func TestDebugClosesSlowClients(t *testing.T) {
	d := newDebug(t, "127.0.0.1:0", 300*time.Millisecond)
	for _, text := range []string{
		"",
		"GET / HTTP/1.1\r\nHost: localh",
		"POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n0x",
		"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		if took := slow(t, d, text); took > patience/2 {
			t.Errorf("%q held its connection for %v", text, took)
		}
	}
	if status, _ := ask(t, d, func(*http.Request) {}); status != 200 {
		t.Errorf("an honest client: %d", status)
	}
}

func TestDebugBoundsItsConnections(t *testing.T) {
	d := newDebug(t, "127.0.0.1:0", patience)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range debugConnections {
		c, err := net.Dial("tcp", d.place.Listeners[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if took := slow(t, d, ""); took > patience/2 {
		t.Errorf("one too many was closed after %v only", took)
	}
	for _, c := range open {
		_ = c.Close()
	}
	for until := time.Now().Add(patience); d.open.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d connections are still counted", d.open.Load())
		}
	}
	if status, _ := ask(t, d, func(*http.Request) {}); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

func TestDebugProfileMayTakeLongerThanAReply(t *testing.T) {
	d := newDebug(t, "127.0.0.1:0", 500*time.Millisecond)
	began := time.Now()
	status, body := ask(t, d, func(r *http.Request) {
		r.URL.Path, r.URL.RawQuery = "/debug/pprof/profile", "seconds=2"
	})
	p, err := profile.ParseData([]byte(body))
	if status != 200 || err != nil || time.Since(began) < 2*time.Second {
		t.Fatalf("after %v: %d, %v, %q", time.Since(began), status, err, body)
	}
	if p.DurationNanos < 2e9 || len(p.SampleType) != 2 {
		t.Errorf("profile of %v ns, %v", p.DurationNanos, p.SampleType)
	}
}

func TestDebugEndsWithTheServerAndDeliversProfiles(t *testing.T) {
	d := newDebug(t, "127.0.0.1:0", debugPatience)
	c, err := net.Dial("tcp", d.place.Listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /debug/pprof/profile?seconds=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	time.Sleep(300 * time.Millisecond) // nothing tells that the runtime has begun
	began := time.Now()
	closed := make(chan struct{})
	go func() { d.close(); close(closed) }()
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := profile.Parse(response.Body); err != nil {
		t.Error(err)
	}
	if <-closed; time.Since(began) > 15*time.Second { // half of what was asked for
		t.Errorf("it took %v", time.Since(began))
	}
	if _, err := net.Dial("tcp", d.place.Listeners[0].Addr().String()); err == nil {
		t.Error("it still listens")
	}
	d.counters(failingWriter{t}, nil)
}

// failingWriter takes a refusal only.
type failingWriter struct{ t *testing.T }

func (w failingWriter) Header() http.Header         { return http.Header{} }
func (w failingWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w failingWriter) WriteHeader(status int) {
	if status != http.StatusServiceUnavailable {
		w.t.Errorf("the engine was asked after the end: %d", status)
	}
}

// cmdFetch gets a page of the debug endpoint whose address a log holds: fetch LOG PATH FILE [HOST].
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 && len(args) != 4 {
		ts.Fatalf("usage: fetch log path file [host]")
	}
	_, rest, ok := strings.Cut(ts.ReadFile(args[0]), "address=")
	if !ok {
		ts.Fatalf("%s names no address", args[0])
	}
	address, _, _ := strings.Cut(rest, "\n")
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", ts.MkAbs(path)
	}
	address = strings.TrimSuffix(strings.TrimPrefix(address, "http://"), "/")
	r, err := http.NewRequest(http.MethodGet, "http://localhost"+args[1], nil)
	ts.Check(err)
	if len(args) == 4 {
		r.Host = args[3]
	}
	response, err := debugClient(network, address).Do(r)
	ts.Check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), body, 0o600))
	if good := response.StatusCode == http.StatusOK; good == neg {
		ts.Fatalf("%s: %s: %s", args[1], response.Status, body)
	}
}

// cmdProfiled asserts that a CPU profile holds functions: profiled FILE FUNCTION...
func cmdProfiled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: profiled file function...")
	}
	p, err := profile.ParseData([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	seen := map[string]bool{}
	for _, f := range p.Function {
		seen[f.Name] = true
	}
	for _, name := range args[1:] {
		if !seen[name] {
			ts.Fatalf("the profile of %d samples does not hold %s", len(p.Sample), name)
		}
	}
}
