// Extended headers, structured replies and BLOCK_STATUS: which requests each session allows,
// replies byte by byte, and the texts of errors.

package proto

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestExtendedRequest(t *testing.T) {
	b, err := parse(`u32:0x21e41c71 u16:0x0102 u16:0x0304 u64:0x05060708090a0b0c ` +
		`u64:0xf1f2f3f4f5f6f7f8 u64:0xfffefdfcfbfaf9f8`)
	if err != nil || len(b) != ExtRequestSize || Extended.HeaderSize() != ExtRequestSize ||
		Structured.HeaderSize() != RequestSize || Simple.HeaderSize() != RequestSize {
		t.Fatal(err, len(b))
	}
	want := Request{Cookie: 0x05060708090a0b0c, Offset: 0xf1f2f3f4f5f6f7f8,
		Length: 0xfffefdfcfbfaf9f8, Command: 0x0304, Flags: 0x0102, Extended: true}
	if r, ok := Extended.ParseRequest(b); !ok || r != want {
		t.Errorf("%+v %v", r, ok)
	}
	if _, ok := Structured.ParseRequest(b); ok {
		t.Error("the compact form took an extended request")
	}
	binary.BigEndian.PutUint32(b, RequestMagic)
	if _, ok := Extended.ParseRequest(b); ok {
		t.Error("the extended form took a compact request")
	}
	if r, ok := Structured.ParseRequest(b); !ok || r.Extended || r.Length != 0xfffefdfc {
		t.Errorf("%+v %v", r, ok)
	}
}

func TestExtendedPayloadFollowsItsFlagAndAWrite(t *testing.T) {
	for command := range uint16(16) {
		r := Request{Command: command, Length: 4096, Extended: true}
		if (r.Payload() == 4096) != (command == CmdWrite) || r.Filtered() {
			t.Errorf("command %d has a payload of %d without the flag", command, r.Payload())
		}
		r.Flags = CmdFlagPayloadLen
		if r.Payload() != 4096 || r.Filtered() != (command == CmdBlockStatus) {
			t.Errorf("command %d has a payload of %d with the flag", command, r.Payload())
		}
	}
	if r := (Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen}); r.Filtered() {
		t.Error("a compact BLOCK_STATUS has a payload")
	}
}

func TestUndrainable(t *testing.T) {
	f := Facts{MaxPayload: 1 << 20}
	for _, row := range []struct {
		r    Request
		want bool
	}{
		{Request{Command: CmdWrite, Length: MaxDrain}, false},
		{Request{Command: CmdWrite, Length: MaxDrain + 1}, true},
		{Request{Command: CmdRead, Length: math.MaxUint32}, false},
		{Request{Command: CmdWrite, Length: 1 << 20, Extended: true, Flags: CmdFlagPayloadLen},
			false},
		{Request{Command: CmdWrite, Length: 1<<20 + 1, Extended: true, Flags: CmdFlagPayloadLen},
			true},
		{Request{Command: CmdTrim, Length: math.MaxUint64, Extended: true,
			Flags: CmdFlagPayloadLen}, true},
		{Request{Command: CmdWrite, Length: 1 << 20, Extended: true}, false},
		{Request{Command: CmdWrite, Length: 1<<20 + 1, Extended: true}, true},
		{Request{Command: CmdTrim, Length: math.MaxUint64, Extended: true}, false},
	} {
		if got := row.r.Undrainable(&f); got != row.want {
			t.Errorf("%+v: %v", row.r, got)
		}
	}
}

// Sessions by what was agreed on.
var (
	structured = Session{Framing: Structured}
	mapped     = Session{Framing: Structured, Contexts: 0b101}
	extended   = Session{Framing: Extended}
	extMapped  = Session{Framing: Extended, Contexts: 0b101}
)

// judgement is what Judge says about a request in a session.
type judgement struct {
	name    string
	r       Request
	session Session
	facts   Facts
	errno   Errno
	cause   Cause
}

var readOnly = onDisk(full | FlagReadOnly)

