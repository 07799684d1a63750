// Fuzz targets of the client's parsers: whatever a server sends, they do not panic, and what they
// return keeps to the protocol's limits.

package proto

import (
	"encoding/binary"
	"testing"
)

// FuzzReplyChunk reads chunk headers of both layouts, and the payloads after them.
func FuzzReplyChunk(f *testing.F) {
	for _, seed := range []string{
		"668e33ef 0001 0000 0102030405060708 00000000",
		"668e33ef 0001 0001 0000000000000000 0000000c 0000000000001000 64617461",
		"668e33ef 0001 0002 0000000000000000 0000000c 0000000000001000 00001000",
		"668e33ef 0001 0005 0000000000000000 00000014 00000007 00001000 00000000 00001000 00000003",
		"668e33ef 0001 8001 0000000000000000 0000000a 0000001c 0004 66756c6c",
		"668e33ef 0001 8002 0000000000000000 0000000e 00000005 0000 0000000000001000",
		"6e8a278c 0001 0006 0000000000000001 0000000000001000 0000000000000018 00000007 " +
			"00000001 0000010000000000 0000000000000003",
	} {
		f.Add(unhex(f, seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= ChunkSize {
			if c, err := ParseReplyChunk(b); err == nil {
				checkChunk(t, &c, b[ChunkSize:])
			}
		}
		if len(b) >= ExtReplySize {
			if c, err := ParseExtReplyChunk(b); err == nil {
				checkChunk(t, &c, b[ExtReplySize:])
			}
		}
	})
}

// checkChunk parses the payload that a header announces, as far as rest has it.
func checkChunk(t *testing.T, c *ReplyChunk, rest []byte) {
	whole := uint64(len(rest)) >= c.Length
	switch {
	case c.Failed() && whole && c.Length <= MaxErrorChunk:
		errno, text, _, err := ParseErrorChunk(c.Type, rest[:c.Length])
		if err == nil && (errno == Success || !errno.inSpec() || uint64(len(text)) > c.Length) {
			t.Errorf("%+v: %v %q", c, errno, text)
		}
	case c.Type == ChunkOffsetHole && len(rest) >= HoleSize:
		if _, length, err := ParseHoleChunk(rest); err == nil && length == 0 {
			t.Error("a hole of no length")
		}
	case c.Type == ChunkBlockStatus || c.Type == ChunkBlockStatusExt:
		head, size := StatusSizes(c.Type)
		if len(rest) < head {
			return
		}
		_, n, err := ParseStatusHead(c, rest)
		if err != nil {
			return
		}
		if n == 0 || n > MaxExtents || uint64(head)+n*uint64(size) != c.Length {
			t.Errorf("%+v: %d extents", c, n)
		}
		for rest = rest[head:]; len(rest) >= size; rest = rest[size:] {
			if e, err := ParseStatusExtent(c.Type, rest); err == nil && e.Length == 0 {
				t.Error("an extent of no length")
			}
		}
	}
}

// FuzzOptionData parses data as that of each kind of option reply.
func FuzzOptionData(f *testing.F) {
	for _, seed := range []string{"00000007 626173653a616c6c6f636174696f6e",
		"00000004 6469736b 74657874", "0000 0000000000001000 0001",
		"0003 00000001 00001000 02000000", "0001 6469736b"} {
		f.Add(unhex(f, seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, name, err := ParseMetaContext(b); err == nil && (name == "" || !ValidString(name)) {
			t.Errorf("context %q", name)
		}
		if name, description, err := ParseServer(b); err == nil &&
			4+len(name)+len(description) != len(b) {
			t.Errorf("%q %q", name, description)
		}
		var e Export
		if err := ParseInfo(b, &e); err == nil && binary.BigEndian.Uint16(b) == InfoExport &&
			len(b) != 2+ExportNameReplySize {
			t.Errorf("%x: %+v", b, e)
		}
	})
}

// FuzzClientHeaders parses the fixed headers of the client's side.
func FuzzClientHeaders(f *testing.F) {
	f.Add(unhex(f, "0003e889045565a9 00000007 00000003 0000000c 0000 0000"), uint32(OptGo))
	f.Add(unhex(f, "4e42444d41474943 49484156454f5054 0003 0000"), uint32(0))
	f.Add(unhex(f, "67446698 00000005 0102030405060708"), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, option uint32) {
		if r, err := ParseOptionReply(b, option); err == nil && r.Option != option {
			t.Errorf("%+v", r)
		}
		_, _ = ParseBanner(b)
		if len(b) >= SimpleReplySize {
			if _, e, err := ParseSimpleReply(b); err == nil && !e.inSpec() {
				t.Errorf("error value %d", e)
			}
		}
	})
}
