// Power cuts of a machine that serves an overlay, as seen by its file system: the top lies on a
// file system in an image, which is cloned at one moment while clients write and flush. Each clone
// is what the disk of a machine holds that has lost its power then. Its file system replays its
// journal, and the overlay must hold everything that was flushed before.

package live_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// powerCut is a clone, and what a reader of it may find.
type powerCut struct {
	image   string
	allowed *layered
}

// freeze copies counters.
func freeze(counters []atomic.Uint32) []atomic.Uint32 {
	frozen := make([]atomic.Uint32, len(counters))
	for i := range counters {
		frozen[i].Store(counters[i].Load())
	}
	return frozen
}

// cutPower clones an image while an export on it is written to.
func (l *layered) cutPower(t *testing.T, image string, n int) powerCut {
	t.Helper()
	c := powerCut{image: fmt.Sprintf("%s.%d", image, n),
		allowed: &layered{unit: l.unit, seed: l.seed, base: l.base, durable: freeze(l.durable)}}
	must(t, time.Minute, "cp", "--reflink=always", image, c.image)
	c.allowed.acked, c.allowed.sent = freeze(l.acked), freeze(l.sent)
	return c
}

// cloning is a folder on a file system that clones files.
func cloning(t *testing.T) string {
	t.Helper()
	need(t, "losetup", "mkfs.xfs", "mkfs.ext4")
	image := sparseImage(t, 2<<30)
	must(t, time.Minute, "mkfs.xfs", "-q", "-m", "reflink=1", image)
	return mount(t, loopDevice(t, image))
}

func TestPowerCutOfAnOverlayLosesNothingThatWasFlushed(t *testing.T) {
	onlyRingnbd(t)
	for _, system := range [][]string{{"mkfs.ext4", "-q", "-F"},
		{"mkfs.xfs", "-q", "-s", "size=4096"}} {
		t.Run(system[0][len("mkfs."):], func(t *testing.T) {
			image := filepath.Join(cloning(t), "disk.img")
			if err := os.WriteFile(image, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(image, 600<<20); err != nil {
				t.Fatal(err)
			}
			must(t, time.Minute, system[0], append(slices.Clone(system[1:]), image)...)
			origin := layeredOrigin(t)
			cuts := underLoad(t, origin, image)
			for n, c := range cuts {
				folder := mount(t, "-o", mountOptions[system[0]], loopDevice(t, c.image))
				s := serve(t, measure.Unix,
					fmt.Sprintf("overlay(%s, %s)", origin, filepath.Join(folder, "top.cow")))
				if _, err := c.allowed.check(s.dial(t)); err != nil {
					t.Errorf("cut %d: %v", n, err)
				}
				s.stop()
			}
		})
	}
}

// mountOptions are what a clone needs to be mounted beside what it was cloned from.
var mountOptions = map[string]string{"mkfs.ext4": "rw", "mkfs.xfs": "nouuid"}

// underLoad serves an overlay whose top is on the file system in an image, and cuts the power, as
// it were, several times while clients write.
func underLoad(t *testing.T, origin, image string) (cuts []powerCut) {
	t.Helper()
	folder := mount(t, loopDevice(t, image))
	s := serve(t, measure.Unix, fmt.Sprintf("overlay(%s, %s, create=if-missing)", origin,
		filepath.Join(folder, "top.cow")))
	l := layeredOn(t, origin, 4096, 9)
	if _, err := l.check(s.dial(t)); err != nil {
		t.Fatal(err)
	}
	wait := l.load(t, s)
	const most = 6
	for n := range most {
		for until := l.flushes.Load() + uint32(n%3) + 1; l.flushes.Load() < until; {
			time.Sleep(time.Millisecond)
		}
		cuts = append(cuts, l.cutPower(t, image, n))
	}
	s.kill()
	wait()
	return cuts
}
