// Keepalive, addresses that may come later, and who may connect to a Unix socket.

package gate

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kept are the keepalive options of a socket.
func kept(t *testing.T, fd int) (k Keepalive) {
	t.Helper()
	for _, o := range []struct {
		name int
		of   time.Duration
		into *time.Duration
	}{{unix.TCP_KEEPIDLE, time.Second, &k.Idle}, {unix.TCP_KEEPINTVL, time.Second, &k.Interval},
		{unix.TCP_USER_TIMEOUT, time.Millisecond, &k.UserTimeout}} {
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, o.name)
		if err != nil {
			t.Fatal(err)
		}
		*o.into = time.Duration(n) * o.of
	}
	return k
}

// through connects to a place, and hands the connection over as the gate does.
func through(t *testing.T, p *Place) Keepalive {
	t.Helper()
	l := p.Listeners[0]
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours, spare, err := accept(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := detach(ours, spare, 0, keepaliveOf(l)); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(spare)
	return kept(t, spare)
}

func TestKeepaliveOfAnAddress(t *testing.T) {
	usual := Keepalive{time.Minute, 15 * time.Second, 5 * time.Minute}
	own := Keepalive{Idle: 7 * time.Second, UserTimeout: 1500 * time.Millisecond}
	both := Keepalive{own.Idle, usual.Interval, own.UserTimeout}
	p, err := ListenWith("127.0.0.1:0", Options{Keepalive: own})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := through(t, p); got != both {
		t.Errorf("%v, want %v", got, both)
	}
	p.SetKeepalive(Keepalive{})
	if got := through(t, p); got != usual {
		t.Errorf("changed: %v, want %v", got, usual)
	}
	usually, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer usually.Close()
	if got := through(t, usually); got != usual {
		t.Errorf("without: %v, want %v", got, usual)
	}
}

// An address of documentation (RFC 5737, RFC 3849) is not on this machine.
func TestFreebindTakesAnAddressThatMayComeLater(t *testing.T) {
	for _, spec := range []string{"203.0.113.6:0", "[2001:db8::6]:0"} {
		if strings.HasPrefix(spec, "[") && !hasIPv6() {
			continue
		}
		if p, err := Listen(spec); err == nil {
			p.Close()
			t.Errorf("%s: this machine has it", spec)
		}
		p, err := ListenWith(spec, Options{Freebind: true})
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		if !strings.Contains(p.URI, strings.TrimSuffix(spec, ":0")) || len(p.Missing) > 0 {
			t.Errorf("%s: %s, missing %v", spec, p.URI, p.Missing)
		}
		p.Close()
	}
}

// TestFreebindServesWhenTheAddressComes gives this machine the address after the server listens on
// it, as a cluster does with a virtual IP.
func TestFreebindServesWhenTheAddressComes(t *testing.T) {
	const address = "203.0.113.86"
	p, err := ListenWith(address+":0", Options{Freebind: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if out, err := exec.Command("ip", "address", "add", address+"/32", "dev",
		"lo").CombinedOutput(); err != nil {
		t.Skipf("this machine cannot be given an address: %v %s", err, out)
	}
	defer exec.Command("ip", "address", "del", address+"/32", "dev", "lo").Run()
	if got := through(t, p); got != (Keepalive{}).whole() {
		t.Errorf("%v", got)
	}
}

func TestModeAndGroupOfAUnixSocket(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := shortDir(t)
	group := os.Getegid()
	if os.Geteuid() == 0 {
		group = 12345
	}
	for i, row := range []struct {
		mode  *uint32
		group int
		want  os.FileMode
	}{{mode(0o660), -1, 0o660}, {mode(0), -1, 0}, {mode(0o777), group, 0o777},
		{nil, -1, 0o777}} {
		path := filepath.Join(dir, string(rune('a'+i)))
		o := Options{Mode: row.mode}
		if row.group >= 0 {
			o.Group = strconv.Itoa(row.group)
		}
		p, err := ListenWith("unix:"+path, o)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || os.FileMode(st.Mode&0o777) != row.want ||
			row.group >= 0 && int(st.Gid) != row.group {
			t.Errorf("%v: mode %o, group %d, %v", row, st.Mode&0o777, st.Gid, err)
		}
	}
}

func mode(m uint32) *uint32 { return &m }

// TestRestrictedBeforeItIsThere checks that the file of a socket with a mode of its own begins with
// no more than its owner's permissions, whatever the umask is.
func TestRestrictedBeforeItIsThere(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(shortDir(t), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := (&Options{Mode: mode(0o777)}).restrict(fd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestOptionsSayWhatDoesNotFit(t *testing.T) {
	path := "unix:" + filepath.Join(shortDir(t), "s")
	for _, row := range []struct {
		spec string
		o    Options
		want string
	}{
		{path, Options{Freebind: true}, "freebind is for addresses of TCP"},
		{path, Options{Keepalive: Keepalive{Idle: 1}}, "keepalive is for addresses of TCP"},
		{"127.0.0.1:0", Options{Mode: mode(0)}, "mode and group are for Unix sockets"},
		{"127.0.0.1:0", Options{Group: "0"}, "mode and group are for Unix sockets"},
		{"127.0.0.1:0", Options{Keepalive: Keepalive{Idle: time.Millisecond}}, "whole seconds"},
		{"127.0.0.1:0", Options{Keepalive: Keepalive{Interval: 10 * time.Hour}}, "at most 9h6m7s"},
		{"127.0.0.1:0", Options{Keepalive: Keepalive{UserTimeout: 1}}, "whole milliseconds"},
		{path, Options{Group: "no-such-group"}, "there is no group no-such-group; make it"},
	} {
		p, err := ListenWith(row.spec, row.o)
		if err == nil {
			p.Close()
			t.Errorf("%s %v: listens", row.spec, row.o)
		} else if !strings.Contains(err.Error(), row.want) ||
			!strings.Contains(err.Error(), "listen on "+row.spec) {
			t.Errorf("%s %v: %v, want %q", row.spec, row.o, err, row.want)
		}
	}
	if _, err := os.Stat(strings.TrimPrefix(path, "unix:")); err == nil {
		t.Error("the socket of an address that is refused is left behind")
	}
}
