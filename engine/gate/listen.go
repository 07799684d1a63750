// Where the server can be reached: a textual address to a listener and to the URI that clients use for it. Invariant:
// nobody listens on all interfaces who did not write so, and a Unix socket that a living server listens on is never
// taken away from it.

package gate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// DefaultListen is where a server listens that was told nothing.
const DefaultListen = "localhost:10809"

const (
	// unixPathMax is the room for a path in a sockaddr_un, without its closing NUL, in bytes.
	unixPathMax = 107
	// staleLockWait is how long to wait for another server that is replacing a stale socket in the same folder.
	staleLockWait = 2 * time.Second
)

// Listen listens on "HOST:PORT" (HOST alone means the default port, port 0 any that is free) or "unix:PATH", and gives
// the URI under which clients on this machine find it (doc/uri.md of the NBD project). All interfaces have to be asked
// for by address: 0.0.0.0 or [::]. A socket file that nobody listens on any more is replaced. The file is removed when
// the listener is closed. Errors say in one line what is wrong and what to do.
func Listen(spec string) (net.Listener, string, error) {
	if path, ok := strings.CutPrefix(spec, "unix:"); ok {
		return listenUnix(path)
	}
	return listenTCP(spec)
}

// listenTCP listens on HOST:PORT.
func listenTCP(spec string) (net.Listener, string, error) {
	host, port, err := splitHostPort(spec)
	if err != nil {
		return nil, "", err
	}
	var config net.ListenConfig
	// Multipath sockets, the default of Go, are not TCP sockets to the kernel: slower, and without some TCP options.
	config.SetMultipathTCP(false)
	config.KeepAlive = -1 // set when a socket is handed over
	l, err := config.Listen(context.Background(), "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, "", fmt.Errorf("listen on %s: %s", spec, adviceTCP(err))
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost" // a client cannot go to "all interfaces"
	}
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		l.Close()
		return nil, "", fmt.Errorf("listen on %s: %w", spec, err)
	}
	uri := url.URL{Scheme: "nbd", Host: net.JoinHostPort(host, port)}
	return l, uri.String(), nil
}

// splitHostPort takes HOST:PORT apart and is strict about both.
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
		return "", "", fmt.Errorf("listen on %q: no address; write HOST:PORT, [IPV6]:PORT or unix:PATH", spec)
	}
	if host == "" {
		return "", "", fmt.Errorf("listen on %q: no host; write localhost:%s for this machine alone, or 0.0.0.0:%s or [::]:%s"+
			" for all interfaces", spec, port, port, port)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", "", fmt.Errorf("listen on %q: %q is no port; write a number from 0 (any free one) to 65535", spec, port)
	}
	return host, port, nil
}

// adviceTCP says what is wrong and what to do.
func adviceTCP(err error) string {
	var lookup *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "the port is in use; stop the other server or choose another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have that address; choose one that `ip address` shows"
	case errors.Is(err, syscall.EACCES):
		return "no permission for this port; choose one above 1023"
	case errors.As(err, &lookup):
		return "no such host; write an address of this machine or localhost"
	}
	return err.Error()
}

// listenUnix listens on a path.
func listenUnix(path string) (net.Listener, string, error) {
	if path == "" {
		return nil, "", errors.New(`listen on "unix:": no path; write unix:PATH`)
	}
	if len(path) > unixPathMax {
		return nil, "", fmt.Errorf("listen on unix:%s: the path has %d bytes, the kernel takes %d; choose a shorter one",
			path, len(path), unixPathMax)
	}
	if strings.HasPrefix(path, "@") {
		path = "./" + path // a file: net would make it a socket without one, which the URI cannot name
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return nil, "", fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	l, err := takePath(path)
	if err != nil {
		return nil, "", fmt.Errorf("listen on unix:%s: %s", path, adviceUnix(err))
	}
	return l, unixURI(whole), nil
}

// Errors of takePath. Each is the end of a line about the path.
var (
	errLive      = errors.New("another server is listening there; stop it or choose another path")
	errNotSocket = errors.New("the path exists and is no socket; remove it or choose another path")
	errLocked    = errors.New("another server is starting there; try again or choose another path")
)

// takePath listens on a path, in place of a socket there that nobody listens on. The folder is locked meanwhile: between
// bind and listen a new socket looks like a stale one, and two servers that start at the same time would take each
// other's away.
func takePath(path string) (net.Listener, error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer folder.Close() // and with it the lock
	if err := lock(folder); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

// removeStale removes the socket of a server that is gone; no error means that the path is free.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errNotSocket
	}
	c, err := net.DialTimeout("unix", path, staleLockWait)
	switch {
	case err == nil:
		c.Close()
		return errLive
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrPermission):
		return err
	}
	return errLive // a full backlog (EAGAIN), a socket of another type (EPROTOTYPE): somebody is there
}

// lock takes the lock of a folder, which leaves no file behind.
func lock(folder *os.File) error {
	for end := time.Now().Add(staleLockWait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return err
		case time.Now().After(end):
			return errLocked
		}
	}
}

// adviceUnix says what is wrong and what to do.
func adviceUnix(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such folder; create it or choose another path"
	case errors.Is(err, fs.ErrPermission):
		return "no permission; choose a path in a folder you may write"
	case errors.Is(err, syscall.EADDRINUSE):
		return errLocked.Error()
	}
	return err.Error()
}

// escape percent-encodes a path for the query of a URI. Everything but the unreserved characters and the slash: a space
// must not become the plus that web forms use.
func escape(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
