// A connection begins: socket, negotiation, and one deadline over both.
//
// Invariant: not one byte behind the negotiation is read before the connection is in transmission,
// and a Dial that fails leaves nothing open.

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// Options of a connection. The zero value is usable.
type Options struct {
	// for all of the negotiation, and for the silence of a server that owes answers; an hour if
	// they are to FLUSH, WRITE_ZEROES or TRIM, or may wait behind those; 0: DefaultTimeout
	Timeout time.Duration
	Depth   int // requests in flight at most, up to MaxDepth; 0: DefaultDepth
	// meta contexts to select; those that the server does not have are no error
	Contexts []string
	Offered  bool // ask which meta contexts there are
	Simple   bool // agree on nothing beyond simple replies, which every server has
	// take what a server of the oldstyle handshake has, although the target names an export
	Nameless bool
}

// Defaults and bounds of Options.
const (
	DefaultTimeout = 60 * time.Second
	DefaultDepth   = 64
	MaxDepth       = 1 << 16 // a cookie's lower half
)

func (o Options) complete() Options {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Depth <= 0 {
		o.Depth = DefaultDepth
	}
	o.Depth = min(o.Depth, MaxDepth)
	return o
}

var errInterrupted = errors.New("interrupted while connecting")

// Dial connects to a server and negotiates the target's export. The context counts until Dial
// returns.
func Dial(ctx context.Context, t *Target, o Options) (*Conn, error) {
	o = o.complete()
	sock, session, err := Socket(ctx, t, o)
	if err != nil {
		return nil, err
	}
	enlarge(t, sock)
	c, err := newConn(sock, session, t.Text, o)
	if err != nil {
		_ = sock.Close()
		return nil, fmt.Errorf("%s: %w", t.Text, err)
	}
	return c, nil
}

// Socket is Dial for those who do the rest themselves: the socket's next byte, in both directions,
// is the first of the transmission phase. Of the options, Depth does not count.
func Socket(ctx context.Context, t *Target, o Options) (net.Conn, Session, error) {
	o = o.complete()
	var session Session
	sock, err := converse(ctx, t, o, func(sock net.Conn) error {
		var err error
		session, err = negotiate(sock, t.Export, o)
		return err
	})
	if errors.As(err, new(absent)) {
		err = alternatives(ctx, t, o, err)
	}
	return sock, session, err
}

// Connect opens a socket to the target. What localhost means is not the matter of a file or a
// server (RFC 6761, 6.3), which may be missing.
func (t *Target) Connect(ctx context.Context, d *net.Dialer) (net.Conn, error) {
	host, port, err := net.SplitHostPort(t.Address)
	if t.Network != "tcp" || err != nil || !strings.EqualFold(host, "localhost") {
		return d.DialContext(ctx, t.Network, t.Address)
	}
	sock, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err == nil {
		return sock, nil
	}
	sock, second := d.DialContext(ctx, "tcp", net.JoinHostPort("::1", port))
	if second != nil {
		return nil, err // of the address that every machine has
	}
	return sock, nil
}

// converse opens a socket and has a conversation on it that must end within the timeout.
func converse(ctx context.Context, t *Target, o Options,
	conversation func(net.Conn) error) (net.Conn, error) {
	if t.File() {
		return nil, fmt.Errorf("%s: is a file, not an NBD server", t.Text)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	// A machine that is gone is noticed within a minute and a half, whatever it owes.
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second,
		Interval: 15 * time.Second, Count: 4}}
	d.SetMultipathTCP(false)
	sock, err := t.Connect(ctx, &d)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			err = errInterrupted
		}
		return nil, dialError(t, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = sock.SetDeadline(time.Unix(1, 0)) })
	err = conversation(sock)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return sock, nil
	}
	_ = sock.Close()
	var late net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		err = errInterrupted
	case errors.As(err, &late) && late.Timeout():
		err = fmt.Errorf("the server did not finish the negotiation within %v", o.Timeout)
	}
	return nil, fmt.Errorf("%s: %w", t.Text, err)
}

// unixSendBuffer is how much a Unix socket takes before the writer has to wait, in bytes: several
// requests, so that the server finds more than one when it wakes up. The kernel's default holds
// less than one of 256 KiB. TCP finds its own.
const unixSendBuffer = 1 << 20

// enlarge asks for it; with less, all works as well.
func enlarge(t *Target, sock net.Conn) {
	if c, ok := sock.(*net.UnixConn); ok && t.Network == "unix" {
		_ = c.SetWriteBuffer(unixSendBuffer)
	}
}

// dialError says in one line what to do about the usual reasons.
func dialError(t *Target, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		advice = "; is the server running?"
	case errors.Is(err, syscall.ENOENT) && t.Network == "unix":
		advice = "; there is no such socket: is the server running?"
	case errors.Is(err, syscall.EMFILE):
		advice = "; raise the limit of open files (ulimit -n)"
	}
	return fmt.Errorf("%s: %w%s", t.Text, err, advice)
}
