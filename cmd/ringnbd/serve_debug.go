// The debug endpoint of serve: profiles of the Go runtime and the engine's counters over HTTP, for
// who runs the server and nobody else.
//
// Invariant: it is there only when asked for, at an address that other machines cannot reach; a web
// page that the user visits cannot reach it through the browser either (the Host header gives it
// away); its connections are bounded in number, and each ends by itself: within seconds when its
// client neither asks nor reads, and with the profile that it asked for otherwise, whose length is
// bounded (serve_debug_profile.go). Profiles do cost CPU time and memory while they run.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/gate"
)

const (
	// debugPatience is how long a client may take for a request's header, and how long it may leave
	// a reply lying; a profile's own time comes on top.
	debugPatience = 5 * time.Second
	debugIdle     = 30 * time.Second
	// debugConnections bounds the descriptors that clients of the endpoint can hold.
	debugConnections = 32
	// debugFarewell is how long the endpoint's own shutdown waits for replies: a profile that is
	// cut short is still written, which takes the runtime 0.2 s.
	debugFarewell = 500 * time.Millisecond
)

// debugFlag is an address that is loopback for certain as far as its text tells, or unix:PATH.
type debugFlag string

func (f *debugFlag) Type() string   { return "ADDRESS" }
func (f *debugFlag) String() string { return string(*f) }
func (f *debugFlag) Set(text string) error {
	if _, _, err := splitDebug(text); err != nil {
		return err
	}
	*f = debugFlag(text)
	return nil
}

// splitDebug takes HOST:PORT apart; of unix:PATH the path is the host. It refuses what other
// machines could reach.
func splitDebug(text string) (host, port string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return "", "", errors.New("no path; write unix:PATH")
		}
		return path, "", nil
	}
	if err := badAddress(text); err != nil {
		return "", "", err
	}
	if host, port, err = net.SplitHostPort(text); err != nil {
		return "", "", errors.New("no address; write localhost:PORT or unix:PATH")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil { // which takes no sign
		return "", "", fmt.Errorf("%q is not a port; write a number from 0 (any free one) to 65535",
			port)
	}
	if !loopbackName(host) {
		return "", "",
			errors.New("profiles show what the server does and cost it time, so they are for " +
				"this machine alone;" +
				" write localhost:PORT, 127.0.0.1:PORT, [::1]:PORT or unix:PATH")
	}
	return host, port, nil
}

// loopbackName: localhost, or an address of the loopback. Any other name may be somebody else's by
// the time that it is looked up.
func loopbackName(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// debugServer is the endpoint. A nil one is none.
type debugServer struct {
	place    *gate.Place
	address  string // for people, and for curl or go tool pprof
	remote   bool   // reached by TCP, where a Host header tells something
	http     http.Server
	cut      context.CancelFunc // ends profiles that are being taken
	open     atomic.Int32       // connections
	patience time.Duration
	profiles profiles

	mu      sync.Mutex  // one question to the loops at a time
	closing atomic.Bool // the loops may be gone as soon as mu is free: no further question
	engine  counted
}

// counted is what the endpoint asks of an engine.
type counted interface {
	Counters() (engine.Counters, bool)
	Connections() int
}

// listenDebug listens; "" gives nil. It is called before the process has more than one thing to do.
func listenDebug(address string) (*debugServer, error) {
	if address == "" {
		return nil, nil
	}
	_, port, err := splitDebug(address)
	if err != nil {
		return nil, fmt.Errorf("--debug %s: %w", address, err)
	}
	d := &debugServer{remote: port != "", patience: debugPatience}
	d.profiles.bounds = profileBounds{trace: debugTraceSeconds, profile: debugProfileSeconds}
	// The mode of a socket's file is decided when it is bound: setting it later would leave a gap.
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

// serve begins to answer.
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

// count keeps the number of connections, and closes those above it.
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

// close takes the endpoint down; profiles that are being taken end early and are still delivered.
// Afterwards the engine is not asked any more.
func (d *debugServer) close() {
	if d == nil {
		return
	}
	if d.cut == nil { // it never served
		d.vanish()
		return
	}
	d.cut()
	// before the lock: those who wait for it would ask first, and a loop that hangs costs each of
	// them a second
	d.closing.Store(true)
	d.mu.Lock()
	d.mu.Unlock() //lint:ignore SA2001 who asked before has its answer now
	late, cancel := context.WithTimeout(context.Background(), debugFarewell)
	defer cancel()
	if d.http.Shutdown(late) != nil {
		_ = d.http.Close()
	}
}

// vanish removes the socket's file also when the process ends without waiting.
func (d *debugServer) vanish() {
	if d != nil {
		d.place.Close()
	}
}

// guard turns away what no honest client of the endpoint sends.
func (d *debugServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// Nothing here takes a body, and waiting for one would hold the connection: reading
			// what is left of it fails at once.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		}
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case r.Method != http.MethodGet && r.Method != http.MethodHead || r.ContentLength != 0:
			w.Header().Set("Allow", "GET, HEAD")
			w.Header().Set("Connection", "close")
			http.Error(w, "only GET and HEAD, without a body", http.StatusMethodNotAllowed)
		case d.remote && !loopbackName(hostOf(r.Host)):
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

// hostOf is a Host header without its port.
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

/debug/counters                    what was counted since the start, in all and by export
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
	_ = e.Encode(list) // the client is gone
}

// ask gives what the engine has counted, all of it or nothing: a sum that lacks a loop would look
// like counters that went back.
func (d *debugServer) ask() (map[string]any, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Load() {
		return nil, errors.New("the server is shutting down")
	}
	c, ok := d.engine.Counters()
	if !ok {
		return nil, errors.New("a loop of the engine did not answer in time, so there is no " +
			"sum; ask again, and see /debug/pprof/goroutine?debug=2 if it stays so")
	}
	list := countersByName(c)
	list["connections"] = d.engine.Connections()
	return list, nil
}

// exportCounters are one export's, under the names of the totals.
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

// commandName is a command's, or "unknown".
func commandName(command int) string {
	if command < len(commandNames) {
		return commandNames[command]
	}
	return "unknown"
}

// commandNames are the commands by number, as the protocol names them; what comes behind them is
// counted as unknown.
var commandNames = []string{"read", "write", "disconnect", "flush", "trim", "cache", "writeZeroes",
	"blockStatus", "resize"}

// countersByName gives every field of Counters a name, so that none can be left out, and every
// place of its lists.
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
