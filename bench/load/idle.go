// Idle connections: negotiated like any other, then silent until the run is over. They show what
// connections cost a server that does nothing for them.
//
// Invariant: between open and close this program does not touch them: the kernel notes events in an
// epoll instance, which is read once, at the end.

package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/units"
	"ringnbd/proto"
)

// idle has the connections without requests.
type idle struct {
	poll    int // epoll instance; there is one if and only if there are sockets
	sockets []int
	dropped int   // connections that the server closed, or sent something on
	first   error // what happened to the first of them
}

var errUnasked = errors.New("the server sent something without a request")

// open opens the connections one after another, so that no server's queue of connections overflows.
func (d *idle) open(ctx context.Context, r *run) error {
	o := r.options
	if o.Idle == 0 {
		return nil
	}
	var err error
	if d.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	d.sockets = make([]int, 0, o.Idle)
	shown := time.Now()
	for n := range o.Idle {
		if time.Since(shown) >= watchInterval {
			shown = time.Now()
			r.watch(Progress{Phase: fmt.Sprintf("connecting, %s of %s idle", units.Count(n),
				units.Count(o.Idle))})
		}
		fd, e, _, err := connect(ctx, &o.Target, o.Timeout)
		if err != nil {
			return fmt.Errorf("idle connection %d of %d: %w", n+1, o.Idle, err)
		}
		d.sockets = append(d.sockets, fd)
		if e.Facts != r.subject.Facts {
			return fmt.Errorf("%s: idle connection %d sees another export than the first "+
				"connection: %d bytes, not %d, or other flags", o.Target.Text, n+1, e.Size,
				r.subject.Size)
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT,
			Fd: int32(fd)}
		if err := unix.EpollCtl(d.poll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
	}
	return nil
}

// check counts the connections with an event; each has one event at most.
func (d *idle) check() {
	if d.sockets == nil {
		return
	}
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(d.poll, events, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			return
		}
		for i := range events[:n] {
			d.dropped++
			if d.first == nil {
				d.first = fate(int(events[i].Fd))
			}
		}
	}
}

// fate returns what happened to a socket with an event.
func fate(fd int) error {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case n > 0:
		return errUnasked
	case err != nil && !errors.Is(err, unix.ECONNRESET):
		return err
	}
	return errHungUp
}

// trouble returns the error about dropped connections, or nil.
func (d *idle) trouble() error {
	if d.dropped == 0 {
		return nil
	}
	return fmt.Errorf("%d of %s did not last; the first: %w", d.dropped,
		units.Plural(len(d.sockets), "idle connection"), d.first)
}

// close sends a DISC on every connection, as the protocol wants it, and closes the sockets.
func (d *idle) close() {
	var goodbye [proto.RequestSize]byte
	proto.PutRequest(goodbye[:], &proto.Request{Command: proto.CmdDisc})
	for _, fd := range d.sockets {
		_ = unix.Sendto(fd, goodbye[:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		_ = unix.Close(fd)
	}
	if d.sockets != nil {
		_ = unix.Close(d.poll)
	}
	d.sockets = nil
}

// spareDescriptors are those besides connections: the target's file, a ring for each thread, the
// runtime's poller, a query to a name server.
const spareDescriptors = 32

// fitDescriptors makes room for the run's descriptors, raising the soft limit up to the hard one.
func fitDescriptors(o *Options) error {
	need := uint64(o.Idle + o.Threads + spareDescriptors)
	if !o.Target.File() {
		need += uint64(o.Connections)
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		need += uint64(len(open))
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= need {
		return nil // a limit that cannot be asked for shows when it is hit
	}
	if limit.Max >= need {
		limit.Cur = limit.Max
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
			return nil
		}
	}
	return o.errorf("{connections} %d and {idle} %d need %d open files, more than "+
		"RLIMIT_NOFILE allows (%d): raise it (ulimit -n %d), or use fewer",
		o.Connections, o.Idle, need, limit.Max, roundUp(need, 1024))
}

// idleText returns the line of the table about idle connections.
func (r *Report) idleText() string {
	text := "idle: " + units.Count(r.Idle) + " further connections, silent"
	if r.Idle == 1 {
		text = "idle: 1 further connection, silent"
	}
	if r.IdleDropped > 0 {
		text += "; " + strconv.Itoa(r.IdleDropped) + " of them did not last"
	}
	return text
}
