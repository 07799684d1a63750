// Sockets that somebody else has opened: systemd (socket activation, sd_listen_fds(3)), or a client that starts its own server, as nbdinfo [ ringnbd serve FILE ] does.
//
// Invariant: all of them are taken or none is; the environment variables that tell of them are gone afterwards.

package gate

import (
	"fmt"
	"net"
	"net/url"

	"github.com/coreos/go-systemd/v22/activation"
)

// Inherited gives the listening sockets that were handed to this process, and their URIs; none is no error.
func Inherited() (doors []net.Listener, uris []string, err error) {
	for i, f := range activation.Files(true) {
		l, e := net.FileListener(f)
		f.Close()
		if e != nil {
			err = fmt.Errorf("socket %d of LISTEN_FDS is no listening stream socket (ListenStream= makes one): %w", i+1, e)
			continue
		}
		doors, uris = append(doors, l), append(uris, uriOf(l.Addr()))
	}
	if err != nil {
		for _, l := range doors {
			l.Close()
		}
		return nil, nil, err
	}
	return doors, uris, nil
}

// uriOf is where clients on this machine find a socket.
func uriOf(a net.Addr) string {
	switch a := a.(type) {
	case *net.UnixAddr:
		return "nbd+unix:///?socket=" + escape(a.Name)
	case *net.TCPAddr:
		host := a.IP.String()
		if a.IP.IsUnspecified() {
			host = "localhost"
		}
		u := url.URL{Scheme: "nbd", Host: net.JoinHostPort(host, fmt.Sprint(a.Port))}
		return u.String()
	}
	return a.String()
}
