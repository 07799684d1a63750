// Every route with a right and a wrong request, as admin, viewer and stranger, over a real socket.

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake stands for a server: it notes what was asked for.
type fake struct {
	mu      sync.Mutex
	calls   []string
	exports int
}

func (f *fake) note(format string, args ...any) (Changed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return Changed{Changed: true}, nil
}

func (f *fake) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fake) Status() Status { return Status{PID: 42, Exports: f.exports} }
func (f *fake) Exports() ([]Export, error) {
	list := make([]Export, f.exports)
	for i := range list {
		list[i] = Export{Name: fmt.Sprintf("export-%05d", i), Path: "/srv/disk.img",
			State: StateServed}
	}
	return list, nil
}
func (f *fake) Export(name string) (Export, error) {
	if name == "gone" {
		return Export{}, NotFound("name", "there is no export %q", name)
	}
	return Export{Name: name}, nil
}
func (f *fake) Put(_ context.Context, by Caller, name string, w Wanted,
	replace bool) (Changed, error) {
	if name == "taken" {
		return Changed{}, Conflict("name", "export %q serves /dev/sdb", name)
	}
	return f.note("put %s %+v %t by %d", name, w, replace, by.UID)
}
func (f *fake) Remove(_ context.Context, _ Caller, name string, force bool) (Changed, error) {
	return f.note("remove %s %t", name, force)
}
func (f *fake) Resize(_ context.Context, _ Caller, name string, to Resize) (Changed, error) {
	return f.note("resize %s %+v", name, to)
}
func (f *fake) Flush(_ context.Context, _ Caller, name string) (Changed, error) {
	return f.note("flush %s", name)
}
func (f *fake) Overlay(_ context.Context, _ Caller, name, verb string) (Changed, error) {
	return f.note("%s %s", verb, name)
}
func (f *fake) Connections() []Connection { return []Connection{{ID: 7, Peer: "pid 1"}} }
func (f *fake) Kick(_ context.Context, _ Caller, id uint64) (Changed, error) {
	return f.note("kick %d", id)
}
func (f *fake) Config() (Configuration, error) { return Configuration{Text: "loops = 1\n"}, nil }
func (f *fake) Diff() (Differences, error)     { return Differences{Differences: []string{}}, nil }
func (f *fake) Reload(_ context.Context, _ Caller, dry bool) (Differences, error) {
	if dry {
		return Differences{}, &Error{Text: "unknown key", File: "a.toml", Line: 3, Column: 9}
	}
	_, err := f.note("reload")
	return Differences{Changed: true}, err
}

// served is a control socket with a fake server.
type served struct {
	*Server
	fake   *fake
	events *Events
	path   string
}

func serve(t *testing.T, access Access, change ...func(*Server)) *served {
	t.Helper()
	s := &served{fake: &fake{}, events: NewEvents(), path: filepath.Join(t.TempDir(), "s")}
	s.Server = New(s.fake, s.events, access, slog.New(slog.DiscardHandler))
	for _, c := range change {
		c(s.Server)
	}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// us is the user of the test.
func us() []Principal { return []Principal{{ID: uint32(os.Getuid())}} }

// ask sends a request as text and returns the status and the body.
func (s *served) ask(t *testing.T, method, target, body string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", s.path)
		}}}
	r, err := http.NewRequest(method, "http://ringnbd"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) && target != "/v1/events" {
		t.Errorf("%s %s: not JSON: %s", method, target, text)
	}
	return answer.StatusCode, string(text)
}

// asked is a request, the status that an admin gets, and what the answer or the call has.
type asked struct {
	method, target, body string
	status               int
	want                 string // in the call of the fake, or in the answer
}

