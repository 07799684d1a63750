// Chunks as they lie in a connection's page: whatever is in it already, a reply fits or is left for
// the next batch, and its chunks say what was promised.

package engine

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// filledBatch makes a batch in which that many bytes of headers and that many iovecs are used.
func filledBatch(l *loop, headers, iovecs int) *batch {
	page := l.layout.pageAt(0)
	return &batch{loop: l, conn: &l.conns[0], page: page,
		iovecs:  l.control.Iovecs(page+iovecsAt, maxIovecs),
		headers: l.control.Bytes(page+headersAt, ownAt-headersAt), n: iovecs, filled: headers}
}

// contextsOf makes n contexts that know nothing.
func contextsOf(n int) (list []Context) {
	for range n {
		list = append(list,
			contextFunc(func(_, length uint64, emit func(length, status uint64) bool) error {
				emit(length, 0)
				return nil
			}))
	}
	return list
}

type contextFunc func(off, length uint64, emit func(length, status uint64) bool) error

func (f contextFunc) Status(off, length uint64, emit func(length, status uint64) bool) error {
	return f(off, length, emit)
}

// TestRepliesStayInTheirPage tries every reply on batches with any amount of room left.
func TestRepliesStayInTheirPage(t *testing.T) {
	const size = 16 << 20
	d := memoryDevice(t, size)
	// data, zeroes, data, ... so that READs have as many runs as they may
	for i := 0; i < size; i += 96 << 10 {
		copy(d.Memory.Bytes(uint64(i), 4096), bytes.Repeat([]byte{1}, 4096))
	}
	l := still(t,
		Export{Facts: factsOf(d), Device: d, Name: strings.Repeat("n", proto.MaxString),
			Contexts: contextsOf(proto.MaxContexts)})
	for _, s := range []proto.Session{{Framing: proto.Structured, Contexts: math.MaxUint32},
		{Framing: proto.Extended, Contexts: math.MaxUint32},
		{Framing: proto.Extended, Contexts: 1}} {
		l.conns[0].session = s
		for _, r := range []proto.Request{
			{Command: proto.CmdRead, Offset: 2048, Length: 4096}, {Command: proto.CmdRead,
				Offset: 2048, Length: 32<<10 - 512}, {Command: proto.CmdRead, Length: 64<<10 - 1},
			{Command: proto.CmdRead, Length: 300 << 10}, {Command: proto.CmdRead, Length: size},
			{Command: proto.CmdRead},
			{Command: proto.CmdRead, Length: 5000, Flags: proto.CmdFlagDF},
			{Command: proto.CmdWrite}, {Command: proto.CmdFlush},
			{Command: proto.CmdBlockStatus, Length: 1 << 20},
			{Command: 99, Length: math.MaxUint64, Offset: math.MaxUint64, Cookie: 1},
		} {
			r.Extended = s.Framing == proto.Extended
			tag := admitted(t, l, r)
			row := &l.tags[tag]
			row.contexts = s.Contexts
			if r.Cookie == 1 {
				row.errno = proto.EINVAL
			}
			if r.Command == proto.CmdBlockStatus {
				l.lookUp(tag)
				l.answered.Store(0)
			}
			for room := 0; room <= ownAt-headersAt; room += 1 + room/40 {
				checkRoom(t, l, row, filledBatch(l, ownAt-headersAt-room, 0))
			}
			for iovecs := 0; iovecs <= maxIovecs; iovecs++ {
				checkRoom(t, l, row, filledBatch(l, 0, iovecs))
			}
			l.release(tag)
		}
	}
}