var statusJudgements = []judgement{
	{"DF", Request{Command: CmdRead, Flags: CmdFlagDF, Length: 512}, structured, disk, Success,
		CauseNone},
	{"DF in extended", Request{Command: CmdRead, Flags: CmdFlagDF, Length: 512, Extended: true},
		extended, disk, Success, CauseNone},
	{"DF of WRITE", Request{Command: CmdWrite, Flags: CmdFlagDF, Length: 512}, structured, disk,
		EINVAL, CauseFlags},
	{"no contexts", Request{Command: CmdBlockStatus, Length: 512}, structured, disk, EINVAL,
		CauseContext},
	{"status", Request{Command: CmdBlockStatus, Length: 512}, mapped, disk, Success, CauseNone},
	{"status of everything",
		Request{Command: CmdBlockStatus, Length: 1 << 30, Flags: CmdFlagReqOne | CmdFlagFUA},
		mapped, disk, Success, CauseNone},
	{"status of nothing", Request{Command: CmdBlockStatus, Offset: 512}, mapped, disk, EINVAL,
		CauseEmpty},
	{"status beyond", Request{Command: CmdBlockStatus, Offset: 1 << 30, Length: 512}, mapped,
		disk, EINVAL, CauseBeyond},
	{"status misaligned", Request{Command: CmdBlockStatus, Length: 1}, mapped, disk, EINVAL,
		CauseAlignment},
	{"status of a read-only export", Request{Command: CmdBlockStatus, Length: 512}, mapped,
		readOnly, Success, CauseNone},
	{"compact status with payload",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: 12},
		mapped, disk, EINVAL, CauseFlags},
	{"filter",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: 12, Offset: 7,
			Extended: true},
		extMapped, disk, Success, CauseNone},
	{"filter of 32",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: 8 + 4*32,
			Extended: true},
		extMapped, disk, Success, CauseNone},
	{"filter of 33",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: 8 + 4*33,
			Extended: true},
		extMapped, disk, EINVAL, CausePayload},
	{"filter, uneven",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: 13, Extended: true},
		extMapped, disk, EINVAL, CausePayload},
	{"filter, short",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: 4, Extended: true},
		extMapped, disk, EINVAL, CausePayload},
	{"filter of no length",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Extended: true},
		extMapped, disk, EINVAL, CausePayload},
	{"filter, huge",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: math.MaxUint64,
			Extended: true},
		extMapped, disk, EINVAL, CausePayload},
	{"filter without contexts",
		Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: 12, Extended: true},
		extended, disk,
		EINVAL, CausePayload},
}

var payloadJudgements = []judgement{
	{"WRITE", Request{Command: CmdWrite, Flags: CmdFlagPayloadLen, Length: 512, Extended: true},
		extended,
		disk, Success, CauseNone},
	{"WRITE without the flag", Request{Command: CmdWrite, Length: 512, Extended: true},
		extended, disk, Success, CauseNone},
	{"WRITE without the flag, too long",
		Request{Command: CmdWrite, Length: 32*mib + 512, Extended: true}, extended, disk,
		EINVAL, CauseSize},
	{"WRITE too long",
		Request{Command: CmdWrite, Flags: CmdFlagPayloadLen, Length: 32*mib + 512, Extended: true},
		extended,
		disk, EINVAL, CauseSize},
	{"WRITE, read-only",
		Request{Command: CmdWrite, Flags: CmdFlagPayloadLen, Length: 512, Extended: true},
		extended, readOnly, EPERM, CauseReadOnly},
	{"READ with payload",
		Request{Command: CmdRead, Flags: CmdFlagPayloadLen, Length: 512, Extended: true},
		extended, disk, EINVAL, CausePayload},
	{"READ too long", Request{Command: CmdRead, Length: 1 << 25 << 1, Extended: true}, extended,
		disk, EOVERFLOW, CauseSize},
	{"FLUSH with payload", Request{Command: CmdFlush, Flags: CmdFlagPayloadLen, Extended: true},
		extended,
		disk, EINVAL, CausePayload},
	{"FLUSH of a range", Request{Command: CmdFlush, Length: 512, Extended: true}, extended,
		disk, EINVAL, CauseFlushRange},
	{"TRIM, 64 bits", Request{Command: CmdTrim, Length: 1 << 40, Extended: true}, extended,
		Facts{Size: 1 << 41, Flags: full}, Success, CauseNone},
	{"TRIM, wrapping",
		Request{Command: CmdTrim, Offset: 512, Length: math.MaxUint64 - 511, Extended: true},
		extended, disk, EINVAL, CauseBeyond},
	{"WRITE_ZEROES beyond", Request{Command: CmdWriteZeroes, Length: 1 << 33, Extended: true},
		extended, disk, ENOSPC, CauseBeyond},
	{"CACHE not advertised", Request{Command: CmdCache, Length: 512}, structured,
		onDisk(allFlags), EINVAL, CauseAbsent},
	{"unknown", Request{Command: 99, Flags: CmdFlagPayloadLen, Length: 512, Extended: true},
		extended, disk,
		EINVAL, CauseUnknown},
	{"DISC", Request{Command: CmdDisc, Flags: CmdFlagPayloadLen, Extended: true}, extended, disk,
		Success, CauseNone},
}

