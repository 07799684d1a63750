// Bounds for connections.
//
// Invariant: admins have maxAdmins connections together, viewers maxViewers, and strangers
// maxStrangers, so that none of these can keep the users above them out. A connection too many is
// told so and closed; what it sends is read and dropped for a moment, so that it gets to read why,
// and no other client waits for that.

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	// maxFarewells is how many clients that are turned away may take their time to read why.
	maxFarewells = 8
	// Descriptors is how many descriptors the clients of a control socket may hold, with those that
	// are turned away.
	Descriptors = maxAdmins + maxViewers + maxStrangers + maxFarewells + 1
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
	access    *atomic.Pointer[Access]
	here      [roles]atomic.Int32 // connections
	farewells atomic.Int32        // connections that are turned away and not closed yet
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
	d.turnAway(c, failed(http.StatusServiceUnavailable, "",
		"the control socket has as many connections as it may have (%d); try again when another "+
			"client has left", most[role]))
	return nil
}

// turnAway answers a connection that has no place. An answer that comes before the request, or a
// socket that is closed while the request is sent, is an error to clients, who do not look at the
// answer: so the request is waited for, and read until the client closes, if not too many are
// turned away.
func (d *door) turnAway(c *client, e *Error) {
	c.gone.Do(c.leave)
	_ = c.SetDeadline(time.Now().Add(farewellTime))
	if d.farewells.Add(1) > maxFarewells {
		d.farewells.Add(-1)
		c.farewell(e)
		_ = c.Close()
		return
	}
	go func() {
		_, _ = c.Read(make([]byte, 1))
		c.farewell(e)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c.UnixConn)
		_ = c.Close()
		d.farewells.Add(-1)
	}()
}

// farewell writes an answer. A new socket has room for it, so the write does not wait.
func (c *client) farewell(e *Error) {
	text, _ := json.Marshal(e)
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s\n", e.Status,
		http.StatusText(e.Status), len(text)+1, text)
}

// clientKey finds the connection in the context of a request.
type clientKey struct{}

func withClient(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

func clientOf(r *http.Request) *client { return r.Context().Value(clientKey{}).(*client) }
