// The data path does not allocate: a turn of a running loop is measured, on the real kernel, with
// requests in flight.

package engine

import (
	"encoding/binary"
	"math"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// TestTurnsDoNotAllocate turns a loop on this goroutine while a client, driven by hand from the
// same goroutine, keeps requests of every kind coming, in every form there is.
func TestTurnsDoNotAllocate(t *testing.T) {
	for name, s := range map[string]proto.Session{"simple": {},
		"structured": {Framing: proto.Structured, Contexts: 1},
		"extended":   {Framing: proto.Extended, Contexts: 1}} {
		t.Run(name, func(t *testing.T) {
			turnsDoNotAllocate(t, s, fileDevice(t, 1<<20, unix.O_DIRECT))
		})
		t.Run(name+", planned", func(t *testing.T) {
			const size = 1<<20 + twinBlock
			turnsDoNotAllocate(t, s, over(&twin{journaled: true},
				over(&twin{torn: true, journaled: true}, fileDevice(t, size, unix.O_DIRECT),
					fileDevice(t, size, 0)), memoryDevice(t, size)))
		})
	}
}

func turnsDoNotAllocate(t *testing.T, session proto.Session, d *Device) {
	c := Config{Loops: 1, MaxConnections: 4}
	l := handTurnedWith(t, c, AmpleMemory(c),
		Export{Facts: factsOf(d), Device: d, Name: "größe", Contexts: contextsOf(1)})
	l.ask = func() { l.answerAtOnce() }
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(pair[1], true); err != nil {
		t.Fatal(err)
	}
	l.live.Add(1)
	l.post(&mail{kind: mailAdopt, fd: int32(pair[0]), session: session})

	wire, requests := everyKind(session)
	in := make([]byte, 1<<16)
	got := 0
	round := func() {
		if _, err := unix.Write(pair[1], wire); err != nil {
			t.Fatal(err)
		}
		for got = 0; repliesIn(session, in[:got]) < requests; {
			l.turn()
			n, err := unix.Read(pair[1], in[got:])
			if err == nil {
				got += n
			}
		}
	}
	round()
	if allocs := testing.AllocsPerRun(200, round); allocs != 0 {
		t.Errorf("%v allocations in the turns that serve %d requests", allocs, requests)
	}
	_ = unix.Close(pair[1])
	for l.live.Load() > 0 {
		l.turn()
	}
}

// answerAtOnce answers BLOCK_STATUS on the loop: lookup workers may allocate, a turn may not.
func (l *loop) answerAtOnce() {
	for t := l.takeAsked(); t != none; {
		row := &l.tags[t]
		next := row.next
		memory, _ := l.answers(row)
		f := l.conns[row.conn].session.Framing
		binary.NativeEndian.PutUint64(memory, uint64(f.StatusHeadSize()+f.ExtentSize()))
		f.PutStatusHead(memory[answerHead:], 1, 1)
		f.PutExtent(memory[answerHead+f.StatusHeadSize():], row.Length, 0)
		row.next = l.answered.Load() - 1
		l.answered.Store(t + 1)
		t = next
	}
	l.wake()
}

// everyKind is one request of every kind, as bytes.
func everyKind(s proto.Session) (wire []byte, n int) {
	requests := []proto.Request{
		{Command: proto.CmdRead, Length: 4096, Offset: 4096},
		{Command: proto.CmdRead, Length: 1000, Offset: 777},
		{Command: proto.CmdWrite, Length: 4096, Offset: 8192},
		{Command: proto.CmdWrite, Length: 100, Offset: 8195},
		{Command: proto.CmdWrite, Length: 100, Offset: 8205, Flags: proto.CmdFlagFUA},
		{Command: proto.CmdWriteZeroes, Length: 9000, Offset: 20001},
		{Command: proto.CmdTrim, Length: 65536, Offset: 65536},
		{Command: proto.CmdFlush},
		{Command: proto.CmdRead, Length: 1, Offset: 1 << 40},
	}
	if s.Framing != proto.Simple {
		requests = append(requests,
			proto.Request{Command: proto.CmdRead, Length: 20000, Offset: 500,
				Flags: proto.CmdFlagDF},
			proto.Request{Command: proto.CmdRead},
			proto.Request{Command: proto.CmdWriteZeroes, Length: math.MaxUint32,
				Flags: proto.CmdFlagNoHole},
			proto.Request{Command: 99, Length: 7},
			proto.Request{Command: proto.CmdBlockStatus, Length: 1 << 20},
			proto.Request{Command: proto.CmdBlockStatus, Length: 4096, Flags: proto.CmdFlagReqOne})
	}
	for i := range requests {
		r := &requests[i]
		r.Cookie = uint64(i)
		head := make([]byte, s.Framing.HeaderSize())
		if r.Extended = s.Framing == proto.Extended; r.Extended {
			if r.Command == proto.CmdWrite {
				r.Flags |= proto.CmdFlagPayloadLen
			}
			proto.PutExtRequest(head, r)
		} else {
			proto.PutRequest(head, r)
		}
		wire = append(append(wire, head...), make([]byte, r.Payload())...)
	}
	if s.Framing == proto.Extended { // what only this form can ask
		filter := proto.Request{Command: proto.CmdBlockStatus, Flags: proto.CmdFlagPayloadLen,
			Length: proto.FilterSize(1), Extended: true}
		head := make([]byte, proto.ExtRequestSize)
		proto.PutExtRequest(head, &filter)
		wire = binary.BigEndian.AppendUint64(append(wire, head...), 4096)
		wire = binary.BigEndian.AppendUint32(wire, 1)
		return wire, len(requests) + 1
	}
	return wire, len(requests)
}

// repliesIn counts the complete replies in a stream. It knows no request: the data behind a simple
// reply is that of the reads of everyKind.
func repliesIn(s proto.Session, b []byte) (n int) {
	for len(b) >= proto.SimpleReplySize {
		if binary.BigEndian.Uint32(b) == proto.SimpleReplyMagic {
			length := proto.SimpleReplySize
			if cookie, e, _ := proto.ParseSimpleReply(b); s.Framing == proto.Simple &&
				e == proto.Success {
				length += [9]int{4096, 1000}[cookie]
			}
			if len(b) < length {
				return n
			}
			n, b = n+1, b[length:]
			continue
		}
		parse, head := proto.ParseReplyChunk, proto.ChunkSize
		if s.Framing == proto.Extended {
			parse, head = proto.ParseExtReplyChunk, proto.ExtReplySize
		}
		if len(b) < head {
			return n
		}
		k, err := parse(b)
		if err != nil || uint64(len(b)-head) < k.Length {
			return n
		}
		if b = b[head+int(k.Length):]; k.Done() {
			n++
		}
	}
	return n
}
