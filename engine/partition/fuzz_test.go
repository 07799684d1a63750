// Any bytes: reading ends, within bounds, and what is found is sound.
//
// Invariant: the checksums of a GPT are set right before each try, or the fuzzer would never get
// past them.

package partition

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"
)

// flat returns the first bytes of a disk.
func flat(s *sparse, length int) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = s.bytes[uint64(i)]
	}
	return b
}

// resum sets the checksums of the header in a sector right, if what it covers is there.
func resum(b []byte, at int) {
	if len(b) < at+gptHeader || string(b[at:at+8]) != gptSignature {
		return
	}
	h, le := b[at:], binary.LittleEndian
	first := le.Uint64(h[72:]) * 512
	length := uint64(le.Uint32(h[80:])) * uint64(le.Uint32(h[84:]))
	if first < uint64(len(b)) && length <= uint64(len(b))-first {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(b[first:first+length]))
	}
	if length := le.Uint32(h[12:]); length >= gptHeader && int(length) <= len(h) {
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:length]))
	}
}

// tape is a disk that begins and ends with bytes that are given, and is zero between them.
type tape struct {
	head, last []byte
	size       uint64
}

// ReadAt implements io.ReaderAt.
func (d *tape) ReadAt(p []byte, at int64) (int, error) {
	whole := len(p)
	clear(p)
	if at < 0 || uint64(at)+uint64(len(p)) > d.size {
		return 0, io.EOF
	}
	if at < int64(len(d.head)) {
		copy(p, d.head[at:])
	}
	end := int64(d.size/minSector) * minSector
	if from := end - int64(len(d.last)); at+int64(len(p)) > from {
		if at < from {
			p, at = p[from-at:], from
		}
		copy(p, d.last[at-from:])
	}
	return whole, nil
}

func FuzzRead(f *testing.F) {
	small := gpt{sector: 512, number: 4, parts: []gptPart{{place: 1, first: 10, last: 20},
		{place: 4, first: 21, last: 30, label: "root"}}}
	f.Add(flat(newSparse(64*512).gpt(small), 64*512), uint64(64*512), false)
	f.Add(flat(newSparse(64*512).gpt(small), 2048), uint64(1<<50), true)
	short := newSparse(64 * 512)
	short.mbr(0, mbrEntry{kind: 0x83, start: 1, length: 2},
		mbrEntry{kind: 0x05, start: 3, length: 9})
	short.link(3, mbrEntry{kind: 0x83, start: 1, length: 1},
		mbrEntry{kind: 0x05, start: 2, length: 2})
	short.link(5, mbrEntry{kind: 0x83, start: 1, length: 1})
	f.Add(flat(short, 6*512), uint64(64*512), false)
	hybrid := newSparse(64 * 512).gpt(small)
	hybrid.protect(mbrEntry{kind: 0x83, start: 10, length: 10})
	f.Add(flat(hybrid, 64*512), uint64(64*512), true)
	f.Fuzz(func(t *testing.T, data []byte, size uint64, spare bool) {
		resum(data, 512)
		d := &tape{head: data, size: size}
		if spare && size > 2*minSector { // the end of the bytes is a backup, too
			d.last = append(d.last, data[max(0, len(data)-minSector):]...)
			resum(d.last, 0)
		}
		for _, sectors := range [][]uint32{{512, 4096}, {4096}} {
			if table, err := Read(d, size, sectors...); err == nil {
				sound(t, size, table)
			}
		}
	})
}
