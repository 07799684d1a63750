// Bounds for connections.
//
// Invariant: admins have maxAdmins connections together, viewers maxViewers, and strangers
// maxStrangers, so that none of these can keep the users above them out. A connection too many is
// told so and closed, without a wait for what it sends.

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxAdmins    = 32
	maxViewers   = 32
	maxStrangers = 8
	// Descriptors is how many descriptors the clients of a control socket may hold, and one that is
	// turned away.
	Descriptors = maxAdmins + maxViewers + maxStrangers + 1
	// farewellTime is how long a client that is turned away may take to read why.
	farewellTime = time.Second
)

// client is a connection with its user.
type client struct {
	*net.UnixConn
	caller Caller
	access *atomic.Pointer[Access]
	leave  func()
	gone   sync.Once
}

// Close closes the connection and gives its place back.
func (c *client) Close() error {
	c.gone.Do(c.leave)
	return c.UnixConn.Close()
}

// role is what the user may do now: a reload may change it.
func (c *client) role() role { return c.access.Load().roleOf(&c.caller) }

// door is a listener whose connections have a known user, and are bounded in number.
type door struct {
	net.Listener
	access *atomic.Pointer[Access]
	here   [roles]atomic.Int32 // connections
}

// most is how many connections each role may have.
var most = [roles]int32{stranger: maxStrangers, viewer: maxViewers, admin: maxAdmins}

// Accept returns the next connection that has a place. Others are turned away.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		u, ok := c.(*net.UnixConn)
		if !ok {
			_ = c.Close()
			return nil, fmt.Errorf("%v is not a Unix socket", d.Addr())
		}
		if found := d.enter(u); found != nil {
			return found, nil
		}
	}
}

// enter gives a connection a place, or turns it away.
func (d *door) enter(u *net.UnixConn) *client {
	caller, err := callerOf(u)
	if err != nil {
		_ = u.Close() // it has gone already
		return nil
	}
	c := &client{UnixConn: u, caller: caller, access: d.access}
	role := c.role()
	c.leave = func() { d.here[role].Add(-1) }
	if d.here[role].Add(1) <= most[role] {
		return c
	}
	turnAway(c, failed(http.StatusServiceUnavailable, "",
		"the control socket has as many connections as it may have (%d); try again when another "+
			"client has left", most[role]))
	return nil
}

// turnAway answers a connection that has no place. A new socket has room for the answer, so the
// write does not wait.
func turnAway(c *client, e *Error) {
	text, _ := json.Marshal(e)
	_ = c.SetDeadline(time.Now().Add(farewellTime))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s\n", e.Status, http.StatusText(e.Status),
		len(text)+1, text)
	_ = c.Close()
}

// clientKey finds the connection in the context of a request.
type clientKey struct{}

func withClient(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

func clientOf(r *http.Request) *client { return r.Context().Value(clientKey{}).(*client) }
