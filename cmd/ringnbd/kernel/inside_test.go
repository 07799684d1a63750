// ringnbd inside the guest, on its older kernel, with that kernel's own client.

package kernel

import (
	"fmt"
	"strings"
	"testing"
)

// TestInside serves a file and a disk of the guest to the guest itself.
func TestInside(t *testing.T) {
	g := newGuest(t, 768, true, map[string]string{"/bin/ringnbd": ringnbd})
	for i, name := range []string{"data", "raw"} {
		g.config.Disks = append(g.config.Disks,
			fmt.Sprintf(`{"driver":"file","node-name":"disk%d","filename":"%s","discard":"unmap"}`,
				i, image(t, name, 512)))
	}
	ok := g.step(t, "start", func(t *testing.T) {
		var said []string
		g.check(t, func(note string) { said = append(said, note) }, "inside", "start")
		all := strings.Join(said, "\n")
		// What this kernel has and has not must be told: its release, and by name what is missing
		// with the version that brings it.
		for _, want := range []string{g.config.kernel.Release, "deferred task work", "minimum wait",
			"6.12"} {
			if !strings.Contains(all, want) {
				t.Errorf("ringnbd serve --verbose does not say %q on this kernel:\n%s", want, all)
			}
		}
	})
	for _, export := range []string{"file", "disk"} {
		for _, c := range []struct{ name, what, transport, connections, blockSize string }{
			{"bench --verify", "bench", "", "", ""},
			{"fio and ext4 over loopback", "attach", "tcp", "4", "512"},
			{"fio and ext4 over a Unix socket", "attach", "unix", "1", "4096"},
		} {
			// One server does all, so the first failure is the last.
			ok = ok && g.step(t, c.name+"/"+export, func(t *testing.T) {
				g.check(t, nil, "inside", c.what, export, c.transport, c.connections, c.blockSize)
			})
		}
	}
	if ok {
		g.step(t, "stop", func(t *testing.T) { g.check(t, nil, "inside", "stop") })
	}
}
