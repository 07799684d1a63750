// What a machine lacks for an address, found without taking it.
//
// Invariant: a server that listens at the address, or is about to, is not disturbed: no socket is
// bound to its port or path.

package gate

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lacks says what keeps a server from listening at an address, apart from other servers.
func Lacks(spec string, o Options) error {
	if err := errors.Join(CheckAddress(spec), o.Check(spec)); err != nil {
		return err
	}
	if path, ok := strings.CutPrefix(spec, "unix:"); ok {
		return lacksPath(path, &o)
	}
	host, port, err := splitHostPort(spec)
	if err != nil {
		return err
	}
	addresses, err := addressesOf(host)
	if err != nil {
		return fmt.Errorf("listen on %s: %s", spec, adviceTCP(err))
	}
	p, err := listenTCP(addresses, "0", &o) // any port: the address is what counts
	if err != nil {
		return fmt.Errorf("listen on %s: %w", spec, err)
	}
	p.Close()
	if isForbidden(port) {
		return fmt.Errorf("listen on %s: %s", spec, adviceTCP(unix.EACCES))
	}
	return nil
}

// isForbidden reports whether a port is one that this process may not listen on.
func isForbidden(port string) bool {
	const privileged = 1024
	n, err := strconv.Atoi(port)
	if err != nil || n == 0 || n >= privileged {
		return false
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// a datagram socket takes no port of a stream socket, and needs the same permission
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}})
	return err == unix.EACCES
}

// lacksPath says what keeps a server from a path.
func lacksPath(path string, o *Options) error {
	fail := func(err error) error {
		return fmt.Errorf("listen on unix:%s: %s", path, adviceUnix(err))
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Dir(path), &st); err != nil {
		return fail(err)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, filepath.Dir(path), unix.W_OK|unix.X_OK,
		unix.AT_EACCESS); err != nil {
		return fail(err)
	}
	if err := unix.Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fail(errNotSocket)
	}
	if o.Group != "" {
		if _, err := groupID(o.Group); err != nil {
			return fail(err)
		}
	}
	return nil
}
