// Exports that begin somewhere on their device: partitions.

package engine

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// odd is where the first partition of an MBR begins: not on a block of 4 KiB.
const odd = 63 * 512

// window is an export of n bytes from base on.
func window(d *Device, base, n uint64) Export {
	x := Export{Facts: factsOf(d), Device: d, Base: base, Name: "part"}
	x.Size = n
	return x
}

// TestPartitionsAndTheWholeDiskLoseNoByte: writers of neighbouring partitions that begin and end
// inside of blocks, and of the whole disk, change bytes of the same blocks at once. Without one
// order for all of them, one's read-modify-write undoes another's.
func TestPartitionsAndTheWholeDiskLoseNoByte(t *testing.T) {
	const rounds, span, parts = 150, 700, 3
	for name, d := range map[string]*Device{"file": fileDevice(t, 1<<20, unix.O_DIRECT),
		"memory": memoryDevice(t, 1<<20)} {
		t.Run(name, func(t *testing.T) {
			if d.Kind == File {
				d.Block = 4096
			}
			e := startEngine(t, 2)
			all := []Export{exportOf(d)}
			for i := range uint64(parts) {
				all = append(all, window(d, odd+i*span*3, span*3))
			}
			ids := applied(t, e, Change{Add: all})
			var done sync.WaitGroup
			for w := range 3 * parts { // the i-th third of a partition: some through the disk
				part, third := w/3, uint64(w%3)
				off := third * span
				base := uint64(odd + part*span*3)
				c := reach(t, e, ids[1+part])
				if third == 1 {
					c, off = reach(t, e, ids[0]), base+off
				}
				done.Go(func() {
					got := make([]byte, span)
					for i := range rounds {
						mine := bytes.Repeat([]byte{byte(w*29 + i + 1)}, span)
						wrote := c.call(proto.CmdWrite, 0, off, span, mine)
						read := c.call(proto.CmdRead, 0, off, span, got)
						if wrote != proto.Success || read != proto.Success ||
							!bytes.Equal(got, mine) {
							t.Errorf("writer %d, round %d: %v, %v", w, i, wrote, read)
							return
						}
					}
				})
			}
			done.Wait()
			whole, last := reach(t, e, ids[0]), make([]byte, 3*parts*span)
			if errno := whole.call(proto.CmdRead, 0, odd, uint64(len(last)), last); errno != 0 {
				t.Fatal(errno)
			}
			for w := range 3 * parts {
				want := bytes.Repeat([]byte{byte(w*29 + rounds)}, span)
				if !bytes.Equal(last[w*span:(w+1)*span], want) {
					t.Errorf("the bytes of writer %d are not on the whole disk", w)
				}
			}
			if n := counted(t, e); n.Overlaps == 0 && d.Kind == File {
				t.Error("no write waited for another: the test is too tame")
			}
		})
	}
}

// TestARequestToAPartitionStaysInIt does requests of all kinds to a partition whose ends lie inside
// of blocks, and compares the whole disk with a model after each.
func TestARequestToAPartitionStaysInIt(t *testing.T) {
	const size, base, length = 1 << 20, odd, 300<<10 + 77
	devices := map[string]*Device{"file": fileDevice(t, size, unix.O_DIRECT),
		"cached": fileDevice(t, size, 0), "memory": memoryDevice(t, size),
		"plain": fileDevice(t, size, unix.O_DIRECT)}
	devices["file"].Block = 4096
	devices["plain"].Punch, devices["plain"].ZeroRange = false, false
	for name, d := range devices {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, 7))
			e := startEngine(t, 1)
			ids := applied(t, e, Change{Add: []Export{exportOf(d), window(d, base, length)}})
			whole, part := reach(t, e, ids[0]), reach(t, e, ids[1])
			model := make([]byte, size)
			for i := range model {
				model[i] = byte(i*7) | 1
			}
			if errno := whole.call(proto.CmdWrite, 0, 0, size, model); errno != proto.Success {
				t.Fatal(errno)
			}
			got := make([]byte, size)
			for i := range 120 {
				off := r.Uint64N(length)
				n := 1 + r.Uint64N(min(length-off, 90<<10))
				mine := bytes.Repeat([]byte{byte(i + 1)}, int(n))
				errno := proto.Success
				switch i % 3 {
				case 0:
					errno = part.call(proto.CmdWrite, proto.CmdFlagFUA, off, n, mine)
					copy(model[base+off:], mine)
				case 1:
					errno = part.call(proto.CmdWriteZeroes, 0, off, n, nil)
					clear(model[base+off : base+off+n])
				case 2:
					errno = part.call(proto.CmdRead, 0, off, n, mine)
					if !bytes.Equal(mine, model[base+off:base+off+n]) {
						t.Fatalf("%d: %d bytes from %d are not what they should be", i, n, off)
					}
				}
				read := whole.call(proto.CmdRead, 0, 0, size, got)
				if errno != proto.Success || read != proto.Success || !bytes.Equal(got, model) {
					t.Fatalf("%d: %v, %v; %d bytes from %d changed others", i, errno, read, n, off)
				}
			}
			if errno := part.call(proto.CmdRead, 0, length-1, 2, nil); errno != proto.EINVAL {
				t.Errorf("beyond the end of the partition: %v", errno)
			}
			if errno := part.call(proto.CmdTrim, 0, 0, length, nil); errno != proto.Success {
				t.Errorf("TRIM: %v", errno)
			}
			clear(got)
			if errno := whole.call(proto.CmdRead, 0, 0, size, got); errno != proto.Success ||
				!bytes.Equal(got[:base], model[:base]) ||
				!bytes.Equal(got[base+length:], model[base+length:]) {
				t.Errorf("a TRIM of the whole partition changed other bytes, %v", errno)
			}
		})
	}
}

