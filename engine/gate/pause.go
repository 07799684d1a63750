// Pauses: while the process or its machine is stopped, deadlines go by that clients have kept: what
// they sent lies in the socket, unread.
//
// Invariant: as long as there are handshakes, watch looks at the clock every beat. When a beat took
// much longer, the beginning of all handshakes is moved by the difference.

package gate

import (
	"errors"
	"net"
	"os"
	"time"
)

const (
	beat     = 250 * time.Millisecond
	minPause = 4 * beat // less is a busy machine
)

// watch runs while there are handshakes.
func (g *Gate) watch() {
	defer g.running.Done()
	for {
		select {
		case <-g.closing:
			return
		case <-time.After(beat):
		}
		g.mu.Lock()
		g.forgive(time.Now())
		g.hurry()
		g.watching = len(g.handshakes) > 0
		watching := g.watching
		g.mu.Unlock()
		if !watching {
			return
		}
	}
}

// forgive moves the beginning of all handshakes by the jump of the clock.
func (g *Gate) forgive(now time.Time) {
	gap := now.Sub(g.beat)
	g.beat = now
	if gap < minPause || g.isClosing() {
		return
	}
	for c, s := range g.handshakes {
		s.began = s.began.Add(gap - beat)
		c.SetDeadline(s.began.Add(g.config.HandshakeTimeout))
	}
}

// hurry ends the waiting of handshakes in Prepare whose time is over. It is late by a beat at most.
func (g *Gate) hurry() {
	for _, s := range g.handshakes {
		if time.Since(s.began) >= g.config.HandshakeTimeout {
			s.end()
		}
	}
}

// forgiven reports whether an error is a deadline that passed during a pause and has been moved.
func (g *Gate) forgiven(c net.Conn, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgive(time.Now())
	s, here := g.handshakes[c]
	return here && !g.isClosing() && time.Since(s.began) < g.config.HandshakeTimeout
}
