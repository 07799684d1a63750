// How an address is listened on: whether it may come later, how soon a client that has vanished is
// noticed, and who may connect to a Unix socket.
//
// Invariant: a socket with a mode or a group of its own never had more permissions than these. What
// does not apply to an address (a mode to TCP, a keepalive to Unix) is an error, not ignored.

package gate

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Keepalive is how soon a client whose machine has vanished is noticed: by probes, the first after
// Idle without traffic and then one each Interval, and by data or probes that have no answer for
// UserTimeout. A zero is the default. All are whole seconds, but UserTimeout.
type Keepalive struct{ Idle, Interval, UserTimeout time.Duration }

// The longest times that the kernel takes.
const (
	maxKeepalive   = 32767 * time.Second
	maxUserTimeout = (1<<31 - 1) * time.Millisecond
)

// Check says what the kernel would not take.
func (k Keepalive) Check() error {
	for _, t := range []struct {
		name        string
		is, of, max time.Duration
		units       string
	}{
		{"idle", k.Idle, time.Second, maxKeepalive, "whole seconds"},
		{"interval", k.Interval, time.Second, maxKeepalive, "whole seconds"},
		{"user-timeout", k.UserTimeout, time.Millisecond, maxUserTimeout, "whole milliseconds"},
	} {
		if t.is < 0 || t.is > t.max || t.is%t.of != 0 {
			return fmt.Errorf("%s %v: must be %s, at most %v", t.name, t.is, t.units, t.max)
		}
	}
	return nil
}

// whole fills in the defaults.
func (k Keepalive) whole() Keepalive {
	for _, t := range []struct {
		is    *time.Duration
		usual time.Duration
	}{{&k.Idle, keepaliveIdle}, {&k.Interval, keepaliveInterval}, {&k.UserTimeout, userTimeout}} {
		if *t.is == 0 {
			*t.is = t.usual
		}
	}
	return k
}

// Options are how an address is listened on. The zero value is usual.
type Options struct {
	Freebind  bool // TCP: the address need not be one of this machine yet
	Keepalive Keepalive
	Mode      *uint32 // Unix: permissions of the file, in place of what the umask leaves
	Group     string  // Unix: name or number of the file's group, "" for the usual
}

// Check says what does not go together with an address.
func (o *Options) Check(spec string) error {
	isUnix := strings.HasPrefix(spec, "unix:")
	switch {
	case isUnix && o.Freebind:
		return errors.New("freebind is for addresses of TCP")
	case isUnix && o.Keepalive != Keepalive{}:
		return errors.New("keepalive is for addresses of TCP")
	case !isUnix && (o.Mode != nil || o.Group != ""):
		return errors.New("mode and group are for Unix sockets")
	}
	return o.Keepalive.Check()
}

// CheckAddress says what is wrong with the text of an address. It looks nothing up.
func CheckAddress(spec string) error {
	if path, ok := strings.CutPrefix(spec, "unix:"); ok {
		return checkUnixPath(path)
	}
	_, _, err := splitHostPort(spec)
	return err
}

// ListenWith is Listen with options.
func ListenWith(spec string, o Options) (*Place, error) {
	if err := o.Check(spec); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", spec, err)
	}
	if path, ok := strings.CutPrefix(spec, "unix:"); ok {
		return listenUnix(path, &o)
	}
	return listenHost(spec, &o)
}

// keptListener is a TCP listener that says how the connections that it accepts are kept.
type keptListener struct {
	net.Listener
	keepalive *atomic.Pointer[Keepalive] // of all listeners of a place
}

// keepaliveOf is how the connections of a listener are kept.
func keepaliveOf(l net.Listener) Keepalive {
	if kept, ok := l.(*keptListener); ok {
		return *kept.keepalive.Load()
	}
	return Keepalive{}.whole()
}

// keep gives all listeners of a place their keepalive.
func (p *Place) keep(k Keepalive) {
	shared := new(atomic.Pointer[Keepalive])
	k = k.whole()
	shared.Store(&k)
	for i, l := range p.Listeners {
		p.Listeners[i] = &keptListener{l, shared}
	}
}

// SetKeepalive changes how connections that come later are kept. It has no effect on Unix sockets.
func (p *Place) SetKeepalive(k Keepalive) {
	k = k.whole()
	for _, l := range p.Listeners {
		if kept, ok := l.(*keptListener); ok {
			kept.keepalive.Store(&k)
		}
	}
}

// freebind lets a socket be bound to an address that this machine does not have.
func freebind(fd int, six bool) error {
	if six {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
}

// restrict takes all permissions but the owner's from the file that a Unix socket will have when it
// is bound: permit gives them.
func (o *Options) restrict(fd int) error {
	if o.Mode == nil && o.Group == "" {
		return nil
	}
	return unix.Fchmod(fd, 0o600)
}

// permit gives the file of a socket its group and mode.
func (o *Options) permit(path string) error {
	if o.Mode == nil && o.Group == "" {
		return nil
	}
	if o.Group != "" {
		gid, err := groupID(o.Group)
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, gid); err != nil {
			return fmt.Errorf("its group cannot be %s: %w; choose a group that the server is in",
				o.Group, err)
		}
	}
	mode := uint32(0o600)
	if o.Mode != nil {
		mode = *o.Mode
	}
	if err := os.Chmod(path, os.FileMode(mode)); err != nil {
		return fmt.Errorf("its mode cannot be %04o: %w", mode, err)
	}
	return nil
}

// groupID is the number of a group.
func groupID(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %s; make it, or choose another", name)
	}
	return strconv.Atoi(g.Gid)
}
