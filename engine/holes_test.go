// Holes against a search that looks at every byte: what a reply leaves out is zero, what it should
// have left out is, and chunks cover the request.

package engine

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"ringnbd/proto"
)

// still makes a loop that is never turned: tables and memory without a ring.
func still(t testing.TB, exports ...Export) *loop {
	t.Helper()
	c := Config{Loops: 1, MaxConnections: 4}
	y, _ := layoutOf(AmpleMemory(c)+64<<20, connsPerLoop(c))
	l, err := newLoop(newShared(exports, 1, fewSpare), 0, y)
	if err != nil {
		t.Fatal(err)
	}
	l.wake = func() {}
	t.Cleanup(func() {
		_ = l.pool.Close()
		_ = l.control.Close()
	})
	return l
}

// admitted makes a tag that holds a request's memory, as takeTag leaves it.
func admitted(t testing.TB, l *loop, r proto.Request) uint32 {
	t.Helper()
	l.conns[0].credit, l.conns[0].tagCredit = l.layout.share, tagsPerConn
	d := l.exports[0].device
	lo, hi := d.down(r.Offset), d.up(r.Offset+r.Length)
	memory, scratch := needs(&r, d, r.Offset, lo, hi)
	if r.Command == proto.CmdBlockStatus {
		memory = statusMemory(&r, l.conns[0].session)
	}
	tag, ok := l.takeTag(0, memory, scratch)
	if !ok {
		t.Fatalf("no memory for %+v", r)
	}
	row := &l.tags[tag]
	row.Request, row.at, row.lo, row.hi = r, r.Offset, lo, hi
	return tag
}

// layOut puts what a READ would have read into its lease, a piece at a time.
func layOut(l *loop, row *tag, disk []byte) {
	for at, piece := row.lo, row.memory; piece != none; piece = l.leases.next[piece] {
		n := min(row.hi-at, pieceSize)
		copy(l.pool.Bytes(l.leases.offset(piece), int(n)), disk[at:])
		at += n
	}
}

// drawDisk is data with zeroes of all lengths in it.
func drawDisk(r *rand.Rand, size int) []byte {
	b := make([]byte, size)
	most := []int{600, 5000, 70000, 400000, 3 << 20}[r.IntN(5)]
	for at := 0; at < size; {
		n := min(1+r.IntN(most), size-at)
		if r.IntN(2) == 0 {
			n = min((n+511)&^511, size-at)
		}
		if r.IntN(2) == 0 {
			for i := range b[at : at+n] {
				b[at+i] = byte(1 + i%255)
			}
		} else if r.IntN(8) == 0 {
			b[at+r.IntN(n)] = 1 // one byte spoils it
		}
		at += n
	}
	return b
}

// naive is the longest run of zeroes in whole units inside the request, in bytes, found by looking
// at every unit; and whether all of it is zero.
func naive(disk []byte, from, to uint64) (longest uint64, all bool) {
	run := uint64(0)
	all = true
	for at := from; at < to; {
		next := min((at+holeUnit)&^(holeUnit-1), to)
		if len(bytes.Trim(disk[at:next], "\x00")) == 0 {
			run += next - at
		} else {
			run, all = 0, false
		}
		longest = max(longest, run)
		at = next
	}
	return longest, all
}

// checkRuns compares what find found with the disk.
func checkRuns(t *testing.T, h *holes, disk []byte) {
	t.Helper()
	r := &h.row.Request
	at, zeroes := r.Offset, 0
	for i, x := range h.runs[:h.n] {
		if x.off != at || x.len == 0 || i > 0 && x.zero == h.runs[i-1].zero {
			t.Fatalf("%+v: run %d of %+v", r, i, h.runs[:h.n])
		}
		at += x.len
		if !x.zero {
			continue
		}
		zeroes++
		if len(bytes.Trim(disk[x.off:x.off+x.len], "\x00")) != 0 {
			t.Fatalf("%+v: run %d of %+v is not zero", r, i, h.runs[:h.n])
		}
		if x.len < r.Length &&
			(x.len < min(minHole, (r.Length+1)/2) || r.Flags&proto.CmdFlagDF != 0) {
			t.Fatalf("%+v: run %d of %+v is not worth it", r, i, h.runs[:h.n])
		}
	}
	longest, all := naive(disk, r.Offset, r.Offset+r.Length)
	// Two pieces that do not meet on a unit hide zeroes across them; a hole that has twice the
	// length needed has enough on one side.
	enough := longest >= 2*minHole ||
		r.Length < pieceSize && r.Length >= 2*minHole && longest >= minHole+2*holeUnit
	switch {
	case at != r.Offset+r.Length:
		t.Fatalf("%+v: %+v end at %d", r, h.runs[:h.n], at)
	case all && r.Length < pieceSize && !(h.n == 1 && zeroes == 1):
		t.Fatalf("%+v is nothing but zeroes, and %+v was found", r, h.runs[:h.n])
	case enough && zeroes == 0 && r.Flags&proto.CmdFlagDF == 0:
		t.Fatalf("%+v has %d zeroes in a row, and none were found", r, longest)
	}
}

