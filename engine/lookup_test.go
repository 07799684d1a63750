// BLOCK_STATUS: what a source says and what is answered, in both forms, with much room and with
// little.

package engine

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"ringnbd/proto"
)

// piece is one extent that a source says.
type piece struct{ length, status uint64 }

// says makes a context that says these pieces whatever it is asked, then err.
func says(err error, pieces ...piece) Context {
	return contextFunc(func(_, _ uint64, emit func(length, status uint64) bool) error {
		for _, p := range pieces {
			if !emit(p.length, p.status) {
				return nil
			}
		}
		return err
	})
}

// lookedUp returns what one BLOCK_STATUS is answered, by context.
func lookedUp(t *testing.T, l *loop, s proto.Session,
	r proto.Request) map[uint32][]proto.StatusExtent {
	t.Helper()
	l.conns[0].session = s
	r.Command, r.Extended = proto.CmdBlockStatus, s.Framing == proto.Extended
	tag := admitted(t, l, r)
	row := &l.tags[tag]
	row.contexts = s.Contexts
	l.lookUp(tag)
	if l.answered.Swap(0) != tag+1 {
		t.Fatal("the request did not come back")
	}
	b := filledBatch(l, 0, 0)
	if !b.add(row) {
		t.Fatal("the answer does not fit")
	}
	stream := gatherIovecs(l, b.iovecs[:b.n])
	checkStream(t, l, row, stream)
	answer := map[uint32][]proto.StatusExtent{}
	for len(stream) > 0 {
		parse, head := proto.ParseReplyChunk, proto.ChunkSize
		if r.Extended {
			parse, head = proto.ParseExtReplyChunk, proto.ExtReplySize
		}
		k, _ := parse(stream)
		body := stream[head:][:k.Length]
		id, n, err := proto.ParseStatusHead(&k, body)
		if err != nil {
			t.Fatal(err)
		}
		first, size := proto.StatusSizes(k.Type)
		for i := range n {
			x, err := proto.ParseStatusExtent(k.Type, body[first+int(i)*size:])
			if err != nil {
				t.Fatal(err)
			}
			answer[id] = append(answer[id], x)
		}
		stream = stream[head+int(k.Length):]
	}
	l.release(tag)
	return answer
}

var both = []proto.Framing{proto.Structured, proto.Extended}

func TestExtents(t *testing.T) {
	broken := errors.New("broken")
	for _, row := range []struct {
		name   string
		source Context
		n      uint64
		flags  uint16
		want   []piece
	}{
		{"one", says(nil, piece{4096, 3}), 4096, 0, []piece{{4096, 3}}},
		{"neighbours",
			says(nil, piece{512, 3}, piece{512, 3}, piece{1024, 0}, piece{1, 0}, piece{2047, 0}),
			4096, 0, []piece{{1024, 3}, {3072, 0}}},
		{"more than asked", says(nil, piece{1 << 40, 2}), 4096, 0, []piece{{4096, 2}}},
		{"more than asked, in pieces", says(nil, piece{4000, 1}, piece{1 << 40, 2}, piece{1, 1}),
			4096, 0, []piece{{4000, 1}, {96, 2}}},
		{"empty ones",
			says(nil, piece{0, 9}, piece{96, 1}, piece{0, 9}, piece{4000, 1}, piece{0, 9}), 4096, 0,
			[]piece{{4096, 1}}},
		{"less than asked", says(nil, piece{1024, 1}), 4096, 0, []piece{{1024, 1}}},
		{"nothing", says(nil), 4096, 0, []piece{{4096, 0}}},
		{"nothing but an error", says(broken), 4096, 0, []piece{{4096, 0}}},
		{"an error later", says(broken, piece{1024, 3}), 4096, 0, []piece{{1024, 3}, {3072, 0}}},
		{"an error later, same", says(broken, piece{512, 3}, piece{512, 0}), 4096, 0,
			[]piece{{512, 3}, {3584, 0}}},
		{"an error at the end", says(broken, piece{4096, 3}), 4096, 0, []piece{{4096, 3}}},
		{"first of many", says(nil, piece{512, 3}, piece{512, 3}, piece{512, 0}, piece{512, 3}),
			2048, proto.CmdFlagReqOne, []piece{{1024, 3}}},
		{"first, all the same", says(nil, piece{1024, 3}, piece{1024, 3}), 2048,
			proto.CmdFlagReqOne, []piece{{2048, 3}}},
		{"first, then an error", says(broken, piece{1024, 3}), 2048, proto.CmdFlagReqOne,
			[]piece{{1024, 3}}},
		{"a byte", says(nil, piece{9, 7}), 1, 0, []piece{{1, 7}}},
	} {
		d := &Device{Kind: Null, FD: -1, Size: 1 << 20, Block: 1}
		l := still(t, Export{Facts: factsOf(d), Device: d, Contexts: []Context{row.source}})
		for _, f := range both {
			answer := lookedUp(t, l, proto.Session{Framing: f, Contexts: 1},
				proto.Request{Offset: 8192, Length: row.n, Flags: row.flags})
			var got []piece
			for _, x := range answer[1] {
				got = append(got, piece{x.Length, x.Flags})
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("%s, framing %d: %+v, want %+v", row.name, f, got, row.want)
			}
		}
	}
}

