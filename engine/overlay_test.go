// The engine with the overlay, the first plan that people use: both of its kinds, on real files.

package engine

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/layer/overlay"
	"ringnbd/proto"
)

// overlaid makes an overlay of a map over an origin and a top.
func overlaid(origin, top *Device, l overlay.Layout, m *overlay.Map, kind overlay.Kind) *Device {
	plan := overlay.New(m, kind)
	return &Device{Kind: Planned, FD: -1, Size: l.Size, Block: l.Block, FastZero: true, Plan: plan,
		Needs: plan.Needs(), Below: []*Device{overlay.Below: origin, overlay.Top: top}}
}

// emptyMap is the map of a new top.
func emptyMap(l overlay.Layout) *overlay.Map {
	return overlay.NewMap(l, make([]uint64, l.Words()))
}

// TestOverlaysReadWhatWasWritten checks both kinds of overlay against a model, and that the origin,
// which has no byte that is not zero, stays so.
func TestOverlaysReadWhatWasWritten(t *testing.T) {
	const size = 80 << 20
	l, err := overlay.Lay(size)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Loops: 1, MaxConnections: 8}
	c.Memory = AmpleMemory(c) + 16<<20
	for name, run := range map[string]struct {
		kind  overlay.Kind
		flags int
	}{
		"persistent":           {overlay.Persistent, unix.O_DIRECT},
		"persistent, buffered": {overlay.Persistent, 0},
		"thrown away":          {overlay.ThrowAway, 0},
	} {
		t.Run(name, func(t *testing.T) {
			origin := fileDevice(t, size, unix.O_DIRECT)
			origin.ReadOnly = true
			top := fileDevice(t, int64(l.FileLen), run.flags)
			readsWhatWasWritten(t, start(t, c, overlaid(origin, top, l, emptyMap(l), run.kind)),
				size)
			var st unix.Stat_t
			if err := unix.Fstat(origin.FD, &st); err != nil || st.Blocks != 0 {
				t.Errorf("the origin has %d blocks: it was written to (%v)", st.Blocks, err)
			}
		})
	}
}

// TestAnOverlayIsThereAgain checks that what was flushed, by a client or by the end of the server,
// is read by another engine that loads the map from the top.
func TestAnOverlayIsThereAgain(t *testing.T) {
	const size = 8 << 20
	l, err := overlay.Lay(size)
	if err != nil {
		t.Fatal(err)
	}
	origin, top := fileDevice(t, size, 0), fileDevice(t, int64(l.FileLen), 0)
	want := bytes.Repeat([]byte{1}, size)
	if n, err := unix.Pwrite(origin.FD, want, 0); err != nil || n != size {
		t.Fatal(n, err)
	}
	data := bytes.Repeat([]byte{2}, 100000)
	e := startEngine(t, 2, overlaid(origin, top, l, emptyMap(l), overlay.Persistent))
	client := connect(t, e, 0)
	for i, flags := range []uint16{0, proto.CmdFlagFUA, 0} {
		if errno := client.call(proto.CmdWrite, flags, uint64(1<<20+i<<20+7), uint64(len(data)),
			data); errno != proto.Success {
			t.Fatal(errno)
		}
	}
	if errno := client.call(proto.CmdWriteZeroes, 0, 5<<20, 1<<20, nil); errno != 0 {
		t.Fatal(errno)
	}
	if err := e.Drain(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	m, page := emptyMap(l), make([]byte, l.MapLen)
	if n, err := unix.Pread(top.FD, page, int64(l.MapAt)); err != nil || n != len(page) {
		t.Fatal(n, err)
	}
	if err := m.Load(0, page); err != nil {
		t.Fatal(err)
	}
	e = startEngine(t, 2, overlaid(origin, top, l, m, overlay.Persistent))
	client = connect(t, e, 0)
	got := make([]byte, size)
	if errno := client.call(proto.CmdRead, 0, 0, size, got); errno != proto.Success {
		t.Fatal(errno)
	}
	for i := range 3 {
		copy(want[1<<20+i<<20+7:], data)
	}
	clear(want[5<<20 : 6<<20])
	if !bytes.Equal(got, want) {
		t.Error("another engine does not read what was flushed")
	}
}
