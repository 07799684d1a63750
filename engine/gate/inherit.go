// Sockets that the parent process has opened: systemd (socket activation, sd_listen_fds(3)), or a
// client that starts its own server, as nbdinfo [ ringnbd serve FILE ] does.
//
// Invariant: all of them are taken or none is. A descriptor is checked before it is used: their
// number is only what a variable of the environment says, and after the true ones come those of
// Go's runtime.

package gate

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"ringnbd/engine/client"
)

const (
	firstInherited = 3    // SD_LISTEN_FDS_START
	maxInherited   = 1024 // more than any unit has
)

// Inherited returns the listening sockets that were handed to this process; to have none is not an
// error.
func Inherited() ([]*Place, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > maxInherited {
		return nil, fmt.Errorf("LISTEN_FDS is %q: must be a number of sockets, up to %d",
			os.Getenv("LISTEN_FDS"), maxInherited)
	}
	for i := range n {
		if !listens(firstInherited + i) {
			return nil, fmt.Errorf("socket %d of LISTEN_FDS is not a listening stream socket "+
				"(ListenStream= makes one)", i+1)
		}
	}
	var places []*Place
	for _, f := range activation.Files(true) {
		l, e := net.FileListener(f)
		f.Close()
		if e != nil {
			err = fmt.Errorf("%s of LISTEN_FDS cannot be listened on: %w", f.Name(), e)
			continue
		}
		places = append(places, &Place{Listeners: []net.Listener{l}, URI: uriOf(l.Addr())})
	}
	if err != nil {
		for _, p := range places {
			p.Close()
		}
		return nil, err
	}
	return places, nil
}

// listens reports whether a descriptor is a stream socket, of TCP or Unix, that listens.
func listens(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return false
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX && domain != unix.AF_INET && domain != unix.AF_INET6 {
		return false
	}
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && accepts == 1
}

// uriOf returns the URI under which clients on this machine find a socket.
func uriOf(a net.Addr) string {
	switch a := a.(type) {
	case *net.UnixAddr:
		return unixURI(a.Name)
	case *net.TCPAddr:
		ip := a.AddrPort().Addr().Unmap()
		switch { // a client cannot go to "all interfaces"
		case ip == netip.IPv4Unspecified():
			ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		case ip.IsUnspecified():
			ip = netip.IPv6Loopback()
		}
		u := url.URL{Scheme: "nbd", Host: netip.AddrPortFrom(ip, uint16(a.Port)).String()}
		return u.String()
	}
	return a.String()
}

// unixURI returns the URI of a socket as package net names it: with @ in front if it has a name in
// the abstract namespace (unix(7)) and no path. A relative path is made absolute: clients may run
// in another directory.
func unixURI(name string) string {
	if whole, err := filepath.Abs(name); err == nil && !strings.HasPrefix(name, "@") {
		name = whole
	}
	t := client.Target{Network: "unix", Address: name}
	return t.URI("")
}