func TestJudgeBySession(t *testing.T) {
	for _, row := range slices.Concat(statusJudgements, payloadJudgements) {
		errno, cause := Judge(&row.r, &row.facts, row.session)
		if errno != row.errno || cause != row.cause ||
			Check(&row.r, &row.facts, row.session) != errno {
			t.Errorf("%s: %v, cause %d, want %v, cause %d", row.name, errno, cause, row.errno,
				row.cause)
		}
	}
}

func TestParseFilter(t *testing.T) {
	const selected = 0b100000_00000000_00000000_00000101
	for _, row := range []struct {
		words  string
		length uint64
		filter ContextSet
		want   Errno
	}{
		{"u64:4096", 4096, 0, Success},
		{"u64:4096 u32:1", 4096, 1, Success},
		{"u64:0xffffffffffffffff u32:3 u32:1 u32:30", math.MaxUint64, selected, Success},
		{"u64:4096 u32:0", 4096, 0, EINVAL},
		{"u64:4096 u32:2", 4096, 0, EINVAL},
		{"u64:4096 u32:33", 4096, 0, EINVAL},
		{"u64:4096 u32:0xffffffff", 4096, 0, EINVAL},
		{"u64:4096 u32:1 u32:3 u32:1", 4096, 0, EINVAL},
	} {
		b, err := parse(row.words)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(b)) != FilterSize((len(b)-8)/4) {
			t.Errorf("%s: %d bytes", row.words, len(b))
		}
		if length, filter, e := ParseFilter(b, selected); length != row.length ||
			filter != row.filter || e != row.want {
			t.Errorf("%s: %d %#x %v", row.words, length, filter, e)
		}
	}
}

func TestChunks(t *testing.T) {
	r := &Request{Cookie: 0x0102030405060708, Offset: 0x1000, Length: 0x3000, Command: CmdRead}
	text := []byte("grüße")
	for _, row := range []struct {
		name           string
		put            func(f Framing, b []byte) int
		compact, wider string
	}{
		{"none", func(f Framing, b []byte) int { return f.PutNone(b, r) },
			`u32:0x668e33ef u16:1 u16:0 u64:0x0102030405060708 u32:0`,
			`u32:0x6e8a278c u16:1 u16:0 u64:0x0102030405060708 u64:0x1000 u64:0`},
		{"data", func(f Framing, b []byte) int { return f.PutData(b, r, 0x2000, 0x800, false) },
			`u32:0x668e33ef u16:0 u16:1 u64:0x0102030405060708 u32:0x808 u64:0x2000`,
			`u32:0x6e8a278c u16:0 u16:1 u64:0x0102030405060708 u64:0x1000 u64:0x808 u64:0x2000`},
		{"hole", func(f Framing, b []byte) int { return f.PutHole(b, r, 0x2000, 0xfffff000, true) },
			`u32:0x668e33ef u16:1 u16:2 u64:0x0102030405060708 u32:12 u64:0x2000 u32:0xfffff000`,
			`u32:0x6e8a278c u16:1 u16:2 u64:0x0102030405060708 u64:0x1000 u64:12 u64:0x2000 ` +
				`u32:0xfffff000`},
		{"error", func(f Framing, b []byte) int { return f.PutError(b, r, ENOSPC, text) },
			`u32:0x668e33ef u16:1 u16:0x8001 u64:0x0102030405060708 u32:13 u32:28 u16:7 "grüße"`,
			`u32:0x6e8a278c u16:1 u16:0x8001 u64:0x0102030405060708 u64:0x1000 u64:13 u32:28 ` +
				`u16:7 "grüße"`},
		{"status", func(f Framing, b []byte) int {
			n := f.PutChunk(b, r, f.StatusKind(), uint64(f.StatusHeadSize()+2*f.ExtentSize()), true)
			f.PutStatusHead(b[n:], 7, 2)
			n += f.StatusHeadSize()
			f.PutExtent(b[n:], 4096, 3)
			f.PutExtent(b[n+f.ExtentSize():], 0xffffe000, 0)
			return n + 2*f.ExtentSize()
		},
			`u32:0x668e33ef u16:1 u16:5 u64:0x0102030405060708 u32:20 u32:7 u32:4096 u32:3 ` +
				`u32:0xffffe000 u32:0`,
			`u32:0x6e8a278c u16:1 u16:6 u64:0x0102030405060708 u64:0x1000 u64:40 u32:7 u32:2 ` +
				`u64:4096 u64:3 u64:0xffffe000 u64:0`},
	} {
		for f, words := range map[Framing]string{Structured: row.compact, Extended: row.wider} {
			want, err := parse(words)
			if err != nil {
				t.Fatal(err)
			}
			b := bytes.Repeat([]byte{0xaa}, 200)
			if n := row.put(f, b); !bytes.Equal(b[:n], want) ||
				bytes.Count(b[n:], []byte{0xaa}) != len(b)-n {
				t.Errorf("%s, framing %d: % x, want % x", row.name, f, b[:n], want)
			}
			if len(want) > 64 && row.name != "status" {
				t.Errorf("%s is %d bytes long", row.name, len(want))
			}
		}
	}
}

