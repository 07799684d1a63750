// ringnbd copy with real servers at both ends, ringnbd and others.
//
// Invariant: copies are compared by programs that are not ringnbd.

package live_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench/measure"
	"ringnbd/engine/testbed"
)

// peers are the servers that a client of ours must get along with.
var peers = []string{"ringnbd", "qemu-nbd", "nbdkit", "nbd-server"}

// servePeer starts one of them on an image, or skips the test.
func servePeer(t *testing.T, name, transport, image string) *server {
	t.Helper()
	if name == "ringnbd" {
		return serveRingnbd(t, transport, image)
	}
	for _, p := range measure.Peers() {
		if p.Name != name {
			continue
		}
		if _, err := p.Find(); err != nil {
			t.Skipf("%s is not installed (Debian package %s)", name,
				map[string]string{"qemu-nbd": "qemu-utils", "nbdkit": "nbdkit",
					"nbd-server": "nbd-server"}[name])
		}
		s := &server{t: t, address: newAddress(t, transport), export: p.Export}
		var err error
		if s.peer, err = measure.Start(p,
			measure.Stand{Dir: t.TempDir(), File: image, Address: s.address,
				Clients: 20}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.peer.Stop() })
		return s
	}
	t.Fatalf("no server %q", name)
	return nil
}

// patchy makes an image with data, written zeroes and holes, whose size is a multiple of 4096.
func patchy(t testing.TB, size int64, seed byte) string {
	t.Helper()
	data := randomImage(t, size/4, seed)
	image := sparseImage(t, size)
	must(t, time.Minute, "dd", "if="+data, "of="+image, "bs=1M", fmt.Sprint("seek=", size>>21),
		"conv=notrunc")
	writeAt(t, image, size-8192, []byte("the end"))
	writeAt(t, image, 3<<20, make([]byte, 1<<20))
	writeAt(t, image, 5<<20+4096, []byte("alone"))
	return image
}

func TestCopyFromAndToEveryServer(t *testing.T) {
	const size = 64 << 20
	image := patchy(t, size, 11)
	for _, name := range peers {
		for _, transport := range transports {
			t.Run(name+" "+transport, func(t *testing.T) {
				t.Parallel()
				dependOnSources()
				target := sparseImage(t, size)
				s := servePeer(t, name, transport, target)
				must(t, time.Minute, ringnbd, "copy", "--verify", image, s.uri(""))
				sameFiles(t, image, target)
				back := filepath.Join(t.TempDir(), "back.img")
				must(t, time.Minute, ringnbd, "copy", "--verify", s.uri(""), back)
				sameFiles(t, image, back)
				if n := testbed.Taken(t, back); n > size/2 {
					t.Errorf("the copy takes %d bytes of %d, most of which are holes", n, size)
				}
				must(t, time.Minute, ringnbd, "copy", "--allocated", s.uri(""), back+".full")
				sameFiles(t, image, back+".full")
				if n := testbed.Taken(t, back+".full"); n < size {
					t.Errorf("--allocated: the copy takes %d bytes of %d", n, size)
				}
			})
		}
	}
}

func TestCopyOverwritesWhatWasThere(t *testing.T) {
	const size = 32 << 20
	for _, from := range []string{"ringnbd", "qemu-nbd"} {
		for _, to := range []string{"ringnbd", "nbdkit"} {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				dependOnSources()
				image, target := patchy(t, size, 12), randomImage(t, size, 13) // servers take locks
				s := servePeer(t, from, measure.Unix, image)
				d := servePeer(t, to, measure.TCP, target)
				must(t, time.Minute, ringnbd, "copy", "--verify", s.uri(""), d.uri(""))
				sameFiles(t, image, target)
				if n := testbed.Taken(t, target); to == "ringnbd" && n > size*3/4 {
					t.Errorf("the destination still takes %d bytes of %d", n, size)
				}
			})
		}
	}
}

