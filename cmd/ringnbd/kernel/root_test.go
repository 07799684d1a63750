// A virtual machine whose root disk is an export of ringnbd, by QEMU's own client. It writes, is
// reset in the middle of that, and has everything that it knew to be on the disk.

package kernel

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/debian"
)

// Slots of testdata/write.sh; a record older than kept may have been deleted.
const (
	slots    = 32
	slotSize = 4096
	kept     = 120
)

// record is what testdata/write.sh writes as number n.
func record(n int) []byte {
	var b []byte
	size := 4096 + n*37%8192
	for i := n; len(b) < size; i++ {
		b = append(strconv.AppendInt(b, int64(i), 10), '\n')
	}
	if n%2 == 1 {
		size = slotSize
	}
	return b[:size]
}

func sum(b []byte) string {
	s := md5.Sum(b)
	return hex.EncodeToString(s[:])
}

// rootImage makes an ext4 with a root file system, without mounting anything.
func rootImage(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	if err := writeRootTree(tree); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "data", "slots"), make([]byte, slots*slotSize),
		0o600); err != nil {
		t.Fatal(err)
	}
	path := image(t, "root", 128)
	mkfs, err := find("mke2fs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := debian.Run(time.Minute, "/", mkfs, "-q", "-F", "-t", "ext4", "-d", tree,
		path); err != nil {
		t.Fatal(err)
	}
	return path
}

// writer is the guest's disk as the test knows it.
type writer struct {
	last int // newest record that is on the disk, as the guest says
}

// write lets the guest write until some records are on the disk.
func (w *writer) write(t *testing.T, m *machine, records int) {
	t.Helper()
	// what was under way at the reset is left as it is
	if err := m.Send("write", strconv.Itoa(w.last+2)); err != nil {
		t.Fatal(err)
	}
	for until := w.last + 1 + records; w.last < until; {
		line, err := m.Receive(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		w.hear(t, m, line)
	}
}

// hear takes a line of write.sh.
func (w *writer) hear(t *testing.T, m *machine, line string) {
	t.Helper()
	number, ok := strings.CutPrefix(line, "NOTE on disk ")
	if !ok {
		t.Fatalf("while writing the guest said %q\n%s", line, m.Tail())
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	w.last = n
}

// hearReset takes what the guest said before the reset, until it has booted again.
func (w *writer) hearReset(t *testing.T, m *machine) {
	t.Helper()
	for {
		line, err := m.Receive(bootLimit)
		if err != nil {
			t.Fatal(err)
		}
		if line == "READY" {
			return
		}
		w.hear(t, m, line)
	}
}

// verify compares what is on the disk with what was said to be there. skipped are the records that
// were under way at a reset.
func (w *writer) verify(t *testing.T, g *guest, skipped map[int]bool) {
	t.Helper()
	sums := map[string]string{}
	if _, err := g.machine.Check(checkLimit, func(note string) {
		if at := strings.LastIndexByte(note, ' '); at > 0 {
			sums[note[:at]] = note[at+1:]
		}
	}, "list"); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for n := max(1, w.last-kept/2); n <= w.last; n++ {
		place := fmt.Sprintf("file %d", n)
		if n%2 == 1 {
			place = fmt.Sprintf("slot %d", n/2%slots)
		}
		// a newer record is in its slot
		over := n%2 == 1 && (n+2*slots <= w.last || skipped[n+2*slots])
		if skipped[n] || over {
			continue
		}
		checked++
		if sums[place] != sum(record(n)) {
			t.Errorf("record %d was on the disk, and is not what is in %s now", n, place)
		}
	}
	if checked < min(w.last, kept/2)*3/4 {
		t.Errorf("only %d records of %d could be checked", checked, w.last)
	}
	g.say("%d records to the last, %d, are there", checked, w.last)
}

// TestRootDisk resets a machine four times: by its reset button, by cutting its power, and by
// cutting the server's as well.
func TestRootDisk(t *testing.T) {
	g := newGuest(t, 256, false, nil)
	path := rootImage(t)
	s := serve(t, map[string]string{"root": path})
	g.config.Disks = []string{s.disk(0, "root")}
	g.config.Append = "root=/dev/vda"
	w := &writer{last: -1}
	skipped := map[int]bool{0: true}
	g.step(t, "boot", func(t *testing.T) { g.boot(t) })
	for i, how := range []string{"reset button", "power cut", "reset button again",
		"power cut, and the server killed"} {
		ok := g.step(t, how, func(t *testing.T) {
			if g.machine == nil {
				t.Fatal("the guest did not boot")
			}
			w.write(t, g.machine, 60+17*i)
			switch {
			case strings.HasPrefix(how, "reset"):
				if err := g.machine.Reset(); err != nil {
					t.Fatal(err)
				}
				w.hearReset(t, g.machine)
			default:
				g.kill()
				if strings.HasSuffix(how, "server killed") {
					s.kill()
					s.start()
				}
				g.boot(t)
			}
			skipped[w.last+1] = true
			w.verify(t, g, skipped)
		})
		if !ok {
			g.kill()
			return
		}
	}
	g.step(t, "e2fsck after power off", func(t *testing.T) {
		if err := g.machine.Send("off"); err != nil {
			t.Fatal(err)
		}
		if err := g.machine.AwaitOff(time.Minute); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(g.machine.Console(), "recovery complete"); n != 4 {
			t.Errorf("the journal was replayed %d times after 4 resets", n)
		}
		s.stop()
		checkImage(t, "ext4", path)
	})
}
