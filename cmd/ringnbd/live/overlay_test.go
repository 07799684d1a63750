// Overlays as clients meet them: origins never change, clients that throw away what they write see
// their own writes alone and leave nothing behind, and commit and drop do what they say.

package live_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/bench/measure"
)

// originSize is 64 MiB of noise behind 64 MiB of hole.
const originSize, originHole = 128 << 20, 64 << 20

// originImage makes the origin of an overlay, and returns its checksum with it.
func originImage(t *testing.T) (path string, sum [32]byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "base, 1.img") // a name that needs quotes
	noise := randomImage(t, originSize-originHole, 7)
	body, err := os.ReadFile(noise)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(body, originHole); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return path, checksum(t, path)
}

// checksum is that of a whole file.
func checksum(t *testing.T, path string) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// checkOrigin reads what an overlay has from its origin.
func checkOrigin(t *testing.T, p *peer, base string) {
	t.Helper()
	f, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := make([]byte, 1<<20)
	for at := int64(originHole); at < originSize; at += 16 << 20 {
		if _, err := f.ReadAt(want, at); err != nil {
			t.Fatal(err)
		}
		if got, err := p.read(uint64(at), len(want)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d the overlay does not show its origin: %v", at, err)
		}
	}
}

func TestClientsOfAThrowAwayOverlayAreApart(t *testing.T) {
	onlyRingnbd(t)
	base, sum := originImage(t)
	dir := t.TempDir()
	s := serve(t, measure.Unix,
		fmt.Sprintf(`overlay("%s", discard=on-disconnect, dir=%s)`, base, dir))
	before := s.descriptors()
	var all sync.WaitGroup
	for k := range 50 {
		p := s.dial(t)
		if p.flags&canMultiConn != 0 {
			t.Error("several connections are promised to be one disk")
		}
		all.Go(func() {
			if err := apart(p, byte(k)); err != nil {
				t.Errorf("client %d: %v", k, err)
			}
		})
	}
	all.Wait()
	p := s.dial(t)
	checkOrigin(t, p, base)
	if got, err := p.read(0, 1<<20); err != nil || len(bytes.Trim(got, "\x00")) != 0 {
		t.Errorf("a new client sees what another has written: %v", err)
	}
	p.disconnect()
	await(t, "the descriptors are closed", func() bool { return s.descriptors() <= before })
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("files are left: %v, %v", names, err)
	}
	if checksum(t, base) != sum {
		t.Error("the origin has changed")
	}
}

// apart writes to a disk of its own, at places where others write as well, and reads all of it
// again.
func apart(p *peer, k byte) error {
	defer p.disconnect()
	places := []uint64{0, 4096, 100_000, originHole - 5000, originHole + 12345, originSize - 70_000}
	content := func(i int) []byte {
		return bytes.Repeat([]byte{k, byte(i), 'x', k ^ 0x55}, 4096)
	}
	for round := range 4 {
		for i, at := range places {
			if err := p.write(at, content(i+round)); err != nil {
				return err
			}
		}
		if err := p.flush(); err != nil {
			return err
		}
		for i, at := range places {
			if i == 1 {
				continue // the first has written over it in part
			}
			want := content(i + round)
			if i == 0 {
				want = want[:4096]
			}
			if got, err := p.read(at, len(want)); err != nil || !bytes.Equal(got, want) {
				return fmt.Errorf("round %d at %d: other bytes than were written (%v)", round, at,
					err)
			}
		}
	}
	if _, err := p.done(cmdTrim, 0, 0, 1<<20, nil); err != nil {
		return err
	}
	got, err := p.read(0, 1<<20)
	if err == nil && len(bytes.Trim(got, "\x00")) != 0 {
		err = errors.New("what was trimmed is not zero")
	}
	return err
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come true that %s", what)
		}
	}
}

func TestFiftyClientsReadTheBaseFromTheDiskOnce(t *testing.T) {
	onlyRingnbd(t)
	base, _ := originImage(t)
	reads := func(clients int) int64 {
		evict(t, base)
		s := serve(t, measure.Unix, fmt.Sprintf(`overlay("%s", discard=on-disconnect)`, base))
		defer s.stop()
		before := readFromDisk(t, s.pid)
		var all sync.WaitGroup
		for range clients {
			p := s.dial(t)
			all.Go(func() {
				for at := uint64(originHole); at < originSize; at += 1 << 20 {
					if _, err := p.read(at, 1<<20); err != nil {
						t.Error(err)
						return
					}
				}
				p.disconnect()
			})
		}
		all.Wait()
		return readFromDisk(t, s.pid) - before
	}
	one, fifty := reads(1), reads(50)
	t.Logf("read from the disk: %d MiB for 1 client, %d MiB for 50", one>>20, fifty>>20)
	if one < (originSize-originHole)*9/10 {
		t.Skip("the image was in the page cache all the same")
	}
	if fifty > one*11/10 {
		t.Errorf("50 clients read %d bytes from the disk, 1 client %d", fifty, one)
	}
}

