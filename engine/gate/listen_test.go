// Addresses: what is listened on, under which URI, and what is said when it cannot be.

package gate

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
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

func TestListenTCP(t *testing.T) {
	for spec, host := range map[string]string{
		"localhost:0": "localhost",
		"127.0.0.1:0": "127.0.0.1",
		"[::1]:0":     "[::1]",
		"0.0.0.0:0":   "localhost",
		"[::]:0":      "localhost",
	} {
		l, uri, err := Listen(spec)
		if err != nil && strings.Contains(spec, "::") && strings.Contains(err.Error(), "does not have that address") {
			continue // a machine without IPv6
		}
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		if want := fmt.Sprintf("nbd://%s:%d", host, port); uri != want || port == 0 {
			t.Errorf("%s: %s, want %s", spec, uri, want)
		}
		parsed, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial("tcp", parsed.Host); err != nil {
			t.Errorf("%s: nobody at %s: %v", spec, uri, err)
		} else {
			c.Close()
		}
		if ip := l.Addr().(*net.TCPAddr).IP; ip.IsUnspecified() != (host == "localhost" && spec != "localhost:0") {
			t.Errorf("%s listens on %v", spec, ip)
		}
		l.Close()
	}
}

func TestListenSaysWhatToDo(t *testing.T) {
	busy, _, err := Listen("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	live, _, err := Listen("unix:" + dir + "/live")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	for spec, want := range map[string]string{
		"":                         "no host; write localhost:10809",
		":10809":                   "0.0.0.0:10809 or [::]:10809 for all interfaces",
		"10809":                    "write localhost:10809",
		"localhost:http!":          "is no port",
		"localhost:65536":          "is no port",
		"localhost:-1":             "is no port",
		"::1":                      "[IPV6]:PORT",
		"192.0.2.1:0":              "does not have that address",
		"no.such.host.invalid:0":   "no such host",
		busy.Addr().String():       "port is in use",
		"unix:":                    "write unix:PATH",
		"unix:" + file:             "is no socket",
		"unix:" + dir:              "is no socket",
		"unix:" + dir + "/live":    "another server is listening there; stop it",
		"unix:" + dir + "/no/such": "no such folder",
		"unix:/" + strings.Repeat("x", unixPathMax): "the kernel takes 107",
	} {
		l, _, err := Listen(spec)
		if err == nil {
			l.Close()
			t.Errorf("%q: listens", spec)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "\n") || !strings.Contains(text, "listen on ") {
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
	l, uri, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
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
		l, uri, err := Listen("unix:" + name)
		if err != nil {
			t.Fatal(err)
		}
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
		listeners := make([]net.Listener, 4)
		for i := range listeners {
			group.Go(func() { listeners[i], _, _ = Listen("unix:" + path) })
		}
		group.Wait()
		won := 0
		for _, l := range listeners {
			if l == nil {
				continue
			}
			won++
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatalf("the winner cannot be reached: %v", err)
			}
			c.Close()
			l.Close()
		}
		if won != 1 {
			t.Fatalf("%d servers took the same path", won)
		}
	}
}