var requests = []asked{
	{"GET", "/v1/status", "", 200, `"pid": 42`},
	{"GET", "/v1/status", "{}", 400, "takes no body"},
	{"GET", "/v1/status?name=a", "", 400, `unknown parameter \"name\"`},
	{"GET", "/v1/exports", "", 200, `"exports": []`},
	{"GET", "/v1/exports?state=served", "", 400, "unknown parameter"},
	{"GET", "/v1/export?name=a%20b", "", 200, `"name": "a b"`},
	{"GET", "/v1/export?name=", "", 200, `"name": ""`},
	{"GET", "/v1/export", "", 400, `the parameter \"name\" is missing`},
	{"GET", "/v1/export?name=gone", "", 404, `"field": "name"`},
	{"GET", "/v1/export?name=a&name=b", "", 400, "is there twice"},
	{"GET", "/v1/export?name=%zz", "", 400, "not readable"},
	{"PUT", "/v1/export?name=ディスク", `{"path": "/d", "read-only": true, "create": "1GiB"}`, 200,
		"put ディスク {Path:/d Description: ReadOnly:true Partitions:false Create:1073741824"},
	{"PUT", "/v1/export?name=a&replace=true", `{"path": "/d", "create": 512}`, 200, "} true by"},
	{"PUT", "/v1/export?name=taken", `{"path": "/d"}`, 409, "serves /dev/sdb"},
	{"PUT", "/v1/export?name=a", `{"path": "/d", "read_only": true}`, 400, `"field": "read_only"`},
	{"PUT", "/v1/export?name=a", `{"path": 1}`, 400, "path: must be a text, not number"},
	{"PUT", "/v1/export?name=a", `{"path": "/d", "read-only": "yes"}`, 400,
		"must be true or false"},
	{"PUT", "/v1/export?name=a", `{"path": "/d", "create": -1}`, 400, "-1 is not a size"},
	{"PUT", "/v1/export?name=a", `{"path": "/d", "create": "big"}`, 400, "big"},
	{"PUT", "/v1/export?name=a", `{"path": "/d", "path": "/e"}`, 400, `\"path\" is there twice`},
	{"PUT", "/v1/export?name=a", `{"path": "/d"} {}`, 400, "goes on after its end"},
	{"PUT", "/v1/export?name=a", "{\n \"path\": /d\n}", 400, `"line": 2`},
	{"PUT", "/v1/export?name=a", `{}`, 400, "the path is missing"},
	{"PUT", "/v1/export?name=a", ``, 400, "the body is missing"},
	{"PUT", "/v1/export?name=a", `[]`, 400, `"the body must be an object, not array"`},
	{"PUT", "/v1/export?name=a", `{"Path": "/d"}`, 400, `unknown key \"Path\"; did you mean`},
	{"PUT", "/v1/export?name=a", `{"path": "/d", "PATH": "/e"}`, 400, `unknown key \"PATH\"`},
	{"PUT", "/v1/export?name=a", "{\"path\": \"/d\xff\"}", 400, "not UTF-8"},
	{"PUT", "/v1/export?name=a&replace=perhaps", `{"path": "/d"}`, 400, "must be true or false"},
	{"DELETE", "/v1/export?name=a&force=true", "", 200, "remove a true"},
	{"DELETE", "/v1/export?name=a", `{"force": true}`, 400, "takes no body"},
	{"POST", "/v1/export?name=a", `{}`, 405, "GET or PUT or DELETE, not POST"},
	{"POST", "/v1/export/flush?name=a", "", 200, "flush a"},
	{"POST", "/v1/export/flush", "", 400, "is missing"},
	{"POST", "/v1/export/resize?name=a", `{"size": "2G", "force": true}`, 200,
		"resize a {Size:2147483648 Force:true}"},
	{"POST", "/v1/export/resize?name=a", `{"bytes": 1}`, 400, `unknown key \"bytes\"`},
	{"POST", "/v1/export/overlay/commit?name=a", "", 200, "commit a"},
	{"POST", "/v1/export/overlay/commit", "", 400, "is missing"},
	{"POST", "/v1/export/overlay/drop?name=a", "", 200, "drop a"},
	{"POST", "/v1/export/overlay/drop?name=a&force=1", "", 400, "unknown parameter"},
	{"GET", "/v1/connections", "", 200, `"id": 7`},
	{"GET", "/v1/connections", "x", 400, "takes no body"},
	{"DELETE", "/v1/connection?id=7", "", 200, "kick 7"},
	{"DELETE", "/v1/connection?id=-7", "", 400, `"field": "id"`},
	{"GET", "/v1/config", "", 200, "loops = 1"},
	{"GET", "/v1/config?all=1", "", 400, "unknown parameter"},
	{"PATCH", "/v1/config", "", 405, "takes GET"},
	{"POST", "/v1/config/diff", "", 200, `"differences": []`},
	{"POST", "/v1/config/diff?x=1", "", 400, "there are none here"},
	{"POST", "/v1/reload", "", 200, "reload"},
	{"POST", "/v1/reload?dry-run=true", "", 400, `"file": "a.toml"`},
	{"POST", "/v1/reload?dry-run=2", "", 400, "must be true or false"},
	{"GET", "/v1/schema", "", 200, `"additionalProperties": false`},
	{"GET", "/v1/schema?v=2", "", 400, "unknown parameter"},
	{"GET", "/v2/status", "", 404, "/v1/status, /v1/exports"},
	{"GET", "/", "", 404, "there is no /;"},
	{"BREW", "/v1/status", "", 405, "takes GET, not BREW"},
}