// alternating says two statuses in turn, from multiples of unit to multiples of it.
func alternating(unit uint64) Context {
	return contextFunc(func(off, length uint64, emit func(length, status uint64) bool) error {
		for at := off; at < off+length; {
			n := unit - at%unit
			if !emit(n, at/unit%2) {
				return nil
			}
			at += n
		}
		return nil
	})
}

// TestStatusRoom checks that with any number of contexts the answers fit into what was leased for
// them; an answer that is cut ends between two extents and begins where it was asked to.
func TestStatusRoom(t *testing.T) {
	const size = 1 << 40
	random := rand.New(rand.NewPCG(5, 6))
	d := &Device{Kind: Null, FD: -1, Size: size, Block: 1}
	for range 300 {
		contexts, unit := 1+
			random.IntN(proto.MaxContexts), []uint64{1, 64, 512, 4096, 1 << 30}[random.IntN(5)]
		facts := factsOf(d)
		facts.MaxPayload = []uint32{0, 4096, 64 << 10, 1 << 20}[random.IntN(4)]
		e := Export{Facts: facts, Device: d}
		for range contexts {
			e.Contexts = append(e.Contexts, alternating(unit))
		}
		l := still(t, e)
		s := proto.Session{Framing: both[random.IntN(2)],
			Contexts: proto.ContextSet(1)<<contexts - 1}
		r := proto.Request{Offset: random.Uint64N(1 << 35),
			Length: 1 + random.Uint64N(1<<(1+random.IntN(31)))}
		memory := statusMemory(&r, s)
		if memory == 0 || memory > pieceSize || memory%8 != 0 {
			t.Fatalf("%d contexts, %d bytes: %d bytes of memory", contexts, r.Length, memory)
		}
		answer := lookedUp(t, l, s, r)
		if len(answer) != contexts {
			t.Fatalf("%d contexts answered, of %d", len(answer), contexts)
		}
		for id, list := range answer {
			at := r.Offset
			for i, x := range list {
				if x.Flags != at/unit%2 || x.Length != min(unit-at%unit, r.Offset+r.Length-at) {
					t.Fatalf("context %d, extent %d at %d: %+v", id, i, at, x)
				}
				at += x.Length
			}
			limit := min(maxStatus, pieceSize/uint64(contexts))
			if facts.MaxPayload > 0 {
				limit = min(limit, uint64(facts.MaxPayload))
			}
			room := (limit - 24) / uint64(s.Framing.ExtentSize())
			if at != r.Offset+r.Length && uint64(len(list)) < min(room, r.Length/minExtent) {
				t.Fatalf("%+v with %d contexts: %d extents, which end at %d, although there is "+
					"room for %d", r, contexts, len(list), at, room)
			}
			if 4+8*len(list) > int(min(uint64(facts.MaxPayload)-1, math.MaxInt32))+1 {
				t.Fatalf("%d extents are more than a payload of %d", len(list), facts.MaxPayload)
			}
		}
	}
}

// TestStatusOfAGoneClient checks that the source learns that its answer has no reader, and that the
// request is given back all the same.
func TestStatusOfAGoneClient(t *testing.T) {
	d := &Device{Kind: Null, FD: -1, Size: 1 << 40, Block: 1}
	emitted := 0
	var l *loop
	source := contextFunc(func(_, _ uint64, emit func(length, status uint64) bool) error {
		for emit(1, uint64(emitted%2)) {
			if emitted++; emitted == 100 {
				l.gone[0].Store(true)
			}
		}
		return nil
	})
	l = still(t, Export{Facts: factsOf(d), Device: d, Contexts: []Context{source}})
	lookedUp(t, l, proto.Session{Framing: proto.Extended, Contexts: 1},
		proto.Request{Length: 1 << 39})
	if emitted != 100 {
		t.Errorf("%d extents for a client that left after 100", emitted)
	}
}
