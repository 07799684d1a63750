// The gate: accepting, deciding who may come in, closing.
//
// Invariant: a connection is at any time at the gate (in handshakes), or on its way in (reserved),
// or the engine's. All of them are at most MaxConnections plus slack, and those reserved or served
// at most MaxConnections. What a connection needs to be served is set aside before its client is
// told that it will be served: its place in the engine, and, before it is accepted, the descriptor
// that it will have there.

package gate

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

const (
	// DefaultHandshakeTimeout is qemu's, which has one since CVE-2024-7409.
	DefaultHandshakeTimeout = 10 * time.Second
	// DefaultMaxConnections is more than a host full of guests opens.
	DefaultMaxConnections = 1024
	// slack is how many connections may be at the gate of a full server, to list its exports or to
	// be told that it is full.
	slack = 16
	// crowdedTimeout is how long a handshake may take when other connections find no place at the
	// gate: many times what a handshake takes.
	crowdedTimeout = time.Second
	// shutdownGrace is how long handshakes may go on once the gate closes: time to tell a client
	// whose request is on its way.
	shutdownGrace = 250 * time.Millisecond
	// The wait after an accept that failed for want of descriptors or memory: it is doubled from
	// the minimum to the maximum.
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// Config is what a gate needs.
type Config struct {
	// Catalog returns the exports as they are now. It is called as each handshake begins, and that
	// handshake goes by what it returned, whatever is added, removed or changed meanwhile.
	Catalog func() proto.Catalog
	// Gone reports whether the export of an ID, which some earlier catalog had, is not served any
	// more. Its clients are refused. Nil means that exports are served for ever.
	Gone func(id uint64) bool
	// Prepare makes what a client needs to be served, once it has chosen an export and before it is
	// told: it returns the ID under which the client is adopted. It may block, and must return soon
	// after ctx has ended: the handshake's time is over then, or the gate closes. undo, which may
	// be nil and may block, is called once if the client is not adopted. What an error says is
	// logged; the client is told that the export cannot be opened. Nil prepares nothing.
	Prepare func(ctx context.Context, export proto.Export, peer string) (id uint64, undo func(),
		err error)
	// Adopt is given the descriptor of a blocking-mode stream socket whose next byte, in both
	// directions, is the first of the transmission phase. It owns the descriptor if it returns nil;
	// else the gate closes it. Like Live it is called under a lock: it must not block. export is as
	// the client was told, but its ID is that of Prepare, if there is one. That export may have
	// gone since: Adopt is where this is known for certain. peer names the client for a log.
	Adopt func(fd int, export proto.Export, session proto.Session, peer string) error
	// Live returns how many connections are being served. It is called often and under a lock: it
	// must not block. Nil means that the gate does not limit them.
	Live           func() int
	MaxConnections int // 0 means DefaultMaxConnections
	// SocketMemory is how many bytes of a client's replies the kernel may hold: less than the
	// constant SocketMemory, or 0, which means the constant.
	SocketMemory     int
	HandshakeTimeout time.Duration // for a whole handshake; 0 means DefaultHandshakeTimeout
	Log              *slog.Logger  // nil means no log
}

// Gate serves any number of listeners.
type Gate struct {
	config   Config
	notices  notices
	accepted atomic.Uint64
	ends     [reasons]atomic.Uint64

	mu         sync.Mutex
	listeners  map[net.Listener]struct{}
	handshakes map[net.Conn]*stay
	reserved   int            // connections that admit has let in and Adopt not yet taken
	closing    chan struct{}  // closed when Close begins
	beat       time.Time      // when watch last looked at the clock
	watching   bool           // watch runs: as long as there are handshakes
	running    sync.WaitGroup // accept loops and handshakes
}

// New makes a gate, which does nothing until Serve.
func New(c Config) *Gate {
	if c.Live == nil {
		c.Live = func() int { return 0 }
	}
	if c.Gone == nil {
		c.Gone = func(uint64) bool { return false }
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = DefaultMaxConnections
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Gate{
		config:     c,
		notices:    notices{log: c.Log, said: map[string]*said{}},
		listeners:  map[net.Listener]struct{}{},
		handshakes: map[net.Conn]*stay{},
		closing:    make(chan struct{}),
	}
}

// Serve accepts connections until Close, or until the listener is closed, and then returns nil; any
// other end is an error. It owns the listener and closes it. Any number of listeners may be served
// at a time, and at any time: a listener is added by calling Serve, and removed by closing it,
// which its owner may do from any goroutine. Connections that a listener has brought stay when it
// is closed, those that are still negotiating too.
func (g *Gate) Serve(l net.Listener) error {
	return g.serve(l, (*handshake).negotiate)
}

// serve accepts connections and begins a handshake of one kind with each.
func (g *Gate) serve(l net.Listener, speak speech) error {
	if !g.open(l) {
		l.Close()
		return nil
	}
	defer g.running.Done()
	defer g.forget(l)
	backoff := minBackoff
	for !g.isClosing() {
		c, spare, err := accept(l)
		switch {
		case err == nil:
			backoff = minBackoff
			g.receive(c, spare, keepaliveOf(l), speak)
		case errors.Is(err, net.ErrClosed):
			return nil
		case !isTemporary(err):
			return err
		default:
			g.notices.warn(time.Now(), "cannot accept connections for now", "error", advice(err),
				"retry_in", backoff)
			select {
			case <-g.closing:
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, maxBackoff)
		}
	}
	return nil
}

// accept takes the next connection, and before it a descriptor under which it will be handed over:
// without one, a client had better wait in the listener's queue.
func accept(l net.Listener) (c net.Conn, spare int, err error) {
	if spare, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return nil, -1, err
	}
	if c, err = l.Accept(); err != nil {
		unix.Close(spare)
		return nil, -1, err
	}
	return c, spare, nil
}

// advice returns an error of accept with what an administrator can do.
func advice(err error) string {
	if errors.Is(err, syscall.EMFILE) {
		return err.Error() + "; raise the limit on open files (ulimit -n, LimitNOFILE= of a unit)"
	}
	return err.Error()
}

// Descriptors returns how many descriptors a gate may need at a time, for that many listeners and
// served connections.
func Descriptors(listeners, connections int) int {
	return connections + 2*slack + 2*listeners
}

// open registers a listener, and reports whether the gate is open.
func (g *Gate) open(l net.Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isClosing() {
		return false
	}
	g.listeners[l] = struct{}{}
	g.running.Add(1)
	return true
}

// forget closes a listener.
func (g *Gate) forget(l net.Listener) {
	g.mu.Lock()
	delete(g.listeners, l)
	g.mu.Unlock()
	l.Close()
}

// isTemporary reports whether accept may work the next time: after a lack of descriptors or memory,
// a refusal by a firewall, and what accept(2) calls errors "already pending on the new socket".
func isTemporary(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPERM,
		syscall.EINTR, syscall.EAGAIN,
		syscall.ECONNABORTED, syscall.ENETDOWN, syscall.EPROTO, syscall.ENOPROTOOPT,
		syscall.EHOSTDOWN, syscall.ENONET,
		syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.ENETUNREACH, syscall.ECONNRESET,
		syscall.ETIMEDOUT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// receive starts the handshake of a new connection, or closes it at once.
func (g *Gate) receive(c net.Conn, spare int, kept Keepalive, speak speech) {
	g.accepted.Add(1)
	peer := peerOf(c)
	if why := g.enter(c); why != reasonServed {
		unix.Close(spare)
		c.Close()
		g.ended(peer, why, nil)
		return
	}
	go func() {
		defer g.running.Done()
		h := handshake{gate: g, conn: c, peer: peer, kept: kept, spare: spare, began: time.Now(),
			speak: speak}
		h.run()
	}()
}

// enter puts a connection among the handshakes and starts its clock. Any result but reasonServed is
// the reason why the connection may not stay.
func (g *Gate) enter(c net.Conn) reason {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.watching {
		g.forgive(time.Now()) // before displace judges by the clock
	}
	switch {
	case g.isClosing():
		return reasonShutdown
	case len(g.handshakes)+g.config.Live() >= g.config.MaxConnections+slack && !g.displace():
		return reasonCrowded
	case c.SetDeadline(time.Now().Add(g.config.HandshakeTimeout)) != nil:
		return reasonBroken
	}
	g.handshakes[c] = &stay{began: time.Now()}
	g.running.Add(1)
	if !g.watching {
		g.watching, g.beat = true, time.Now()
		g.running.Add(1)
		go g.watch()
	}
	return reasonServed
}

// displace ends the oldest handshake if it has lasted longer than crowdedTimeout, so that silent
// connections cannot keep others out for the whole of the handshake timeout.
func (g *Gate) displace() bool {
	var oldest net.Conn
	for c, s := range g.handshakes {
		if oldest == nil || s.began.Before(g.handshakes[oldest].began) {
			oldest = c
		}
	}
	if oldest == nil || time.Since(g.handshakes[oldest].began) < crowdedTimeout {
		return false
	}
	oldest.SetDeadline(time.Now())
	g.handshakes[oldest].end()
	delete(g.handshakes, oldest)
	return true
}

// leave removes a connection from the handshakes.
func (g *Gate) leave(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.handshakes, c)
}

// reserve takes a place in the engine, and reports whether there was one.
func (g *Gate) reserve() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reserved+g.config.Live() >= g.config.MaxConnections {
		return false
	}
	g.reserved++
	return true
}

