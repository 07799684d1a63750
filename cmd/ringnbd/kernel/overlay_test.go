// A virtual machine whose root disk is an overlay: kept, and thrown away. Whatever it writes, the
// image below has the bytes that it had.

package kernel

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// bytesOf is the checksum of a file.
func bytesOf(t *testing.T, path string) [32]byte {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(body)
}

// unchanged checks that a file has the bytes that it had.
func unchanged(t *testing.T, what, path string, sum [32]byte) {
	t.Helper()
	if bytesOf(t, path) != sum {
		t.Errorf("%s has changed", what)
	}
}

// TestRootDiskOnAnOverlay boots from an overlay that keeps what is written, kills machine and
// server, and finds what was on the disk; then it boots from a throw-away overlay over that, and
// finds the disk as it was before each time it connects again.
func TestRootDiskOnAnOverlay(t *testing.T) {
	g := newGuest(t, 256, false, nil)
	base := rootImage(t)
	top := filepath.Join(t.TempDir(), "top")
	sum := bytesOf(t, base)
	kept := fmt.Sprintf("overlay(%s, %s, create=if-missing)", base, top)
	s := serve(t, map[string]string{"root": kept})
	g.config.Disks = []string{s.disk(0, "root")}
	g.config.Append = "root=/dev/vda"
	w := &writer{last: -1}
	skipped := map[int]bool{0: true}
	ok := g.step(t, "an overlay that keeps what is written", func(t *testing.T) {
		g.boot(t)
		w.write(t, g.machine, 40)
		g.kill()
		s.kill()
		unchanged(t, "the base", base, sum)
		s.start()
		g.boot(t)
		skipped[w.last+1] = true
		w.verify(t, g, skipped)
		g.kill()
		s.stop()
		unchanged(t, "the base", base, sum)
	})
	if !ok {
		g.kill()
		return
	}
	topSum := bytesOf(t, top)
	thrown := serve(t, map[string]string{
		"root": fmt.Sprintf("overlay(overlay(%s, %s), discard=on-disconnect)", base, top)})
	g.config.Disks = []string{thrown.disk(0, "root")}
	g.step(t, "an overlay that is thrown away", func(t *testing.T) {
		for range 2 {
			g.boot(t)
			w.verify(t, g, skipped) // as it was, whatever the time before has written
			here := *w
			skips := map[int]bool{0: true, w.last + 1: true}
			here.write(t, g.machine, 40)
			if err := g.machine.Reset(); err != nil { // QEMU stays connected
				t.Fatal(err)
			}
			here.hearReset(t, g.machine)
			skips[here.last+1] = true
			here.verify(t, g, skips)
			g.kill()
		}
		thrown.stop()
		unchanged(t, "the base", base, sum)
		unchanged(t, "the overlay below", top, topSum)
	})
	g.step(t, "e2fsck of the overlay that was kept", func(t *testing.T) {
		s.start()
		g.config.Disks = []string{s.disk(0, "root")}
		g.boot(t)
		if err := g.machine.Send("off"); err != nil {
			t.Fatal(err)
		}
		if err := g.machine.AwaitOff(time.Minute); err != nil {
			t.Fatal(err)
		}
		unchanged(t, "the base", base, sum)
	})
}
