// The engine's reports in the log: sessions that begin and end, disks that fail, clients that are
// cut.
//
// Invariant: neither clients nor disks can fill the log. One kind of trouble with one export takes
// one line in ten seconds, which says how many were left out; sessions take some tens of lines a
// second at most. The counters (serve_debug.go) have what was left out.

package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine"
	"ringnbd/proto"
)

const (
	// troubleEvery is the time between two lines about the same kind of trouble.
	troubleEvery = 10 * time.Second
	// maxTroubles is how many kinds (export, errno) are kept apart; of further kinds only the
	// number is logged.
	maxTroubles = 1024
	// maxSessionsAtOnce sessions are logged at once, and one more each sessionEvery: a client that
	// connects all the time is not logged every time.
	maxSessionsAtOnce = 200
	sessionEvery      = 50 * time.Millisecond
)

// journal logs what happens while the server runs. Goroutines of the gate and of the engine call
// it.
type journal struct {
	log    *slog.Logger
	events *control.Events

	mu       sync.Mutex
	exports  map[engine.ID]exportName
	after    func(c *engine.Client)     // is told of every client that has left; must not block
	clients  map[*engine.Client]session // of the connections that are served
	troubles map[trouble]*reported
	begun    uint64 // sessions so far
	unlogged int    // sessions that were left out since the last that was logged
	credit   int    // sessions that may be logged now
	since    time.Time
	lost     uint64 // incidents of which the engine has only the number
	closed   bool
}

// exportName is how log lines name an export.
type exportName struct {
	name, path string
	asked      engine.ID // for which it was made, if it is the overlay of one client; else 0
}

// session is a connection that is served.
type session struct {
	number uint64
	export string
}

// trouble is a kind of trouble, which is logged every troubleEvery at most.
type trouble struct {
	what   string
	export engine.ID // 0: it concerns no export
	errno  unix.Errno
}

// reported is the state of a kind of trouble that was logged not long ago.
type reported struct {
	more  int    // troubles of the kind since then
	again func() // logs the last of them
	timer *time.Timer
}

func newJournal(log *slog.Logger, events *control.Events) *journal {
	return &journal{log: log, events: events, exports: map[engine.ID]exportName{},
		clients: map[*engine.Client]session{}, troubles: map[trouble]*reported{},
		credit: maxSessionsAtOnce, since: time.Now()}
}

// know records how log lines name an export.
func (j *journal) know(id engine.ID, name exportName) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.exports[id] = name
}

// forget removes the name of an export that is not served any more.
func (j *journal) forget(id engine.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.exports, id)
}

// nameOf returns the name of an export, which may have been removed meanwhile.
func (j *journal) nameOf(id engine.ID) exportName {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.exports[id]
}

// connections returns how many clients an export has.
func (j *journal) connections(id engine.ID) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for c := range j.clients {
		if c.Export == id || j.exports[c.Export].asked == id {
			n++
		}
	}
	return n
}

// find returns the client of a session.
func (j *journal) find(number uint64) (*engine.Client, session) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for c, s := range j.clients {
		if s.number == number {
			return c, s
		}
	}
	return nil, session{}
}

