// The debug endpoint of serve: profiles of the Go runtime and the engine's counters over HTTP, for
// users of this machine.
//
// Invariant: the endpoint exists only if --debug asks for it, at an address that other machines
// cannot reach; a web page that the user visits cannot reach it through the browser either (the
// Host header shows it). The number of its connections is bounded, and each ends by itself: within
// seconds if its client neither asks nor reads, and otherwise with the profile that it asked for,
// whose length is bounded (serve_debug_profile.go). Profiles cost CPU time and memory while they
// run.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine"
	"ringnbd/engine/gate"
)

const (
	// debugPatience is how long a client may take for the header of a request, and how long it may
	// leave a reply unread; the time of a profile is added.
	debugPatience = 5 * time.Second
	debugIdle     = 30 * time.Second
	// debugConnections bounds the descriptors that clients of the endpoint can hold.
	debugConnections = 32
	// debugFarewell is how long the shutdown of the endpoint waits for replies: a profile that is
	// cut short is still written, which takes the runtime 0.2 s.
	debugFarewell = 500 * time.Millisecond
)

// debugFlag is an address that is loopback by its text, or unix:PATH.
type debugFlag string

func (f *debugFlag) Type() string   { return "ADDRESS" }
func (f *debugFlag) String() string { return string(*f) }
func (f *debugFlag) Set(text string) error {
	if _, _, err := config.SplitDebug(text); err != nil {
		return err
	}
	*f = debugFlag(text)
	return nil
}

// debugServer is the endpoint. nil is not an endpoint.
type debugServer struct {
	place    *gate.Place
	address  string // for people, and for curl or go tool pprof
	remote   bool   // reached by TCP, where the Host header matters
	http     http.Server
	cut      context.CancelFunc // ends running profiles
	open     atomic.Int32       // connections
	patience time.Duration
	profiles profiles

	mu      sync.Mutex  // held while the loops are asked, one question at a time
	closing atomic.Bool // the loops may be gone as soon as mu is free: ask no further question
	engine  counted
	gate    func() gate.Counters // nil in tests without a gate
}

// counted is the part of an engine that the endpoint asks.
type counted interface {
	Counters() (engine.Counters, bool)
	Connections() int
}

// listenDebug listens at an address; "" gives nil. It changes the umask of the process for a
// moment, so it must run before other goroutines create files.
func listenDebug(address string) (*debugServer, error) {
	if address == "" {
		return nil, nil
	}
	_, port, err := config.SplitDebug(address)
	if err != nil {
		return nil, fmt.Errorf("--debug %s: %w", address, err)
	}
	d := &debugServer{remote: port != "", patience: debugPatience}
	d.profiles.bounds = profileBounds{trace: debugTraceSeconds, profile: debugProfileSeconds}
	// The mode of a socket's file is set when it is bound: setting it later would leave a gap.
	mask := unix.Umask(0o177)
	d.place, err = gate.Listen(address)
	unix.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("--debug: %w", err)
	}
	d.address = address
	if d.remote {
		d.address = "http://" + d.place.Listeners[0].Addr().String() + "/"
	}
	return d, nil
}

// serve starts answering.
func (d *debugServer) serve(e counted, log *slog.Logger) {
	if d == nil {
		return
	}
	ctx, cut := context.WithCancel(context.Background())
	d.cut, d.engine, d.profiles.patience = cut, e, d.patience
	d.http = http.Server{
		Handler:           d.guard(d.routes()),
		ReadHeaderTimeout: d.patience, // a ReadTimeout would end a profile that takes longer
		WriteTimeout:      d.patience, // net/http/pprof adds the time of a profile
		IdleTimeout:       debugIdle,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState:         d.count,
	}
	for _, l := range d.place.Listeners {
		go func() {
			if err := d.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				log.Warn("the debug endpoint ended", "error", err)
			}
		}()
	}
}

// count counts the connections, and closes a new one if there are debugConnections already.
func (d *debugServer) count(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if d.open.Add(1) > debugConnections {
			_ = c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		d.open.Add(-1)
	}
}

// close takes the endpoint down; running profiles end early and are still delivered. After close
// the engine is not asked any more.
func (d *debugServer) close() {
	if d == nil {
		return
	}
	if d.cut == nil { // it never served
		d.vanish()
		return
	}
	d.cut()
	// before the lock: goroutines that wait for the lock would ask first, and each would wait a
	// second for a loop that hangs
	d.closing.Store(true)
	d.mu.Lock()
	d.mu.Unlock() //lint:ignore SA2001 questions asked before have their answers now
	late, cancel := context.WithTimeout(context.Background(), debugFarewell)
	defer cancel()
	if d.http.Shutdown(late) != nil {
		_ = d.http.Close()
	}
}

