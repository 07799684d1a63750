// The bounds of profiles: requests that are refused, and clients that do not read.
//
// Invariant: each bound is seen to hold while the endpoint serves what is within it.

package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime/trace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ringnbd/engine"
)

// askPage makes one request for a page.
func askPage(t *testing.T, d *debugServer, page string) (int, string) {
	t.Helper()
	return ask(t, d, func(r *http.Request) {
		r.URL.Path, r.URL.RawQuery, _ = strings.Cut(page, "?")
	})
}

// begin asks for a page, reads nothing of it, and returns once the flag is up.
func begin(t *testing.T, d *debugServer, page string, flag *atomic.Bool) net.Conn {
	t.Helper()
	c, err := net.Dial(d.place.Listeners[0].Addr().Network(), d.place.Listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", page)
	await(t, page+" has not begun", flag, true)
	return c
}

func await(t *testing.T, what string, flag *atomic.Bool, want bool) {
	t.Helper()
	for until := time.Now().Add(patience); flag.Load() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("after %v: %s", patience, what)
		}
	}
}

func TestDebugBoundsAProfilesTime(t *testing.T) {
	d := newDebug(t, "127.0.0.1:0", debugPatience)
	if d.profiles.bounds != (profileBounds{trace: 10, profile: 120}) {
		t.Errorf("bounds %+v", d.profiles.bounds)
	}
	d.profiles.bounds = profileBounds{trace: 1, profile: 2}
	for page, want := range map[string]string{
		"/debug/pprof/trace?seconds=":       "at most 1 ",
		"/debug/pprof/profile?seconds=":     "from 1 to 2 ",
		"/debug/pprof/heap?seconds=":        "from 1 to 2 ",
		"/debug/pprof/goroutine?x&seconds=": "from 1 to 2 ",
	} {
		for _, seconds := range []string{"3", "3600", "9223372036854775807", "99999999999999999999",
			"1e400", "Inf", "NaN", "0", "-1", "x"} {
			if status, body := askPage(t, d, page+seconds); status != 400 ||
				!strings.Contains(body, want) {
				t.Errorf("%s%s: %d %q, want 400 and %q in it", page, seconds, status, body, want)
			}
		}
	}
	if status, body := askPage(t, d, "/debug/pprof/profile"); status != 400 {
		t.Errorf("30 s, the default, with a bound of 2: %d %q", status, body)
	}
	for _, page := range []string{"/debug/pprof/trace?seconds=0.1", "/debug/pprof/heap?seconds=1",
		"/debug/pprof/profile?seconds=1", "/debug/pprof/heap"} {
		if status, body := askPage(t, d, page); status != 200 || body == "" {
			t.Errorf("%s: %d %q", page, status, body)
		}
	}
}

func TestDebugTakesOneProfileOfAKindAtATime(t *testing.T) {
	d := newDebug(t, "127.0.0.1:0", debugPatience)
	for kind, flag := range map[string]*atomic.Bool{"trace": &d.profiles.tracing,
		"profile": &d.profiles.busy} {
		page := "/debug/pprof/" + kind + "?seconds="
		c := begin(t, d, page+"10", flag)
		if status, body := askPage(t, d, page+"1"); status != 409 ||
			!strings.Contains(body, "another client is taking a "+kind) {
			t.Errorf("a second %s: %d %q", kind, status, body)
		}
		if !flag.Load() {
			t.Errorf("the refusal ended the first %s", kind)
		}
		_ = c.Close()
		await(t, "a "+kind+" goes on whose client has gone", flag, false)
		if status, _ := askPage(t, d, page+"1"); status != 200 {
			t.Errorf("a %s after the first: %d", kind, status)
		}
	}
}

func TestDebugEndsATraceWithoutAReader(t *testing.T) {
	d := newDebug(t, "unix:"+filepath.Join(t.TempDir(), "s"), 300*time.Millisecond)
	begin(t, d, "/debug/pprof/trace?seconds=10", &d.profiles.tracing)
	began, ended := time.Now(), make(chan struct{})
	defer close(ended)
	go func() { // more in a second than a socket holds
		for text := string(bytes.Repeat([]byte("x"), 900)); ; time.Sleep(time.Millisecond) {
			select {
			case <-ended:
				return
			default:
			}
			for range 10 {
				trace.Log(context.Background(), "test", text)
			}
		}
	}()
	await(t, "it goes on", &d.profiles.tracing, false)
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("a trace of 10 s without a reader ran for %v", took)
	}
	began = time.Now()
	if status, body := askPage(t, d, "/debug/pprof/trace?seconds=1"); status != 200 ||
		!strings.HasPrefix(body, "go 1.") || time.Since(began) < time.Second {
		t.Errorf("a client that reads: %d after %v", status, time.Since(began))
	}
}

// stuck is an engine one of whose loops does not answer.
type stuck struct{ fixed }

func (s stuck) Counters() (engine.Counters, bool) { return engine.Counters(s.fixed), false }

func TestDebugCountersNeedEveryLoop(t *testing.T) {
	d, err := listenDebug("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.serve(stuck{fixed{Errors: 3}}, slog.New(slog.DiscardHandler))
	t.Cleanup(d.close)
	status, body := ask(t, d, func(*http.Request) {})
	if status != 503 || !strings.Contains(body, "did not answer in time") ||
		strings.Contains(body, "{") {
		t.Errorf("%d %q", status, body)
	}
}

// sluggish is an engine whose loops take their time.
type sluggish struct {
	fixed
	asked *atomic.Int32
}

func (s sluggish) Counters() (engine.Counters, bool) {
	s.asked.Add(1)
	time.Sleep(300 * time.Millisecond)
	return engine.Counters{}, false
}

func TestDebugCloseDoesNotWaitForEveryQuestion(t *testing.T) {
	d, err := listenDebug("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	d.serve(sluggish{asked: &asked}, slog.New(slog.DiscardHandler))
	for range debugConnections {
		c, err := net.Dial("tcp", d.place.Listeners[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /debug/counters HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // the others come to wait
	d.close()
	if n := asked.Load(); n > 3 {
		t.Errorf("%d clients were still served by loops that hang", n)
	}
}
