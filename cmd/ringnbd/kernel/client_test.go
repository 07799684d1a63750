// The kernel's own client, nbd.ko, on the host's ringnbd.

package kernel

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/debian"
	"ringnbd/engine/testbed"
)

var (
	connections = []string{"1", "4"}
	blockSizes  = []string{"512", "1024", "2048", "4096"}
)

// TestClient is all that a guest does with devices of a server that stays up.
func TestClient(t *testing.T) {
	g := newGuest(t, 512, true, nil)
	images := map[string]string{"ext4": image(t, "ext4", 512), "xfs": image(t, "xfs", 512),
		"raw": image(t, "raw", 64)}
	s := serve(t, images)
	for _, kind := range []string{"ext4", "xfs"} {
		for _, n := range connections {
			for _, size := range blockSizes {
				g.step(t, fmt.Sprintf("%s/%s connections/blocks of %s", kind, n, size),
					func(t *testing.T) {
						g.check(t, nil, "filesystem", kind, s.port, n, size, kind)
						checkImage(t, kind, images[kind])
					})
			}
		}
	}
	for _, n := range connections {
		for _, path := range []string{"1", "0"} {
			name := map[string]string{"1": "direct", "0": "through the page cache"}[path]
			g.step(t, fmt.Sprintf("fio verify %s/%s connections", name, n), func(t *testing.T) {
				g.check(t, nil, "fio", s.port, n, map[string]string{"1": "4096", "4": "512"}[n],
					"raw", path)
			})
		}
		g.step(t, "fstrim frees the server's disk/"+n+" connections", func(t *testing.T) {
			trims(t, g, s.port, n, images["ext4"])
		})
		g.step(t, "discard of the whole device/"+n+" connections", func(t *testing.T) {
			g.check(t, nil, "discard", s.port, n, "512", "raw", "discard")
			isZero(t, images["raw"])
			if left := testbed.Taken(t, images["raw"]); left != 0 {
				t.Errorf("%d bytes of the image are still allocated after all was discarded", left)
			}
		})
		g.step(t, "zeroes over the whole device/"+n+" connections", func(t *testing.T) {
			g.check(t, nil, "discard", s.port, n, "4096", "raw", "zeroes")
			isZero(t, images["raw"])
		})
	}
}

// checkImage looks at a file system from the server's side, with the same tool.
func checkImage(t *testing.T, kind, path string) {
	t.Helper()
	name, flags := "e2fsck", []string{"-f", "-n", path}
	if kind == "xfs" {
		name, flags = "xfs_repair", []string{"-n", "-f", path}
	}
	program, err := find(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := debian.Run(time.Minute, "/", program, flags...); err != nil {
		t.Errorf("the image as the server has it: %v", err)
	}
}

// isZero checks that a file has nothing but zeroes.
func isZero(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zero := make([]byte, 1<<20)
	for buffer, at := make([]byte, 1<<20), 0; ; at++ {
		n, err := io.ReadFull(file, buffer)
		if !bytes.Equal(buffer[:n], zero[:n]) {
			t.Fatalf("the image is not zero in its MiB number %d", at)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// trims watches how much of the image is allocated while a file is written, deleted and trimmed.
func trims(t *testing.T, g *guest, port, connections, path string) {
	const doomed = 32 << 20
	var filled, trimmed int64
	g.check(t, func(note string) {
		switch note {
		case "filled":
			filled = testbed.Taken(t, path)
		case "trimmed":
			trimmed = testbed.Taken(t, path)
		}
		if err := g.machine.Send("go"); err != nil {
			t.Error(err)
		}
	}, "trim", port, connections, "ext4")
	if filled < doomed || filled-trimmed < doomed*9/10 {
		t.Errorf("%d bytes were allocated with a file of %d, and %d after it was trimmed away",
			filled, doomed, trimmed)
	}
	g.say("%d MiB allocated, then %d", filled>>20, trimmed>>20)
}

// TestSwap has more memory in use than its guest has.
func TestSwap(t *testing.T) {
	g := newGuest(t, 192, false, nil)
	s := serve(t, map[string]string{"swap": image(t, "swap", 256)})
	g.step(t, "1 connections, ioctl, -swap", func(t *testing.T) {
		g.check(t, nil, "swap", s.port, "1", "swap", "ioctl")
	})
	g.step(t, "4 connections, netlink", func(t *testing.T) {
		g.check(t, nil, "swap", s.port, "4", "swap", "netlink")
	})
}

// TestRestart ends the server in the middle of writing and starts it again.
func TestRestart(t *testing.T) {
	g := newGuest(t, 384, false, nil)
	restart := func(s *server, prefix string, end ...func()) func(string) {
		times := 0
		return func(note string) {
			if strings.HasPrefix(note, prefix) {
				end[times%len(end)]()
				times++
				time.Sleep(time.Second)
				s.start()
			}
		}
	}
	g.step(t, "nbd-client started again after SIGTERM and SIGKILL", func(t *testing.T) {
		s := serve(t, map[string]string{"disk": image(t, "disk", 64)})
		g.check(t, restart(s, "at block", s.stop, s.kill), "again", s.port, "disk", "80")
	})
	for _, n := range connections {
		g.step(t, "a file system that sees nothing of SIGKILL/"+n+" connections",
			func(t *testing.T) {
				path := image(t, "ext4", 256)
				s := serve(t, map[string]string{"ext4": path})
				g.check(t, restart(s, "at file", s.kill), "reconfigure", s.port, n, "ext4")
				checkImage(t, "ext4", path)
			})
	}
	g.step(t, "a file system that sees nothing of SIGTERM", func(t *testing.T) {
		path := image(t, "ext4", 256)
		s := serve(t, map[string]string{"ext4": path})
		g.check(t, restart(s, "at file", s.stop), "reconfigure", s.port, "4", "ext4")
		checkImage(t, "ext4", path)
	})
}
