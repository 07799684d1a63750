// What a machine lacks for an address, while another server has it.

package gate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLacksDisturbsNoServer(t *testing.T) {
	dir := shortDir(t)
	for _, spec := range []string{"127.0.0.1:0", "unix:" + dir + "/s"} {
		p, err := Listen(spec)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		taken := spec
		if !strings.HasPrefix(spec, "unix:") {
			taken = p.Listeners[0].Addr().String()
		}
		if err := Lacks(taken, Options{}); err != nil {
			t.Errorf("%s has its server, and lacks %v", taken, err)
		}
	}
	if info, err := os.Lstat(dir + "/s"); err != nil || info.Mode()&os.ModeSocket == 0 {
		t.Errorf("the socket of the server: %v %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
}

func TestLacks(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		spec string
		o    Options
		want string
	}{
		{"203.0.113.6:10809", Options{}, "does not have that address"},
		{"203.0.113.6:10809", Options{Freebind: true}, ""},
		{"localhost:10809", Options{}, ""},
		{"no.such.host.invalid:1", Options{}, "no such host"},
		{"localhost:http", Options{}, "is not a port"},
		{"unix:" + dir + "/none/s", Options{}, "no such directory"},
		{"unix:" + file, Options{}, "is not a socket"},
		{"unix:" + dir + "/s", Options{}, ""},
		{"unix:" + dir + "/s", Options{Mode: mode(0o660), Group: "0"}, ""},
		{"unix:" + dir + "/s", Options{Group: "no-such-group"}, "there is no group no-such-group"},
		{"unix:" + dir + "/s", Options{Freebind: true}, "freebind is for addresses of TCP"},
	} {
		err := Lacks(row.spec, row.o)
		if (err == nil) != (row.want == "") ||
			err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s %v: %v, want %q", row.spec, row.o, err, row.want)
		}
	}
}
