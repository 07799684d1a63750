// What happens in the server, for clients that listen.
//
// Invariant: no client delays what it hears of. A listener whose events are not read has room for
// maxUnread; of those that come then only the number is kept, and told when it reads again. A
// listener that does not read at all is cut.

package control

import (
	"encoding/json"
	"sync"
	"time"
)

const (
	// maxUnread is how many events wait for a client: a reload of some thousand exports.
	maxUnread = 4096
	// maxListeners is how many clients listen at a time, and maxViewing how many of them may be
	// viewers.
	maxListeners = 16
	maxViewing   = 12
	// eventTime is how long a client may leave events unread that fill its socket.
	eventTime = 10 * time.Second
)

// Event is something that happened.
type Event struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"` // what kind of event
	Export string    `json:"export,omitempty"`
	// Connection and Peer name the client that it is about.
	Connection uint64 `json:"connection,omitempty"`
	Peer       string `json:"peer,omitempty"`
	By         string `json:"by,omitempty"` // the user who caused it
	Text       string `json:"text,omitempty"`
	// Missed is how many events before this one were not read in time.
	Missed uint64 `json:"missed,omitempty"`
}

// Events hands events to listeners. nil has no listeners.
type Events struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
}

// listener is a client that listens.
type listener struct {
	role   role
	events chan Event
	missed uint64
}

// NewEvents makes the place where events are told.
func NewEvents() *Events { return &Events{listeners: map[*listener]struct{}{}} }

// Tell hands an event to all listeners. It never waits.
func (e *Events) Tell(event Event) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.listeners) == 0 {
		return
	}
	event.Time = time.Now()
	for l := range e.listeners {
		event.Missed = l.missed
		select {
		case l.events <- event:
			l.missed = 0
		default:
			l.missed++
		}
	}
}

// listen adds a listener; nil: there are as many as there may be.
func (e *Events) listen(as role) *listener {
	e.mu.Lock()
	defer e.mu.Unlock()
	viewing := 0
	for l := range e.listeners {
		if l.role != admin {
			viewing++
		}
	}
	if len(e.listeners) == maxListeners || as != admin && viewing == maxViewing {
		return nil
	}
	l := &listener{role: as, events: make(chan Event, maxUnread)}
	e.listeners[l] = struct{}{}
	return l
}

// forget removes a listener.
func (e *Events) forget(l *listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.listeners, l)
}

// late returns how many events a listener has missed that no event has told it of.
func (e *Events) late(l *listener) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := l.missed
	l.missed = 0
	return n
}

// stream writes events until the client leaves or the server ends.
func (q *call) stream() (any, error) {
	events := q.server.events
	l := events.listen(clientOf(q.request).role())
	if l == nil {
		return nil, Unavailable("as many clients listen as may; try again when another has left")
	}
	defer events.forget(l)
	q.writer.Header().Set("Content-Type", "application/x-ndjson")
	q.writer.Header().Set("Cache-Control", "no-store")
	lines := json.NewEncoder(q.writer)
	write := func(event Event) bool {
		_ = q.control.SetWriteDeadline(time.Now().Add(min(eventTime, q.server.times.answer)))
		return lines.Encode(event) == nil
	}
	on := write(Event{Time: time.Now(), Event: "listening"})
	for on {
		if len(l.events) == 0 {
			if n := events.late(l); n > 0 {
				on = write(Event{Time: time.Now(), Event: "missed", Missed: n})
			}
			if !on || q.control.Flush() != nil {
				break
			}
		}
		select {
		case event := <-l.events:
			on = write(event)
		case <-q.request.Context().Done():
			on = false
			// the end is written, however long ago the last event was
			_ = q.control.SetWriteDeadline(time.Now().Add(farewell))
		}
	}
	return nil, nil
}
