// Writers on neighbouring partitions and on the whole disk at once, at any alignment: a model of
// every byte says what must be there.
//
// Invariant: each byte has one writer, so what it must hold is known although all write at once;
// blocks of the storage have several.

package live_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/bench/measure"
)

const (
	sectorLen = 512
	// The first partition begins at sector 63 and the second in the middle of a block of 4 KiB; the
	// third begins on a block.
	firstAt, secondAt, thirdAt = 63 * sectorLen, 1063 * sectorLen, 2048 * sectorLen
	writtenEnd                 = thirdAt + 64<<10
)

// span is a range of the disk that belongs to one writer.
type span struct{ from, to uint64 }

// writer writes to spans of its own through one export, which begins at a byte of the disk.
type writer struct {
	export string
	base   uint64
	spans  []span
}

// cut divides the disk around the borders of partitions among exports: spans of odd lengths, of
// which those within one partition go in turn to its export and to that of the whole disk.
func cut(random *rand.Rand) map[string][]span {
	bounds := []span{{firstAt, secondAt}, {secondAt, thirdAt}, {thirdAt, writtenEnd}}
	list := map[string][]span{}
	for at := uint64(firstAt); at < writtenEnd; {
		to := min(at+1+random.Uint64N(9000), writtenEnd)
		owner := "disk"
		for i, b := range bounds {
			if at >= b.from && to <= b.to && random.IntN(2) == 0 {
				owner = fmt.Sprintf("p%d", i+1)
			}
		}
		list[owner] = append(list[owner], span{at, to})
		at = to
	}
	return list
}

