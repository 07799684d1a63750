// Where an export is: an NBD URI; or file:PATH, for commands that also work on files.
//
// Source: doc/uri.md of the NetworkBlockDevice project.
//
// Invariant: a Target that was parsed names exactly one place and one export; a part of a URI that
// is not supported is an error, and never ignored.

package client

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"ringnbd/proto"
)

// Target is one export of one server, or a file.
type Target struct {
	Text    string // as the user wrote it
	Network string // tcp, unix, or file
	// Address is HOST:PORT, or a path; a Unix socket of the abstract namespace begins with @, as in
	// package net.
	Address string
	Export  string // name; "" is the default export
}

// File reports whether the target is a file or block device of this machine.
func (t *Target) File() bool { return t.Network == "file" }

// URI returns the URI of an export of the target's server.
func (t *Target) URI(export string) string {
	path := (&url.URL{Path: "/" + export}).EscapedPath()
	if t.Network == "unix" {
		socket := t.Address
		if strings.HasPrefix(socket, "@") {
			socket = "\x00" + socket[1:]
		}
		return "nbd+unix://" + path + "?socket=" + escapedSocket(socket)
	}
	if export == "" {
		path = ""
	}
	host := strings.TrimSuffix(t.Address, ":"+strconv.Itoa(proto.DefaultPort))
	u := url.URL{Scheme: "nbd", Host: host}
	return u.String() + path
}

// escapedSocket returns a socket's path as a parameter of a URI.
func escapedSocket(path string) string {
	return strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(path))
}

// ParseTarget parses nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or file:PATH. The
// path of file: is taken literally. QEMU's form from before there were URIs is understood too:
// nbd:HOST:PORT[:exportname=NAME] and nbd:unix:PATH[:exportname=NAME].
func ParseTarget(text string) (Target, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	t := Target{Text: text}
	switch scheme = strings.ToLower(scheme); {
	case !ok:
		return t, fmt.Errorf("%q is neither an NBD URI nor file:PATH; write nbd://HOST/EXPORT, "+
			"nbd+unix:///EXPORT?socket=PATH or file:%s", text, text)
	case scheme == "file":
		if rest == "" || strings.ContainsRune(rest, 0) {
			return t, errors.New("file: needs the path of a file or block device")
		}
		t.Network, t.Address = "file", rest
		return t, nil
	case scheme == "nbds" || scheme == "nbds+unix" || scheme == "nbds+vsock":
		return t, fmt.Errorf("%s: TLS is not spoken; go without it (%s:...)", scheme,
			"nbd"+strings.TrimPrefix(scheme, "nbds"))
	case scheme == "nbd+vsock" || scheme == "nbd+ssh" || scheme == "nbds+ssh":
		return t, fmt.Errorf("%s: not supported; use nbd:// (TCP) or nbd+unix://", scheme)
	case scheme != "nbd" && scheme != "nbd+unix" && Meant(text) != "":
		return t, fmt.Errorf("%s is not an NBD URI; write %s", text, Meant(text))
	case scheme != "nbd" && scheme != "nbd+unix":
		return t, &SchemeError{scheme}
	case scheme == "nbd" && !strings.HasPrefix(rest, "/"):
		if err := t.parseQEMU(rest); err != nil {
			return t, fmt.Errorf("%s: %w", text, err)
		}
		return t, nil
	case !strings.HasPrefix(rest, "//"):
		return t, fmt.Errorf("%s: needs two slashes, as in %s://", text, scheme)
	}
	u, err := url.Parse(text)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return t, fmt.Errorf("%s: not a URI: %w", text, err)
	}
	if err := t.parse(u); err != nil {
		return t, fmt.Errorf("%s: %w", text, err)
	}
	return t, nil
}

// SchemeError is the error of a URI that has a scheme, but none of NBD.
type SchemeError struct{ Scheme string }

func (e *SchemeError) Error() string {
	return e.Scheme + ": is not a scheme of NBD; use nbd://HOST/EXPORT, " +
		"nbd+unix:///EXPORT?socket=PATH or file:PATH"
}

// Meant returns the URI of an address in another spelling, in quotes if a shell needs them:
// HOST:PORT, unix:PATH, or a Unix socket's path after two or three slashes. It returns "" if the
// text is none of these.
func Meant(text string) string {
	if path, ok := strings.CutPrefix(text, "unix:"); ok && path != "" {
		if rooted := strings.TrimLeft(path, "/"); strings.HasPrefix(path, "//") {
			path = "/" + rooted
		}
		return "'nbd+unix:///?socket=" + escapedSocket(path) + "'"
	}
	address, export, slash := strings.Cut(text, "/")
	host, port, err := net.SplitHostPort(address)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 1 || n > 65535 {
		return ""
	}
	if host == "" {
		host = "localhost"
	}
	uri := "nbd://" + net.JoinHostPort(host, port)
	if slash {
		uri += "/" + export
	}
	return uri
}