// sessions returns the connections that are served, in the order in which they began, with what
// they have done.
func (j *journal) sessions(traffic []engine.ClientTraffic) (list []control.Connection) {
	done := make(map[*engine.Client]*engine.Traffic, len(traffic))
	for i := range traffic {
		done[traffic[i].Client] = &traffic[i].Traffic
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	list = make([]control.Connection, 0, len(j.clients))
	for c, s := range j.clients {
		one := control.Connection{ID: s.number, Peer: c.Peer, Export: s.export, Since: c.Began}
		if t := done[c]; t != nil {
			one.Requests, one.Errors = t.Requests(), t.Errors
			one.BytesRead, one.BytesWritten = t.BytesRead, t.BytesWrite
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b control.Connection) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// sessionBegins logs that a client was accepted, and returns what identifies the client for the
// engine. A session that is left out of the log has no number.
func (j *journal) sessionBegins(export engine.ID, agreed proto.Session,
	peer string) *engine.Client {
	c := &engine.Client{Peer: peer, Export: export, Began: time.Now()}
	j.mu.Lock()
	j.begun++
	s := session{j.begun, j.exports[export].name}
	j.clients[c] = s
	if earned := int(c.Began.Sub(j.since) / sessionEvery); earned > 0 {
		j.credit = min(j.credit+earned, maxSessionsAtOnce)
		j.since = c.Began
	}
	unlogged := j.unlogged
	if j.credit > 0 {
		j.credit--
		j.unlogged, c.Number = 0, j.begun
	} else {
		j.unlogged++
	}
	j.mu.Unlock()
	j.events.Tell(control.Event{Event: "connection-began", Export: s.export, Connection: s.number,
		Peer: peer})
	if c.Number == 0 {
		return c
	}
	about := []any{"session", c.Number, "peer", peer, "export", s.export, "replies",
		framingNames[agreed.Framing]}
	if unlogged > 0 {
		about = append(about, "left_out", unlogged)
	}
	j.log.Info("session begins", about...)
	return c
}

var framingNames = map[proto.Framing]string{proto.Simple: "simple", proto.Structured: "structured",
	proto.Extended: "extended"}

// sessionRefused logs that the engine did not adopt the client of sessionBegins.
func (j *journal) sessionRefused(c *engine.Client, err error) {
	s := j.leave(c, err.Error())
	if c.Number != 0 {
		j.log.Info("session ends", "session", c.Number, "peer", c.Peer, "export", s.export,
			"reason", err.Error())
	}
}

// leave takes a client from those that are served.
func (j *journal) leave(c *engine.Client, why string) session {
	j.mu.Lock()
	s := j.clients[c]
	delete(j.clients, c)
	after := j.after
	j.mu.Unlock()
	if after != nil {
		after(c)
	}
	j.events.Tell(control.Event{Event: "connection-ended", Export: s.export, Connection: s.number,
		Peer: c.Peer, Text: why})
	return s
}

// cuts are the ends of sessions that the client has not chosen, as log lines.
var cuts = map[engine.CloseReason]string{
	engine.CloseStalled: "a client was cut: it held memory that others waited for, and neither " +
		"sent nor took anything",
	engine.CloseMagic: "a client was cut: what it sent is not the NBD protocol",
	engine.CloseOversize: "a client was cut: it sent a payload that is longer than anything it " +
		"may send",
	engine.CloseForced: "a client was cut: the shutdown timeout ended",
}

// Ended logs the end of a session, by the client or by the engine.
func (j *journal) Ended(c *engine.Client) {
	s := j.leave(c, c.Why.String())
	about := []any{"session", c.Number, "peer", c.Peer, "export", s.export,
		"reason", c.Why.String(),
		"requests", c.Traffic.Requests(), "bytes_read", c.Traffic.BytesRead, "bytes_written",
		c.Traffic.BytesWrite, "errors", c.Traffic.Errors,
		"duration", time.Since(c.Began).Round(time.Millisecond)}
	if text, cut := cuts[c.Why]; cut {
		j.trouble(slog.LevelWarn, trouble{text, c.Export, 0}, about)
	} else if c.Number != 0 {
		j.log.Info("session ends", about...)
	}
}

// incidentTexts are the log lines of incidents. Each is a kind of trouble.
var incidentTexts = map[engine.IncidentKind]string{
	engine.DiskFailed: "the disk failed a request",
	engine.DiskEnded:  "the file ends before the export does: it was truncated while it is served",
	engine.FlushFailed: "a flush failed: data of answered writes may be lost; every further " +
		"flush of this export fails until the export is removed and added again, because the " +
		"kernel reports a loss only once",
	engine.FlushRefused: "a flush was refused, because an earlier flush of this export has " +
		"failed; repair the disk, then remove the export and add it again, or start the server " +
		"again",
	engine.MemoryRefused: "the kernel registers no more memory with io_uring, and " +
		unregisteredCost + ": other programs of the same user have used up the limit on locked " +
		"memory (ulimit -l), or memory is short",
	engine.LookupFailed: "block status could not be looked up; the client was told that all of " +
		"the range is data",
}

// Incident logs an event that the client also sees, as an error or as a delay.
func (j *journal) Incident(i engine.Incident) {
	if i.Kind == engine.MemoryRefused {
		j.trouble(slog.LevelWarn, trouble{incidentTexts[i.Kind], 0, 0}, nil)
		return
	}
	e := j.nameOf(i.Export)
	about := []any{"export", e.name, "path", e.path}
	if !i.Own {
		about = append(about, "command", commandName(int(i.Command)), "offset", i.Offset,
			"length", i.Length)
	}
	if i.Leaf != nil {
		about = append(about, "disk", i.Leaf.Name)
	}
	if i.Errno != 0 {
		errno := unix.Errno(i.Errno)
		about = append(about, "errno", unix.ErrnoName(errno), "error", errno.Error())
	}
	if i.Client != nil {
		about = append(about, "peer", i.Client.Peer)
		if i.Client.Number != 0 {
			about = append(about, "session", i.Client.Number)
		}
	}
	level := slog.LevelWarn
	if i.Kind == engine.FlushFailed {
		level = slog.LevelError
	}
	j.trouble(level, trouble{incidentTexts[i.Kind], i.Export, unix.Errno(i.Errno)}, about)
}

// Lost logs that the engine had more incidents than it could report.
func (j *journal) Lost(incidents uint64) {
	j.mu.Lock()
	j.lost += incidents
	lost := j.lost
	j.mu.Unlock()
	j.trouble(slog.LevelWarn,
		trouble{"requests failed faster than they could be logged", 0, 0},
		[]any{"requests_so_far", lost})
}

// trouble logs the first trouble of a kind at once, and the last of those that follow when
// troubleEvery is over.
func (j *journal) trouble(level slog.Level, kind trouble, about []any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.troubles[kind]
	if t == nil && len(j.troubles) >= maxTroubles && !j.closed {
		kind = trouble{"more kinds of trouble than are kept apart", 0, 0}
		t = j.troubles[kind]
	}
	if t == nil {
		j.write(level, kind, about, 0)
		if j.closed {
			return
		}
		t = &reported{}
		t.timer = time.AfterFunc(troubleEvery, func() { j.expire(kind) })
		j.troubles[kind] = t
		return
	}
	t.more++
	t.again = func() { j.write(level, kind, about, t.more-1) }
}

// write writes a line, and tells those who listen. It never waits for a reader. j.mu is held.
func (j *journal) write(level slog.Level, kind trouble, about []any, leftOut int) {
	if leftOut > 0 {
		about = append(about, "left_out", leftOut)
	}
	j.log.Log(context.Background(), level, kind.what, about...)
	j.events.Tell(control.Event{Event: "trouble", Export: j.exports[kind.export].name,
		Text: kind.what})
}

// expire ends the time in which a kind of trouble is not logged again, and logs the last of those
// that came meanwhile.
func (j *journal) expire(kind trouble) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.troubles[kind]
	if t == nil {
		return
	}
	if t.again == nil {
		delete(j.troubles, kind)
		return
	}
	t.again()
	t.more, t.again = 0, nil
	t.timer.Reset(troubleEvery)
}

// close logs the troubles that were held back. Later troubles are logged at once.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	for _, t := range j.troubles {
		t.timer.Stop()
		if t.again != nil {
			t.again()
		}
	}
	clear(j.troubles)
}
