// Where the server can be reached: a textual address becomes listeners and the URI that clients
// use. Unix sockets are in unix.go.
//
// Invariant: a server listens on all interfaces, and in a family of addresses, only if the address
// says so; and whichever address of a name a client takes, it comes to this server.

package gate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"ringnbd/proto"
)

// DefaultListen is the address of a server without another.
const DefaultListen = "localhost:10809"

// maxPortTries is how many free ports are tried, to find a port that is free on every address of a
// name.
const maxPortTries = 50

// Place is where the server can be reached by one textual address.
type Place struct {
	Listeners []net.Listener // one, or for a name one for each of its addresses here
	URI       string         // under which clients on this machine find it
	Missing   []netip.Addr   // addresses of the name that this machine does not have
}

// Close closes all listeners.
func (p *Place) Close() {
	for _, l := range p.Listeners {
		_ = l.Close() // the gate has most likely closed it already
	}
}

// Everywhere returns the addresses of the place that stand for all interfaces.
func (p *Place) Everywhere() []string {
	var list []string
	for _, l := range p.Listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok && a.IP.IsUnspecified() {
			list = append(list, a.String())
		}
	}
	return list
}

// Listen listens on "HOST:PORT" (HOST alone means the default port, port 0 any free port) or
// "unix:PATH", and returns the URI under which clients on this machine find it (doc/uri.md of the
// NBD project). An IPv4 address is IPv4 alone and an IPv6 address IPv6 alone; a name is all its
// addresses. All interfaces have to be asked for by address: 0.0.0.0, [::] or both. The file of a
// socket is replaced if no process listens on it any more. It is removed when the listener is
// closed, unless another process has replaced it. Errors say in one line what is wrong and what to
// do.
func Listen(spec string) (*Place, error) { return ListenWith(spec, Options{}) }

// listenHost listens on HOST:PORT.
func listenHost(spec string, o *Options) (*Place, error) {
	host, port, err := splitHostPort(spec)
	if err != nil {
		return nil, err
	}
	addresses, err := addressesOf(host)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %s", spec, adviceTCP(err))
	}
	p, err := listenTCP(addresses, port, o)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", spec, err)
	}
	p.keep(o.Keepalive)
	if _, err := netip.ParseAddr(host); err == nil {
		p.URI = uriOf(p.Listeners[0].Addr())
		return p, nil
	}
	at := p.Listeners[0].Addr().(*net.TCPAddr)
	p.URI = (&url.URL{Scheme: "nbd", Host: net.JoinHostPort(host, strconv.Itoa(at.Port))}).String()
	return p, nil
}

// addressesOf returns the addresses of a host, each once.
func addressesOf(host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	if strings.EqualFold(host, "localhost") {
		// The meaning of this name does not depend on a file or a name server (RFC 6761, 6.3),
		// which may be missing.
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, ip := range found {
		if ip = ip.Unmap(); !slices.Contains(list, ip) {
			list = append(list, ip)
		}
	}
	return list, nil
}

// listenTCP listens on all the addresses that this machine has, on one port. A port that is taken
// on one of them is an error: clients that try that address first would find another server's disk.
func listenTCP(addresses []netip.Addr, port string, o *Options) (*Place, error) {
	for tries := 1; ; tries++ {
		p, err := listenOnce(addresses, port, o)
		if err == nil || port != "0" || tries == maxPortTries ||
			!errors.Is(err, syscall.EADDRINUSE) {
			return p, err
		}
	}
}

// listenOnce is listenTCP without a second try: for port 0 it takes the first free port.
func listenOnce(addresses []netip.Addr, port string, o *Options) (*Place, error) {
	p := &Place{}
	var last error
	for _, ip := range addresses {
		l, err := listenIP(ip, port, o)
		if len(addresses) > 1 && isAbsent(err) {
			p.Missing, last = append(p.Missing, ip), err
			continue
		}
		if err != nil {
			p.Close()
			return nil, adviceAt(addresses, ip, err)
		}
		p.Listeners = append(p.Listeners, l)
		port = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	}
	if len(p.Listeners) == 0 {
		return nil, errors.New(adviceTCP(last))
	}
	return p, nil
}

// listenIP listens on one address, in its own family alone.
func listenIP(ip netip.Addr, port string, o *Options) (net.Listener, error) {
	var config net.ListenConfig
	// Multipath sockets, the default of Go, are not TCP sockets to the kernel: slower, and without
	// some TCP options.
	config.SetMultipathTCP(false)
	config.KeepAlive = -1 // set when a socket is handed over
	if o.Freebind {
		config.Control = func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error { return freebind(fd, !ip.Is4()) })
		}
	}
	network := "tcp6" // with IPV6_V6ONLY
	if ip.Is4() {
		network = "tcp4"
	}
	return config.Listen(context.Background(), network, net.JoinHostPort(ip.String(), port))
}

// control calls do with the descriptor of a socket.
func control(raw syscall.RawConn, do func(fd int) error) (err error) {
	if e := raw.Control(func(fd uintptr) { err = do(int(fd)) }); e != nil {
		return e
	}
	return err
}

// isAbsent reports whether an error says that the machine does not have the address: most often,
// that it has no IPv6.
func isAbsent(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// placeError is an error about one of several addresses.
type placeError struct {
	text string
	error
}

func (e placeError) Error() string { return e.text }
func (e placeError) Unwrap() error { return e.error }

// adviceAt says what is wrong, and at which address if a name has several.
func adviceAt(addresses []netip.Addr, ip netip.Addr, err error) error {
	text := adviceTCP(err)
	if len(addresses) > 1 {
		text = ip.String() + ": " + text
	}
	return placeError{text, err}
}

// splitHostPort splits HOST:PORT and is strict about both.
func splitHostPort(spec string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(spec)
	var wrong *net.AddrError
	if _, number := strconv.Atoi(spec); number == nil {
		return "", "", fmt.Errorf("listen on %q: no host; write localhost:%s", spec, spec)
	}
	switch {
	case errors.As(err, &wrong) && wrong.Err == "missing port in address":
		host, port = strings.Trim(spec, "[]"), strconv.Itoa(proto.DefaultPort)
	case err != nil:
		return "", "", fmt.Errorf("listen on %q: not an address; write HOST:PORT, [IPV6]:PORT or "+
			"unix:PATH", spec)
	}
	if host == "" {
		return "", "", fmt.Errorf("listen on %q: no host; write localhost:%s for this machine "+
			"alone, or 0.0.0.0:%s or [::]:%s for all interfaces", spec, port, port, port)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil { // which takes no sign
		return "", "", fmt.Errorf("listen on %q: %q is not a port; write a number from 0 (any "+
			"free port) to 65535", spec, port)
	}
	return host, port, nil
}

// adviceTCP says what is wrong and what to do.
func adviceTCP(err error) string {
	var lookup *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "the port is in use; stop the other server or choose another port"
	case isAbsent(err):
		return "this machine does not have that address; choose one that `ip address` shows"
	case errors.Is(err, syscall.EACCES):
		return "no permission for this port; choose one above 1023"
	case errors.As(err, &lookup):
		return "no such host; write an address of this machine or localhost"
	}
	return err.Error()
}