// complaint returns the text of the error of a request.
func complaint(r *Request, s Session, f Facts) string {
	e := Check(r, &f, s)
	c := Complaint{Request: r, Export: "größe", Facts: &f, Session: s, Errno: e}
	return string(c.Append(nil))
}

func TestComplaints(t *testing.T) {
	const pl = CmdFlagPayloadLen
	for _, row := range []struct {
		r    Request
		s    Session
		f    Facts
		want string
	}{
		{Request{Command: 99, Length: 3}, structured, disk,
			`command 99 of export "größe", 3 bytes at offset 0: unknown command`},
		{Request{Command: CmdResize}, structured, disk,
			`RESIZE of export "größe", 0 bytes at offset 0: unknown command`},
		{Request{Command: CmdRead, Flags: 0x8000}, structured, disk,
			`READ of export "größe", 0 bytes at offset 0: flags 0x8000 are not for this ` +
				`command, or were not advertised`},
		{Request{Command: CmdRead, Flags: pl, Extended: true}, extended, disk,
			`READ of export "größe", 0 bytes at offset 0: the payload is not for this command, ` +
				`or of a wrong length`},
		{Request{Command: CmdTrim, Length: 512}, structured, readOnly,
			`TRIM of export "größe", 512 bytes at offset 0: the export is read-only`},
		{Request{Command: CmdCache, Length: 512}, structured, onDisk(0),
			`CACHE of export "größe", 512 bytes at offset 0: the export does not advertise it`},
		{Request{Command: CmdBlockStatus, Length: 512}, structured, disk,
			`BLOCK_STATUS of export "größe", 512 bytes at offset 0: no meta context was ` +
				`selected for this export`},
		{Request{Command: CmdFlush, Offset: 1}, structured, disk,
			`FLUSH of export "größe": offset and length of a FLUSH must be zero`},
		{Request{Command: CmdBlockStatus}, mapped, disk,
			`BLOCK_STATUS of export "größe", 0 bytes at offset 0: a length of zero has no ` +
				`status`},
		{Request{Command: CmdWriteZeroes, Offset: 1 << 30, Length: 512}, structured, disk,
			`WRITE_ZEROES of export "größe", 512 bytes at offset 1073741824: it ends beyond ` +
				`the export's 1073741824 bytes`},
		{Request{Command: CmdWrite, Length: 1}, structured, disk,
			`WRITE of export "größe", 1 bytes at offset 0: offset and length must be multiples ` +
				`of 512 bytes`},
		{Request{Command: CmdRead, Length: 64 * mib}, structured, disk,
			`READ of export "größe", 67108864 bytes at offset 0: the maximum at once is ` +
				`33554432 bytes`},
	} {
		if got := complaint(&row.r, row.s, row.f); got != row.want {
			t.Errorf("%+v:\n%s\nwant\n%s", row.r, got, row.want)
		}
	}
}

