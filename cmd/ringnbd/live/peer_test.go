// A small NBD client on a bare socket, for what no client program will do. It shares no code with
// the server on purpose: a wrong constant in the server must fail here.
//
// Invariant: one goroutine may send while another receives.

package live_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// Commands, flags and errors of the protocol, by their names in its text.
const (
	cmdRead, cmdWrite, cmdDisc, cmdFlush, cmdTrim, cmdZeroes = 0, 1, 2, 3, 4, 6

	flagFUA, flagNoHole = 1 << 0, 1 << 1

	ePERM, eIO, eINVAL, eNOSPC = 1, 5, 22, 28

	canMultiConn = 1 << 8
)

// patience bounds every wait for the server.
const patience = 30 * time.Second

// peer is one connection in transmission.
type peer struct {
	conn  net.Conn
	r     *bufio.Reader
	size  uint64
	flags uint16

	mu      sync.Mutex
	cookie  uint64
	reading map[uint64]uint32 // bytes that follow the reply of a READ in flight
}

// reply is the server's answer to one request.
type reply struct {
	cookie uint64
	errno  uint32
	data   []byte
}

// dial connects to the default export; the test fails if that fails.
func (s *server) dial(t testing.TB) *peer {
	t.Helper()
	p, err := connect(s.address, s.export)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { p.conn.Close() })
	return p
}

// dialRaw opens a connection without speaking.
func dialRaw(a measure.Address) (net.Conn, error) {
	if a.Transport == measure.Unix {
		return net.DialTimeout("unix", a.Path, patience)
	}
	return net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", a.Port), patience)
}

// connect negotiates with NBD_OPT_GO.
func connect(a measure.Address, export string) (*peer, error) {
	conn, err := dialRaw(a)
	if err != nil {
		return nil, err
	}
	p := &peer{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), reading: map[uint64]uint32{}}
	conn.SetDeadline(time.Now().Add(patience))
	if err := p.negotiate(export); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return p, nil
}

const optionMagic = 0x49484156454F5054

func (p *peer) negotiate(export string) error {
	hello := make([]byte, 18)
	if _, err := io.ReadFull(p.r, hello); err != nil {
		return err
	}
	if string(hello[:8]) != "NBDMAGIC" || binary.BigEndian.Uint64(hello[8:]) != optionMagic {
		return fmt.Errorf("greeting %x", hello)
	}
	out := binary.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	out = binary.BigEndian.AppendUint64(out, optionMagic)
	out = binary.BigEndian.AppendUint32(out, 7) // GO
	out = binary.BigEndian.AppendUint32(out, uint32(4+len(export)+2))
	out = binary.BigEndian.AppendUint32(out, uint32(len(export)))
	out = append(out, export...)
	out = append(out, 0, 0)
	if _, err := p.conn.Write(out); err != nil {
		return err
	}
	for {
		head := make([]byte, 20)
		if _, err := io.ReadFull(p.r, head); err != nil {
			return err
		}
		kind := binary.BigEndian.Uint32(head[12:])
		data := make([]byte, binary.BigEndian.Uint32(head[16:]))
		if _, err := io.ReadFull(p.r, data); err != nil {
			return err
		}
		switch {
		case kind == 1: // ACK
			return nil
		case kind == 3 && len(data) == 12: // INFO_EXPORT
			p.size, p.flags = binary.BigEndian.Uint64(data[2:]), binary.BigEndian.Uint16(data[10:])
		case kind>>31 == 1:
			return fmt.Errorf("GO refused with %#x: %s", kind, data)
		}
	}
}

// header is a request on the wire.
func header(command, flags uint16, cookie, offset uint64, length uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint32(b, length)
}

// send sends one request and returns its cookie.
func (p *peer) send(command, flags uint16, offset uint64, length uint32,
	payload []byte) (uint64, error) {
	p.mu.Lock()
	p.cookie++
	cookie := p.cookie
	if command == cmdRead {
		p.reading[cookie] = length
	}
	p.mu.Unlock()
	p.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := p.conn.Write(append(header(command, flags, cookie, offset, length), payload...))
	return cookie, err
}

// receive reads the next reply, of whichever request.
func (p *peer) receive() (reply, error) {
	p.conn.SetReadDeadline(time.Now().Add(patience))
	var head [16]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return reply{}, err
	}
	if magic := binary.BigEndian.Uint32(head[:]); magic != 0x67446698 {
		return reply{}, fmt.Errorf("reply magic %#x", magic)
	}
	r := reply{errno: binary.BigEndian.Uint32(head[4:]), cookie: binary.BigEndian.Uint64(head[8:])}
	p.mu.Lock()
	length := p.reading[r.cookie]
	delete(p.reading, r.cookie)
	p.mu.Unlock()
	if r.errno == 0 && length > 0 {
		r.data = make([]byte, length)
		if _, err := io.ReadFull(p.r, r.data); err != nil {
			return reply{}, err
		}
	}
	return r, nil
}

// do sends one request and waits for its reply; nothing else may be in flight.
func (p *peer) do(command, flags uint16, offset uint64, length uint32,
	payload []byte) (reply, error) {
	cookie, err := p.send(command, flags, offset, length, payload)
	if err != nil {
		return reply{}, err
	}
	r, err := p.receive()
	if err == nil && r.cookie != cookie {
		err = fmt.Errorf("reply to request %d, not %d", r.cookie, cookie)
	}
	return r, err
}

// errRefused wraps an error the server answered with.
var errRefused = errors.New("the server answered with error")

// done is do for requests that have to succeed.
func (p *peer) done(command, flags uint16, offset uint64, length uint32,
	payload []byte) ([]byte, error) {
	r, err := p.do(command, flags, offset, length, payload)
	if err == nil && r.errno != 0 {
		err = fmt.Errorf("%w %d", errRefused, r.errno)
	}
	return r.data, err
}

func (p *peer) read(offset uint64, length int) ([]byte, error) {
	return p.done(cmdRead, 0, offset, uint32(length), nil)
}

func (p *peer) write(offset uint64, data []byte) error {
	_, err := p.done(cmdWrite, 0, offset, uint32(len(data)), data)
	return err
}

func (p *peer) flush() error {
	_, err := p.done(cmdFlush, 0, 0, 0, nil)
	return err
}

// disconnect says goodbye and closes.
func (p *peer) disconnect() {
	p.send(cmdDisc, 0, 0, 0, nil)
	p.conn.Close()
}
