// Clients that cannot negotiate: those of today that still know how, and one as it
// was written in 2008.

package live_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// serveOldstyle starts a server with an oldstyle address that leads to an image,
// and with another export in front of it.
func serveOldstyle(t *testing.T, transport, image string, flags ...string) *server {
	t.Helper()
	onlyRingnbd(t)
	a := newAddress(t, transport)
	where := "unix:" + a.Path
	if transport == measure.TCP {
		where = fmt.Sprintf("127.0.0.1:%d", a.Port)
	}
	flags = append([]string{"--oldstyle", where + "=disk", "--export", "other=null:1G,ro",
		"--export", "disk=" + image}, flags...)
	s := serveRingnbd(t, measure.Unix, flags...)
	s.address = a
	return s
}

// dialOldstyle connects like nbd-client 2.9 with Linux 2.6.27: it reads 152 bytes,
// looks at magics and size, and leaves the rest of them to the future.
func dialOldstyle(t *testing.T, s *server) *peer {
	t.Helper()
	p, err := greeted(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.conn.Close() })
	return p
}

func greeted(s *server) (*peer, error) {
	conn, err := dialRaw(s.address)
	if err != nil {
		return nil, err
	}
	p := &peer{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), reading: map[uint64]uint32{}}
	conn.SetDeadline(time.Now().Add(patience))
	hello := make([]byte, 152)
	if _, err := io.ReadFull(p.r, hello); err != nil {
		conn.Close()
		return nil, err
	}
	if string(hello[:8]) != "NBDMAGIC" || binary.BigEndian.Uint64(hello[8:]) != 0x420281861253 ||
		!bytes.Equal(hello[28:], make([]byte, 124)) {
		conn.Close()
		return nil, fmt.Errorf("greeting %x", hello)
	}
	if upper := binary.BigEndian.Uint16(hello[24:]); upper != 0 {
		conn.Close()
		return nil, fmt.Errorf("handshake flags %#x", upper)
	}
	p.size, p.flags = binary.BigEndian.Uint64(hello[16:]), binary.BigEndian.Uint16(hello[26:])
	conn.SetDeadline(time.Time{})
	return p, nil
}

func TestOldstyleSession(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			s := serveOldstyle(t, transport, sparseImage(t, 16<<20))
			p, q := dialOldstyle(t, s), dialOldstyle(t, s)
			const never = 1<<7 | 1<<9 | 1<<12 // DF, RESIZE, BLOCK_STATUS_PAYLOAD
			if p.size != 16<<20 || p.flags&1 == 0 || p.flags&(never|2) != 0 ||
				p.flags&canMultiConn == 0 {
				t.Errorf("size %d, flags %#x", p.size, p.flags)
			}
			want := pattern(100_000, 1)
			if err := p.write(1000, want); err != nil {
				t.Fatal(err)
			}
			if err := p.flush(); err != nil {
				t.Error(err)
			}
			if got, err := q.read(1000, len(want)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the other connection reads otherwise (%v)", err)
			}
			if _, err := p.done(cmdTrim, flagFUA, 0, 1<<20, nil); err != nil {
				t.Error(err)
			}
			for what, r := range map[string]struct {
				command, flags uint16
				offset         uint64
				errno          uint32
			}{
				"read beyond the end":     {cmdRead, 0, 16<<20 - 1, eINVAL},
				"read with DF":            {cmdRead, 1 << 2, 0, eINVAL},
				"block status":            {7, 0, 0, eINVAL},
				"a command of the future": {99, 0, 0, eINVAL},
			} {
				if got, err := p.do(r.command, r.flags, r.offset, 4096, nil); err != nil ||
					got.errno != r.errno {
					t.Errorf("%s: error %d, %v; want %d", what, got.errno, err, r.errno)
				}
			}
			if _, err := p.read(0, 512); err != nil {
				t.Errorf("out of step after errors: %v", err)
			}
			p.disconnect()
			if _, err := q.read(0, 512); err != nil {
				t.Errorf("the other connection: %v", err)
			}
		})
	}
}

// A client that does not know flags writes to a read-only export, and is told.
func TestOldstyleReadOnly(t *testing.T) {
	s := serveOldstyle(t, measure.TCP, sparseImage(t, 16<<20), "--read-only")
	p := dialOldstyle(t, s)
	if p.flags&2 == 0 {
		t.Errorf("flags %#x", p.flags)
	}
	if r, err := p.do(cmdWrite, 0, 0, 512, make([]byte, 512)); err != nil || r.errno != ePERM {
		t.Errorf("error %d, %v", r.errno, err)
	}
	if _, err := p.read(0, 512); err != nil {
		t.Error(err)
	}
}

