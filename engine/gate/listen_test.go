// Addresses: what is listened on, under which URI, and what is said when it cannot be.

package gate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// shortDir is a folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// hasIPv6 says whether this machine has ::1.
func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

// addressesOn gives the addresses of a place without their port, which must be the same.
func addressesOn(t *testing.T, p *Place) (list []string, port int) {
	t.Helper()
	for _, l := range p.Listeners {
		at := l.Addr().(*net.TCPAddr)
		if port != 0 && at.Port != port {
			t.Errorf("%s: ports %d and %d", p.URI, port, at.Port)
		}
		port = at.Port
		list = append(list, at.IP.String())
	}
	return list, port
}

func TestListenTCP(t *testing.T) {
	for _, row := range []struct {
		spec, host string
		addresses  []string // without those that a machine without IPv6 lacks
	}{
		{"localhost:0", "localhost", []string{"127.0.0.1", "::1"}},
		{"LocalHost:0", "LocalHost", []string{"127.0.0.1", "::1"}},
		{"127.0.0.1:0", "127.0.0.1", []string{"127.0.0.1"}},
		{"[::ffff:127.0.0.1]:0", "127.0.0.1", []string{"127.0.0.1"}},
		{"[::1]:0", "[::1]", []string{"::1"}},
		{"0.0.0.0:0", "127.0.0.1", []string{"0.0.0.0"}},
		{"[::]:0", "[::1]", []string{"::"}},
	} {
		want := slices.Clone(row.addresses)
		if !hasIPv6() {
			want = slices.DeleteFunc(want, func(s string) bool {
				return strings.HasPrefix(s, "::")
			})
		}
		p, err := Listen(row.spec)
		if err != nil {
			if len(want) > 0 {
				t.Errorf("%s: %v", row.spec, err)
			}
			continue
		}
		got, port := addressesOn(t, p)
		if !slices.Equal(got, want) || len(want)+len(p.Missing) != len(row.addresses) {
			t.Errorf("%s listens on %v, without %v; want %v", row.spec, got, p.Missing, want)
		}
		if uri := fmt.Sprintf("nbd://%s:%d", row.host, port); p.URI != uri || port == 0 {
			t.Errorf("%s: %s, want %s", row.spec, p.URI, uri)
		}
		for _, ip := range want {
			if everywhere := ip == "0.0.0.0" ||
				ip == "::"; (len(p.Everywhere()) == 1) != everywhere {
				t.Errorf("%s: on all interfaces: %v", row.spec, p.Everywhere())
			}
		}
		for _, ip := range []string{"127.0.0.1", "::1"} {
			open := slices.Contains(want, ip) ||
				slices.Contains(want, map[string]string{"127.0.0.1": "0.0.0.0", "::1": "::"}[ip])
			c, err := net.Dial("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
			if (err == nil) != open {
				t.Errorf("%s: open at %s: %v, want %v", row.spec, ip, err == nil, open)
			}
			if err == nil {
				c.Close()
			}
		}
		p.Close()
	}
}

// All interfaces of both families: two addresses, one port.
func TestListenOnBothFamilies(t *testing.T) {
	if !hasIPv6() {
		t.Skip("this machine has no IPv6")
	}
	four, err := Listen("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	_, port := addressesOn(t, four)
	six, err := Listen(fmt.Sprintf("[::]:%d", port))
	if err != nil {
		t.Fatalf("beside 0.0.0.0: %v", err)
	}
	six.Close()
}

// A name whose port is taken on one of its addresses would lead some clients to another server.
func TestListenOnANameThatIsTakenInPart(t *testing.T) {
	if !hasIPv6() {
		t.Skip("this machine has no IPv6")
	}
	taken, err := Listen("[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port := addressesOn(t, taken)
	p, err := Listen(fmt.Sprintf("localhost:%d", port))
	if err == nil {
		p.Close()
		t.Fatal("listens on half of a name")
	}
	if !strings.Contains(err.Error(), "::1: the port is in use") {
		t.Error(err)
	}
	free, err := Listen(fmt.Sprintf("127.0.0.1:%d", port)) // nothing is left of the attempt
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
}

func TestListenLeavesOutWhatIsNotHere(t *testing.T) {
	here, there := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("203.0.113.6")
	p, err := listenTCP([]netip.Addr{there, here}, "0", &Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, _ := addressesOn(t, p); !slices.Equal(got, []string{"127.0.0.1"}) ||
		!slices.Equal(p.Missing, []netip.Addr{there}) {
		t.Errorf("listens on %v, without %v", got, p.Missing)
	}
	if _, err := listenTCP([]netip.Addr{there, netip.MustParseAddr("203.0.113.7")},
		"0", &Options{}); err == nil ||
		!strings.Contains(err.Error(), "does not have that address") {
		t.Errorf("a name of another machine: %v", err)
	}
}

func TestListenSaysWhatToDo(t *testing.T) {
	busy, _ := listen(t, "localhost:0")
	defer busy.Close()
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	live, _ := listen(t, "unix:"+dir+"/live")
	defer live.Close()
	for spec, want := range map[string]string{
		"":                         "no host; write localhost:10809",
		":10809":                   "0.0.0.0:10809 or [::]:10809 for all interfaces",
		"10809":                    "write localhost:10809",
		"localhost:http!":          "is not a port",
		"localhost:65536":          "is not a port",
		"localhost:-1":             "is not a port",
		"localhost:+1":             "is not a port",
		"localhost:-0":             "is not a port",
		"::1":                      "[IPV6]:PORT",
		"192.0.2.1:0":              "does not have that address",
		"no.such.host.invalid:0":   "no such host",
		busy.Addr().String():       "port is in use",
		"unix:":                    "write unix:PATH",
		"unix:" + file:             "is not a socket",
		"unix:" + dir:              "is not a socket",
		"unix:" + dir + "/live":    "another server is listening there; stop it",
		"unix:" + dir + "/no/such": "no such directory",
		"unix:/" + strings.Repeat("x", maxUnixPath): "the kernel takes 107",
	} {
		p, err := Listen(spec)
		if err == nil {
			p.Close()
			t.Errorf("%q: listens", spec)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "\n") ||
			!strings.Contains(text, "listen on ") {
			t.Errorf("%q: %v, want %q", spec, err, want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("a file that was no socket: %q %v", b, err)
	}
	if c, err := net.Dial("unix", dir+"/live"); err != nil {
		t.Errorf("the living server lost its socket: %v", err)
	} else {
		c.Close()
	}
}

func TestListenUnix(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "a b+c%#?&ß.sock")
	l, uri := listen(t, "unix:"+path)
	if want := "nbd+unix:///?socket=" + dir + "/a%20b%2Bc%25%23%3F%26%C3%9F.sock"; uri != want {
		t.Errorf("%s, want %s", uri, want)
	}
	if u, err := url.Parse(uri); err != nil || u.Query().Get("socket") != path {
		t.Errorf("%s: %v", uri, err)
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestListenUnixRelative(t *testing.T) {
	dir := shortDir(t)
	t.Chdir(dir)
	for _, name := range []string{"s", "@s"} {
		l, uri := listen(t, "unix:"+name)
		if want := "nbd+unix:///?socket=" + escape(filepath.Join(dir, name)); uri != want {
			t.Errorf("%s, want %s", uri, want)
		}
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
		l.Close()
	}
}

// leaveStale makes a socket file as a killed server leaves it.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestListenReplacesStaleSocketOnce(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	for range 20 {
		leaveStale(t, path)
		var group sync.WaitGroup
		places := make([]*Place, 4)
		for i := range places {
			group.Go(func() { places[i], _ = Listen("unix:" + path) })
		}
		group.Wait()
		won := 0
		for _, p := range places {
			if p == nil {
				continue
			}
			won++
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatalf("the winner cannot be reached: %v", err)
			}
			c.Close()
			p.Close()
		}
		if won != 1 {
			t.Fatalf("%d servers took the same path", won)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
			t.Fatalf("left behind: %v %v", left, err)
		}
	}
}

// Whatever has taken the place of a socket's file meanwhile is another's: its successor's, most
// often.
func TestCloseRemovesItsOwnSocketOnly(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	first, _ := listen(t, "unix:"+path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, _ := listen(t, "unix:"+path)
	first.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the successor lost its socket: %v", err)
	}
	c.Close()
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	second.Close()
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("a file that is not ours: %q %v", b, err)
	}
}

// Every user who can read a folder can lock it, and a file of another program may have any name.
func TestListenUnixAndTheLocksOfOthers(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	leaveStale(t, path)
	l, _ := listen(t, "unix:"+path)
	l.Close()

	if err := os.WriteFile(path+lockSuffix, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, _ = listen(t, "unix:"+path)
	l.Close()
	if b, err := os.ReadFile(path + lockSuffix); err != nil || string(b) != "precious" {
		t.Errorf("a file that is not ours: %q %v", b, err)
	}
	if err := os.Truncate(path+lockSuffix, 0); err != nil { // as a server that was killed leaves it
		t.Fatal(err)
	}
	unlock, err := lockPath(path + lockSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if st, err := os.Stat(path + lockSuffix); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("others can lock it: %v %v", st.Mode(), err)
	}
	if p, err := Listen("unix:" + path); err == nil ||
		!strings.Contains(err.Error(), "another server is starting there") {
		t.Errorf("beside another that starts: %v %v", p, err)
	}
}

func TestModeOfAUnixSocketFollowsTheUmask(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	l, _ := listen(t, "unix:"+path)
	defer l.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
}