// parseQEMU parses what QEMU's block/nbd.c accepts after nbd:. Nothing in it is escaped: the name
// is all that follows the first :exportname=.
func (t *Target) parseQEMU(rest string) error {
	address, export, _ := strings.Cut(rest, ":exportname=")
	if !proto.ValidString(export) {
		return fmt.Errorf("the export's name must be UTF-8 without NUL and at most %d bytes",
			proto.MaxString)
	}
	t.Export = export
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" || strings.IndexByte(path, 0) >= 0 {
			return errors.New("nbd:unix: needs the path of a socket")
		}
		t.Network, t.Address = "unix", unixAddress(path)
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("write nbd:HOST:PORT[:exportname=NAME], " +
			"nbd:unix:PATH[:exportname=NAME] or, better, nbd://HOST/EXPORT")
	}
	if host == "" {
		host = "localhost"
	}
	if n, err := strconv.ParseUint(port, 10, 32); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %s: must be from 1 to 65535", port)
	}
	t.Network, t.Address = "tcp", net.JoinHostPort(host, port)
	return nil
}

// parse sets the target to that of a URI.
func (t *Target) parse(u *url.URL) error {
	t.Export = strings.TrimPrefix(u.Path, "/")
	if !proto.ValidString(t.Export) {
		return fmt.Errorf("the export's name must be UTF-8 without NUL and at most %d bytes",
			proto.MaxString)
	}
	switch {
	case u.User != nil:
		return errors.New("a user name has a meaning with TLS only, which is not spoken; leave " +
			"it out")
	case u.Fragment != "" || strings.Contains(t.Text, "#"):
		return errors.New("an NBD URI has no fragment; a # in a name is written %23")
	}
	socket, err := parseQuery(u.RawQuery)
	if err != nil {
		return err
	}
	if strings.EqualFold(u.Scheme, "nbd+unix") {
		switch {
		case u.Host != "":
			return fmt.Errorf("a Unix socket is on no host (%s); write "+
				"nbd+unix:///EXPORT?socket=PATH, with three slashes", u.Host)
		case socket == "":
			return errors.New("needs ?socket=PATH")
		}
		t.Network, t.Address = "unix", unixAddress(socket)
		return nil
	}
	if socket != "" {
		return errors.New("socket= belongs to nbd+unix://")
	}
	return t.parseHost(u)
}

// unixAddress returns a socket's path in the form of package net: a leading NUL, which means the
// abstract namespace, becomes @, and a path that happens to begin with @ must not be taken for
// that.
func unixAddress(socket string) string {
	switch socket[0] {
	case 0:
		return "@" + socket[1:]
	case '@':
		return "./" + socket
	}
	return socket
}

// parseHost sets the target to the host and port of a URI.
func (t *Target) parseHost(u *url.URL) error {
	host, port := u.Hostname(), u.Port()
	if host == "" {
		host = "localhost" // as in libnbd
	}
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return errors.New("the port after the colon is missing")
		}
		port = strconv.Itoa(proto.DefaultPort)
	}
	if n, err := strconv.ParseUint(port, 10, 32); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %s: must be from 1 to 65535", port)
	}
	t.Network, t.Address = "tcp", net.JoinHostPort(host, port)
	return nil
}

// parseQuery parses the parameters, of which only socket is known here. A plus is a plus: these are
// not web forms.
func parseQuery(query string) (socket string, err error) {
	seen := false
	for field := range strings.SplitSeq(query, "&") {
		if field == "" {
			continue
		}
		key, value, _ := strings.Cut(field, "=")
		if key, err = url.PathUnescape(key); err == nil {
			value, err = url.PathUnescape(value)
		}
		switch {
		case err != nil:
			return "", fmt.Errorf("%q: %w", field, err)
		case strings.HasPrefix(key, "tls-"):
			return "", fmt.Errorf("%s: TLS is not spoken", key)
		case key != "socket":
			return "", fmt.Errorf("unknown parameter %q; there is socket=PATH", key)
		case seen:
			return "", errors.New("socket= is given twice")
		case value == "" || value == "\x00" || strings.IndexByte(value[1:], 0) >= 0:
			return "", errors.New("socket= needs a path")
		}
		socket, seen = value, true
	}
	return socket, nil
}
