// The disk of an overlay's top is full: that is the error of a write that needs space, and of
// nothing else.

package live_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"ringnbd/bench/measure"
)

const errnoNoSpace = 28

func TestFullDiskOfAnOverlayIsTheErrorOfItsWrites(t *testing.T) {
	onlyRingnbd(t)
	origin := sparseImage(t, 4<<30)
	folder := mount(t, "-t", "tmpfs", "-o", "size=8m", "tmpfs")
	tree := fmt.Sprintf("overlay(%s, %s, create=if-missing)", origin,
		filepath.Join(folder, "top.cow"))
	s := serve(t, measure.Unix, tree)
	p := s.dial(t)
	const length = 1 << 20
	answer := func(command, flags uint16, off uint64, n int, data []byte) uint32 {
		t.Helper()
		r, err := p.do(command, flags, off, uint32(n), data)
		if err != nil {
			t.Fatal(err)
		}
		return r.errno
	}
	fits := 0 // each write is in another page of the map
	for answer(cmdWrite, 0, uint64(fits)*100<<20, length, pattern(length, uint64(fits))) == 0 {
		if fits++; fits > 30 {
			t.Fatal("the disk does not become full")
		}
	}
	small := pattern(4096, 99)
	for _, c := range []struct {
		what           string
		command, flags uint16
		off            uint64
		n              int
		data           []byte
		errno          uint32
	}{
		{"a write in a new place", cmdWrite, 0, 3 << 30, 1 << 20, make([]byte, 1<<20),
			errnoNoSpace},
		{"a flush", cmdFlush, 0, 0, 0, nil, 0},
		{"a write in a place that is there", cmdWrite, 0, 0, 4096, small, 0},
		{"a write with FUA", cmdWrite, flagFUA, 4096, 4096, small, 0},
		{"a trim", cmdTrim, 0, 100 << 20, length, nil, 0},
		{"a write into what the trim gave back", cmdWrite, flagFUA, 3 << 30, 4096, small, 0},
		{"a flush after it", cmdFlush, 0, 0, 0, nil, 0},
	} {
		if errno := answer(c.command, c.flags, c.off, c.n, c.data); errno != c.errno {
			t.Errorf("%s: errno %d, not %d", c.what, errno, c.errno)
		}
	}
	s.kill()
	s = serve(t, measure.Unix, tree)
	p = s.dial(t)
	for _, c := range []struct {
		off  uint64
		want []byte
	}{
		{0, small}, {4096, small}, {8192, pattern(length, 0)[8192:]}, {3 << 30, small},
		{100 << 20, make([]byte, length)}, {200 << 20, pattern(length, 2)},
		{uint64(fits) * 100 << 20, make([]byte, length)},
	} {
		got, err := p.read(c.off, len(c.want))
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("at %d is not what was written (%v)", c.off, err)
		}
	}
}
