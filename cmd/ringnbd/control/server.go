// The server: its limits in time and size, and answers.
//
// Invariant: no request waits for its client longer than headerTime, bodyTime and answerTime
// together, however long the change that it asks for takes; only the stream of events has no end.

package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	headerTime = 5 * time.Second
	bodyTime   = 10 * time.Second
	answerTime = 30 * time.Second
	idleTime   = time.Minute
	maxHeader  = 16 << 10 // bytes
	maxBody    = 1 << 20  // bytes: an export takes some hundred
	// farewell is how long Close waits for answers that are being written.
	farewell = 500 * time.Millisecond
)

// Server answers the clients of a control socket.
type Server struct {
	running Running
	events  *Events
	access  atomic.Pointer[Access]
	http    http.Server
	cut     context.CancelFunc // ends the streams of events
	times   struct{ header, body, answer time.Duration }
}

// New makes a server, which does nothing until Serve.
func New(running Running, events *Events, access Access, log *slog.Logger) *Server {
	s := &Server{running: running, events: events}
	s.times.header, s.times.body, s.times.answer = headerTime, bodyTime, answerTime
	s.SetAccess(access)
	ctx, cut := context.WithCancel(context.Background())
	s.cut = cut
	s.http = http.Server{
		Handler:        s,
		IdleTimeout:    idleTime,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ConnContext:    withClient,
	}
	return s
}

// SetAccess changes who may do what, for requests from now on.
func (s *Server) SetAccess(a Access) { s.access.Store(&a) }

// Serve answers the clients of a listener of Unix sockets until Close.
func (s *Server) Serve(l net.Listener) error {
	s.http.ReadHeaderTimeout = s.times.header
	err := s.http.Serve(&door{Listener: l, access: &s.access})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends the streams of events, lets answers be written for a moment, and cuts what is left.
func (s *Server) Close() {
	s.cut()
	late, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if s.http.Shutdown(late) != nil {
		_ = s.http.Close()
	}
}

// ServeHTTP answers a request, or says what is wrong with it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := clientOf(r)
	q := call{server: s, request: r, writer: w, caller: c.caller,
		control: http.NewResponseController(w)}
	// in time before a client is told to send its body
	_ = q.control.SetWriteDeadline(time.Now().Add(s.times.body + s.times.answer))
	route, err := s.find(r, c.role())
	if err == nil {
		err = q.read(route)
	}
	var answer any
	if err == nil {
		answer, err = route.serve(&q)
	}
	switch {
	case err != nil:
		q.refuse(err)
	case answer != nil:
		q.answer(http.StatusOK, answer)
	}
}

// refuse answers with an error.
func (q *call) refuse(err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = Wrong("", "%s", err.Error())
	}
	if e.Status == 0 {
		e.Status = http.StatusBadRequest
	}
	if !q.whole { // the rest of the request is not waited for
		q.writer.Header().Set("Connection", "close")
		_ = q.control.SetReadDeadline(time.Now())
	}
	q.answer(e.Status, e)
}

// answer writes an answer, in time or not at all.
func (q *call) answer(status int, answer any) {
	text, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		status = http.StatusInternalServerError
		text = []byte(`{"error":"no answer can be written"}`)
	}
	_ = q.control.SetWriteDeadline(time.Now().Add(q.server.times.answer))
	header := q.writer.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	q.writer.WriteHeader(status)
	_, _ = q.writer.Write(append(text, '\n')) // fails if the client has gone, or does not read
}
