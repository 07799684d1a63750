// Exports that come, go and change while others are served, on a real ring.

package engine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// soon is a context for changes that must not take long.
func soon(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(stop)
	return ctx
}

// applied makes a change, which must succeed.
func applied(t testing.TB, e *Engine, c Change) []ID {
	t.Helper()
	added, err := e.Apply(soon(t), c)
	if err != nil {
		t.Fatal(err)
	}
	return added
}

// exportOf is an export that shows a whole device.
func exportOf(d *Device) Export { return Export{Facts: factsOf(d), Device: d, Name: "x"} }

// reach connects a client to an export.
func reach(t testing.TB, e *Engine, id ID) *client {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Adopt(pair[0], id, proto.Session{}); err != nil {
		t.Fatal(err)
	}
	c := &client{t, os.NewFile(uintptr(pair[1]), "client")}
	t.Cleanup(func() { _ = c.fd.Close() })
	return c
}

// TestAServerWithoutExportsGetsThem: a ring that was set up without files takes them later, and an
// export that has gone is not found again in its place.
func TestAServerWithoutExportsGetsThem(t *testing.T) {
	e := startEngine(t, 2)
	var last ID
	for round := range 50 {
		d := fileDevice(t, 1<<20, unix.O_DIRECT)
		added := applied(t, e, Change{Add: []Export{exportOf(d)}})
		if len(added) != 1 || added[0] == last || last != 0 && added[0].Place() != last.Place() {
			t.Fatalf("added %x after %x", added, last)
		}
		if last != 0 {
			if err := e.Adopt(-1, last, proto.Session{}); !IsGone(err) {
				t.Fatalf("a client of an export that has gone: %v", err)
			}
		}
		last = added[0]
		c := reach(t, e, last)
		mine := bytes.Repeat([]byte{byte(round)}, 4096)
		if errno := c.call(proto.CmdWrite, 0, 8192, 4096, mine); errno != proto.Success {
			t.Fatal(errno)
		}
		_ = c.fd.Close()
		applied(t, e, Change{Remove: added})
		got := make([]byte, 4096)
		if _, err := unix.Pread(d.FD, got, 8192); err != nil || !bytes.Equal(got, mine) {
			t.Fatalf("round %d: the file has %x..., %v", round, got[:4], err)
		}
	}
	if _, err := e.Apply(soon(t), Change{Remove: []ID{last}}); !errors.Is(err, ErrGone) {
		t.Errorf("an export was removed twice: %v", err)
	}
}
