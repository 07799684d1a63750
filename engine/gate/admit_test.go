// A table of exports that changes while clients negotiate, what is prepared for a client and given
// back, and listeners that come and go.

package gate

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ringnbd/proto"
)

// tables is a server's exports that change: the catalog of now, and IDs that have gone.
type tables struct {
	t    *testing.T
	now  atomic.Pointer[proto.Exports]
	gone sync.Map
}

func (x *tables) set(list ...proto.Export) {
	x.t.Helper()
	c, err := proto.NewExports(list, 0)
	if err != nil {
		x.t.Fatal(err)
	}
	x.now.Store(c)
}

// use makes a gate go by the tables.
func (x *tables) use(c *Config) {
	c.Catalog = func() proto.Catalog { return x.now.Load() }
	c.Gone = func(id uint64) bool { _, gone := x.gone.Load(id); return gone }
}

func export(id uint64, name string, size uint64) proto.Export {
	return proto.Export{ID: id, Name: name, Facts: proto.Facts{Size: size,
		Flags: proto.FlagHasFlags}}
}

func newTables(t *testing.T) *tables {
	x := &tables{t: t}
	x.set(export(1, "disk", 1<<20), export(2, "other", 2<<20))
	return x
}

// names is what LIST shows.
func (c *caller) names() (list []string) {
	c.t.Helper()
	c.send(proto.AppendOption(nil, proto.OptList, ""))
	for {
		r, err := proto.ParseOptionReply(c.read(proto.OptionReplySize), proto.OptList)
		if err != nil {
			c.t.Fatal(err)
		}
		data := c.read(int(r.Length))
		if r.Final() {
			return list
		}
		name, _, err := proto.ParseServer(data)
		if err != nil {
			c.t.Fatal(err)
		}
		list = append(list, name)
	}
}

