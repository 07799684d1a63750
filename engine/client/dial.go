// The beginning of a connection: socket, negotiation, and one deadline for both.
//
// Invariant: not one byte after the negotiation is read before the connection is in transmission,
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
	// Timeout limits the whole negotiation, and the silence of a server that owes answers; if they
	// are answers to FLUSH, WRITE_ZEROES or TRIM, or may wait for such answers, the limit is an
	// hour. 0 means DefaultTimeout.
	Timeout time.Duration

	Depth    int      // limits the requests in flight, up to 65536; 0 means 64
	Contexts []string // meta contexts to select; the server need not have them
	Offered  bool     // ask which meta contexts there are
	Simple   bool     // agree only on simple replies, which every server has

	// Nameless accepts the export of an oldstyle server, which has no name, although the target
	// names an export.
	Nameless bool
}

// DefaultTimeout is the Timeout of Options that set none.
const DefaultTimeout = 60 * time.Second

const (
	defaultDepth = 64
	maxDepth     = 1 << 16 // the lower part of a cookie
)

// complete returns the options with the defaults set.
func (o Options) complete() Options {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Depth <= 0 {
		o.Depth = defaultDepth
	}
	o.Depth = min(o.Depth, maxDepth)
	return o
}

var errInterrupted = errors.New("interrupted while connecting")

// Dial connects to a server and negotiates for the target's export. The context is used until Dial
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

// Socket connects and negotiates like Dial, for callers with a transmission phase of their own: the
// socket's next byte, in both directions, is the first of that phase. It ignores the Depth of the
// options.
func Socket(ctx context.Context, t *Target, o Options) (net.Conn, Negotiated, error) {
	o = o.complete()
	var session Negotiated
	sock, err := dialAndNegotiate(ctx, t, o, func(sock net.Conn) error {
		var err error
		session, err = negotiate(sock, t.Export, o)
		return err
	})
	var absent *AbsentError
	if errors.As(err, &absent) {
		absent.addNames(ctx, t, o)
		err = fmt.Errorf("%s: %w", t.Text, absent)
	}
	return sock, session, err
}

// Connect opens a socket to the target. It resolves localhost itself (RFC 6761, 6.3), without a
// file or a name server, which may be missing.
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
		return nil, err // the error of the address that every machine has
	}
	return sock, nil
}

// dialAndNegotiate opens a socket and negotiates on it; both must be done within the timeout.
func dialAndNegotiate(ctx context.Context, t *Target, o Options,
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

// unixSendBuffer is how many bytes a Unix socket takes before the writer has to wait: several
// requests, so that the server finds more than one when it wakes up. The kernel's default is less
// than one request of 256 KiB. TCP sizes its buffer itself.
const unixSendBuffer = 1 << 20

// enlarge asks for that buffer. A smaller buffer costs speed only.
func enlarge(t *Target, sock net.Conn) {
	if c, ok := sock.(*net.UnixConn); ok && t.Network == "unix" {
		_ = c.SetWriteBuffer(unixSendBuffer)
	}
}

// dialError says in one line what to do about the usual reasons for which a socket cannot be
// opened.
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
