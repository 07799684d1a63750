// URIs of sockets that others opened.

package gate

import (
	"net"
	"os"
	"path/filepath"
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