// readFromDisk is how many bytes a process has had read from storage.
func readFromDisk(t *testing.T, pid int) (n int64) {
	t.Helper()
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(body)) {
		if _, err := fmt.Sscanf(line, "read_bytes: %d", &n); err == nil {
			return n
		}
	}
	t.Skip("the kernel does not count what is read")
	return 0
}

// evict drops a file from the page cache.
func evict(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

func TestAThousandClientsThatLeaveLeaveNothing(t *testing.T) {
	onlyRingnbd(t)
	base, _ := originImage(t)
	dir := t.TempDir()
	s := serve(t, measure.Unix,
		fmt.Sprintf(`overlay("%s", discard=on-disconnect, dir=%s)`, base, dir))
	visit := func(i int) {
		p := s.dial(t)
		if i%2 == 0 {
			if err := p.write(uint64(i)*4096, bytes.Repeat([]byte{1}, 4096)); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 {
			p.disconnect()
		} else {
			p.conn.Close() // without a word
		}
	}
	for i := range 100 {
		visit(i)
	}
	settle := func() int {
		last := -1
		await(t, "the number of descriptors settles", func() bool {
			time.Sleep(100 * time.Millisecond)
			n := s.descriptors()
			same := n == last
			last = n
			return same
		})
		return last
	}
	descriptors, memory := settle(), s.status("VmRSS")
	for i := range 1000 {
		visit(i)
	}
	if n := settle(); n > descriptors {
		t.Errorf("%d descriptors after 1,000 clients, %d before", n, descriptors)
	}
	if grown := s.status("VmRSS") - memory; grown > 32<<20 {
		t.Errorf("the server has grown by %d MiB", grown>>20)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("files are left: %v, %v", names, err)
	}
}

func TestAFullDiskHurtsWhoFillsIt(t *testing.T) {
	onlyRingnbd(t)
	needRoot(t, "a small file system is mounted")
	base, _ := originImage(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("no tmpfs can be mounted: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s := serve(t, measure.Unix,
		fmt.Sprintf(`overlay("%s", discard=on-disconnect, dir=%s)`, base, dir))
	greedy, modest := s.dial(t), s.dial(t)
	if err := modest.write(0, bytes.Repeat([]byte{'m'}, 4096)); err != nil {
		t.Fatal(err)
	}
	full := false
	for i := range uint64(20) {
		r, err := greedy.do(cmdWrite, 0, i<<20, 1<<20, bytes.Repeat([]byte{'g'}, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		full = full || r.errno == eNOSPC
	}
	if !full {
		t.Error("20 MiB fit into 8")
	}
	if got, err := modest.read(0, 4096); err != nil || got[0] != 'm' {
		t.Errorf("the other client: %v", err)
	}
	checkOrigin(t, modest, base)
	greedy.disconnect()
	await(t, "the space is free again", func() bool {
		return modest.write(1<<20, make([]byte, 4<<20)) == nil
	})
}

func TestMapsOfAnOverlayAreTrue(t *testing.T) {
	onlyRingnbd(t)
	need(t, "nbdinfo", "qemu-img")
	base, _ := originImage(t)
	top := filepath.Join(t.TempDir(), "top")
	s := serve(t, measure.Unix, fmt.Sprintf(`overlay("%s", %s, create=if-missing)`, base, top))
	p := s.dial(t)
	if err := p.write(1<<20, bytes.Repeat([]byte{1}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.done(cmdZeroes, 0, originHole+1<<20, 2<<20, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.done(cmdTrim, 0, originHole+8<<20, 1<<20, nil); err != nil {
		t.Fatal(err)
	}
	want := "[{0 1048576 3} {1048576 1048576 0} {2097152 65011712 3} {67108864 1048576 0} " +
		"{68157440 2097152 3} {70254592 5242880 0} {75497472 1048576 3} {76546048 57671680 0}]"
	if got := fmt.Sprint(mapOf(t, s.uri(""))); got != want {
		t.Errorf("base:allocation %s\nwant %s", got, want)
	}
	var depths []extent
	out := must(t, time.Minute, "nbdinfo", "--map=qemu:allocation-depth", "--json", s.uri(""))
	if err := json.Unmarshal([]byte(out), &depths); err != nil {
		t.Fatal(err)
	}
	want = "[{0 1048576 2} {1048576 1048576 1} {2097152 66060288 2} {68157440 2097152 1} " +
		"{70254592 5242880 2} {75497472 1048576 1} {76546048 57671680 2}]"
	if got := fmt.Sprint(depths); got != want {
		t.Errorf("qemu:allocation-depth %s\nwant %s", got, want)
	}
	var list []struct {
		Start, Length uint64
		Zero, Data    bool
	}
	out = must(t, time.Minute, "qemu-img", "map", "--output=json", "-f", "raw", s.uri(""))
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		hole := e.Start < 1<<20 || e.Start >= 2<<20 && e.Start < originHole ||
			e.Start >= originHole+1<<20 && e.Start < originHole+3<<20 ||
			e.Start >= originHole+8<<20 && e.Start < originHole+9<<20
		if e.Zero != hole || e.Data == hole {
			t.Errorf("qemu-img map: %+v, a hole: %v", e, hole)
		}
	}
}

func TestOverlaysAreCommittedAndDropped(t *testing.T) {
	onlyRingnbd(t)
	base, sum := originImage(t)
	dir := t.TempDir()
	control := filepath.Join(newAddress(t, measure.Unix).Path + ".control")
	s := serve(t, measure.Unix, fmt.Sprintf(`overlay("%s", %s/top, create=if-missing)`, base, dir),
		"--control", "unix:"+control)
	ctl := func(words ...string) (string, error) {
		return try(t, time.Minute, ringnbd, append([]string{"ctl", "--control", "unix:" + control},
			words...)...)
	}
	data := bytes.Repeat([]byte{'c'}, 3<<20+700)
	write := func() {
		p := s.dial(t)
		if err := p.write(5<<20+300, data); err != nil {
			t.Fatal(err)
		}
		if out, err := ctl("overlay", "commit", ""); err == nil ||
			!strings.Contains(out, "has 1 connection") {
			t.Errorf("with a client: %v: %s", err, out)
		}
		p.disconnect()
	}
	empty := func(verb string) {
		await(t, verb+" succeeds", func() bool {
			out, err := ctl("overlay", verb, "")
			if err != nil && !strings.Contains(out, "has 1 connection") {
				t.Fatalf("%s: %s", verb, out)
			}
			return err == nil
		})
	}
	sees := func() bool {
		p := s.dial(t)
		defer p.disconnect()
		got, err := p.read(5<<20+300, len(data))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Equal(got, data)
	}
	write()
	empty("drop")
	if sees() || checksum(t, base) != sum {
		t.Error("what was dropped is there")
	}
	write()
	empty("commit")
	if !sees() {
		t.Error("what was committed is lost")
	}
	body, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(body[5<<20+300:][:len(data)], data) {
		t.Error("the origin does not have what was committed")
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "top"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the overlay still takes %d bytes, %v", st.Blocks*512, err)
	}
	if out, err := ctl("overlay", "commit", "nothing"); err == nil {
		t.Errorf("an export that does not exist: %s", out)
	}
}

func TestACommitThatIsKilledCanBeDoneAgain(t *testing.T) {
	onlyRingnbd(t)
	base, _ := originImage(t)
	top := filepath.Join(t.TempDir(), "top")
	control := newAddress(t, measure.Unix).Path + ".control"
	start := func() *server {
		return serve(t, measure.Unix,
			fmt.Sprintf(`overlay("%s", %s, create=if-missing)`, base, top),
			"--control", "unix:"+control)
	}
	commit := func() error {
		_, err := try(t, time.Minute, ringnbd, "ctl", "--control", "unix:"+control, "overlay",
			"commit", "")
		return err
	}
	s := start()
	p := s.dial(t)
	want := make([]byte, originSize)
	for at := 0; at < originSize; at += 4 << 20 {
		copy(want[at:], bytes.Repeat([]byte{byte(at >> 20), 'k'}, 2<<20))
		if err := p.write(uint64(at), want[at:at+4<<20]); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	p.disconnect()
	for round := range 4 {
		await(t, "the client has left", func() bool {
			return strings.Contains(s.log.String(), "session ends")
		})
		failed := make(chan error, 1)
		go func() { failed <- commit() }()
		time.Sleep(time.Duration(5+25*round) * time.Millisecond)
		s.kill()
		err := <-failed
		s = start()
		p := s.dial(t)
		for at := 0; at < originSize; at += 16 << 20 {
			got, err := p.read(uint64(at), 1<<20)
			if err != nil || !bytes.Equal(got, want[at:at+1<<20]) {
				t.Fatalf("round %d: at %d the overlay shows something else: %v", round, at, err)
			}
		}
		p.disconnect()
		again := strings.Contains(s.log.String(), "commit it again")
		t.Logf("round %d: killed (%v); in the middle of writing the origin: %v", round, err, again)
	}
	await(t, "it is committed", func() bool { return commit() == nil })
	body, err := os.ReadFile(base)
	if err != nil || !bytes.Equal(body, want) {
		t.Errorf("the origin does not have what was committed: %v", err)
	}
}