func TestHolesAgreeWithEveryByte(t *testing.T) {
	const size = 6 << 20
	random := rand.New(rand.NewPCG(7, 8))
	for _, block := range []uint32{1, 512, 4096} {
		file := &Device{Kind: File, FD: -1, Size: size, Block: block, Direct: block > 1}
		memory := memoryDevice(t, size)
		onFile, inMemory := still(t, Export{Facts: factsOf(file), Device: file}), still(t,
			Export{Facts: factsOf(memory), Device: memory})
		for range 15 {
			disk := drawDisk(random, size)
			copy(memory.Memory.Bytes(0, size), disk)
			for range 25 {
				r := proto.Request{Command: proto.CmdRead, Offset: random.Uint64N(size),
					Flags: []uint16{0, 0, proto.CmdFlagDF}[random.IntN(3)]}
				r.Length = 1 + random.Uint64N([]uint64{600, 9000, 100_000, size}[random.IntN(4)])
				if random.IntN(2) == 0 {
					r.Offset, r.Length = r.Offset&^4095, (r.Length+4095)&^4095
				}
				r.Length = min(r.Length, size-r.Offset, searchPart)
				for _, l := range []*loop{onFile, inMemory} {
					tag := admitted(t, l, r)
					layOut(l, &l.tags[tag], disk)
					h := holes{loop: l, row: &l.tags[tag]}
					h.find(l.tags[tag].Offset, l.tags[tag].Offset+l.tags[tag].Length)
					checkRuns(t, &h, disk)
					l.release(tag)
				}
			}
		}
	}
}

// TestHolesOfKnownLayouts searches short requests, long ones, and what is between.
func TestHolesOfKnownLayouts(t *testing.T) {
	const k, size = 1 << 10, 4 << 20
	d := memoryDevice(t, size)
	l := still(t, Export{Facts: factsOf(d), Device: d})
	for _, row := range []struct {
		name         string
		data         [][2]int // from, to
		off, n       uint64
		flags        uint16
		runs, zeroes int
	}{
		{"all zero", nil, 0, searchPart, 0, 1, 1},
		{"one zero byte", nil, 5, 1, 0, 1, 1},
		{"one byte of data", [][2]int{{5, 6}}, 5, 1, 0, 1, 0},
		{"all zero, DF", nil, 777, 100_001, proto.CmdFlagDF, 1, 1},
		{"half zero, DF", [][2]int{{0, 64 * k}}, 0, 128 * k, proto.CmdFlagDF, 1, 0},
		{"data before", [][2]int{{0, 64 * k}}, 0, 128 * k, 0, 2, 1},
		{"data behind", [][2]int{{64 * k, 128 * k}}, 0, 128 * k, 0, 2, 1},
		{"data around", [][2]int{{0, 32 * k}, {96 * k, 128 * k}}, 0, 128 * k, 0, 3, 1},
		{"data between", [][2]int{{48 * k, 80 * k}}, 0, 128 * k, 0, 3, 2},
		{"half of 4 KiB", [][2]int{{0, 2 * k}}, 0, 4 * k, 0, 2, 1},
		{"half of 4 KiB in the middle", [][2]int{{0, k}, {3 * k, 4 * k}}, 0, 4 * k, 0, 3, 1},
		{"less than half of 4 KiB", [][2]int{{0, 2*k + 512}}, 0, 4 * k, 0, 1, 0},
		{"not in whole units", [][2]int{{0, 2*k + 1}}, 0, 4 * k, 0, 1, 0},
		{"a hole too short", [][2]int{{0, 40 * k}, {60 * k, 128 * k}}, 0, 128 * k, 0, 1, 0},
		{"a comb", [][2]int{{0, k}, {100 * k, 101 * k}, {200 * k, 201 * k}, {300 * k, 301 * k},
			{400 * k, 401 * k}, {500 * k, 501 * k}, {600 * k, 601 * k}}, 0, 1024 * k, 0, 9, 4},
	} {
		disk := d.Memory.Bytes(0, size)
		clear(disk)
		for _, x := range row.data {
			for i := x[0]; i < x[1]; i++ {
				disk[i] = 7
			}
		}
		tag := admitted(t, l,
			proto.Request{Command: proto.CmdRead, Offset: row.off, Length: row.n, Flags: row.flags})
		h := holes{loop: l, row: &l.tags[tag]}
		h.find(l.tags[tag].Offset, l.tags[tag].Offset+l.tags[tag].Length)
		zeroes := 0
		for _, x := range h.runs[:h.n] {
			if x.zero {
				zeroes++
			}
		}
		if h.n != row.runs || zeroes != row.zeroes {
			t.Errorf("%s: %+v", row.name, h.runs[:h.n])
		}
		checkRuns(t, &h, disk)
		l.release(tag)
	}
}

