// The client's parsers of chunks, requests of 32 bytes and meta contexts, against bytes written by
// hand.

package proto

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// unhex returns bytes that are written in hex with blanks between the fields.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReplyChunks(t *testing.T) {
	for _, c := range []struct {
		text string
		want ReplyChunk
		err  error
	}{
		{"668e33ef 0001 0000 0102030405060708 00000000",
			ReplyChunk{Cookie: 0x0102030405060708, Flags: 1, Type: ChunkNone}, nil},
		{"668e33ef 0000 0001 ffffffffffffffff 00001008",
			ReplyChunk{Cookie: 1<<64 - 1, Length: 4104, Type: ChunkOffsetData}, nil},
		{"668e33ef 0001 0005 0000000000000000 00800004",
			ReplyChunk{Length: 4 + 8*MaxExtents, Flags: 1, Type: ChunkBlockStatus}, nil},
		{"668e33ef 0001 8001 0000000000000000 00000006",
			ReplyChunk{Length: 6, Flags: 1, Type: ChunkError}, nil},
		{"668e33ef 0001 9999 0000000000000000 00000001",
			ReplyChunk{Length: 1, Flags: 1, Type: 0x9999}, nil},
		{"67446698 0001 0000 0000000000000000 00000000", ReplyChunk{}, errChunk},
		{"668e33ef 0000 0000 0000000000000000 00000000", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 0000 0000000000000000 00000001", ReplyChunk{}, errChunkShape},
		{"668e33ef 0003 0001 0000000000000000 00000009", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 0001 0000000000000000 00000008", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 0002 0000000000000000 0000000d", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 0005 0000000000000000 00000004", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 0005 0000000000000000 0000000d", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 0005 0000000000000000 0080000c", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 0006 0000000000000000 00000018", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 8001 0000000000000000 00000005", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 8001 0000000000000000 ffffffff", ReplyChunk{}, errChunkShape},
		{"668e33ef 0001 8002 0000000000000000 0000000d", ReplyChunk{}, errChunkShape},
		{"6e8a278c 0001 0001 0000000000000001 0000000000001000 0000000100000008",
			ReplyChunk{Cookie: 1, Offset: 4096, Length: 1<<32 + 8, Flags: 1, Type: ChunkOffsetData},
			nil},
		{"6e8a278c 0001 0006 0000000000000001 0000000000001000 0000000000000018",
			ReplyChunk{Cookie: 1, Offset: 4096, Length: 24, Flags: 1, Type: ChunkBlockStatusExt},
			nil},
		{"6e8a278c 0001 0006 0000000000000001 0000000000001000 0000000001000018", ReplyChunk{},
			errChunkShape},
		{"6e8a278c 0001 0005 0000000000000001 0000000000001000 000000000000000c", ReplyChunk{},
			errChunkShape},
		{"668e33ef 0001 0000 0000000000000000 0000000000000000 0000000000000000", ReplyChunk{},
			errChunk},
	} {
		b := unhex(t, c.text)
		parse := ParseReplyChunk
		if len(b) == ExtReplySize {
			parse = ParseExtReplyChunk
		}
		if got, err := parse(b); !errors.Is(err, c.err) || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v", c.text, got, err)
		}
	}
}

func TestErrorChunks(t *testing.T) {
	for _, c := range []struct {
		kind  uint16
		text  string
		errno Errno
		words string
		at    uint64
		err   error
	}{
		{ChunkError, "00000005 0000", EIO, "", 0, nil},
		{ChunkError, "0000001c 0004 66756c6c", ENOSPC, "full", 0, nil},
		{ChunkErrorOffset, "00000005 0003 626164 0000000000001000", EIO, "bad", 4096, nil},
		{ChunkError, "00000000 0000", EINVAL, "", 0, nil},
		{ChunkError, "00000063 0000", EINVAL, "", 0, nil},
		{0x8123, "00000001", EPERM, "", 0, nil},
		{0x8123, "00000001 ffffffffff", EPERM, "", 0, nil},
		{0x8123, "", EINVAL, "", 0, nil},
		{ChunkError, "0000001c 0005 66756c6c", 0, "", 0, errChunkShape},
		{ChunkError, "0000001c 0003 66756c6c", 0, "", 0, errChunkShape},
		{ChunkError, "0000001c 00", 0, "", 0, errChunkShape},
		{ChunkErrorOffset, "00000005 0003 626164 000000000010", 0, "", 0, errChunkShape},
		{ChunkErrorOffset, "00000005 0000", 0, "", 0, errChunkShape},
	} {
		errno, words, at, err := ParseErrorChunk(c.kind, unhex(t, c.text))
		if !errors.Is(err, c.err) || errno != c.errno || string(words) != c.words || at != c.at {
			t.Errorf("%#x %s: %v %q %d %v", c.kind, c.text, errno, words, at, err)
		}
	}
}

