// What of the engine goes into the log: sessions that begin and end, disks that fail, clients that
// are cut.
//
// Invariant: nobody can fill the log. Of one kind of trouble with one export there is one line in
// ten seconds, which says how many were left out; of sessions there are some tens of lines a second
// at most. What is left out is counted (serve_debug.go).

package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/proto"
)

const (
	// troubleEvery is how long trouble of a kind that was told is not told again.
	troubleEvery = 10 * time.Second
	// troublesMost is how many kinds (export, errno) are kept apart; beyond that only their number
	// is told.
	troublesMost = 1024
	// sessionsAtOnce are told, and sessionEvery another: a client that comes and goes all the time
	// is not told in full.
	sessionsAtOnce = 200
	sessionEvery   = 50 * time.Millisecond
)

// journal writes the log of what happens while the server runs. It is told by goroutines of the
// gate and of the engine.
type journal struct {
	log     *slog.Logger
	exports []exportName

	mu       sync.Mutex
	troubles map[trouble]*telling
	sessions uint64 // so far
	untold   int    // sessions that were not told since the last that was
	credit   int    // sessions that may be told
	since    time.Time
	lost     uint64 // incidents of which only the number is known
	closed   bool
}

// exportName is what people know an export by.
type exportName struct{ name, path string }

// trouble is one kind of it: what is told once in a while.
type trouble struct {
	what   string
	export int
	errno  unix.Errno
}

// telling is the state of a trouble that was told not long ago.
type telling struct {
	more  int    // since then
	again func() // tells the last of them
	timer *time.Timer
}

func newJournal(log *slog.Logger, exports []exportName) *journal {
	return &journal{log: log, exports: exports, troubles: map[trouble]*telling{},
		credit: sessionsAtOnce, since: time.Now()}
}

// begins tells that a client is let in, and gives what the engine is to know it by. One that is not
// told has no number.
func (j *journal) begins(export int, session proto.Session, peer string) *engine.Client {
	c := &engine.Client{Peer: peer, Export: export, Began: time.Now()}
	j.mu.Lock()
	j.sessions++
	if earned := int(c.Began.Sub(j.since) / sessionEvery); earned > 0 {
		j.credit = min(j.credit+earned, sessionsAtOnce)
		j.since = c.Began
	}
	untold := j.untold
	if j.credit > 0 {
		j.credit--
		j.untold, c.Number = 0, j.sessions
	} else {
		j.untold++
	}
	j.mu.Unlock()
	if c.Number == 0 {
		return c
	}
	about := []any{"session", c.Number, "peer", peer, "export", j.exports[export].name, "replies",
		framingNames[session.Framing]}
	if untold > 0 {
		about = append(about, "left_out", untold)
	}
	j.log.Info("session begins", about...)
	return c
}

var framingNames = map[proto.Framing]string{proto.Simple: "simple", proto.Structured: "structured",
	proto.Extended: "extended"}

// refused tells that a client which was told to begin did not.
func (j *journal) refused(c *engine.Client, err error) {
	if c.Number != 0 {
		j.log.Info("session ends", "session", c.Number, "peer", c.Peer, "export",
			j.exports[c.Export].name, "reason", err.Error())
	}
}

// cuts are the ends that the client has not chosen, and why they came.
var cuts = map[engine.CloseReason]string{
	engine.CloseStalled: "a client was cut: it held memory that others waited for, and neither " +
		"sent nor took anything",
	engine.CloseMagic: "a client was cut: what it sent is not the NBD protocol",
	engine.CloseOversize: "a client was cut: it sent a payload that is longer than anything it " +
		"may send",
	engine.CloseForced: "a client was cut: the shutdown timeout ended",
}

// Ended tells that a client has left, or was made to.
func (j *journal) Ended(c *engine.Client) {
	about := []any{"session", c.Number, "peer", c.Peer, "export", j.exports[c.Export].name,
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

// incidents are their texts. Each is a kind of trouble.
var incidentTexts = map[engine.IncidentKind]string{
	engine.DiskFailed: "the disk failed a request",
	engine.DiskEnded: "the file ends before the export does: somebody has truncated it while " +
		"it is served",
	engine.FlushFailed: "a flush failed: data that clients were told is written may be lost; " +
		"every further flush of this export fails, until the server is" +
		" started again, because the kernel reports such a loss only once",
	engine.FlushRefused: "a flush was refused, because an earlier flush of this export has " +
		"failed; repair the disk, then start the server again",
	engine.MemoryRefused: "the kernel registers no more memory with io_uring, and " +
		unregisteredCost +
		": other programs of the same user have used up the limit on locked memory" +
		" (ulimit -l), or memory is short",
	engine.LookupFailed: "where the export has data could not be found out; the client was told " +
		"that all of it is data",
}

// Incident tells of something that the client was told as well, as an error, or that costs it time.
func (j *journal) Incident(i engine.Incident) {
	if i.Kind == engine.MemoryRefused {
		j.trouble(slog.LevelWarn, trouble{incidentTexts[i.Kind], -1, 0}, nil)
		return
	}
	e := j.exports[i.Export]
	about := []any{"export", e.name, "path", e.path, "command", commandName(int(i.Command)),
		"offset", i.Offset, "length", i.Length}
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
	j.trouble(level, trouble{incidentTexts[i.Kind], int(i.Export), unix.Errno(i.Errno)}, about)
}

// Lost tells that there was more than anybody wants to know.
func (j *journal) Lost(incidents uint64) {
	j.mu.Lock()
	j.lost += incidents
	lost := j.lost
	j.mu.Unlock()
	j.trouble(slog.LevelWarn,
		trouble{"requests failed faster than they could be told apart", -1, 0},
		[]any{"requests_so_far", lost})
}

// trouble tells the first of a kind at once, and the last of those that follow when troubleEvery is
// over.
func (j *journal) trouble(level slog.Level, kind trouble, about []any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.troubles[kind]
	if t == nil && len(j.troubles) >= troublesMost && !j.closed {
		kind = trouble{"more kinds of trouble than are told apart", -1, 0}
		t = j.troubles[kind]
	}
	if t == nil {
		j.say(level, kind.what, about, 0)
		if j.closed {
			return
		}
		t = &telling{}
		t.timer = time.AfterFunc(troubleEvery, func() { j.over(kind) })
		j.troubles[kind] = t
		return
	}
	t.more++
	t.again = func() { j.say(level, kind.what, about, t.more-1) }
}

// say writes a line. It does not wait for anybody.
func (j *journal) say(level slog.Level, text string, about []any, leftOut int) {
	if leftOut > 0 {
		about = append(about, "left_out", leftOut)
	}
	j.log.Log(context.Background(), level, text, about...)
}

// over ends the time in which a trouble is not told again.
func (j *journal) over(kind trouble) {
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

// close tells what was held back. What comes later is told at once.
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