// vanish removes the socket's file if the process ends without closing the endpoint.
func (d *debugServer) vanish() {
	if d != nil {
		d.place.Close()
	}
}

// guard refuses requests that an honest client of the endpoint does not send.
func (d *debugServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// No request here has a body, and waiting for a body would hold the connection: reading
			// the rest of it fails at once.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		}
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case r.Method != http.MethodGet && r.Method != http.MethodHead || r.ContentLength != 0:
			w.Header().Set("Allow", "GET, HEAD")
			w.Header().Set("Connection", "close")
			http.Error(w, "only GET and HEAD, without a body", http.StatusMethodNotAllowed)
		case d.remote && !config.LoopbackName(hostOf(r.Host)):
			http.Error(w,
				"the Host header names another machine; use localhost, 127.0.0.1 or [::1]",
				http.StatusForbidden)
		case site != "" && site != "none" && site != "same-origin":
			http.Error(w, "web pages may not use this endpoint", http.StatusForbidden)
		default:
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Cache-Control", "no-store")
			next.ServeHTTP(w, r)
		}
	})
}

// hostOf returns a Host header without the port.
func hostOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

func (d *debugServer) routes() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("/{$}", d.index)
	m.HandleFunc("/debug/{$}", d.index)
	m.HandleFunc("/debug/counters", d.counters)
	m.Handle("/debug/pprof/", &d.profiles)
	return m
}

const debugIndex = `ringnbd, debug endpoint

/debug/counters                    counters since the start, in all and by export
/debug/pprof/                      profiles of the Go runtime, for go tool pprof
/debug/pprof/profile?seconds=30    where CPU time goes, 120 seconds at most
/debug/pprof/goroutine?debug=2     what every goroutine is doing
/debug/pprof/trace?seconds=1       for go tool trace, 10 seconds at most
`

func (d *debugServer) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(debugIndex))
}

func (d *debugServer) counters(w http.ResponseWriter, _ *http.Request) {
	list, err := d.ask()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(list) // fails if the client is gone
}

// ask returns the counters of the engine, of all loops or none: a sum that lacks a loop would look
// like counters that went down.
func (d *debugServer) ask() (map[string]any, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Load() {
		return nil, errors.New("the server is shutting down")
	}
	c, ok := d.engine.Counters()
	if !ok {
		return nil, errors.New("a loop of the engine did not answer in time, so there is no " +
			"sum; ask again, and see /debug/pprof/goroutine?debug=2 if this repeats")
	}
	list := countersByName(c)
	list["connections"] = d.engine.Connections()
	if d.gate != nil {
		g := d.gate()
		list["accepted"], list["handshakes"] = g.Accepted, g.Ended
	}
	return list, nil
}

// exportCounters are the counters of one export, under the names of the totals.
type exportCounters struct {
	Requests    uint64 `json:"requests"`
	Reads       uint64 `json:"reads"`
	Writes      uint64 `json:"writes"`
	Errors      uint64 `json:"errors"`
	BytesRead   uint64 `json:"bytesRead"`
	BytesWrite  uint64 `json:"bytesWrite"`
	Connections uint64 `json:"connections"`
	DiskErrors  uint64 `json:"diskErrors"`
	FlushFailed bool   `json:"flushFailed"`
}

// commandName is the name of a command, or "unknown".
func commandName(command int) string {
	if command < len(commandNames) {
		return commandNames[command]
	}
	return "unknown"
}

// commandNames are the names of the commands by number, as in the protocol; higher numbers are
// counted as unknown.
var commandNames = []string{"read", "write", "disconnect", "flush", "trim", "cache", "writeZeroes",
	"blockStatus", "resize"}

// countersByName names every field of Counters, so that none can be left out, and every element of
// its lists.
func countersByName(c engine.Counters) map[string]any {
	list := map[string]any{}
	fields := reflect.ValueOf(c)
	for i := range fields.NumField() {
		name := []rune(fields.Type().Field(i).Name)
		name[0] = unicode.ToLower(name[0])
		list[string(name)] = fields.Field(i).Interface()
	}
	requests := map[string]uint64{}
	for i, n := range c.Requests {
		requests[commandName(i)] += n
	}
	exports := map[string]exportCounters{}
	for _, e := range c.Exports {
		exports[e.Name] = exportCounters{Requests: e.Traffic.Requests(), Reads: e.Reads,
			Writes: e.Writes, Errors: e.Errors, BytesRead: e.BytesRead,
			BytesWrite: e.BytesWrite, Connections: e.Connections, DiskErrors: e.DiskErrors,
			FlushFailed: e.FlushFailed}
	}
	closed := map[string]uint64{}
	for i, n := range c.Closed {
		closed[engine.CloseReason(i).String()] = n
	}
	list["requests"], list["closed"], list["exports"] = requests, closed, exports
	return list
}