func TestCopyIsAsGoodAsNbdcopy(t *testing.T) {
	need(t, "nbdcopy")
	const size = 64 << 20
	image := patchy(t, size, 14)
	s := serveRingnbd(t, measure.Unix, image)
	dir := t.TempDir()
	must(t, time.Minute, "nbdcopy", s.uri(""), dir+"/theirs.img")
	must(t, time.Minute, ringnbd, "copy", s.uri(""), dir+"/ours.img")
	sameFiles(t, dir+"/theirs.img", dir+"/ours.img")
	if ours, theirs := testbed.Taken(t, dir+"/ours.img"), testbed.Taken(t,
		dir+"/theirs.img"); ours > theirs+64<<10 {
		t.Errorf("ours takes %d bytes, theirs %d", ours, theirs)
	}
}

func TestCopyOfServersWithBlocksAndLimits(t *testing.T) {
	need(t, "nbdkit")
	const size = 16 << 20
	image := patchy(t, size, 15)
	dir := t.TempDir()
	for name, filters := range map[string][]string{
		"blocks of 4096": {"--filter=blocksize-policy", "file", image, "blocksize-minimum=4096",
			"blocksize-preferred=4096", "blocksize-maximum=64k", "blocksize-error-policy=error"},
		"no extents":      {"--filter=noextents", "file", image},
		"no connections":  {"--filter=noparallel", "file", image, "serialize=connections"},
		"small fragments": {"--filter=blocksize", "file", image, "maxlen=8192", "maxdata=8192"},
	} {
		socket := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		startSocket(t, socket, "nbdkit", append([]string{"-f", "-U", socket}, filters...)...)
		back := socket + ".img"
		must(t, time.Minute, ringnbd, "copy", "--verify", "nbd+unix:///?socket="+socket, back)
		sameFiles(t, image, back)
	}
}

// Servers that promise that several connections see the same, and take fewer than copy likes to
// have: one hangs up, one never answers.
func TestCopyUsesTheConnectionsThatAreAccepted(t *testing.T) {
	const size = 16 << 20
	image := patchy(t, size, 20)
	for name, words := range map[string][]string{
		"nbdkit":   {"-f", "-U", "SOCKET", "--filter=limit", "file", image, "limit=2"},
		"qemu-nbd": {"-t", "-r", "-f", "raw", "-e", "2", "-k", "SOCKET", image},
		"ringnbd":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dependOnSources()
			uri := ""
			if socket := filepath.Join(t.TempDir(), "s"); words == nil {
				uri = serveRingnbd(t, measure.Unix, "--max-connections", "2", image).uri("")
			} else {
				need(t, name)
				words[slices.Index(words, "SOCKET")] = socket
				startSocket(t, socket, name, words...)
				uri = "nbd+unix:///?socket=" + socket
			}
			back := filepath.Join(t.TempDir(), "back.img")
			began := time.Now()
			must(t, time.Minute, ringnbd, "copy", "--verify", uri, back)
			sameFiles(t, image, back)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// The last bytes of such a destination cannot be asked about, and the source does not reach them.
func TestCopyToAServerWithAnOddEnd(t *testing.T) {
	need(t, "nbdkit")
	image, socket := sparseImage(t, 1<<20), filepath.Join(t.TempDir(), "s")
	writeAt(t, image, 600<<10, []byte("in the middle"))
	startSocket(t, socket, "nbdkit", "-f", "-U", socket, "--filter=blocksize-policy", "memory",
		"2000003", "blocksize-minimum=512", "blocksize-error-policy=error")
	uri := "nbd+unix:///?socket=" + socket
	must(t, time.Minute, ringnbd, "copy", "--verify", image, uri)
	// nbdkit before 1.44 or so tells more than it is asked; beyond the last block nothing is known
	// otherwise.
	more := "        622592        1377411    3  hole,zero\n"
	asked := "        622592        1377280    3  hole,zero\n       1999872            131    0 " +
		" data\n"
	if out := must(t, time.Minute, ringnbd, "info", "--map=extents", uri); !strings.HasSuffix(out,
		more) && !strings.HasSuffix(out, asked) {
		t.Errorf("%s", out)
	}
}

func TestCopyReportsErrorsOfTheServer(t *testing.T) {
	need(t, "nbdkit")
	image := randomImage(t, 16<<20, 16)
	for what, c := range map[string]struct {
		filter []string
		words  string
	}{
		"read": {[]string{"--filter=error", "file", image, "error-pread-rate=1"},
			"answers EIO to READ of "},
		"write": {[]string{"--filter=error", "file", image, "error=ENOSPC", "error-pwrite-rate=1"},
			"answers ENOSPC to WRITE of "},
	} {
		socket := filepath.Join(t.TempDir(), "s")
		startSocket(t, socket, "nbdkit", append([]string{"-f", "-U", socket}, c.filter...)...)
		arguments := []string{"copy", "nbd+unix:///?socket=" + socket,
			filepath.Join(t.TempDir(), "x")}
		if what == "write" {
			arguments = []string{"copy", image, "nbd+unix:///?socket=" + socket}
		}
		out, err := try(t, time.Minute, ringnbd, arguments...)
		if err == nil || !strings.Contains(out, c.words) || !strings.Contains(out, "at offset ") ||
			strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
}

// With -o, nbdkit says what it has and negotiates nothing. (Nothing is copied to it: nbdkit 1.32
// offers FLUSH then, and refuses it.)
func TestCopyFromAnOldstyleServer(t *testing.T) {
	need(t, "nbdkit")
	image := patchy(t, 16<<20, 19)
	socket, back := filepath.Join(t.TempDir(), "s"), filepath.Join(t.TempDir(), "x")
	startSocket(t, socket, "nbdkit", "-f", "-o", "-U", socket, "file", image)
	must(t, time.Minute, ringnbd, "copy", "--verify", "nbd+unix:///?socket="+socket, back)
	sameFiles(t, image, back)
}

// startSocket runs a server in the foreground until the test ends, and waits for its socket.
func startSocket(t *testing.T, socket, name string, arguments ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, arguments...)
	log := new(testbed.LogBuffer)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s ended with %v; its log:\n%s", name, cmd.ProcessState, log)
		}
	})
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return cmd
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s: no socket; log:\n%s", name, strings.Join(arguments, " "), log)
		}
	}
}

