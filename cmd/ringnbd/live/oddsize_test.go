// Sizes that are not a multiple of a sector, or of anything.
//
// Invariant: the image keeps its size, and has the written data, up to its last byte.

package live_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

func TestOddSizesAreServedToTheByte(t *testing.T) {
	need(t, "nbdcopy", "qemu-img")
	for _, size := range []int{1, 511, 1000, 4097, 1<<20 + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			image := sparseImage(t, int64(size))
			s := serve(t, measure.Unix, image)
			p := s.dial(t)
			if p.size != uint64(size) {
				t.Fatalf("%d bytes are shown", p.size)
			}
			want := pattern(size, 7)
			source := sparseImage(t, int64(size))
			writeAt(t, source, 0, want)
			must(t, time.Minute, "nbdcopy", "--flush", source, s.uri(""))
			if got, err := p.read(0, size); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read: %d bytes, %v", len(got), err)
			}
			if _, err := p.read(uint64(size)-1, 2); err == nil {
				t.Error("a byte behind the end was read")
			}
			tail := size / 2
			for _, command := range []uint16{cmdZeroes, cmdTrim} {
				if r, err := p.do(command, 0, uint64(tail), uint32(size-tail), nil); err != nil ||
					r.errno != 0 {
					t.Errorf("command %d to the end: errno %d, %v", command, r.errno, err)
				}
			}
			clear(want[tail:])
			must(t, time.Minute, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.uri(""),
				source+".back")
			s.stop()
			if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the image has %d bytes of %d, or others (%v)", len(got), size, err)
			}
		})
	}
}
