// Superblocks, layouts and the loading of maps: what is accepted, and what is refused with which
// words.

package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
)

func testOrigin(size uint64) Origin {
	return Origin{Size: size, Identity: [32]byte{7, 8}, Name: "/srv/golden.img"}
}

func mustFormat(t testing.TB, size uint64) []byte {
	t.Helper()
	head, err := Format([16]byte{1, 2, 3}, testOrigin(size))
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// TestLayout checks where things are.
func TestLayout(t *testing.T) {
	for _, c := range []struct{ size, block, mapLen, data uint64 }{
		{512, 512, 4096, 1 << 20},
		{3 * 1024, 1024, 4096, 1 << 20},
		{1 << 30, 4096, 64 << 10, 1 << 20},
		{1 << 40, 4096, 64 << 20, 65 << 20},
		{1<<40 + 512, 512, 512<<20 + 4096, 513 << 20},
		{MaxSize, 4096, 1 << 36, 1<<36 + 1<<20},
	} {
		l, err := Lay(c.size)
		if err != nil || uint64(l.Block) != c.block || l.MapLen != c.mapLen ||
			l.DataAt != c.data || l.FileLen != c.data+c.size {
			t.Errorf("%d: %+v, %v", c.size, l, err)
		}
	}
	for size, text := range map[uint64]string{0: "the origin is empty",
		1000: "the origin's size of 1000 bytes is not a multiple of 512",
		MaxSize + 512: "the origin has 1125899906843136 bytes; " +
			"an overlay has at most 1125899906842624"} {
		if _, err := Lay(size); err == nil || err.Error() != text {
			t.Errorf("%d: %v", size, err)
		}
	}
}

// TestSuperblock checks that what was written is read, and that the newer of two counts.
func TestSuperblock(t *testing.T) {
	head := mustFormat(t, 1<<30)
	s, err := Parse(head)
	if err != nil || s.UUID != [16]byte{1, 2, 3} || s.Origin != testOrigin(1<<30) {
		t.Fatalf("%+v, %v", s, err)
	}
	next := s.Next()
	next.Committing = true
	at, text := next.Encode()
	for torn := 0; torn <= len(text); torn += 512 {
		cut := bytes.Clone(head)
		copy(cut[at:], text[:torn])
		s, err := Parse(cut)
		if err != nil || s.Committing != (torn == len(text) || s.Sequence == next.Sequence) {
			t.Errorf("after %d bytes: %+v, %v", torn, s, err)
		}
	}
	long := Super{Origin: Origin{Size: 512, Name: strings.Repeat("ü", 600) + "x"}}
	_, text = long.Encode()
	if s, err := parse(text, 0); err != nil || len(s.Origin.Name) != MaxName {
		t.Errorf("a long name: %d bytes, %v", len(s.Origin.Name), err)
	}
}

// TestRefused checks what is not opened, and why.
func TestRefused(t *testing.T) {
	head := mustFormat(t, 1<<30)
	spoil := func(at int, value byte, sum bool) []byte {
		b := bytes.Clone(head)
		for place := 0; place < HeadLen; place += superLen {
			b[place+at] = value
			if sum {
				text := b[place : place+superLen]
				binary.LittleEndian.PutUint32(text[atSum:], crc32.Checksum(text[:atSum], sums))
			}
		}
		return b
	}
	for _, c := range []struct {
		text string
		head []byte
	}{
		{"it is blank, not an overlay", make([]byte, HeadLen)},
		{"it is not an overlay", bytes.Repeat([]byte{0xeb}, HeadLen)},
		{"it is an overlay of format 2; known is 1", spoil(atVersion, 2, true)},
		{"it is an overlay with features that are not known here (100)",
			spoil(atFeatures, 4, true)},
		{"the overlay is damaged at byte 0: the checksum of the superblock is wrong",
			spoil(atUUID, 9, false)},
		{"the overlay is damaged at byte 0: the superblock contradicts itself",
			spoil(atBlock, 3, true)},
		{"the overlay is damaged at byte 0: the superblock contradicts itself",
			spoil(atSize, 1, true)},
		{"the overlay is damaged at byte 0: the superblock contradicts itself",
			spoil(atNameLen+1, 9, true)},
		{"the overlay is damaged at byte 0: the superblock contradicts itself",
			spoil(atData, 9, true)},
	} {
		if _, err := Parse(c.head); err == nil || err.Error() != c.text {
			t.Errorf("%v, not %s", err, c.text)
		}
	}
	if _, err := Parse(head[:100]); err == nil {
		t.Error("the beginning of a superblock is accepted")
	}
	var blank *NotOverlayError
	if _, err := Parse(nil); !errors.As(err, &blank) || !blank.Blank {
		t.Errorf("an empty file: %v", err)
	}
	s, err := Parse(head)
	if err != nil {
		t.Fatal(err)
	}
	other := testOrigin(1 << 30)
	other.Identity[0]++
	small := testOrigin(1 << 29)
	for text, err := range map[string]error{
		"the overlay was made over another origin (\"/srv/golden.img\"), or the origin has " +
			"changed since": s.Check(other),
		"the overlay was made over an origin (\"/srv/golden.img\") of 1073741824 bytes, and " +
			"this origin has 536870912": s.Check(small),
		"the overlay is damaged at byte 4096: the file ends there, and should have 1074790400 " +
			"bytes": s.CheckLength(4096),
	} {
		if err == nil || err.Error() != text {
			t.Errorf("%v, not %s", err, text)
		}
	}
	if s.Check(s.Origin) != nil || s.CheckLength(1<<30+1<<20) != nil {
		t.Error("the right origin is refused")
	}
}

// TestLoadRefuses checks that a map with impossible states is refused, with the place.
func TestLoadRefuses(t *testing.T) {
	l, _ := Lay(5 * 512)
	part := make([]byte, 512)
	part[1] = 0b01 // block 4, the last
	if err := NewMap(l, nil).Load(0, part); err != nil {
		t.Error(err)
	}
	for at, value := range map[int]byte{0: 0b1100, 1: 0b0100, 100: 1} {
		part := make([]byte, 512)
		part[at] = value
		err := NewMap(l, nil).Load(0, part)
		var damaged *DamagedError
		if !errors.As(err, &damaged) || damaged.At != l.MapAt+uint64(at) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

// FuzzParse checks that what is accepted is a superblock, whatever the bytes: it is written again
// the same, and every map of its size that loads counts what it holds.
func FuzzParse(f *testing.F) {
	f.Add(mustFormat(f, 1<<20), []byte{1, 2})
	f.Add(make([]byte, HeadLen), []byte{})
	f.Add([]byte("RINGOVL\n"), []byte{0xff})
	f.Fuzz(func(t *testing.T, head, words []byte) {
		resum(head)
		s, err := Parse(head)
		if err != nil {
			return
		}
		l, err := Lay(s.Origin.Size)
		if err != nil {
			t.Fatalf("%+v is accepted, and has no layout: %v", s, err)
		}
		at, text := s.Encode()
		again, err := parse(text, at)
		if err != nil || again != s {
			t.Fatalf("%+v is written as %+v, %v", s, again, err)
		}
		if l.MapLen > 1<<20 {
			return
		}
		m := NewMap(l, nil)
		part := words[:min(len(words), int(l.MapLen))&^7]
		if m.Load(0, part) != nil {
			return
		}
		var bytesOf [3]uint64
		m.Extents(0, s.Origin.Size, func(_, length uint64, s State) bool {
			bytesOf[s] += length
			return true
		})
		block := uint64(l.Block)
		if bytesOf[Data] != m.data.Load()*block || bytesOf[Zeroes] != m.zeroes.Load()*block ||
			bytesOf[0]+bytesOf[1]+bytesOf[2] != s.Origin.Size {
			t.Fatalf("%v of %d", bytesOf, s.Origin.Size)
		}
	})
}

// resum makes checksums right, so that a fuzzer gets behind them.
func resum(head []byte) {
	for at := 0; at+superLen <= len(head) && at < HeadLen; at += superLen {
		text := head[at : at+superLen]
		binary.LittleEndian.PutUint32(text[atSum:], crc32.Checksum(text[:atSum], sums))
	}
}
