// Sockets that somebody else has opened: systemd (socket activation, sd_listen_fds(3)), or a client
// that starts its own server, as nbdinfo [ ringnbd serve FILE ] does.
//
// Invariant: all of them are taken or none is. A descriptor is looked at before anything is made of
// it, for the number of them is only what a variable of the environment says, and beyond the true
// ones lie those of Go's runtime.

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
)

const (
	inheritedFirst = 3    // SD_LISTEN_FDS_START
	inheritedMost  = 1024 // more than any unit has
)

// Inherited gives the listening sockets that were handed to this process; none is no error.
func Inherited() ([]*Place, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > inheritedMost {
		return nil, fmt.Errorf("LISTEN_FDS is %q: must be a number of sockets, up to %d",
			os.Getenv("LISTEN_FDS"), inheritedMost)
	}
	for i := range n {
		if !listens(inheritedFirst + i) {
			return nil,
				fmt.Errorf("socket %d of LISTEN_FDS is not a listening stream socket "+
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

// listens says whether a descriptor is a stream socket, of TCP or Unix, that listens.
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

// uriOf is where clients on this machine find a socket.
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

// unixURI is of a socket as package net names it: with @ in front, where it has no path but a name
// in the abstract namespace (unix(7)), which is a NUL in the URI. A path that was not absolute was
// one in our directory, and clients are in theirs.
func unixURI(name string) string {
	if abstract, ok := strings.CutPrefix(name, "@"); ok {
		return "nbd+unix:///?socket=%00" + escape(abstract)
	}
	if whole, err := filepath.Abs(name); err == nil {
		name = whole
	}
	return "nbd+unix:///?socket=" + escape(name)
}