func TestAKilledCopyContinues(t *testing.T) {
	need(t, "nbdkit")
	const size = 256 << 20
	image := patchy(t, size, 17)
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	// Slow enough that states are written meanwhile: 64 MiB of data in about 16 s.
	slow := startSocket(t, socket, "nbdkit", "-f", "-U", socket, "--filter=rate", "file", image,
		"rate=32M")
	uri := "nbd+unix:///?socket=" + socket
	back, state := filepath.Join(dir, "back.img"), filepath.Join(dir, "state")
	cmd := exec.Command(ringnbd, "copy", "--resume", state, uri, back)
	dependOnSources()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if b, _ := os.ReadFile(state); strings.Contains(string(b), `"done":[{`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no state was written")
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if out, err := try(t, time.Minute, "cmp", image, back); err == nil {
		t.Skipf("the copy was complete before it could be killed: %s", out)
	}
	// The server is started anew: nbdkit 1.32 sometimes fails an assertion when a client is killed
	// whose requests sleep.
	_ = slow.Process.Kill()
	_ = slow.Wait()
	_ = os.Remove(socket)
	startSocket(t, socket, "nbdkit", "-f", "-U", socket, "file", image)
	out := must(t, time.Minute, ringnbd, "copy", "--progress", "--resume", state, "--verify", uri,
		back)
	if !strings.Contains(out, "done before") {
		t.Errorf("nothing was left out:\n%s", out)
	}
	sameFiles(t, image, back)
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the state is still there: %v", err)
	}
}

func TestAServerThatDiesInTheMiddleOfACopy(t *testing.T) {
	image := randomImage(t, 64<<20, 18)
	need(t, "nbdkit")
	socket := filepath.Join(t.TempDir(), "s")
	nbdkit := startSocket(t, socket, "nbdkit", "-f", "-U", socket, "--filter=rate", "file", image,
		"rate=16M")
	back := filepath.Join(t.TempDir(), "x")
	go func() {
		defer func() { _ = nbdkit.Process.Kill() }()
		deadline := time.Now().Add(30 * time.Second)
		for ; time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if info, err := os.Stat(back); err == nil && info.Sys().(*syscall.Stat_t).Blocks > 0 {
				return // the copy has begun
			}
		}
	}()
	out, err := try(t, time.Minute, ringnbd, "copy", "nbd+unix:///?socket="+socket, back)
	if err == nil || !strings.Contains(out, "the server closed the connection") ||
		strings.Count(out, "\n") != 1 {
		t.Errorf("%v: %s", err, out)
	}
}
