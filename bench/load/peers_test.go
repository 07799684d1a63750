// Against real servers: our own engine in this process, nbdkit and qemu-nbd where they are
// installed.

package load

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/client"
	"ringnbd/engine/gate"
	"ringnbd/proto"
)

// verified runs a mixed load with --verify and a read-only one.
func verified(t *testing.T, uri string) {
	t.Helper()
	o := options(t, uri, "randrw", "4k:4,64k:1,512:1")
	o.Verify, o.Fill, o.Connections, o.Threads, o.Count, o.Size, o.FlushEvery = true, true, 4, 2,
		10000, 8<<20, 100
	if r := runs(t, o); r.Verify.Judged == 0 || r.Verify.Found != 0 || r.Requests != o.Count {
		t.Errorf("%+v", r.Verify)
	}
	o = options(t, uri, "read", "1M")
	o.Count = 200
	runs(t, o)
}

func TestOurEngine(t *testing.T) {
	image := filepath.Join(t.TempDir(), "d.img")
	if err := os.WriteFile(image, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			b, err := backing.Open(backing.Spec{Path: image})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			c := engine.Config{Loops: 1, Memory: 128 << 20, MaxConnections: 64}
			e, err := engine.Start(c, []engine.Export{b.Engine()})
			if err != nil {
				t.Fatal(err)
			}
			catalog, err := proto.NewExports([]proto.Export{b.Export}, -1)
			if err != nil {
				t.Fatal(err)
			}
			adopt := func(fd int, _ proto.Export, s proto.Session, _ string) error {
				return e.Adopt(fd, e.IDs()[0], s)
			}
			snapshot := func() proto.Catalog { return catalog }
			g := gate.New(gate.Config{Catalog: snapshot, Adopt: adopt, Live: e.Connections,
				MaxConnections: 64, HandshakeTimeout: 10 * time.Second})
			address := "127.0.0.1:0"
			if network == "unix" {
				address = "unix:" + filepath.Join(t.TempDir(), "s")
			}
			place, err := gate.Listen(address)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() { ended <- g.Serve(place.Listeners[0]) }()
			verified(t, place.URI)
			g.Close()
			place.Close()
			<-ended
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// started runs a server that stays in the foreground until it negotiates the export at the URI, and
// ends it with the test.
func started(t *testing.T, uri, name string, arguments ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	target, err := client.ParseTarget(uri)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(path, arguments...)
	cmd.Stdout, cmd.Stderr = &log, &log
	begun, stop, ended := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		// nbdkit -f asks for SIGTERM when its parent dies, which to the kernel is the thread that
		// started it. Threads of loops end with their loops, so a thread that stays must do it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		begun <- err
		if err == nil {
			<-stop
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(stop)
		<-ended
		if t.Failed() {
			t.Logf("%s: %s", name, log.String())
		}
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		fd, _, _, err := connect(t.Context(), &target, time.Second)
		if err == nil {
			_ = unix.Close(fd)
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen: %v", name, err)
		}
	}
}

func TestNbdkit(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	uri := "nbd+unix:///?socket=" + url.PathEscape(socket)
	started(t, uri, "nbdkit", "-f", "-U", socket, "memory", "16M")
	verified(t, uri)
}

func TestQemuNbd(t *testing.T) {
	folder := t.TempDir()
	socket, image := filepath.Join(folder, "s"), filepath.Join(folder, "d.img")
	if err := os.WriteFile(image, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	uri := "nbd+unix:///an%20export?socket=" + url.PathEscape(socket)
	started(t, uri, "qemu-nbd", "-f", "raw", "-t", "-e", "64", "-x", "an export", "-k", socket,
		image)
	verified(t, uri)
	fails(t, options(t, "nbd+unix:///other?socket="+url.PathEscape(socket), "randread", "4k"),
		`export "other"`)
}

// What a mounted device holds is not overwritten.
func TestMounted(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		device := strings.Fields(line)[0]
		if info, err := os.Stat(device); err != nil || !strings.HasPrefix(device, "/dev/") ||
			info.Mode()&os.ModeDevice == 0 {
			continue
		}
		o := options(t, "file:"+device, "randwrite", "4k")
		if o.Check() != nil {
			t.Fatal("the options are wrong")
		}
		r := run{options: &o}
		err := r.openFile() // only opened: nothing could be written even if this went wrong
		r.close()
		if err == nil {
			t.Errorf("%s is mounted and was opened for writing", device)
		}
		return
	}
	t.Skip("no mounted block device is to be seen here")
}
