// The strict client must notice a server that breaks the rules of chunks, and must not complain
// about one that does not.

package sim

import (
	"encoding/binary"
	"strings"
	"testing"

	"ringnbd/proto"
)

// talk is a client with one request sent, on a disk whose first half is data and whose second half
// is a hole.
type talk struct {
	w *World
	c *client
	r *request
}

func newTalk(t *testing.T, framing proto.Framing, a draft) *talk {
	e := ExportPlan{Block: 512, sparse: 128 << 10}
	e.Size, e.Flags = 256<<10, proto.FlagSendFlush
	e.Contexts = []ContextPlan{{Context: proto.Context{Name: "sim:disk"}},
		{Context: proto.Context{Name: "sim:a"}, unit: 4096}}
	w := plainWorld(t, e)
	c := &client{world: w, rng: w.rng, x: w.exports[0], told: e, model: w.models[0], conn: 1}
	c.habit.session = proto.Session{Framing: framing, Contexts: 3}
	c.sock = w.newSocket(c)
	a.Cookie, a.Extended = 77, framing == proto.Extended
	r := c.compose(a)
	r.begun, c.sent, c.unsent, c.out = w.note("begun", ""), uint64(len(c.out)), nil, nil
	c.requestSent(r)
	return &talk{w, c, r}
}

// hear lets the client receive bytes, a few at a time.
func (k *talk) hear(b []byte) {
	for len(b) > 0 {
		n := min(len(b), 7)
		k.c.sock.out.data, k.c.sock.out.arrived = append([]byte(nil), b[:n]...), n
		k.c.receive()
		b = b[n:]
	}
}

// hearAll lets the client receive pieces of an answer, and returns why it ended the run, or "".
func (k *talk) hearAll(pieces [][]byte) string {
	return caught(func() {
		for _, b := range pieces {
			k.hear(b)
		}
	})
}

// chunkOf returns a chunk for the request with cookie 77; an extended header repeats offset.
func chunkOf(framing proto.Framing, flags, kind uint16, offset uint64, payload ...any) []byte {
	var body []byte
	for _, p := range payload {
		switch p := p.(type) {
		case uint16:
			body = binary.BigEndian.AppendUint16(body, p)
		case uint32:
			body = binary.BigEndian.AppendUint32(body, p)
		case uint64:
			body = binary.BigEndian.AppendUint64(body, p)
		case []byte:
			body = append(body, p...)
		}
	}
	magic := uint32(magicChunk)
	if framing == proto.Extended {
		magic = magicChunkExt
	}
	b := binary.BigEndian.AppendUint32(nil, magic)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, 77)
	if framing == proto.Extended {
		b = binary.BigEndian.AppendUint64(b, offset)
		return append(binary.BigEndian.AppendUint64(b, uint64(len(body))), body...)
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
}

// onDisk returns the initial content of the disk.
func onDisk(off, n uint64) []byte {
	b := make([]byte, n)
	fill(b, 0, off)
	return b
}

const half = 128 << 10

// strictCase is an answer in chunks, and what the client says of it; "" if it is a good one.
type strictCase struct {
	name, want string
	flags      uint16 // of the request
	answer     [][]byte
}

// The READ that strictReads are answers to: 4 KiB of data, the rest zeroes.
const readOff, readLen = half - 4096, 128 << 10

