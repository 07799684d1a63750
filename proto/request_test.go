// Requests: the error table of the spec, command by command and situation by situation, and the
// arithmetic at the edges of 64 bits.

package proto

import (
	"encoding/binary"
	"math"
	"testing"
)

const (
	mib  = 1 << 20
	full = allFlags | FlagSendCache
)

// disk is an export with everything advertised.
var disk = Facts{Size: 1 << 30, MinBlock: 512, MaxPayload: 32 * mib, Flags: full}

// ranged has the commands with an offset and a length, and the error of a range beyond the end.
var ranged = map[uint16]Errno{CmdRead: EINVAL, CmdWrite: ENOSPC, CmdTrim: EINVAL,
	CmdWriteZeroes: ENOSPC, CmdCache: EINVAL}

// onDisk returns disk with other flags.
func onDisk(flags uint16) Facts {
	f := disk
	f.Flags = flags
	return f
}

func TestCheckFollowsErrorTable(t *testing.T) {
	readOnly := onDisk(full | FlagReadOnly)
	// read-only and nothing that changes data advertised
	honest := onDisk(FlagHasFlags | FlagReadOnly | FlagSendFlush)
	bare := onDisk(FlagHasFlags)
	type row struct {
		situation string
		facts     Facts
		request   Request // without command
		// READ, WRITE, TRIM, WRITE_ZEROES, CACHE, BLOCK_STATUS
		want [6]Errno
	}
	commands := [6]uint16{CmdRead, CmdWrite, CmdTrim, CmdWriteZeroes, CmdCache, CmdBlockStatus}
	const ok = Success
	rows := []row{
		{"in range", disk, Request{Offset: 512, Length: 4096},
			[6]Errno{ok, ok, ok, ok, ok, EINVAL}},
		{"last block", disk, Request{Offset: 1<<30 - 512, Length: 512},
			[6]Errno{ok, ok, ok, ok, ok, EINVAL}},
		{"beyond end", disk, Request{Offset: 1<<30 - 512, Length: 1024},
			[6]Errno{EINVAL, ENOSPC, EINVAL, ENOSPC, EINVAL, EINVAL}},
		{"after end", disk, Request{Offset: 1<<30 + 512, Length: 512},
			[6]Errno{EINVAL, ENOSPC, EINVAL, ENOSPC, EINVAL, EINVAL}},
		{"read-only", readOnly, Request{Offset: 0, Length: 512},
			[6]Errno{ok, EPERM, EPERM, EPERM, ok, EINVAL}},
		{"read-only and not advertised", honest, Request{Offset: 0, Length: 512},
			[6]Errno{ok, EPERM, EPERM, EPERM, EINVAL, EINVAL}},
		{"read-only beyond end", readOnly, Request{Offset: 1 << 40, Length: 512},
			[6]Errno{EINVAL, EPERM, EPERM, EPERM, EINVAL, EINVAL}},
		{"read-only with bad flag", readOnly, Request{Length: 512, Flags: 1 << 6},
			[6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"misaligned offset", disk, Request{Offset: 1, Length: 512},
			[6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"misaligned length", disk, Request{Offset: 512, Length: 513},
			[6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"misaligned beyond end", disk, Request{Offset: 1 << 30, Length: 1},
			[6]Errno{EINVAL, ENOSPC, EINVAL, ENOSPC, EINVAL, EINVAL}},
		{"maximum payload", disk, Request{Length: 32 * mib}, [6]Errno{ok, ok, ok, ok, ok, EINVAL}},
		{"more than that", disk, Request{Length: 32*mib + 512},
			[6]Errno{EOVERFLOW, EINVAL, ok, ok, ok, EINVAL}},
		{"not advertised", bare, Request{Length: 512},
			[6]Errno{ok, ok, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"empty", disk, Request{Offset: 512}, [6]Errno{ok, ok, ok, ok, ok, EINVAL}},
		{"empty at end", disk, Request{Offset: 1 << 30}, [6]Errno{ok, ok, ok, ok, ok, EINVAL}},
		{"empty after end", disk, Request{Offset: 1<<30 + 512},
			[6]Errno{EINVAL, ENOSPC, EINVAL, ENOSPC, EINVAL, EINVAL}},
	}
	for _, row := range rows {
		for i, command := range commands {
			r := row.request
			r.Command = command
			if got := Check(&r, &row.facts, Session{}); got != row.want[i] {
				t.Errorf("%s: command %d: %v, want %v", row.situation, command, got, row.want[i])
			}
		}
	}
}

func TestCheckCommandFlags(t *testing.T) {
	const ok = Success
	noFUA := onDisk(full &^ FlagSendFUA)
	noFast := onDisk(full &^ FlagSendFastZero)
	df := onDisk(full | FlagSendDF)
	type row struct {
		name  string
		facts Facts
		flags uint16
		// READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES
		want [6]Errno
	}
	for _, row := range []row{
		{"FUA", disk, CmdFlagFUA, [6]Errno{ok, ok, ok, ok, ok, ok}},
		{"FUA not advertised", noFUA, CmdFlagFUA,
			[6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"NO_HOLE", disk, CmdFlagNoHole, [6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, ok}},
		{"DF", disk, CmdFlagDF, [6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"DF advertised", df, CmdFlagDF, [6]Errno{ok, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"REQ_ONE", disk, CmdFlagReqOne, [6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"FAST_ZERO", disk, CmdFlagFastZero, [6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, ok}},
		{"FAST_ZERO not advertised", noFast, CmdFlagFastZero,
			[6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"all of WRITE_ZEROES", disk, CmdFlagFUA | CmdFlagNoHole | CmdFlagFastZero,
			[6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, ok}},
		{"PAYLOAD_LEN", disk, CmdFlagPayloadLen,
			[6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
		{"top bit", disk, 1 << 15, [6]Errno{EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL}},
	} {
		for i, command := range [6]uint16{CmdRead, CmdWrite, CmdFlush, CmdTrim, CmdCache,
			CmdWriteZeroes} {
			r := Request{Command: command, Flags: row.flags}
			if command != CmdFlush {
				r.Length = 512
			}
			if got := Check(&r, &row.facts, Session{}); got != row.want[i] {
				t.Errorf("%s: command %d: %v, want %v", row.name, command, got, row.want[i])
			}
		}
	}
}

func TestCheckOffsetPlusLengthNeverWraps(t *testing.T) {
	for command, want := range ranged {
		for _, r := range []Request{
			{Offset: math.MaxUint64, Length: 1},
			{Offset: math.MaxUint64 - 511, Length: 4096},
			{Offset: math.MaxUint64 - 511, Length: 512},
			{Offset: 1 << 63, Length: 1 << 63},
			{Offset: 1 << 63, Length: 512},
			{Offset: 512, Length: math.MaxUint64},
			{Offset: 0, Length: 1<<30 + 1},
			{Offset: 1<<30 - 1, Length: 2},
		} {
			r.Command = command
			if got := Check(&r, &disk, Session{}); got != want {
				t.Errorf("command %d offset %#x length %#x: %v, want %v", command, r.Offset,
					r.Length, got, want)
			}
		}
	}
	largest := Facts{Size: 1<<63 - 1, Flags: full}
	if got := Check(&Request{Command: CmdTrim, Length: 1<<63 - 1}, &largest,
		Session{}); got != Success {
		t.Errorf("TRIM of the largest export: %v", got)
	}
}

func TestCheckUnknownCommands(t *testing.T) {
	for _, command := range []uint16{8, 9, 0x7fff, 0xffff} {
		r := Request{Command: command, Length: 1 << 20}
		if got := Check(&r, &disk, Session{}); got != EINVAL {
			t.Errorf("command %d: %v", command, got)
		}
		if r.Payload() != 0 {
			t.Errorf("command %d has a payload", command)
		}
	}
}

func TestCheckFlush(t *testing.T) {
	readOnly := onDisk(full | FlagReadOnly)
	without := onDisk(FlagHasFlags)
	for _, row := range []struct {
		request Request
		facts   Facts
		want    Errno
	}{
		{Request{}, disk, Success},
		{Request{}, readOnly, Success},
		{Request{}, without, EINVAL},
		{Request{Offset: 512}, disk, EINVAL},
		{Request{Length: 512}, disk, EINVAL},
	} {
		row.request.Command = CmdFlush
		if got := Check(&row.request, &row.facts, Session{}); got != row.want {
			t.Errorf("%+v: %v, want %v", row.request, got, row.want)
		}
	}
}

func TestCheckDiscIsObeyed(t *testing.T) {
	if got := Check(&Request{Command: CmdDisc, Flags: 0xffff, Offset: 1, Length: 1}, &Facts{},
		Session{}); got != Success {
		t.Error(got)
	}
}

func TestCheckWithoutBlockSizes(t *testing.T) {
	f := Facts{Size: 1<<30 + 3, Flags: full}
	for command := range ranged {
		if got := Check(&Request{Command: command, Offset: 1<<30 + 2, Length: 1}, &f,
			Session{}); got != Success {
			t.Errorf("last odd byte, command %d: %v", command, got)
		}
	}
	if got := Check(&Request{Command: CmdRead, Length: DefaultMaxPayload}, &f,
		Session{}); got != Success {
		t.Error(got)
	}
	if got := Check(&Request{Command: CmdRead, Length: DefaultMaxPayload + 1}, &f,
		Session{}); got != EOVERFLOW {
		t.Error(got)
	}
	f.MaxPayload = math.MaxUint32 // no limit
	if got := Check(&Request{Command: CmdRead, Length: 1 << 30}, &f, Session{}); got != Success {
		t.Error(got)
	}
}

func TestPayloadIsWritesAlone(t *testing.T) {
	for command := uint16(0); command < 16; command++ {
		r := Request{Command: command, Length: 4096}
		if want := map[bool]uint64{true: 4096}[command == CmdWrite]; r.Payload() != want {
			t.Errorf("command %d: %d", command, r.Payload())
		}
	}
}

func TestParseRequest(t *testing.T) {
	b, err := parse(`u32:0x25609513 u16:0x0102 u16:0x0304 u64:0x05060708090a0b0c ` +
		`u64:0xf1f2f3f4f5f6f7f8 u32:0xfffefdfc`)
	if err != nil {
		t.Fatal(err)
	}
	want := Request{Cookie: 0x05060708090a0b0c, Offset: 0xf1f2f3f4f5f6f7f8, Length: 0xfffefdfc,
		Command: 0x0304, Flags: 0x0102}
	if r, ok := ParseRequest(b); !ok || r != want {
		t.Errorf("%+v %v", r, ok)
	}
	for _, magic := range []uint32{0, 0x12560953, SimpleReplyMagic, 0x21e41c71, 0x25609514} {
		binary.BigEndian.PutUint32(b, magic)
		if _, ok := ParseRequest(b); ok {
			t.Errorf("magic %#x was taken", magic)
		}
	}
}

func TestSimpleReply(t *testing.T) {
	var b [SimpleReplySize + 1]byte
	b[SimpleReplySize] = 0xaa
	PutSimpleReply(b[:], 0x0102030405060708, ENOSPC)
	want, _ := parse(`hex:67446698 u32:28 u64:0x0102030405060708 hex:aa`)
	if string(b[:]) != string(want) {
		t.Errorf("%x, want %x", b, want)
	}
	if cookie, e, err := ParseSimpleReply(b[:]); cookie != 0x0102030405060708 || e != ENOSPC ||
		err != nil {
		t.Error(cookie, e, err)
	}
}

func TestHotFunctionsDoNotAllocate(t *testing.T) {
	var in [RequestSize]byte
	var out [SimpleReplySize]byte
	PutRequest(in[:],
		&Request{Cookie: 7, Offset: 4096, Length: 4096, Command: CmdWrite, Flags: CmdFlagFUA})
	sum := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		r, _ := ParseRequest(in[:])
		e := Check(&r, &disk, Session{})
		PutSimpleReply(out[:], r.Cookie, e)
		sum += r.Payload()
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	var in [RequestSize]byte
	var out [SimpleReplySize]byte
	PutRequest(in[:], &Request{Cookie: 7, Offset: 4096, Length: 4096, Command: CmdRead})
	for b.Loop() {
		r, _ := ParseRequest(in[:])
		PutSimpleReply(out[:], r.Cookie, Check(&r, &disk, Session{}))
	}
}
