// A server for tests: it negotiates honestly, unless a test says otherwise, and answers requests as
// each test says.
//
// Invariant: what it sends is made here byte by byte, and not by the code under test.

package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

// fake is a server of one export.
type fake struct {
	size     uint64
	flags    uint16
	most     proto.Framing // what it agrees to
	contexts map[string]uint32
	noGo     bool // it knows EXPORT_NAME only
	oldstyle bool // it says what it has, and that is all
	blocks   []uint32
	// options may answer an option: it returns bytes to send, and whether it did.
	options func(option uint32, data []byte) ([]byte, bool)
	// answer returns what is sent for a request; nil: close.
	answer func(q asked) []byte
	// transmit may take over the connection when negotiation is over.
	transmit func(c net.Conn)
}

// asked is a request as it was received.
type asked struct {
	extended       bool
	flags, command uint16
	cookie, offset uint64
	length         uint64
	data           []byte
}

func be(values ...any) []byte {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case []byte:
			b = append(b, v...)
		case string:
			b = append(b, v...)
		default:
			b, _ = binary.Append(b, binary.BigEndian, v)
		}
	}
	return b
}

// rep returns an option reply.
func rep(option, kind uint32, data ...any) []byte {
	d := be(data...)
	return be(uint64(0x3e889045565a9), option, kind, uint32(len(d)), d)
}

// simple returns a simple reply.
func simple(q asked, errno uint32, data ...any) []byte {
	return be(uint32(0x67446698), errno, q.cookie, be(data...))
}

func chunk(q asked, flags, kind uint16, data ...any) []byte {
	d := be(data...)
	if q.extended {
		return be(uint32(0x6e8a278c), flags, kind, q.cookie, q.offset, uint64(len(d)), d)
	}
	return be(uint32(0x668e33ef), flags, kind, q.cookie, uint32(len(d)), d)
}

// serve listens until the test ends, and returns the target.
func (f *fake) serve(t *testing.T) *Target {
	t.Helper()
	return target(testbed.Listen(t, f.connection))
}

// target returns the default export of the server at a Unix socket.
func target(path string) *Target {
	return &Target{Text: "nbd+unix:///?socket=" + path, Network: "unix", Address: path}
}

func (f *fake) connection(c net.Conn) {
	r := bufio.NewReader(c)
	extended, ok := false, true
	if f.oldstyle {
		_, _ = c.Write(oldBanner(f.size, uint32(f.flags)))
	} else {
		_, _ = c.Write(be("NBDMAGICIHAVEOPT", uint16(3)))
		if _, err := io.CopyN(io.Discard, r, 4); err != nil {
			return
		}
		extended, ok = f.negotiate(c, r)
	}
	if ok && f.transmit != nil {
		f.transmit(c) // nothing is in the buffer: a client waits for the answer to GO
		return
	}
	for ok {
		q, err := receive(r, extended)
		if err != nil || q.command == 2 {
			return
		}
		b := f.answer(q)
		if b == nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// negotiate answers options until transmission begins.
func (f *fake) negotiate(c net.Conn, r io.Reader) (extended, ok bool) {
	for {
		var head [16]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return false, false
		}
		option := binary.BigEndian.Uint32(head[8:])
		data := make([]byte, binary.BigEndian.Uint32(head[12:]))
		if _, err := io.ReadFull(r, data); err != nil {
			return false, false
		}
		b, done := []byte(nil), false
		if f.options != nil {
			b, done = f.options(option, data)
		}
		if !done {
			b, done = f.option(option, &extended)
			if done {
				_, err := c.Write(b)
				return extended, err == nil
			}
		}
		if _, err := c.Write(b); err != nil {
			return false, false
		}
	}
}

// option returns an honest answer; enter if transmission begins after it.
func (f *fake) option(option uint32, extended *bool) (b []byte, enter bool) {
	const ack, info, context, unsup = 1, 3, 4, 1<<31 + 1
	switch {
	case option == 1:
		return be(f.size, f.flags), true
	case option == 11 && f.most >= proto.Extended:
		*extended = true
		return rep(option, ack), false
	case option == 8 && f.most >= proto.Structured:
		return rep(option, ack), false
	case option == 9 || option == 10:
		for name, id := range f.contexts {
			b = append(b, rep(option, context, id, name)...)
		}
		return append(b, rep(option, ack)...), false
	case option == 7 && !f.noGo:
		if f.blocks != nil {
			b = rep(option, info, uint16(3), f.blocks[0], f.blocks[1], f.blocks[2])
		}
		return append(b,
			append(rep(option, info, uint16(0), f.size, f.flags), rep(option, ack)...)...), true
	}
	return rep(option, unsup), false
}

func receive(r io.Reader, extended bool) (asked, error) {
	size := 28
	if extended {
		size = 32
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return asked{}, err
	}
	q := asked{extended: extended, flags: binary.BigEndian.Uint16(b[4:]),
		command: binary.BigEndian.Uint16(b[6:]), cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:])}
	if extended {
		q.length = binary.BigEndian.Uint64(b[24:])
	} else {
		q.length = uint64(binary.BigEndian.Uint32(b[24:]))
	}
	if q.command == 1 {
		q.data = make([]byte, q.length)
		if _, err := io.ReadFull(r, q.data); err != nil {
			return q, err
		}
	}
	return q, nil
}

// dial connects to the fake with a short timeout.
func (f *fake) dial(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial(context.Background(), f.serve(t),
		Options{Timeout: 5 * time.Second, Contexts: []string{"base:allocation", "x-test:two"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
