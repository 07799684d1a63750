// An overlay that was being emptied when the machine stopped: nothing of what is left of its map
// counts.

package backing

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"ringnbd/engine/layer/overlay"
)

// superblock reads the superblock of a top.
func superblock(t *testing.T, top string) overlay.Super {
	t.Helper()
	text, err := os.ReadFile(top)
	if err != nil {
		t.Fatal(err)
	}
	s, err := overlay.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEmptyingThatWasCutIsGoneOnWith(t *testing.T) {
	directory := t.TempDir()
	origin(t, directory)
	top := filepath.Join(directory, "top")
	mustOpen(t, over(directory, ", create=if-missing")).Close()
	b := mustOpen(t, over(directory, ""))
	before := content(t, b)
	b.Close()
	// The mark was written, and the map not yet cleared.
	put(t, top, layeredSize, map[uint64]overlay.State{1: overlay.Data, 9: overlay.Zeroes})
	s := superblock(t, top).Next()
	s.Emptying = true
	at, text := s.Encode()
	f, err := os.OpenFile(top, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(text, int64(at)); err != nil {
		t.Fatal(err)
	}

	for _, readOnly := range []bool{true, false, false} {
		spec := over(directory, "")
		spec.ReadOnly = readOnly
		b := mustOpen(t, spec)
		if data, zeroes, _ := b.Held(); data+zeroes != 0 {
			t.Errorf("read-only %v: it holds %d and %d bytes", readOnly, data, zeroes)
		}
		if !bytes.Equal(content(t, b), before) {
			t.Errorf("read-only %v: it does not show its origin", readOnly)
		}
		b.Close()
		if marked := superblock(t, top).Emptying; marked != readOnly {
			t.Errorf("read-only %v: the mark is there: %v", readOnly, marked)
		}
	}
	l, err := overlay.Lay(layeredSize)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(top)
	if err != nil {
		t.Fatal(err)
	}
	if left := bytes.Trim(whole[l.MapAt:], "\x00"); len(left) > 0 {
		t.Errorf("%d bytes are left in the top", len(left))
	}
}
