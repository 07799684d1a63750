// URIs of sockets that others opened.

package gate

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestURIOfAnInheritedSocket(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		address net.Addr
		want    string
	}{
		{&net.UnixAddr{Name: "/run/a b.sock", Net: "unix"}, "nbd+unix:///?socket=/run/a%20b.sock"},
		{&net.UnixAddr{Name: "a.sock", Net: "unix"},
			"nbd+unix:///?socket=" + escape(filepath.Join(dir, "a.sock"))},
		{&net.UnixAddr{Name: "@ringnbd/a", Net: "unix"}, "nbd+unix:///?socket=%00ringnbd/a"},
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 10809}, "nbd://127.0.0.1:10809"},
		{&net.TCPAddr{IP: net.IPv6unspecified, Port: 1}, "nbd://[::1]:1"},
		{&net.TCPAddr{IP: net.IPv4zero, Port: 1}, "nbd://127.0.0.1:1"},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 1}, "nbd://[::1]:1"},
	} {
		if got := uriOf(row.address); got != row.want {
			t.Errorf("%v: %s, want %s", row.address, got, row.want)
		}
	}
}

// escape percent-encodes a path for the query of a URI. Everything but the unreserved characters
// and the slash: a space must not become the plus that web forms use.
func escape(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
