// The shortest session: if this fails, read this first.

package live_test

import (
	"bytes"
	"testing"
)

func TestOneConnectionWritesAndReads(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			s := serve(t, transport, sparseImage(t, 16<<20))
			p := s.dial(t)
			if p.size != 16<<20 {
				t.Errorf("size %d", p.size)
			}
			want := pattern(8192, 1)
			if err := p.write(4096, want); err != nil {
				t.Fatal(err)
			}
			if err := p.flush(); err != nil {
				t.Fatal(err)
			}
			got, err := p.read(4096, len(want))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("read back: %v, equal %t", err, bytes.Equal(got, want))
			}
			p.disconnect()
		})
	}
}
