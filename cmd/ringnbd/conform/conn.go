// A raw connection: it sends any bytes, and reads exactly what is expected and not one byte more.
//
// Invariant: every read names what it is for, so that a failure says where the server left the
// protocol; no byte that was read ahead is lost to a check (wantSilence and wantClosed look at the
// buffer, too).

package conform

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"ringnbd/proto"
)

// conn is a connection to the server. After trial.open it also knows what was negotiated.
type conn struct {
	t   *trial
	raw net.Conn
	r   *bufio.Reader

	mode      mode
	size      uint64 // of the export, in bytes
	flags     uint16 // transmission flags
	handshake uint16 // handshake flags
	block     *blockSize
	contexts  []metaContext

	mayChange bool       // requests that change data may be sent, see request.changes
	foreign   bool       // another export than the suite's, whose data is not known
	pending   []*pending // requests without a complete reply, in the order of sending
	cookie    uint64     // the last cookie that number made up
}

// metaContext is a meta context that was selected by SET_META_CONTEXT.
type metaContext struct {
	id   uint32
	name string
}

func newConn(t *trial, raw net.Conn) *conn {
	return &conn{t: t, raw: raw, r: bufio.NewReaderSize(raw, 64<<10)}
}

// close closes the connection.
func (c *conn) close() { _ = c.raw.Close() }

// closeWrite ends the client's direction only.
func (c *conn) closeWrite() {
	half, ok := c.raw.(interface{ CloseWrite() error })
	if !ok {
		c.t.skip("this kind of connection cannot be closed in one direction")
	}
	if err := half.CloseWrite(); err != nil {
		c.t.failf("closing the client's direction: %v", err)
	}
}

// write sends bytes as they are.
func (c *conn) write(b []byte) {
	if _, err := c.raw.Write(b); err != nil {
		c.t.failf("sending %d bytes: %s", len(b), wireError(err))
	}
}

// tryWrite sends bytes to a server that may have hung up already.
func (c *conn) tryWrite(b []byte) error {
	_, err := c.raw.Write(b)
	return err
}

// writeAside sends bytes from another goroutine, so that replies can be read meanwhile. The channel
// delivers the error, or nil.
func (c *conn) writeAside(b []byte) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.raw.Write(b)
		done <- err
	}()
	return done
}

// writeBytewise sends bytes one by one, each in a segment of its own.
func (c *conn) writeBytewise(b []byte) {
	for i := range b {
		c.write(b[i : i+1])
	}
}

// read reads n bytes; what names them in the text of a failure.
func (c *conn) read(n int, what string) []byte {
	b := make([]byte, n)
	c.readInto(b, what)
	return b
}

func (c *conn) readInto(b []byte, what string) {
	if got, err := io.ReadFull(c.r, b); err != nil {
		c.t.failf("%s: %s after %d of %d bytes%s",
			what, wireError(err), got, len(b), shown(b[:got]))
	}
}

// wantSilence fails if the server sends anything, or closes, within d.
func (c *conn) wantSilence(d time.Duration, when string) {
	got, err := c.peek(d)
	switch {
	case len(got) > 0:
		c.t.failf("%s: stray bytes from the server%s", when, shown(got))
	case !errors.Is(err, os.ErrDeadlineExceeded):
		c.t.failf("%s: %s", when, wireError(err))
	}
}

// wantClosed fails unless the server closes the connection without sending a byte; it waits as long
// as the check may take.
func (c *conn) wantClosed(when string) {
	got, err := c.peek(c.t.left() - c.t.patience/10)
	switch {
	case len(got) > 0:
		c.t.failf("%s: the server should close the connection and send nothing, but sent%s",
			when, shown(got))
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.failf("%s: the server should close the connection, but it is still open", when)
	}
}

// openAfter reports whether the connection is still open after d, or when the server sends
// something, which is got.
func (c *conn) openAfter(d time.Duration) (open bool, got []byte) {
	got, err := c.peek(d)
	return len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded), got
}

// peek waits for a byte for at most d and returns what is there, without consuming it.
func (c *conn) peek(d time.Duration) ([]byte, error) {
	until := time.Now().Add(max(d, time.Millisecond))
	if until.After(c.t.deadline) {
		until = c.t.deadline
	}
	_ = c.raw.SetReadDeadline(until) // fails only on a closed connection, and then Peek fails
	_, err := c.r.Peek(1)
	_ = c.raw.SetReadDeadline(c.t.deadline)
	if err != nil {
		return nil, err
	}
	got, _ := c.r.Peek(min(c.r.Buffered(), 64))
	return got, nil
}

// drain reads and drops what the server sends until it closes, and returns the number of bytes.
func (c *conn) drain(when string) int64 {
	n, err := io.Copy(io.Discard, c.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.failf("%s: the server did not close the connection (it sent %d bytes)", when, n)
	}
	return n
}

// greet connects, reads the banner strictly and answers with these client flags.
func (t *trial) greet(flags uint32) *conn {
	c := t.dial()
	c.banner()
	c.write(binary.BigEndian.AppendUint32(nil, flags))
	return c
}

// haggle connects and answers the banner as a polite client does. Options can follow: the protocol
// calls this phase option haggling.
func (t *trial) haggle() *conn { return t.haggleAt(t.target) }

func (t *trial) haggleAt(target Target) *conn {
	c := t.dialAt(target)
	c.banner()
	c.write(binary.BigEndian.AppendUint32(nil, t.clientFlags(c.handshake)))
	return c
}

func (c *conn) banner() {
	b := c.read(proto.BannerSize, "the server's banner")
	flags, err := proto.ParseBanner(b)
	if err != nil {
		c.t.failf("the banner is not that of the newstyle handshake:%s", shown(b))
	}
	c.handshake = flags
}

// wireError returns what happened to a connection, in words of the protocol.
func wireError(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing more came before the deadline"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return "the connection broke (" + op.Err.Error() + ")"
	}
	return err.Error()
}

// shown returns the first of some bytes for a person to read, with a blank before them; "" for
// none.
func shown(b []byte) string {
	const maxShown = 32
	switch {
	case len(b) == 0:
		return ""
	case len(b) > maxShown:
		return fmt.Sprintf(" [% x ...]", b[:maxShown])
	}
	return fmt.Sprintf(" [% x]", b)
}