func TestComplaintsOfWhatCameLater(t *testing.T) {
	write := &Request{Command: CmdWrite, Length: 512}
	durable := &Request{Command: CmdWrite, Length: 512, Flags: CmdFlagFUA}
	filter := &Request{Command: CmdBlockStatus, Length: 12, Flags: CmdFlagPayloadLen,
		Extended: true}
	for _, row := range []struct {
		c    Complaint
		want string
	}{
		{Complaint{Request: write, Errno: EIO, System: 5},
			"the storage of the export failed with errno 5 (EIO: an input/output error)"},
		{Complaint{Request: write, Errno: ENOSPC, System: 28},
			"the storage of the export failed with errno 28 (ENOSPC: no space left)"},
		{Complaint{Request: write, Errno: ENOSPC, System: 122},
			"the storage of the export failed with errno 122 (EDQUOT: the quota is used up)"},
		{Complaint{Request: write, Errno: ENOSPC, System: 27},
			"the storage of the export failed with errno 27 (EFBIG: the file would be too large)"},
		{Complaint{Request: write, Errno: EPERM, System: 30},
			"the storage of the export failed with errno 30 (EROFS: read-only)"},
		{Complaint{Request: write, Errno: EINVAL, System: 95},
			"the storage of the export failed with errno 95 (EOPNOTSUPP: not supported)"},
		{Complaint{Request: write, Errno: EIO, System: 121},
			"the storage of the export failed with errno 121"},
		{Complaint{Request: write, Errno: EIO, Ended: true},
			"the storage of the export is shorter than when it was opened"},
		{Complaint{Request: filter, Errno: EINVAL, Filter: true},
			"the payload names no context, a context that was not selected, or a context twice"},
		{Complaint{Request: write, Errno: ENOTSUP},
			"it cannot be done faster than by writing zeroes"},
		{Complaint{Request: write, Errno: EIO}, "the storage of the export failed"},
		{Complaint{Request: write, Errno: ESHUTDOWN},
			"the export is being removed from this server"},
		{Complaint{Request: write, Errno: EPERM},
			"the export did not allow it when it came in, and has been changed since"},
		{Complaint{Request: write, Errno: EOVERFLOW},
			"the server has not the memory to answer it in one piece"},
		{Complaint{Request: durable, Errno: EIO},
			"a flush of this export, or a write that was to be durable, has failed before: data " +
				"may be lost"},
	} {
		row.c.Facts, row.c.Session = &disk, extMapped
		if !row.c.Request.Extended {
			row.c.Session = mapped
		}
		got := string(row.c.Append([]byte("x")))
		if !strings.HasSuffix(got, ": "+row.want) ||
			!strings.Contains(got, " of the default export, ") || got[0] != 'x' {
			t.Errorf("%s", got)
		}
	}
}

func TestComplaintsAreFitForATerminal(t *testing.T) {
	r := &Request{Command: 65535, Length: math.MaxUint64, Offset: math.MaxUint64}
	for _, name := range []string{"a\nb\x1b[31m", strings.Repeat("n", MaxString),
		strings.Repeat("é", 100), strings.Repeat("\u202e€", 60), strings.Repeat("\xff", 4000),
		"\ufffd", "\x00"} {
		for _, errno := range []Errno{EINVAL, EIO, ESHUTDOWN} {
			c := Complaint{Request: r, Export: name, Facts: &Facts{Size: math.MaxUint64},
				Errno: errno, System: map[bool]int32{true: math.MaxInt32}[errno == EIO]}
			checkComplaint(t, &c)
		}
	}
}

// checkComplaint checks that the text is short, UTF-8, without anything that a terminal obeys, and
// that it allocates nothing.
func checkComplaint(t *testing.T, c *Complaint) {
	t.Helper()
	room := make([]byte, 0, maxComplaint)
	b := c.Append(room)
	if len(b) > maxComplaint || !utf8.Valid(b) || &b[0] != &room[:1][0] {
		t.Errorf("%d bytes, valid %v: %q", len(b), utf8.Valid(b), b)
	}
	if bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u202e' }) {
		t.Errorf("%q", b)
	}
	if n := testing.AllocsPerRun(1, func() { c.Append(room) }); n != 0 {
		t.Errorf("%v allocations: %q", n, b)
	}
}

func TestRepliesDoNotAllocate(t *testing.T) {
	r := Request{Command: CmdRead, Length: 1 << 40, Offset: 512}
	c := Complaint{Request: &r, Export: "größe", Facts: &disk, Session: structured, Errno: EINVAL}
	payload, _ := parse("u64:4096 u32:1 u32:3")
	var b, text [MaxError]byte
	if n := testing.AllocsPerRun(1000, func() {
		for _, f := range [...]Framing{Structured, Extended} {
			f.PutData(b[:], &r, 0, 512, false)
			f.PutHole(b[:], &r, 0, 512, true)
			f.PutNone(b[:], &r)
			f.PutError(b[:], &r, EINVAL, c.Append(text[:0]))
			f.PutStatusHead(b[:], 1, 1)
			f.PutExtent(b[:], 1, 1)
		}
		ParseFilter(payload, 0b101)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestContextSetLen(t *testing.T) {
	for set, want := range map[ContextSet]int{0: 0, 1: 1, 0b1010: 2, ^ContextSet(0): MaxContexts} {
		if got := set.Len(); got != want {
			t.Errorf("%b has %d contexts, want %d", set, got, want)
		}
	}
}