// release gives a reservation back: the connection was adopted, and is counted by Live, or closed.
func (g *Gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reserved--
}

// isClosing reports whether Close has begun.
func (g *Gate) isClosing() bool {
	select {
	case <-g.closing:
		return true
	default:
		return false
	}
}

// Close stops accepting, which removes the files of Unix sockets, and ends the handshakes: options
// are answered with ERR_SHUTDOWN for a moment, then the connections are closed. When it returns, no
// goroutine of the gate runs any more, and Adopt will not be called. Connections handed over are
// not touched.
func (g *Gate) Close() {
	g.mu.Lock()
	if !g.isClosing() {
		close(g.closing)
	}
	for l := range g.listeners {
		l.Close()
	}
	for c, s := range g.handshakes {
		c.SetDeadline(time.Now().Add(shutdownGrace))
		s.end()
	}
	g.mu.Unlock()
	g.running.Wait()
}

// ended logs and counts the end of a connection at the gate, in this order: what is counted has
// been logged.
func (g *Gate) ended(peer string, why reason, err error, attributes ...any) {
	defer g.ends[why].Add(1)
	attributes = append(attributes, "peer", peer, "reason", why.String())
	if err != nil {
		attributes = append(attributes, "error", err)
	}
	if why.unusual() {
		g.notices.warn(time.Now(), "connection not served: "+why.String(), attributes...)
		return
	}
	g.config.Log.Debug("handshake ended", attributes...)
}
