// Bounds for the profiles of the debug endpoint: how long a profile may run, how many run at the
// same time, and how slowly a client may read them.
//
// Invariant: a running profile has a known end, and a profile whose client does not read ends
// within debugPatience of the first write that blocks: the runtime keeps in memory what it has
// traced and cannot write.

package main

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"path"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// debugTraceSeconds bounds a trace: the runtime records megabytes in a second, and they stay in
	// the server's memory while a client reads slowly.
	debugTraceSeconds = 10
	// debugProfileSeconds bounds every other profile that takes time.
	debugProfileSeconds = 120
)

// profileBounds are the bounds in seconds; tests set smaller ones.
type profileBounds struct{ trace, profile int }

// profiles serves net/http/pprof within bounds.
type profiles struct {
	bounds        profileBounds
	patience      time.Duration
	tracing, busy atomic.Bool // one trace and one CPU profile at a time
}

func (p *profiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	kind := path.Base(r.URL.Path)
	seconds, err := p.seconds(kind, r.FormValue("seconds"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	serve := pprof.Index
	var running *atomic.Bool
	switch kind {
	case "cmdline":
		serve = pprof.Cmdline
	case "symbol":
		serve = pprof.Symbol
	case "profile":
		serve, running = pprof.Profile, &p.busy
	case "trace":
		serve, running = pprof.Trace, &p.tracing
	}
	if running != nil {
		if !running.CompareAndSwap(false, true) {
			http.Error(w,
				"another client is taking a "+kind+
					", and only one can be taken at a time; ask again when it has ended",
				http.StatusConflict)
			return
		}
		defer running.Store(false)
	}
	serve(&hurried{w, p.patience, began.Add(seconds + p.patience)}, r)
}

// seconds is how long a profile takes. It also refuses values that net/http/pprof would silently
// replace by its default.
func (p *profiles) seconds(kind, text string) (time.Duration, error) {
	limit, what := p.bounds.profile, "a whole number from 1 to"
	var seconds float64
	var err error
	switch {
	case kind == "trace":
		// of net/http/pprof
		limit, what, seconds = p.bounds.trace, "a number above 0 and at most", 1
		if text != "" {
			seconds, err = strconv.ParseFloat(text, 64)
		}
	case text != "":
		var whole int64
		whole, err = strconv.ParseInt(text, 10, 64)
		seconds = float64(whole)
	case kind == "profile":
		seconds = 30 // of net/http/pprof
	default:
		return 0, nil
	}
	if err != nil || !(seconds > 0 && seconds <= float64(limit)) { // also refuses NaN
		return 0, fmt.Errorf("seconds must be %s %d here", what, limit)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// hurried gives every write a deadline of its own, not later than end. A write that fails cancels
// the context of the request, which ends the profile.
type hurried struct {
	http.ResponseWriter
	patience time.Duration
	end      time.Time
}

func (h *hurried) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *hurried) Write(b []byte) (int, error) {
	deadline := time.Now().Add(h.patience)
	if deadline.After(h.end) {
		deadline = h.end
	}
	if err := http.NewResponseController(h.ResponseWriter).SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	return h.ResponseWriter.Write(b)
}