func strictReads(f proto.Framing) []strictCase {
	const off, n = readOff, readLen
	data, rest := onDisk(off, 4096), uint32(n-4096)
	c := func(flags, kind uint16, payload ...any) []byte {
		return chunkOf(f, flags, kind, off, payload...)
	}
	head := c(0, chunkData, uint64(off), data)
	simple := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, magicSimple<<32),
		77)
	return []strictCase{
		{"good", "", 0, [][]byte{head, c(1, chunkHole, uint64(half), rest)}},
		{"good, all data", "", 0,
			[][]byte{head, c(1, chunkData, uint64(half), make([]byte, rest))}},
		{"error", "no fault was injected", 0,
			[][]byte{c(1, chunkError, uint32(5), uint16(1), []byte("x"))}},
		{"gap", "after 4096 bytes", 0,
			[][]byte{head, c(1, chunkHole, uint64(half+512), rest-512)}},
		{"overlap", "after 4096 bytes", 0,
			[][]byte{head, c(1, chunkHole, uint64(half-512), rest)}},
		{"too long", "after 4096 bytes", 0,
			[][]byte{head, c(1, chunkHole, uint64(half), rest+1)}},
		{"done too early", "bring 4096 bytes", 0, [][]byte{c(1, chunkData, uint64(off), data)}},
		{"after the end", "belongs to no request", 0,
			[][]byte{head, c(1, chunkHole, uint64(half), rest), c(1, chunkNone)}},
		{"hole over data", "wrong bytes", 0, [][]byte{c(1, chunkHole, uint64(off), uint32(n))}},
		{"empty hole", "a hole of 0 bytes", 0,
			[][]byte{c(0, chunkHole, uint64(off), uint32(0))}},
		{"short hole", "costs more", 0,
			[][]byte{head, c(0, chunkHole, uint64(half), uint32(512))}},
		{"empty data", "cannot be", 0, [][]byte{c(0, chunkData, uint64(off))}},
		{"data and an error", "cannot be", 0,
			[][]byte{head, c(1, chunkError, uint32(5), uint16(1), []byte("x"))}},
		{"nothing", "cannot be", 0, [][]byte{c(1, chunkNone)}},
		{"status", "cannot be", 0,
			[][]byte{c(1, chunkStatus, uint32(1), uint32(512), uint32(0))}},
		{"unknown flag", "cannot be", 0, [][]byte{c(2, chunkData, uint64(off), data)}},
		{"unknown type", "cannot be", 0, [][]byte{c(1, 9, uint64(off))}},
		{"unknown error", "was answered with error 4", 0,
			[][]byte{c(1, chunkError, uint32(4), uint16(1), []byte("x"))}},
		{"error that is none", "was answered with error 0", 0,
			[][]byte{c(1, chunkError, uint32(0), uint16(1), []byte("x"))}},
		{"error, not done", "cannot be", 0,
			[][]byte{c(0, chunkError, uint32(5), uint16(1), []byte("x"))}},
		{"error without text", "cannot be", 0,
			[][]byte{c(1, chunkError, uint32(5), uint16(0))}},
		{"error with half a text", "a text of 2 bytes", 0,
			[][]byte{c(1, chunkError, uint32(5), uint16(2), []byte("x"))}},
		{"error with a cut text", "a text of 1 bytes", 0,
			[][]byte{c(1, chunkError, uint32(5), uint16(1), []byte("é")[:1])}},
		{"split", "must not be split", proto.CmdFlagDF, [][]byte{head}},
		{"a simple reply", map[proto.Framing]string{proto.Structured: "got a simple reply",
			proto.Extended: "instead of a chunk"}[f], 0, [][]byte{simple, make([]byte, 16)}},
		{"rubbish", "instead of a chunk", 0, [][]byte{make([]byte, 32)}},
	}
}

func TestStrictReads(t *testing.T) {
	for _, f := range []proto.Framing{proto.Structured, proto.Extended} {
		for _, row := range strictReads(f) {
			k := newTalk(t, f,
				draft{Request: proto.Request{Command: proto.CmdRead, Offset: readOff,
					Length: readLen, Flags: row.flags}})
			why := k.hearAll(row.answer)
			if (row.want == "") != (why == "") || !strings.Contains(why, row.want) {
				t.Errorf("%s, framing %d: %q, want %q", row.name, f, why, row.want)
			}
			if row.want == "" && len(k.c.inFlight) != 0 {
				t.Errorf("%s, framing %d: still in flight", row.name, f)
			}
		}
	}
	k := newTalk(t, proto.Extended,
		draft{Request: proto.Request{Command: proto.CmdRead, Offset: readOff, Length: readLen}})
	if why := k.hearAll([][]byte{chunkOf(proto.Extended, 0, chunkData, 0, uint64(readOff),
		onDisk(readOff, 4096))}); !strings.Contains(why, "has offset 0") {
		t.Errorf("a wrong offset in the header: %q", why)
	}
}

// The BLOCK_STATUS that strictStatus are answers to: half of it data, half zeroes.
const statusOff, statusLen = half - 4096, 8192

// statusChunk is a chunk of block status about a context, with these lengths and flags.
func statusChunk(f proto.Framing, flags uint16, id uint32, extents ...[2]uint64) []byte {
	payload := []any{id}
	kind := uint16(chunkStatus)
	if f == proto.Extended {
		kind, payload = chunkStatusExt, append(payload, uint32(len(extents)))
	}
	for _, e := range extents {
		if f == proto.Extended {
			payload = append(payload, e[0], e[1])
		} else {
			payload = append(payload, uint32(e[0]), uint32(e[1]))
		}
	}
	return chunkOf(f, flags, kind, statusOff, payload...)
}

