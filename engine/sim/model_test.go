// The checker must notice a disk that lies, and must not complain about a disk that does what the
// protocol leaves open.

package sim

import (
	"strings"
	"testing"

	"ringnbd/proto"
)

// bench is a model with a short way to make requests.
type bench struct {
	*World
	m *model
}

func newBench(t *testing.T) *bench {
	e := ExportPlan{Block: 512}
	e.Size = 16 << 10
	w := plainWorld(t, e)
	return &bench{w, w.models[0]}
}

func (b *bench) write(conn, order uint32, off, n uint64) *request {
	b.ids++
	r := &request{Request: proto.Request{Command: proto.CmdWrite, Offset: off, Length: n},
		id: b.ids, conn: conn, order: order}
	r.sent = b.note("sent", "")
	b.requests = append(b.requests, r)
	b.m.mayHappen(r)
	return r
}

func (b *bench) ok(r *request) *request {
	r.answered = b.note("answer", "")
	b.m.succeeded(r)
	return r
}

// put writes what a request writes, or its first n bytes, to the disk.
func (b *bench) put(r *request, from, to uint64) {
	data := make([]byte, r.Length)
	fill(data, r.id, r.lo())
	b.m.disk.put(r.lo()+from, data[from:to])
}

// read reads what the disk holds, in a request sent at tick since (0: now).
func (b *bench) read(since uint64) {
	r := &request{Request: proto.Request{Offset: 0, Length: b.m.size}, sent: since}
	if since == 0 {
		r.sent = b.note("sent", "")
	}
	r.answered = b.note("answer", "")
	b.m.checkRead(r, b.m.disk.cache)
}

// cases are lies of a disk, and oddities that are allowed.
var cases = []struct {
	name string
	want string // part of the complaint; "" = none
	run  func(b *bench)
}{
	{"an answered write is there", "", func(b *bench) {
		w := b.write(1, 1, 1000, 3000)
		b.put(w, 0, 3000)
		b.ok(w)
		b.read(0)
	}},
	{"an answered write that is not there", "a read saw", func(b *bench) {
		b.ok(b.write(1, 1, 1000, 3000))
		b.read(0)
	}},
	{"a write in flight, in some sectors", "", func(b *bench) {
		w := b.write(1, 1, 1000, 3000)
		b.put(w, 536, 1048)
		b.read(0)
		b.put(w, 0, 3000)
		b.read(0)
	}},
	{"half a sector", "a read saw", func(b *bench) {
		w := b.write(1, 1, 1024, 2048)
		b.put(w, 0, 700)
		b.read(0)
	}},
	{"a write in flight that goes away again", "a read saw", func(b *bench) {
		w := b.write(1, 1, 1024, 1024)
		b.put(w, 512, 1024)
		b.read(0)
		b.m.disk.put(1536, b.m.disk.durable[1536:2048])
		b.read(0)
	}},
	{"an old read may see the old bytes", "", func(b *bench) {
		since := b.note("sent", "")
		b.clients = []*client{{inFlight: []*request{{Request: proto.Request{Command: proto.CmdRead},
			sent: since}}}}
		b.ok(b.write(1, 1, 1024, 1024))
		b.read(since)
	}},
	{"overlapping writes of one connection end in order", "", func(b *bench) {
		v, w := b.write(1, 1, 1024, 1024), b.write(1, 2, 1024, 1024)
		b.put(v, 0, 1024)
		b.put(w, 0, 1024)
		b.ok(w)
		b.ok(v)
		b.read(0)
	}},
	{"and not in the other", "a read saw", func(b *bench) {
		v, w := b.write(1, 1, 1024, 1024), b.write(1, 2, 1024, 1024)
		b.put(w, 0, 1024)
		b.put(v, 0, 1024)
		b.ok(v)
		b.ok(w)
		b.read(0)
	}},
	{"across connections either may be last", "", func(b *bench) {
		v, w := b.write(1, 1, 1024, 1024), b.write(2, 1, 1024, 1024)
		b.put(w, 0, 1024)
		b.put(v, 0, 1024)
		b.ok(v)
		b.ok(w)
		b.read(0)
	}},
	{"unless one was answered before the other was sent", "a read saw", func(b *bench) {
		v := b.ok(b.write(1, 1, 1024, 1024))
		w := b.write(2, 1, 1024, 1024)
		b.put(w, 0, 1024)
		b.put(v, 0, 1024)
		b.ok(w)
		b.read(0)
	}},
	{"neighbours of an unaligned write", "a read saw", func(b *bench) {
		w := b.write(1, 1, 1000, 100)
		b.put(w, 0, 100)
		b.m.disk.zero(1100, 1101, false)
		b.ok(w)
		b.read(0)
	}},
	{"TRIM may leave, or zero", "", func(b *bench) {
		r := b.write(1, 1, 1024, 2048)
		r.Command, r.zero = proto.CmdTrim, true
		b.m.disk.zero(1536, 2048, false)
		b.ok(r)
		b.read(0)
		b.m.disk.zero(2048, 2560, false)
		b.read(0)
	}},
	{"what was not flushed may go in a crash", "", func(b *bench) {
		w := b.write(1, 1, 1024, 1024)
		b.put(w, 0, 1024)
		b.ok(w)
		for range 10 {
			b.checkCrash(b.m)
		}
	}},
	{"what was flushed may not", "after a crash", func(b *bench) {
		w := b.write(1, 1, 1024, 1024)
		b.put(w, 0, 1024)
		b.ok(w)
		b.m.flushSucceeded(b.note("flush sent", ""))
		b.m.compare(b.m.disk.durable, true)
	}},
	{"a write answered after the flush was sent may", "", func(b *bench) {
		w := b.write(1, 1, 1024, 1024)
		b.put(w, 0, 1024)
		sent := b.note("flush sent", "")
		b.ok(w)
		b.m.flushSucceeded(sent)
		b.m.compare(b.m.disk.durable, true)
	}},
	{"FUA is durable when answered", "after a crash", func(b *bench) {
		w := b.write(1, 1, 1024, 1024)
		w.Flags = proto.CmdFlagFUA
		b.put(w, 0, 1024)
		b.ok(w)
		b.m.compare(b.m.disk.durable, true)
	}},
	{"a crash does not bring back what was durably overwritten", "after a crash", func(b *bench) {
		v := b.write(1, 1, 1024, 1024)
		b.put(v, 0, 1024)
		b.m.disk.persist(0, b.m.size)
		b.ok(v)
		w := b.write(1, 2, 1024, 1024)
		w.Flags = proto.CmdFlagFUA
		b.put(w, 0, 1024)
		b.ok(w)
		b.m.compare(b.m.disk.durable, true)
	}},
	{"a failed fsync forgets", "after a crash", func(b *bench) {
		w := b.write(1, 1, 0, 8192)
		b.put(w, 0, 8192)
		b.ok(w)
		b.m.disk.failFlush(b.rng)
		b.m.disk.flush(b.m.disk.epoch) // succeeds, and writes nothing
		b.m.flushSucceeded(b.note("flush sent", ""))
		b.checkCrash(b.m)
	}},
}

func TestChecker(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			why := caught(func() { c.run(b) })
			if c.want == "" && why != "" || !strings.Contains(why, c.want) {
				t.Errorf("found %q, want %q", why, c.want)
			}
		})
	}
}