func TestOldstyleWithLibnbd(t *testing.T) {
	image := randomImage(t, 16<<20, 3)
	for _, transport := range transports {
		s := serveOldstyle(t, transport, image)
		uri := s.ready[len(s.ready)-1]
		script(t, "oldstyle.py", uri, image)
		s.stop()
	}
}

func TestOldstyleWithNbdinfoAndNbdcopy(t *testing.T) {
	need(t, "nbdinfo", "nbdcopy")
	image := randomImage(t, 16<<20, 4)
	s := serveOldstyle(t, measure.TCP, image)
	uri := s.ready[len(s.ready)-1]
	if want := s.uri(""); strings.TrimSuffix(uri, "/") != strings.TrimSuffix(want, "/") {
		t.Errorf("ready says %s, want %s", uri, want)
	}
	info := nbdinfo(t, uri)
	if info.Protocol != "oldstyle" || info.Structured || len(info.Exports) != 1 ||
		info.Exports[0].Size != 16<<20 {
		t.Errorf("%+v", info)
	}
	back := sparseImage(t, 16<<20)
	must(t, time.Minute, "nbdcopy", uri, back)
	sameFiles(t, image, back)
	other := randomImage(t, 16<<20, 5)
	must(t, time.Minute, "nbdcopy", "--flush", other, uri)
	sameFiles(t, image, other)
	if negotiated := nbdinfo(t, s.ready[0]); negotiated.Protocol != "newstyle-fixed" {
		t.Errorf("the other address speaks %s", negotiated.Protocol)
	}
}

func TestOldstyleWithQemu(t *testing.T) {
	need(t, "qemu-io", "qemu-img")
	image := sparseImage(t, 16<<20)
	s := serveOldstyle(t, measure.TCP, image)
	uri := s.ready[len(s.ready)-1]
	must(t, time.Minute, "qemu-io", "-f", "raw", uri, "-c", "write -P 7 4096 1M", "-c", "flush",
		"-c", "read -P 7 4096 1M", "-c", "discard 4096 64k",
		"-c", "write -z 128k 64k", "-c", "read -P 0 128k 64k")
	must(t, time.Minute, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, image)
	if out, err := try(t, time.Minute, "qemu-img", "info", uri+"/name"); err == nil {
		t.Errorf("a name was believed where none can be said: %s", out)
	}
}

// Oldstyle connections and others share one limit, and the door closes without a word.
func TestOldstyleFullServer(t *testing.T) {
	s := serveOldstyle(t, measure.TCP, sparseImage(t, 1<<20), "--max-connections", "2")
	p, _ := dialOldstyle(t, s), dialOldstyle(t, s)
	for range 3 {
		conn, err := dialRaw(s.address)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); n != 0 ||
			!errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d bytes, %v", n, err)
		}
		conn.Close()
	}
	p.disconnect()
	if !eventually(patience, func() bool {
		q, err := greeted(s)
		if err == nil {
			q.disconnect()
		}
		return err == nil
	}) {
		t.Error("the place of a client that left is not given away")
	}
	if !strings.Contains(s.log.String(), "server full") {
		t.Errorf("log: %s", s.log)
	}
}

// A client that hangs up at any moment costs nothing; a silent client keeps its place, like an idle
// disk.
func TestOldstyleHalfOpenClients(t *testing.T) {
	s := serveOldstyle(t, measure.TCP, sparseImage(t, 1<<20), "--handshake-timeout", "300ms")
	silent := dialOldstyle(t, s)
	before := s.descriptors()
	for i := range 300 {
		conn, err := dialRaw(s.address)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		switch i % 4 {
		case 0: // gone before the banner
			conn.(*net.TCPConn).SetLinger(0)
		case 1: // half closed: no request can come
			conn.(*net.TCPConn).CloseWrite()
			if n, err := io.Copy(io.Discard, conn); n != 152 || err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
		case 2: // half a request
			conn.Write(header(cmdRead, 0, 1, 0, 512)[:20])
		case 3: // a newstyle client that does not look where it is
			conn.Write([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x08longname"))
			if n, err := io.Copy(io.Discard, conn); n != 152 ||
				errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		conn.Close()
	}
	if !eventually(patience, func() bool { return s.descriptors() <= before }) {
		t.Errorf("%d descriptors, were %d", s.descriptors(), before)
	}
	time.Sleep(600 * time.Millisecond)
	if _, err := silent.read(0, 512); err != nil {
		t.Errorf("a silent client was not left in peace: %v", err)
	}
}

func TestOldstyleShutdown(t *testing.T) {
	image := sparseImage(t, 1<<20)
	s := serveOldstyle(t, measure.Unix, image)
	p := dialOldstyle(t, s)
	if err := p.write(0, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := p.receive(); err == nil {
		t.Error("still connected")
	}
	if _, err := dialRaw(s.address); err == nil {
		t.Error("still listening")
	}
}