func strictStatus(f proto.Framing) []strictCase {
	p := &ContextPlan{Context: proto.Context{Name: "sim:a"}, unit: 4096}
	const off = statusOff
	v := [2]uint64{p.pattern(off), p.pattern(half)}
	type x = [2]uint64
	one, both := []x{{4096, 0}, {4096, 3}}, []x{{4096, v[0]}, {4096, v[1]}}
	if v[0] == v[1] {
		both = []x{{8192, v[0]}}
	}
	s := func(flags uint16, id uint32, extents ...x) []byte {
		return statusChunk(f, flags, id, extents...)
	}
	return []strictCase{
		{"good", "", 0, [][]byte{s(0, 1, one...), s(1, 2, both...)}},
		{"the other way round", "", 0, [][]byte{s(0, 2, both...), s(1, 1, x{8192, 0})}},
		{"one", "", proto.CmdFlagReqOne, [][]byte{s(0, 1, one[0]), s(1, 2, both[0])}},
		{"two for one", "where one was requested", proto.CmdFlagReqOne,
			[][]byte{s(0, 1, one...)}},
		{"one context missing", "was told about 0x1", 0, [][]byte{s(1, 1, one...)}},
		{"one context twice", "after 0x1 number 1 came", 0,
			[][]byte{s(0, 1, one...), s(1, 1, one...)}},
		{"another context", "number 3 came", 0, [][]byte{s(0, 3, one...)}},
		{"no context", "number 0 came", 0, [][]byte{s(0, 0, one...)}},
		{"data called zero", "zeroes were claimed", 0, [][]byte{s(0, 1, x{8192, 3})}},
		{"a status of its own", "status 0x4", 0, [][]byte{s(0, 1, x{4096, 4}, x{4096, 3})}},
		{"a wrong pattern", "sim:a: status", 0, [][]byte{s(0, 2, x{8192, 1})}},
		{"an empty extent", "is empty or leaves", 0,
			[][]byte{s(0, 1, x{4096, 0}, x{0, 1}, x{4096, 3})}},
		{"beyond the range", "is empty or leaves", 0,
			[][]byte{s(0, 1, x{4096, 0}, x{4097, 3})}},
		{"the same twice", "are the same", 0, [][]byte{s(0, 1, x{2048, 0}, x{2048, 0})}},
		{"only the beginning", "only 1 extents", 0, [][]byte{s(0, 1, x{2048, 0})}},
		{"no extents", "cannot be", 0, [][]byte{s(0, 1)}},
		{"nothing", "cannot be", 0, [][]byte{chunkOf(f, 1, chunkNone, off)}},
		{"an error", "an unknown status is that of data", 0,
			[][]byte{chunkOf(f, 1, chunkError, off, uint32(5), uint16(1), []byte("x"))}},
		{"the other form", "cannot be", 0,
			[][]byte{chunkOf(f, 1, [...]uint16{0, chunkStatusExt, chunkStatus}[f], off,
				uint32(1), uint32(1), uint64(4096), uint64(0))}},
	}
}

func TestStrictStatus(t *testing.T) {
	for _, f := range []proto.Framing{proto.Structured, proto.Extended} {
		for _, row := range strictStatus(f) {
			k := newTalk(t, f,
				draft{Request: proto.Request{Command: proto.CmdBlockStatus, Offset: statusOff,
					Length: statusLen, Flags: row.flags}})
			why := k.hearAll(row.answer)
			if (row.want == "") != (why == "") || !strings.Contains(why, row.want) {
				t.Errorf("%s, framing %d: %q, want %q", row.name, f, why, row.want)
			}
		}
	}
}

// TestZeroesMayBeOnTheirWay checks that a claim is true if a write that was under way may have made
// it true, and false once that is impossible.
func TestZeroesMayBeOnTheirWay(t *testing.T) {
	b := newBench(t)
	asked := func() *request {
		return &request{Request: proto.Request{Command: proto.CmdBlockStatus, Length: 4096},
			sent: b.note("sent", "")}
	}
	claim := func(r *request) string {
		r.answered = b.note("answer", "")
		return caught(func() { b.m.checkZeroes(r, 0, 4096) })
	}
	if claim(asked()) == "" {
		t.Error("untouched data may be zero")
	}
	early := asked()
	z := b.write(1, 1, 0, 8192)
	z.zero = true
	if why := claim(early); why != "" {
		t.Errorf("zeroes under way: %s", why)
	}
	b.ok(z)
	late := asked()
	w := b.ok(b.write(1, 2, 0, 8192))
	if why := claim(late); why != "" {
		t.Errorf("zeroes when it was asked: %s", why)
	}
	if claim(asked()) == "" {
		t.Errorf("%v was answered before, and may be zero", w)
	}
}