// size sends GO and gives the size that the answer says, if it is granted.
func (c *caller) size(name string) uint64 {
	c.t.Helper()
	c.send(proto.AppendInfo(nil, proto.OptGo, name))
	var e proto.Export
	for {
		r, err := proto.ParseOptionReply(c.read(proto.OptionReplySize), proto.OptGo)
		if err != nil {
			c.t.Fatal(err)
		}
		data := c.read(int(r.Length))
		switch {
		case r.Type == ack:
			return e.Size
		case r.Final():
			c.t.Fatalf("GO %s: %#x %s", name, r.Type, data)
		default:
			if err := proto.ParseInfo(data, &e); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// The place of "disk" has another export before a client that began earlier chooses it: the client
// gets the export that it was shown, by every way in.
func TestHandshakeThatSpansAChangeOfTheTable(t *testing.T) {
	x := newTables(t)
	s := serve(t, "localhost:0", x.use)
	first, second := s.hello(t), s.hello(t)
	if got := strings.Join(first.names(), " "); got != "disk other" {
		t.Fatal(got)
	}
	second.names()
	x.set(export(7, "intruder", 7<<20), export(1, "disk", 1<<20), export(2, "new name", 2<<20))
	if got := strings.Join(first.names(), " "); got != "disk other" {
		t.Errorf("LIST of a conversation changes: %s", got)
	}
	if size := first.size("disk"); size != 1<<20 {
		t.Errorf("%d bytes", size)
	}
	s.adopted(t)
	second.send(proto.AppendOption(nil, proto.OptExportName, "other"))
	s.adopted(t)
	late := s.hello(t)
	if got := strings.Join(late.names(), " "); got != "intruder disk new name" {
		t.Error(got)
	}
	if kind, _ := late.go_("other"); kind != proto.RepErrUnknown {
		t.Errorf("a name that is not there any more: %#x", kind)
	}
	if size := late.size("intruder"); size != 7<<20 {
		t.Errorf("%d bytes", size)
	}
	s.adopted(t)
	if e := s.engine.export; e[0] != 1 || e[1] != 2 || e[2] != 7 {
		t.Errorf("adopted under %v", e)
	}
}

// The same name in the same place, but another export: what the client was shown is not there any
// more, so it is not served, and no place is lost.
func TestExportThatGoesDuringTheHandshake(t *testing.T) {
	x := newTables(t)
	s := serve(t, "localhost:0", func(c *Config) { x.use(c); c.MaxConnections = 1 })
	newstyle, old := s.hello(t), s.hello(t)
	newstyle.names()
	old.names()
	x.gone.Store(uint64(1), true)
	x.set(export(3, "disk", 3<<20), export(2, "other", 2<<20))
	for range 3 {
		if kind, text := newstyle.go_("disk"); kind != proto.RepErrUnknown ||
			!strings.Contains(text, "removed") {
			t.Fatalf("%#x %s", kind, text)
		}
	}
	old.send(proto.AppendOption(nil, proto.OptExportName, "disk"))
	old.closed()
	s.wait(t, reason(proto.CloseRefused), 1)
	if size := newstyle.size("other"); size != 2<<20 { // the conversation goes on
		t.Errorf("%d bytes", size)
	}
	s.adopted(t)
	s.wait(t, reasonServed, 1)
	s.engine.drop()
	if size := s.hello(t).size("disk"); size != 3<<20 {
		t.Errorf("%d bytes", size)
	}
	s.adopted(t)
	if e := s.engine.export; e[0] != 2 || e[1] != 3 {
		t.Errorf("adopted under %v", e)
	}
}

// In the moment between the answer and the engine the connection can only be closed.
func TestExportThatGoesAfterTheAnswer(t *testing.T) {
	x := newTables(t)
	s := serve(t, "localhost:0", func(c *Config) {
		x.use(c)
		c.Adopt = func(int, proto.Export, proto.Session, string) error {
			x.gone.Store(uint64(1), true)
			return errors.New("gone")
		}
	})
	c := s.hello(t)
	if kind, text := c.go_("disk"); kind != ack {
		t.Fatal(text)
	}
	c.closed()
	s.wait(t, reasonGone, 1)
	if log := s.log.String(); log != "" {
		t.Errorf("whoever removes an export knows: %s", log)
	}
}

func TestOldstyleDoorFollowsTheName(t *testing.T) {
	x := newTables(t)
	s := serve(t, "localhost:0", x.use)
	a := s.old(t, "localhost:0", "disk")
	if e := call(t, a).banner(); e.Size != 1<<20 {
		t.Errorf("%d bytes", e.Size)
	}
	s.adopted(t)
	x.gone.Store(uint64(1), true)
	call(t, a).closed() // still in the catalog
	s.wait(t, reason(proto.CloseRefused), 1)
	x.set(export(2, "other", 2<<20))
	call(t, a).closed()
	s.wait(t, reason(proto.CloseExportUnknown), 1)
	x.set(export(2, "other", 2<<20), export(4, "disk", 4<<20))
	if e := call(t, a).banner(); e.Size != 4<<20 {
		t.Errorf("%d bytes", e.Size)
	}
	s.adopted(t)
	if e := s.engine.export; e[0] != 1 || e[1] != 4 {
		t.Errorf("adopted under %v", e)
	}
}

// workshop prepares exports for clients, and counts what exists.
type workshop struct {
	made, undone atomic.Int64
	fail         error
	block        bool          // until the context ends
	begun        chan struct{} // a client waits
}

func (w *workshop) prepare(ctx context.Context, e proto.Export, peer string) (uint64, func(),
	error) {
	if e.Name != "disk" {
		return e.ID, nil, nil
	}
	if w.block {
		w.begun <- struct{}{}
		<-ctx.Done()
		return 0, nil, ctx.Err()
	}
	if w.fail != nil {
		return 0, nil, w.fail
	}
	return 100 + uint64(w.made.Add(1)), func() { w.undone.Add(1) }, nil
}

func TestPreparedForOneClient(t *testing.T) {
	w := &workshop{}
	s := serve(t, "localhost:0", func(c *Config) { c.Prepare = w.prepare; c.MaxConnections = 3 })
	a := s.old(t, "localhost:0", "disk")
	c := s.hello(t)
	if kind, text := c.go_("disk"); kind != ack {
		t.Fatal(text)
	}
	s.adopted(t)
	call(t, a).banner()
	s.adopted(t)
	w.fail = errors.New("no space left for it")
	c = s.hello(t)
	for range 3 {
		if kind, text := c.go_("disk"); kind != proto.RepErrUnknown ||
			!strings.Contains(text, "cannot be opened") || strings.Contains(text, "space") {
			t.Fatalf("%#x %s", kind, text)
		}
	}
	call(t, a).closed()
	s.wait(t, reason(proto.CloseRefused), 1)
	if kind, text := c.go_("other"); kind != ack {
		t.Fatal(text) // the third place was given back each time
	}
	s.adopted(t)
	s.wait(t, reasonServed, 3)
	if e := s.engine.export; e[0] != 101 || e[1] != 102 || e[2] != 2 {
		t.Errorf("adopted under %v", e)
	}
	if w.undone.Load() != 0 {
		t.Errorf("%d undone of clients that are served", w.undone.Load())
	}
	if log := s.log.String(); strings.Count(log, "no space left") != 1 {
		t.Errorf("log: %s", log)
	}
}

func TestPreparedForAClientThatIsNotServed(t *testing.T) {
	w := &workshop{}
	s := serve(t, "localhost:0", func(c *Config) {
		c.Prepare, c.HandshakeTimeout = w.prepare, 300*ms
	})
	s.engine.refuse = errors.New("no loop takes it")
	c := s.hello(t)
	c.go_("disk")
	c.closed()
	s.wait(t, reasonRejected, 1)
	l, _ := listen(t, "localhost:0")
	p := &pipes{l, make(chan net.Conn)}
	done := sync.OnceFunc(func() { close(p.came) })
	defer done()
	ended := make(chan error, 1)
	go func() { ended <- s.ServeOldstyle(p, "disk") }()
	ours, theirs := net.Pipe() // which never reads its banner
	defer theirs.Close()
	p.came <- ours
	s.wait(t, reasonTimeout, 1)
	done()
	s.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if w.made.Load() != 2 || w.undone.Load() != 2 || s.reserved != 0 {
		t.Errorf("%d made, %d undone, %d reserved", w.made.Load(), w.undone.Load(), s.reserved)
	}
}

// What hangs for one client ends with its time, and holds up nobody meanwhile.
func TestPrepareThatHangs(t *testing.T) {
	const limit = time.Second
	w := &workshop{block: true, begun: make(chan struct{}, 100)}
	s := serve(t, "localhost:0", func(c *Config) {
		c.Prepare, c.HandshakeTimeout = w.prepare, limit
	})
	began := time.Now()
	slow := s.hello(t)
	slow.send(proto.AppendInfo(nil, proto.OptGo, "disk"))
	<-w.begun
	if kind, text := s.hello(t).go_("other"); kind != ack {
		t.Fatal(text)
	}
	s.adopted(t)
	slow.closed()
	if took := time.Since(began); took < limit || took > limit+20*time.Second {
		t.Errorf("closed after %v", took)
	}
	s.wait(t, reasonTimeout, 1)
	last := s.hello(t)
	last.send(proto.AppendInfo(nil, proto.OptGo, "disk"))
	<-w.begun
	go s.Close()
	if r, err := proto.ParseOptionReply(last.read(proto.OptionReplySize),
		proto.OptGo); err != nil || r.Type != proto.RepErrShutdown {
		t.Errorf("%+v %v", r, err)
	}
}

// A gate that is full of clients that wait for what is prepared makes room as for others.
func TestPrepareGivesWayInACrowd(t *testing.T) {
	w := &workshop{block: true, begun: make(chan struct{}, 100)}
	s := serve(t, "localhost:0", func(c *Config) { c.Prepare, c.MaxConnections = w.prepare, 2 })
	var waiting []*caller
	for range 2 {
		c := s.hello(t)
		c.send(proto.AppendInfo(nil, proto.OptGo, "disk"))
		<-w.begun
		waiting = append(waiting, c)
	}
	for range slack {
		s.dial(t)
	}
	time.Sleep(crowdedTimeout)
	if s.hello(t).list() != ack {
		t.Error("no room")
	}
	waiting[0].closed()
	s.wait(t, reasonTimeout, 1)
}

// A listener is closed by its owner: it ends alone, and what came through it stays.
func TestListenersComeAndGo(t *testing.T) {
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, "localhost:0", nil)
		for range 3 {
			l, _ := listen(t, spec)
			ended := make(chan error, 1)
			go func() { ended <- s.Serve(l) }()
			door := &served{Gate: s.Gate, engine: s.engine, addr: l.Addr()}
			in, half := door.hello(t), door.hello(t)
			if kind, text := in.go_("disk"); kind != ack {
				t.Fatal(text)
			}
			fd := s.adopted(t)
			half.list()
			l.Close()
			if err := <-ended; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if c, err := net.Dial(l.Addr().Network(), l.Addr().String()); err == nil {
				c.Close()
				t.Error("still listening")
			}
			echoes(t, in, fd)
			if kind, text := half.go_("disk"); kind != ack {
				t.Fatal(text)
			}
			echoes(t, half, s.adopted(t))
			if s.hello(t).list() != ack {
				t.Error("another listener ended with it")
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.listeners) != 1 {
			t.Errorf("%d listeners", len(s.listeners))
		}
	})
}