func TestRoutesForAdmins(t *testing.T) {
	s := serve(t, Access{Admins: us()})
	met := map[string]bool{}
	for _, a := range requests {
		status, answer := s.ask(t, a.method, a.target, a.body)
		calls := s.fake.taken()
		text := answer + strings.Join(calls, "\n")
		if status != a.status || !strings.Contains(text, a.want) {
			t.Errorf("%s %s %s: %d %s, want %d with %s", a.method, a.target, a.body, status, text,
				a.status, a.want)
		}
		if status != 200 && (len(calls) > 0 || !strings.Contains(answer, `"error": "`)) {
			t.Errorf("%s %s %s: refused with %s, after %q", a.method, a.target, a.body, answer,
				calls)
		}
		path, _, _ := strings.Cut(a.target, "?")
		met[fmt.Sprintf("%s %s %t", a.method, path, status == 200)] = true
	}
	for _, r := range routes {
		for _, good := range []bool{true, false} {
			key := fmt.Sprintf("%s %s %t", r.method, r.path, good)
			if !met[key] && r.path != "/v1/events" {
				t.Errorf("no request for %s", key)
			}
		}
	}
}

// TestRoutesForViewers checks that a viewer gets what an admin gets from routes that only look, and
// changes nothing.
func TestRoutesForViewers(t *testing.T) {
	s := serve(t, Access{Viewers: us()})
	for _, a := range requests {
		status, answer := s.ask(t, a.method, a.target, a.body)
		path, _, _ := strings.Cut(a.target, "?")
		want := a.status
		if slices.ContainsFunc(routes, func(r route) bool {
			return r.changes && r.path == path && r.method == a.method
		}) {
			want = http.StatusForbidden
		}
		if status != want || len(s.fake.taken()) > 0 {
			t.Errorf("%s %s: %d %s, want %d", a.method, a.target, status, answer, want)
		}
	}
}

func TestRoutesForStrangers(t *testing.T) {
	s := serve(t, Access{Admins: []Principal{{ID: 4_000_000_000}},
		Viewers: []Principal{{Group: true, ID: 4_000_000_000}}})
	for _, a := range append(requests, asked{method: "GET", target: "/v1/events"}) {
		status, answer := s.ask(t, a.method, a.target, a.body)
		if status != http.StatusForbidden || !strings.Contains(answer, "may not use") ||
			len(s.fake.taken()) > 0 {
			t.Errorf("%s %s: %d %s", a.method, a.target, status, answer)
		}
	}
}

