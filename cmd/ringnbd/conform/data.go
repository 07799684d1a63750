// The suite's own data in an export: what stands where, so that every read can be judged.
//
// Invariant: nobody writes below ScratchStart after the data was laid out, so that Expected holds
// until the suite ends.

package conform

import (
	"encoding/binary"
	"fmt"
	"os"

	"ringnbd/proto"
)

// How an export is divided, in bytes. The pattern needs an export of ScratchStart and as much
// again.
const (
	HoleStart   = 8 << 20  // [0, HoleStart) is data, no block of it zero
	StripeStart = 12 << 20 // [HoleStart, StripeStart) is a hole
	// [StripeStart, ScratchStart) is data and holes in turn, Stripe bytes each, data first
	ScratchStart = 16 << 20
	Stripe       = 64 << 10
	leastSize    = 2 * ScratchStart
)

// Expected is what the export holds in [offset, offset+length), which must end at ScratchStart or
// before.
func Expected(offset, length uint64) []byte {
	if offset+length > ScratchStart {
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
	return at >= HoleStart && (at < StripeStart || at/Stripe%2 == 1)
}

// scramble makes words that are not zero and do not repeat within a block.
func scramble(n uint64) uint64 {
	n = (n + 1) * 0x9e3779b97f4a7c15
	return n ^ n>>29 | 1
}

// Fill is n bytes that differ from Expected and by seed.
func Fill(seed uint64, n int) []byte {
	b := make([]byte, (n+7)&^7)
	for i := 0; i < len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], scramble(seed<<40+uint64(i))^0x5555555555555555)
	}
	return b[:n]
}

// Scratch is the place where a check may write n bytes: an offset that is a multiple of 1 MiB.
// Whatever earlier checks left is still there.
func (t *T) Scratch(n uint64) uint64 {
	if t.facts.Size < ScratchStart+n {
		t.Skip("the export is too small: %d bytes at %d are needed", n, ScratchStart)
	}
	return ScratchStart
}

// WantData fails unless READs bring exactly this; it reads in pieces that every server takes.
func (c *Conn) WantData(offset uint64, want []byte, when string) {
	for at := uint64(0); at < uint64(len(want)); {
		n := min(uint64(len(want))-at, 1<<20)
		reply := c.Succeeds(Read(offset+at, n))
		if i := firstDifference(reply.Data, want[at:at+n]); i >= 0 {
			c.t.Failf("%s: the byte at %d is %#x, not %#x", when, offset+at+uint64(i),
				reply.Data[i], want[at+uint64(i)])
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
	if _, err := f.WriteAt(Expected(0, HoleStart), 0); err != nil {
		return err
	}
	for at := uint64(StripeStart); at < ScratchStart; at += 2 * Stripe {
		if _, err := f.WriteAt(Expected(at, Stripe), int64(at)); err != nil {
			return err
		}
	}
	return f.Sync()
}

// layExport writes the suite's data over whatever an export holds.
func (t *T) layExport() {
	c := t.Open(t.facts.simplest())
	for at := uint64(0); at < ScratchStart; at += 1 << 20 {
		c.Succeeds(Write(at, Expected(at, 1<<20)))
	}
	t.facts.probe = Expected(0, uint64(len(t.facts.probe)))
	if t.facts.Flags&proto.FlagSendWriteZeroes == 0 {
		return
	}
	c.Succeeds(Command(proto.CmdWriteZeroes, HoleStart, StripeStart-HoleStart))
	for at := uint64(StripeStart + Stripe); at < ScratchStart; at += 2 * Stripe {
		c.Succeeds(Command(proto.CmdWriteZeroes, at, Stripe))
	}
}
