// The suite's own data in an export: what is where, so that every READ can be judged.
//
// Invariant: no check writes below scratchStart after the data was laid out, so that expected holds
// until the suite ends.

package conform

import (
	"encoding/binary"
	"fmt"
	"os"

	"ringnbd/proto"
)

// How an export is divided, in bytes. The data needs an export of twice scratchStart.
const (
	holeStart   = 8 << 20  // [0, holeStart) is data without a block of zeroes
	stripeStart = 12 << 20 // [holeStart, stripeStart) is a hole
	// [stripeStart, scratchStart) alternates data and holes, stripe bytes each, data first
	scratchStart = 16 << 20
	stripe       = 64 << 10
	minSize      = 2 * scratchStart
)

// expected returns what the export holds in [offset, offset+length), which must end at scratchStart
// or before.
func expected(offset, length uint64) []byte {
	if offset+length > scratchStart {
		panic(fmt.Sprintf("conform: nothing is expected of %d bytes at %d", length, offset))
	}
	b := make([]byte, length)
	var word [8]byte
	for i := range b {
		at := offset + uint64(i)
		if isHole(at) {
			continue
		}
		if i == 0 || at%8 == 0 {
			binary.BigEndian.PutUint64(word[:], scramble(at/8))
		}
		b[i] = word[at%8]
	}
	return b
}

func isHole(at uint64) bool {
	return at >= holeStart && (at < stripeStart || at/stripe%2 == 1)
}

// scramble makes words that are not zero and do not repeat within a block.
func scramble(n uint64) uint64 {
	n = (n + 1) * 0x9e3779b97f4a7c15
	return n ^ n>>29 | 1
}

// fill returns n bytes that differ from expected, and from each other by seed.
func fill(seed uint64, n int) []byte {
	b := make([]byte, (n+7)&^7)
	for i := 0; i < len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], scramble(seed<<40+uint64(i))^0x5555555555555555)
	}
	return b[:n]
}

// scratch returns where a check may write n bytes: an offset that is a multiple of 1 MiB. What
// earlier checks wrote is still there.
func (t *trial) scratch(n uint64) uint64 {
	if t.profile.Size < scratchStart+n {
		t.skip("the export is too small: %d bytes at %d are needed", n, scratchStart)
	}
	return scratchStart
}

// wantData fails unless READs bring exactly want; it reads in pieces that every server takes.
func (c *conn) wantData(offset uint64, want []byte, when string) {
	for at := uint64(0); at < uint64(len(want)); {
		n := min(uint64(len(want))-at, 1<<20)
		reply := c.succeeds(newRead(offset+at, n))
		if i := firstDifference(reply.data, want[at:at+n]); i >= 0 {
			c.t.failf("%s: the byte at %d is %#x, not %#x", when, offset+at+uint64(i),
				reply.data[i], want[at+uint64(i)])
		}
		at += n
	}
}

// layImage makes an image with the suite's data and its holes.
func layImage(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if _, err := f.WriteAt(expected(0, holeStart), 0); err != nil {
		return err
	}
	for at := uint64(stripeStart); at < scratchStart; at += 2 * stripe {
		if _, err := f.WriteAt(expected(at, stripe), int64(at)); err != nil {
			return err
		}
	}
	return f.Sync()
}

// layExport overwrites the start of the export with the suite's data.
func (t *trial) layExport() {
	c := t.open(t.profile.simplestMode())
	for at := uint64(0); at < scratchStart; at += 1 << 20 {
		c.succeeds(newWrite(at, expected(at, 1<<20)))
	}
	t.profile.probe = expected(0, uint64(len(t.profile.probe)))
	if t.profile.Flags&proto.FlagSendWriteZeroes == 0 {
		return
	}
	c.succeeds(newCommand(proto.CmdWriteZeroes, holeStart, stripeStart-holeStart))
	for at := uint64(stripeStart + stripe); at < scratchStart; at += 2 * stripe {
		c.succeeds(newCommand(proto.CmdWriteZeroes, at, stripe))
	}
}