// TestBodiesAreBounded checks that a body of 100 MB is refused before it arrives, whether its
// length was said or not.
func TestBodiesAreBounded(t *testing.T) {
	s := serve(t, Access{Admins: us()})
	for _, head := range []string{"Content-Length: 100000000\r\n",
		"Content-Length: 100000000\r\nExpect: 100-continue\r\n", "Transfer-Encoding: chunked\r\n"} {
		c, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "PUT /v1/export?name=a HTTP/1.1\r\nHost: x\r\n%s\r\n", head)
		sent := 0
		if strings.HasPrefix(head, "T") {
			chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))
			for ; sent < 100_000_000; sent += 64 << 10 {
				if _, err := io.WriteString(c, chunk); err != nil {
					break
				}
			}
		}
		answer, _ := io.ReadAll(c)
		if !bytes.Contains(answer, []byte(" 413 ")) || !bytes.Contains(answer,
			[]byte(`"the body is longer than 1 MiB"`)) || sent > 4<<20 {
			t.Errorf("%q: after %d bytes: %s", head, sent, answer)
		}
		c.Close()
	}
	if status, _ := s.ask(t, "GET", "/v1/status", ""); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

// TestSilentClientsCostThemselvesOnly checks that clients who send half a request, or read no
// answer, are cut while others are served.
func TestSilentClientsCostThemselvesOnly(t *testing.T) {
	s := serve(t, Access{Admins: us()}, func(s *Server) {
		s.times.header, s.times.body = 1500*time.Millisecond, 1500*time.Millisecond
		s.times.answer = time.Second
	})
	s.fake.exports = 20_000
	var silent []net.Conn
	for _, text := range []string{"", "GET /v1/sta",
		"GET /v1/exports HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"PUT /v1/export?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
		"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, text)
		silent = append(silent, c)
	}
	stop := time.Now().Add(time.Second)
	for time.Now().Before(stop) {
		s.events.Tell(Event{Event: "test", Text: strings.Repeat("x", 1000)})
		if status, _ := s.ask(t, "GET", "/v1/status", ""); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	for range 10_000 {
		s.events.Tell(Event{Event: "test", Text: strings.Repeat("x", 1000)})
	}
	time.Sleep(2 * s.times.answer) // none of them has read anything meanwhile
	for i, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
			t.Errorf("client %d was not cut", i)
		}
	}
	for end := time.Now().Add(10 * time.Second); len(s.events.listeners) > 0; {
		if time.Now().After(end) {
			t.Fatal("the listener is still there")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestConnectionsAreBounded checks that strangers cannot keep users out, nor users each other for
// longer than they stay.
func TestConnectionsAreBounded(t *testing.T) {
	s := serve(t, Access{Admins: us()})
	var open []net.Conn
	for range maxAdmins {
		c, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	if status, text := s.ask(t, "GET", "/v1/status", ""); status != 503 ||
		!strings.Contains(text, "as many connections as it may have (32)") {
		t.Errorf("one too many: %d %s", status, text)
	}
	s.SetAccess(Access{}) // we are strangers now, who have places of their own
	if status, _ := s.ask(t, "GET", "/v1/status", ""); status != 403 {
		t.Errorf("a stranger: %d", status)
	}
	s.SetAccess(Access{Viewers: us()}) // and so have viewers
	if status, _ := s.ask(t, "GET", "/v1/status", ""); status != 200 {
		t.Errorf("a viewer: %d", status)
	}
	s.SetAccess(Access{Admins: us()})
	open[0].Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if status, _ := s.ask(t, "GET", "/v1/status", ""); status == 200 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("a place that became free is not given away")
		}
	}
}

// TestAnswersAreComplete checks that an answer of 10,000 exports is whole.
func TestAnswersAreComplete(t *testing.T) {
	s := serve(t, Access{Admins: us()})
	s.fake.exports = 10_000
	var all Exports
	client := NewClient(s.path)
	defer client.Close()
	if err := client.Do(t.Context(), "GET", "/v1/exports", nil, nil, &all); err != nil {
		t.Fatal(err)
	}
	if n := len(all.Exports); n != 10_000 || all.Exports[n-1].Name != "export-09999" {
		t.Errorf("%d exports", n)
	}
}

// TestEvents checks that events arrive in order, and that of those that were not read in time the
// number is told.
func TestEvents(t *testing.T) {
	s := serve(t, Access{Viewers: us()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := NewClient(s.path)
	begun, held := make(chan struct{}), make(chan struct{})
	var seen, missed uint64
	done := make(chan error, 1)
	const sent = 100_000
	go func() {
		done <- client.Events(ctx, func(_ []byte, e Event) error {
			if e.Event == "listening" {
				close(begun)
				<-held
				return nil
			}
			missed += e.Missed
			if e.Event == "test" {
				seen++
			}
			if seen+missed == sent {
				cancel()
			}
			return nil
		})
	}()
	<-begun
	for range sent {
		s.events.Tell(Event{Event: "test", Export: "disk"})
	}
	close(held)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("not all events were accounted for")
	}
	if seen < maxUnread || missed == 0 || seen+missed != sent {
		t.Errorf("%d seen, %d missed, of %d", seen, missed, sent)
	}
}

func TestPrincipals(t *testing.T) {
	for text, want := range map[string]Principal{"uid:0": {}, "user:root": {}, "uid:root": {},
		"gid:0": {Group: true}, "group:root": {Group: true}, "gid:12": {Group: true, ID: 12}} {
		if got, err := ParsePrincipal(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{"root": "write uid:0", "uid:": "write uid:0",
		"pid:1": "write uid:0", "user:none-such": "no such user",
		"gid:none-such":  "no such group",
		"uid:4294967296": "too large", "": "write uid:0"} {
		if _, err := ParsePrincipal(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	narrow := Access{Admins: DefaultAdmins()}
	wide := Access{Admins: append(DefaultAdmins(), Principal{Group: true, ID: 4})}
	if !narrow.Narrow() || wide.Narrow() {
		t.Error("who is let in by the socket's file is not decided by who may do something")
	}
}

// TestGroups checks that further groups of the client count.
func TestGroups(t *testing.T) {
	groups, err := os.Getgroups()
	if err != nil || len(groups) == 0 {
		t.Skip("this process has no further groups")
	}
	s := serve(t, Access{Viewers: []Principal{{Group: true, ID: uint32(groups[len(groups)-1])}}})
	if status, text := s.ask(t, "GET", "/v1/status", ""); status != 200 {
		t.Errorf("%d %s", status, text)
	}
}

func TestClientSaysWhatIsWrong(t *testing.T) {
	client := NewClient(filepath.Join(t.TempDir(), "none"))
	err := client.Do(t.Context(), "GET", "/v1/status", nil, nil, &Status{})
	if err == nil || !strings.Contains(err.Error(), "there is no such socket") {
		t.Error(err)
	}
	s := serve(t, Access{Admins: us()})
	client = NewClient(s.path)
	defer client.Close()
	err = client.Do(t.Context(), "GET", "/v1/export", map[string][]string{"name": {"gone"}}, nil,
		&Export{})
	if e, ok := err.(*Error); !ok || e.Status != 404 || e.Field != "name" {
		t.Error(err)
	}
}

// TestEventsThatAreCutAreAnError checks that a client tells the end of a server from the end of its
// events.
func TestEventsThatAreCutAreAnError(t *testing.T) {
	for _, end := range []struct {
		by   func(*served)
		want string
	}{{func(s *served) { _ = s.http.Close() }, "events end without an end"},
		{func(s *served) { s.Close() }, ""}} {
		s := serve(t, Access{Admins: us()}, func(s *Server) { s.times.answer = time.Second / 10 })
		client := NewClient(s.path)
		defer client.Close()
		err := client.Events(t.Context(), func(_ []byte, e Event) error {
			if e.Event == "listening" {
				time.Sleep(2 * s.times.answer) // the last event is a while ago
				end.by(s)
			}
			return nil
		})
		if end.want == "" && err != nil || end.want != "" &&
			(err == nil || !strings.Contains(err.Error(), end.want)) {
			t.Errorf("%v, want %q", err, end.want)
		}
	}
}