// run writes, zeroes, trims and reads its spans, several requests in flight at a time. The model is
// of the whole disk; a writer touches nothing but its own spans of it.
func (w *writer) run(p *peer, random *rand.Rand, model []byte, deadline time.Time) error {
	for i := 0; time.Now().Before(deadline); i++ {
		picked := random.Perm(len(w.spans))[:min(6, len(w.spans))]
		for _, k := range picked {
			s := w.spans[k]
			from := s.from + random.Uint64N(s.to-s.from)
			to := from + 1 + random.Uint64N(s.to-from)
			own, command := model[from:to], uint16(cmdWrite)
			var payload []byte
			if random.IntN(4) == 0 {
				command = cmdZeroes
				clear(own)
			} else {
				for i := range own {
					own[i] = byte(random.Uint32())
				}
				payload = own
			}
			if _, err := p.send(command, uint16(random.IntN(2))*flagFUA, from-w.base,
				uint32(to-from), payload); err != nil {
				return err
			}
		}
		for range picked {
			if r, err := p.receive(); err != nil || r.errno != 0 {
				return fmt.Errorf("%s: error %d, %v", w.export, r.errno, err)
			}
		}
		s := w.spans[picked[0]]
		got, err := p.read(s.from-w.base, int(s.to-s.from))
		if err != nil || !bytes.Equal(got, model[s.from:s.to]) {
			return fmt.Errorf("%s, round %d: bytes %d to %d are not what was written (%v)",
				w.export, i, s.from, s.to, err)
		}
		if i%50 == 0 {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// largeBlocks returns a directory whose files have O_DIRECT in units of 4 KiB: ext4 on a loop
// device with such sectors.
func largeBlocks(t *testing.T) string {
	t.Helper()
	need(t, "mkfs.ext4")
	device, _ := attach(t, sparseImage(t, 64<<20), "--sector-size", "4096")
	must(t, time.Minute, "mkfs.ext4", "-q", device)
	point := t.TempDir()
	if err := unix.Mount(device, point, "ext4", 0, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { // before the loop device goes
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	return point
}

func TestWritersOnPartitionsAndOnTheDiskLoseNoByte(t *testing.T) {
	onlyRingnbd(t)
	need(t, "sfdisk")
	for name, c := range map[string]struct {
		directory func(t *testing.T) string
		flags     []string
	}{
		"O_DIRECT in units of 512":  {func(t *testing.T) string { return t.TempDir() }, nil},
		"O_DIRECT in units of 4096": {largeBlocks, []string{"--direct", "on"}},
		"page cache": {func(t *testing.T) string { return t.TempDir() },
			[]string{"--direct", "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(c.directory(t), "disk.img")
			before := pattern(4<<20, 11)
			if err := os.WriteFile(image, before, 0o600); err != nil {
				t.Fatal(err)
			}
			must(t, time.Minute, "sh", "-ec", `printf 'label: dos\nstart=63,size=1000\n`+
				`start=1063,size=985\nstart=2048\n' | sfdisk -q $1`, "sh", image)
			model, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			flags := append(c.flags, "--loops", "2", "--export", "disk="+image)
			for i := 1; i <= 3; i++ {
				flags = append(flags, "--export", fmt.Sprintf("p%d=%s?partition=%d", i, image, i))
			}
			s := serveRingnbd(t, measure.Unix, flags...)
			scatter(t, s, model)
			checkModel(t, s, model)
			s.stop()
			after, err := os.ReadFile(image)
			if err != nil || !bytes.Equal(after, model) {
				t.Errorf("the file is not what was written: %v", err)
			}
		})
	}
}

// scatter lets several writers of each export write for some seconds.
func scatter(t *testing.T, s *server, model []byte) {
	t.Helper()
	const each = 3 // connections of each export
	bases := map[string]uint64{"disk": 0, "p1": firstAt, "p2": secondAt, "p3": thirdAt}
	deadline := time.Now().Add(4 * time.Second)
	var all sync.WaitGroup
	for export, spans := range cut(rand.New(rand.NewPCG(1, 2))) {
		for k := range each {
			w := writer{export: export, base: bases[export]}
			for i := k; i < len(spans); i += each {
				w.spans = append(w.spans, spans[i])
			}
			p := s.dialExport(t, export)
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(k), bases[export]))
				if err := w.run(p, random, model, deadline); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
}

// checkModel compares all exports with the model.
func checkModel(t *testing.T, s *server, model []byte) {
	t.Helper()
	for export, at := range map[string]span{"disk": {0, uint64(len(model))},
		"p1": {firstAt, secondAt}, "p2": {secondAt, thirdAt}, "p3": {thirdAt, uint64(len(model))}} {
		p := s.dialExport(t, export)
		if p.size != at.to-at.from {
			t.Errorf("%s has %d bytes", export, p.size)
		}
		got, err := p.read(0, int(p.size))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range model[at.from:at.to] {
			if got[i] != want {
				t.Errorf("%s: byte %d is %#x, want %#x", export, i, got[i], want)
				break
			}
		}
	}
}

// The map of a partition is that of the disk, from where the partition begins.
func TestMapOfAPartition(t *testing.T) {
	onlyRingnbd(t)
	need(t, "nbdinfo", "sfdisk")
	image, _ := dotted(t, 8<<20, 32)
	must(t, time.Minute, "sh", "-ec", `printf 'label: dos\nstart=1063,size=9000\nsize=64\n' |`+
		`sfdisk -q $1`, "sh", image)
	s := serveRingnbd(t, measure.Unix, "--export", "disk="+image, "--export",
		"part="+image+"?partition=1")
	types := func(list []extent, size uint64) []byte {
		b := make([]byte, 0, size)
		for _, e := range list {
			b = append(b, bytes.Repeat([]byte{byte(e.Type)}, int(e.Length))...)
		}
		return b
	}
	disk, part := types(mapOf(t, s.uri("disk")), 8<<20), types(mapOf(t, s.uri("part")), 9000*512)
	if len(part) != 9000*512 || !bytes.Equal(part, disk[1063*512:][:len(part)]) ||
		!bytes.Contains(part, []byte{0, 3}) {
		t.Errorf("%d bytes of the partition, %d of the disk", len(part), len(disk))
	}
}
