// What can be seen of an export in the image under it. Invariant: the image is only looked at.

package conform

import (
	"os"
	"syscall"

	"ringnbd/proto"
)

// zeroesProvisioned makes a hole of the scratch, zeroes a part of it with NO_HOLE and looks for the
// blocks in the image.
func zeroesProvisioned(t *T) {
	f := t.Image()
	defer f.Close()
	const n = 1 << 20
	c := t.Open(t.facts.Best())
	at := t.Scratch(n)
	if c.offers(proto.CmdTrim) {
		c.Succeeds(Command(proto.CmdTrim, at, n))
	}
	c.Succeeds(Command(proto.CmdWriteZeroes, at, n).With(proto.CmdFlagNoHole))
	if c.offers(proto.CmdFlush) {
		c.Succeeds(Command(proto.CmdFlush, 0, 0))
	}
	before := allocated(t, f)
	c.overwrite(at, Fill(1, n))
	if c.offers(proto.CmdFlush) {
		c.Succeeds(Command(proto.CmdFlush, 0, 0))
	}
	if after := allocated(t, f); after >= before+n/2 {
		t.Failf("after NO_HOLE the image had %d bytes of blocks, and %d once the area was "+
			"written: it was a hole", before, after)
	}
	c.WantData(at, Fill(1, n), "after WRITE")
}

// allocated is how many bytes of blocks the image has.
func allocated(t *T, f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		t.Skip("the image: %v", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Skip("this system does not tell how many blocks a file has")
	}
	return stat.Blocks * 512
}