// TestNullIsDataThatCostsNothing checks that zeroes of a null export are sent, because that is what
// it measures.
func TestNullIsDataThatCostsNothing(t *testing.T) {
	d := nullDevice(1 << 30)
	l := still(t, Export{Facts: factsOf(d), Device: d})
	tag := admitted(t, l, proto.Request{Command: proto.CmdRead, Length: 1 << 20})
	h := holes{loop: l, row: &l.tags[tag]}
	if h.find(l.tags[tag].Offset, l.tags[tag].Offset+l.tags[tag].Length); h.n != 1 ||
		h.runs[0] != (run{0, 1 << 20, false}) {
		t.Errorf("%+v", h.runs[:h.n])
	}
}

// TestALongReplyIsSearchedInParts checks that a part of a long reply is compared and composed at a
// time, and none by a turn that has spent its budget; together the parts cover the request, and
// only the last is marked as the last.
func TestALongReplyIsSearchedInParts(t *testing.T) {
	for _, off := range []uint64{0, 5, 1<<20 - 1} {
		d := nullDevice(1 << 30)
		d.Kind, d.FD, d.Block = File, 3, 512
		l := still(t, Export{Facts: factsOf(d), Device: d})
		l.conns[0].session.Framing = proto.Structured
		r := proto.Request{Command: proto.CmdRead, Offset: off, Length: 20<<20 + 700}
		row := &l.tags[admitted(t, l, r)]
		layOut(l, row, make([]byte, off+r.Length+1024))
		page := l.layout.pageAt(0)
		from, parts, header := off, 0, proto.Structured.ChunkHeaderSize()
		for done := false; !done; parts++ {
			b := batch{loop: l, conn: &l.conns[0], page: page,
				iovecs:  l.control.Iovecs(page+iovecsAt, maxIovecs),
				headers: l.control.Bytes(page+headersAt, ownAt-headersAt)}
			l.work = maxWork
			if b.add(row) {
				t.Fatal("a turn that has done its share composed a long reply")
			}
			l.work = 0
			if !b.add(row) || b.bytes > 2*proto.MaxHole || b.looked > maxSearch ||
				b.looked != l.work {
				t.Fatalf("part %d sends %d bytes and looked at %d, of which %d were counted", parts,
					b.bytes, b.looked, l.work)
			}
			for at := 0; at < b.filled; at += header + 12 {
				c, err := proto.ParseReplyChunk(b.headers[at:b.filled])
				hole := binary.BigEndian.Uint64(b.headers[at+header:])
				if err != nil || c.Type != proto.ChunkOffsetHole || hole != from || done {
					t.Fatalf("part %d: %+v at %d, want a hole at %d; %v", parts, c, hole, from, err)
				}
				from += uint64(binary.BigEndian.Uint32(b.headers[at+header+8:]))
				done = c.Done()
			}
			if done == b.unended {
				t.Fatalf("part %d: done %v, partial %v", parts, done, b.unended)
			}
		}
		if from != off+r.Length || parts > 22 {
			t.Errorf("%d parts end at %d", parts, from)
		}
	}
}
