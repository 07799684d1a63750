// What a hop costs: the same reads and writes on a device, and through plans over it.

package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// BenchmarkHop serves batches of 16 requests of 4 KiB, hand-turned, and reports the loop's CPU for
// each request, in nanoseconds of the thread (the client's two system calls a batch included).
func BenchmarkHop(b *testing.B) {
	const size = 64<<20 + twinBlock
	for _, bench := range []struct {
		name    string
		command uint16
		device  func() *Device
	}{
		{"memory/read/flat", proto.CmdRead, func() *Device { return memoryDevice(b, size) }},
		{"memory/read/plan", proto.CmdRead, func() *Device {
			return over(&twin{}, memoryDevice(b, size))
		}},
		{"file/read/flat", proto.CmdRead, func() *Device {
			return fileDevice(b, size, unix.O_DIRECT)
		}},
		{"file/read/plan", proto.CmdRead, func() *Device {
			return over(&twin{}, fileDevice(b, size, unix.O_DIRECT))
		}},
		{"file/read/2 plans", proto.CmdRead, func() *Device {
			return over(&twin{}, over(&twin{}, fileDevice(b, size, unix.O_DIRECT)))
		}},
		{"file/write/flat", proto.CmdWrite, func() *Device {
			return fileDevice(b, size, unix.O_DIRECT)
		}},
		{"file/write/plan", proto.CmdWrite, func() *Device {
			return over(&twin{}, fileDevice(b, size, unix.O_DIRECT))
		}},
	} {
		b.Run(bench.name, func(b *testing.B) { hop(b, bench.command, bench.device()) })
	}
}

func hop(b *testing.B, command uint16, d *Device) {
	const batch, length = 16, 4096 // what a socket holds
	c := Config{Loops: 1, MaxConnections: 4}
	l := handTurnedWith(b, c, AmpleMemory(c), Export{Facts: factsOf(d), Device: d})
	client := adopted(b, l, proto.Session{})
	defer client.Close()
	fd := int(client.Fd())
	var wire []byte
	want := batch * proto.SimpleReplySize
	for i := range batch {
		head := make([]byte, proto.RequestSize)
		proto.PutRequest(head, &proto.Request{Cookie: uint64(i), Command: command, Length: length,
			Offset: uint64(i*37%batch) << 12})
		if wire = append(wire, head...); command == proto.CmdWrite {
			wire = append(wire, make([]byte, length)...)
		} else {
			want += length
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	if err := unix.SetNonblock(fd, true); err != nil {
		b.Fatal(err)
	}
	in := make([]byte, 1<<20)
	var begin, end unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &begin)
	for b.Loop() {
		for got, sent := 0, 0; got < want; {
			if sent < len(wire) {
				n, err := unix.Write(fd, wire[sent:])
				if err == nil {
					sent += n
				}
			}
			l.turn()
			if n, err := unix.Read(fd, in); err == nil {
				got += n
			}
		}
	}
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &end)
	spent := end.Utime.Nano() + end.Stime.Nano() - begin.Utime.Nano() - begin.Stime.Nano()
	b.ReportMetric(float64(spent)/float64(b.N)/batch, "cpu-ns/request")
	_ = client.Close()
	for l.live.Load() > 0 {
		l.turn()
	}
}