// TestChunksOfAPartitionHaveItsOffsets: data, holes and block status are about the partition's own
// offsets, and the source of the status is asked about the device's.
func TestChunksOfAPartitionHaveItsOffsets(t *testing.T) {
	const size, base, length = 4 << 20, odd, 1 << 20
	d := fileDevice(t, size, unix.O_DIRECT)
	d.Block = 4096
	if _, err := unix.Pwrite(d.FD, bytes.Repeat([]byte{5}, 4096), base/4096*4096); err != nil {
		t.Fatal(err)
	}
	asked := make(chan [2]uint64, 8)
	x := window(d, base, length)
	x.Contexts = []Context{contextFunc(
		func(off, n uint64, emit func(length, status uint64) bool) error {
			asked <- [2]uint64{off, n}
			emit(n, 3)
			return nil
		})}
	e := startEngine(t, 1)
	id := applied(t, e, Change{Add: []Export{x}})[0]
	c := reachAs(t, e, id, proto.Session{Framing: proto.Structured, Contexts: 1})
	c.send(proto.Request{Cookie: 9, Command: proto.CmdRead, Offset: 512, Length: 512 << 10}, nil)
	at := uint64(512)
	for last := false; !last; {
		head := make([]byte, 20)
		if _, err := io.ReadFull(c.fd, head); err != nil {
			t.Fatal(err)
		}
		last = head[5]&1 != 0
		payload := make([]byte, binary.BigEndian.Uint32(head[16:]))
		if _, err := io.ReadFull(c.fd, payload); err != nil {
			t.Fatal(err)
		}
		off := binary.BigEndian.Uint64(payload)
		n := uint64(len(payload) - 8)
		if kind := binary.BigEndian.Uint16(head[6:]); kind == 2 { // OFFSET_HOLE
			n = uint64(binary.BigEndian.Uint32(payload[8:]))
		}
		if off != at {
			t.Fatalf("a chunk is about offset %d, not %d", off, at)
		}
		at += n
	}
	if at != 512+512<<10 {
		t.Errorf("chunks end at %d", at)
	}
	c.send(proto.Request{Cookie: 10, Command: proto.CmdBlockStatus, Offset: 4096, Length: 8192},
		nil)
	reply := make([]byte, 20+4+8)
	if _, err := io.ReadFull(c.fd, reply); err != nil ||
		binary.BigEndian.Uint32(reply[24:]) != 8192 {
		t.Errorf("block status %x, %v", reply, err)
	}
	if len(asked) != 1 {
		t.Fatalf("the source was asked %d times", len(asked))
	}
	if got := <-asked; got != [2]uint64{base + 4096, 8192} {
		t.Errorf("the source was asked about %d", got)
	}
}

// TestLongRequestsToAPartition drives a partition with unaligned and long requests, with memory for
// them as a whole and in parts, against a model.
func TestLongRequestsToAPartition(t *testing.T) {
	const size = 80 << 20
	ample := Config{Loops: 1, MaxConnections: 8}
	scanty := ample
	ample.Memory, scanty.Memory = AmpleMemory(ample), MinMemory(ample)
	for name, c := range map[string]Config{"whole": ample, "in parts": scanty} {
		t.Run(name, func(t *testing.T) {
			d := fileDevice(t, size+1<<20, unix.O_DIRECT)
			d.Block = 4096
			e, err := Start(c, []Export{window(d, odd, size)})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			readsWhatWasWritten(t, e, size)
		})
	}
}

// TestIncidentsOfAPartitionSayItsOffsets: the offset is that of the client's request.
func TestIncidentsOfAPartitionSayItsOffsets(t *testing.T) {
	h := &heard{}
	e := listening(t, h)
	d := fileDevice(t, 4<<20, unix.O_DIRECT)
	ids := applied(t, e, Change{Add: []Export{exportOf(d), window(d, odd, 3<<20)}})
	if err := unix.Ftruncate(d.FD, 1<<20); err != nil {
		t.Fatal(err)
	}
	c := reach(t, e, ids[1])
	if errno := c.call(proto.CmdRead, 0, 2<<20, 4096, nil); errno != proto.EIO {
		t.Errorf("%v", errno)
	}
	h.until(t, func() bool { return len(h.incidents) == 1 })
	if i := h.incidents[0]; i.Offset != 2<<20 || i.Length != 4096 || i.Export != ids[1] {
		t.Errorf("%+v", i)
	}
}