func TestHolesAndExtents(t *testing.T) {
	if offset, length,
		err := ParseHoleChunk(unhex(t, "0000000100000000 00001000")); offset != 1<<32 ||
		length != 4096 || err != nil {
		t.Error(offset, length, err)
	}
	if _, _, err := ParseHoleChunk(make([]byte, HoleSize)); !errors.Is(err, errChunkShape) {
		t.Error(err)
	}
	compact := ReplyChunk{Type: ChunkBlockStatus, Length: 4 + 3*8}
	if id, n, err := ParseStatusHead(&compact, unhex(t, "00000007")); id != 7 || n != 3 ||
		err != nil {
		t.Error(id, n, err)
	}
	extended := ReplyChunk{Type: ChunkBlockStatusExt, Length: 8 + 3*16}
	if id, n, err := ParseStatusHead(&extended, unhex(t, "00000007 00000003")); id != 7 || n != 3 ||
		err != nil {
		t.Error(id, n, err)
	}
	if _, _, err := ParseStatusHead(&extended, unhex(t, "00000007 00000002")); !errors.Is(err,
		errChunkShape) {
		t.Error(err)
	}
	if e, err := ParseStatusExtent(ChunkBlockStatus,
		unhex(t, "fffff000 00000003")); e != (StatusExtent{0xfffff000, 3}) || err != nil {
		t.Error(e, err)
	}
	if e, err := ParseStatusExtent(ChunkBlockStatusExt,
		unhex(t, "0000010000000000 0000000100000003")); e != (StatusExtent{1 << 40, 1<<32 + 3}) ||
		err != nil {
		t.Error(e, err)
	}
	for kind, size := range map[uint16]int{ChunkBlockStatus: 8, ChunkBlockStatusExt: 16} {
		if _, err := ParseStatusExtent(kind, make([]byte, size)); !errors.Is(err, errExtent) {
			t.Error(kind, err)
		}
	}
}

func TestExtRequest(t *testing.T) {
	var b [ExtRequestSize]byte
	PutExtRequest(b[:],
		&Request{Cookie: 0x0102030405060708, Offset: 1 << 40, Length: 1 << 33,
			Command: CmdWriteZeroes, Flags: CmdFlagNoHole})
	if got := hex.EncodeToString(b[:]); got != "21e41c71"+"0002"+"0006"+"0102030405060708"+
		"0000010000000000"+"0000000200000000" {
		t.Error(got)
	}
}

func TestMetaContexts(t *testing.T) {
	b := AppendMetaContext(nil, OptSetMetaContext, "disk", "base:allocation", "x:")
	if got, want := hex.EncodeToString(b), "49484156454f5054"+"0000000a"+"00000025"+"00000004"+
		"6469736b"+"00000002"+"0000000f"+hex.EncodeToString([]byte("base:allocation"))+"00000002"+
		"783a"; got != want {
		t.Errorf("%s\n%s", got, want)
	}
	if id, name, err := ParseMetaContext(unhex(t, "00000007 783a79")); id != 7 || name != "x:y" ||
		err != nil {
		t.Error(id, name, err)
	}
	for _, bad := range []string{"", "000000", "00000007", "00000007 00", "00000007 ff",
		"00000007" + strings.Repeat("78", MaxString+1)} {
		if _, _, err := ParseMetaContext(unhex(t, bad)); !errors.Is(err, errOptionReply) {
			t.Errorf("%.20s: %v", bad, err)
		}
	}
}