// checkRoom adds one reply.
func checkRoom(t *testing.T, l *loop, row *tag, b *batch) {
	t.Helper()
	before := *b
	row.cursor, l.work = 0, 0
	if !b.add(row) {
		if b.n != before.n || b.filled != before.filled || b.bytes != 0 {
			t.Fatalf("%+v was refused, and is there in part: %+v", row.Request, b)
		}
		if before.n == 0 && before.filled == 0 {
			t.Fatalf("%+v does not fit into an empty batch", row.Request)
		}
		return
	}
	sum := uint64(0)
	for _, v := range b.iovecs[before.n:b.n] {
		sum += v.Len
		if v.Len == 0 {
			t.Fatalf("%+v: an empty piece", row.Request)
		}
	}
	if b.filled > len(b.headers) || sum != b.bytes {
		t.Fatalf("%+v: %d bytes of headers, %d bytes promised, %d there", row.Request, b.filled,
			b.bytes, sum)
	}
	if before.filled == 0 && before.n == 0 {
		stream := gatherIovecs(l, b.iovecs[:b.n])
		for b.unended {
			b, l.work = filledBatch(l, 0, 0), 0
			if !b.add(row) {
				t.Fatalf("%+v: a part does not fit into an empty batch", row.Request)
			}
			stream = append(stream, gatherIovecs(l, b.iovecs[:b.n])...)
		}
		checkStream(t, l, row, stream)
	}
}

// gatherIovecs returns what the kernel would send.
func gatherIovecs(l *loop, iovecs []uring.Iovec) (out []byte) {
	for _, v := range iovecs {
		for _, a := range []*uring.Arena{l.control, l.pool, l.exports[0].device.Memory} {
			if a == nil {
				continue
			}
			if off, ok := a.Find(v.Base); ok {
				out = append(out, a.Bytes(off, int(v.Len))...)
				break
			}
		}
	}
	return out
}

// checkStream walks the chunks of one reply.
func checkStream(t *testing.T, l *loop, row *tag, b []byte) {
	t.Helper()
	s := l.conns[0].session
	if s.Framing == proto.Structured && binary.BigEndian.Uint32(b) == proto.SimpleReplyMagic {
		if len(b) != proto.SimpleReplySize || row.Command == proto.CmdRead ||
			row.Command == proto.CmdBlockStatus || row.errno != proto.Success {
			t.Fatalf("%+v: a simple reply of %d bytes", row.Request, len(b))
		}
		return
	}
	parse, head := proto.ParseReplyChunk, proto.ChunkSize
	if s.Framing == proto.Extended {
		parse, head = proto.ParseExtReplyChunk, proto.ExtReplySize
	}
	at, contexts, done := row.Offset, proto.ContextSet(0), false
	for ; len(b) > 0; b = b[head:] {
		k, err := parse(b)
		if err != nil || done || k.Cookie != row.Cookie || k.Length > uint64(len(b)-head) ||
			s.Framing == proto.Extended && k.Offset != row.Offset {
			t.Fatalf("%+v: %+v %v", row.Request, k, err)
		}
		body := b[head:][:k.Length]
		switch k.Type {
		case proto.ChunkOffsetData:
			if proto.ParseDataOffset(body) != at ||
				!bytes.Equal(body[8:], l.exports[0].device.Memory.Bytes(at, len(body)-8)) {
				t.Fatalf("%+v: data at %d", row.Request, at)
			}
			at += k.Length - 8
		case proto.ChunkOffsetHole:
			off, n, err := proto.ParseHoleChunk(body)
			if off != at || err != nil {
				t.Fatalf("%+v: hole at %d, want %d", row.Request, off, at)
			}
			at += uint64(n)
		case proto.ChunkBlockStatus, proto.ChunkBlockStatusExt:
			id, _, err := proto.ParseStatusHead(&k, body)
			if contexts |= 1 << (id - 1); err != nil {
				t.Fatal(err)
			}
		}
		b, done = b[k.Length:], k.Done()
	}
	if !done || row.Command == proto.CmdRead && row.errno == proto.Success &&
		at != row.Offset+row.Length ||
		row.Command == proto.CmdBlockStatus && contexts != row.contexts {
		t.Fatalf("%+v: the last chunk says done: %v; data up to %d; contexts %#x", row.Request,
			done, at, contexts)
	}
}
