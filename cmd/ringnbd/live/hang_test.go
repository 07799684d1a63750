// Storage that hangs, served together with storage that does not.
//
// Invariant: hanging storage is released before its test ends, whatever the test finds.

package live_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// sick is storage that can be made to hang.
type sick struct {
	name  string
	image func(t *testing.T) (image string, hang, heal func())
}

var sicknesses = []sick{
	{"Frozen", func(t *testing.T) (string, func(), func()) { return frozenDisk(t) }},
	{"FUSE", func(t *testing.T) (string, func(), func()) { return fuseFile(t) }},
}

// frozenDisk is an image on an ext4 of its own, which fsfreeze stops. flags are mkfs.ext4's.
func frozenDisk(t *testing.T, flags ...string) (string, func(), func()) {
	needRoot(t, "mount and fsfreeze")
	need(t, "fsfreeze", "mkfs.ext4")
	back := sparseImage(t, 200<<20)
	must(t, time.Minute, "mkfs.ext4", append(flags, "-q", back)...)
	dir := mount(t, "-o", "loop", back)
	image := filepath.Join(dir, "image")
	must(t, time.Minute, "dd", "if=/dev/zero", "of="+image, "bs=1M", "count=128", "conv=fsync",
		"status=none")
	heal := func() { try(t, time.Minute, "fsfreeze", "-u", dir) }
	return image, func() { must(t, time.Minute, "fsfreeze", "-f", dir) }, heal
}

// fuseFile is a file whose file system is a process, which a signal stops. flags are nbdkit's.
func fuseFile(t *testing.T, flags ...string) (string, func(), func()) {
	needRoot(t, "a FUSE mount")
	need(t, "nbdfuse", "nbdkit", "umount")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("there is no /dev/fuse")
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(dir, "pid")
	c := exec.Command("nbdfuse", "-P", pidFile, image, "[", "nbdkit", "--exit-with-parent",
		"memory", "128M")
	c.Args = append(append(c.Args, flags...), "]")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	heal := func() { c.Process.Signal(syscall.SIGCONT) }
	t.Cleanup(func() {
		heal()
		try(t, time.Minute, "umount", "-l", image)
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	})
	if !eventually(10*time.Second, func() bool {
		b, err := os.ReadFile(pidFile)
		st, serr := os.Stat(image)
		_, nerr := strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil && serr == nil && nerr == nil && st.Size() > 0
	}) {
		t.Skip("nbdfuse did not start")
	}
	return image, func() { c.Process.Signal(syscall.SIGSTOP) }, heal
}

// kinds are what a victim asks for.
var kinds = []string{"read", "write", "flush", "read of 1 MiB"}

// victim asks for one thing after the other, in turn, for a time, and says how long each took, in
// order.
func victim(p *peer, limit time.Duration) (took [4][]time.Duration, err error) {
	block := pattern(4096, 1)
	p.conn.SetDeadline(time.Now().Add(limit + patience))
	for start, i := time.Now(), 0; time.Since(start) < limit; i++ {
		began := time.Now()
		command, length, payload := uint16(cmdRead), uint32(4096), []byte(nil)
		offset := uint64(i%1000) * 4096
		switch i % len(kinds) {
		case 1:
			command, payload = cmdWrite, block
		case 2:
			command, offset, length = cmdFlush, 0, 0
		case 3:
			length = 1 << 20
		}
		if _, err := p.send(command, 0, offset, length, payload); err != nil {
			return took, err
		}
		if r, err := p.receive(); err != nil || r.errno != 0 {
			return took, fmt.Errorf("error %d: %v", r.errno, err)
		}
		took[i%len(kinds)] = append(took[i%len(kinds)], time.Since(began))
	}
	for i := range took {
		slices.Sort(took[i])
	}
	return took, nil
}

// p99 is the time that all but one in a hundred took less than.
func p99(took []time.Duration) time.Duration { return took[len(took)*99/100] }

// besiege sends many requests of every kind to an export, on connections that stay.
func besiege(t *testing.T, a measure.Address, export string,
	connections, reads, writes, flushes, size int) {
	t.Helper()
	block := pattern(size, 1)
	for k := range connections {
		p, err := connect(a, export)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.conn.Close() })
		var all []byte
		for i := range max(reads, writes, flushes) {
			at, cookie := uint64(k*1000+i)*uint64(size)%(64<<20), uint64(i)
			if i < reads {
				all = append(all, header(cmdRead, 0, cookie, at, uint32(len(block)))...)
			}
			if i < writes {
				all = append(append(all, header(cmdWrite, 0, cookie, at, uint32(len(block)))...),
					block...)
			}
			if i < flushes {
				all = append(all, header(cmdFlush, 0, cookie, 0, 0)...)
			}
		}
		// What is not taken in stays in the socket.
		p.conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		p.conn.Write(all)
	}
}

// TestHungStorageDoesNotDelayOtherExports checks that reads, writes and flushes of an export take
// as long as before while the storage of another export does nothing, and all clients of that
// export wait.
func TestHungStorageDoesNotDelayOtherExports(t *testing.T) {
	onlyRingnbd(t)
	for _, s := range sicknesses {
		for _, direct := range []string{"auto", "off"} {
			t.Run(s.name+"/direct="+direct, func(t *testing.T) { hungBesideHealthy(t, s, direct) })
		}
	}
}

func hungBesideHealthy(t *testing.T, s sick, direct string) {
	image, hang, heal := s.image(t)
	server := serveRingnbd(t, measure.Unix, "--direct", direct,
		"--export", "good="+randomImage(t, 64<<20, 1), "--export", "sick="+image)
	healed := false
	t.Cleanup(func() { // before the server is stopped
		if !healed {
			heal()
		}
	})
	var good []*peer
	for range 2 { // on both loops, if there are two
		p, err := connect(server.address, "good")
		if err != nil {
			t.Fatal(err)
		}
		good = append(good, p)
	}
	before, err := victim(good[0], time.Second)
	if err != nil {
		t.Fatal(err)
	}
	hang()
	besiege(t, server.address, "sick", 8, 60, 64, 4, 16<<10)
	besiege(t, server.address, "sick", 8, 32, 16, 0, 1<<20)
	for i, p := range good {
		after, err := victim(p, 1500*time.Millisecond)
		if err != nil {
			t.Fatalf("client %d of the healthy export: %v", i, err)
		}
		for kind, name := range kinds {
			if len(after[kind]) == 0 {
				t.Errorf("not one %s of client %d in 1.5 s", name, i)
				continue
			}
			t.Logf("client %d, %s: %d in 1 s, p99 %v, before; %d in 1.5 s, p99 %v, beside it", i,
				name,
				len(before[kind]), p99(before[kind]), len(after[kind]), p99(after[kind]))
			if most := max(20*p99(before[kind]), time.Second); p99(after[kind]) > most {
				t.Errorf("client %d, %s: p99 is %v, above %v", i, name, p99(after[kind]), most)
			}
		}
	}
	heal()
	healed = true
	p, err := connect(server.address, "sick")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.read(0, 4096); err != nil {
		t.Errorf("the export that hung, afterwards: %v", err)
	}
}

// TestHungStorageKeepsNoProcess: once a file system that does not answer has taken a question, the
// process that asked is deaf to every signal. A command that was started on a file of it ends at
// the first signal all the same, both for its parent and for the reader of its output.
func TestHungStorageKeepsNoProcess(t *testing.T) {
	onlyRingnbd(t)
	image, hang, heal := fuseFile(t)
	directory := t.TempDir()
	commands := [][]string{
		{"serve", "--listen", "unix:" + filepath.Join(directory, "socket"), image},
		{"serve", "--listen", "unix:" + filepath.Join(directory, "socket"), "--export",
			"a=" + image},
		{"copy", image, filepath.Join(directory, "copy")},
		{"copy", filepath.Join(directory, "missing"), image},
		{"bench", "file:" + image},
		{"bench", "--record", image, "file:" + filepath.Join(directory, "missing")},
		{"conform", "--junit", image, "nbd+unix:///?socket=" + filepath.Join(directory, "none")},
	}
	hang()
	defer heal()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, words := range commands {
			c := exec.Command(ringnbd, words...)
			var said strings.Builder
			c.Stdout, c.Stderr = &said, &said
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }() // for the end of what it says, too
			time.Sleep(500 * time.Millisecond)
			c.Process.Signal(signal)
			select {
			case <-ended:
				status, lines := c.ProcessState.ExitCode(), strings.Count(said.String(), "\n")
				if status != 1 || lines != 1 || !strings.Contains(said.String(), "storage") {
					t.Errorf("%q, %v: status %d, %q", words, signal, status, said.String())
				}
			case <-time.After(patience):
				c.Process.Kill()
				heal() // else it stays
				t.Fatalf("%q has not ended %v after %v", words, patience, signal)
			}
		}
	}
}

// TestClientsLeaveStorageThatBeginsToHang checks that a client of a file that hangs during the work
// ends, with one line, when --timeout after the first signal is over.
func TestClientsLeaveStorageThatBeginsToHang(t *testing.T) {
	onlyRingnbd(t)
	image, hang, heal := fuseFile(t, "--filter=delay", "delay-read=50ms")
	for _, words := range [][]string{
		{"bench", "--timeout", "1", "file:" + image},
		{"copy", "--timeout", "1", "--allocated", image, filepath.Join(t.TempDir(), "copy")},
	} {
		c := exec.Command(ringnbd, words...)
		var said strings.Builder
		c.Stdout, c.Stderr = &said, &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		time.Sleep(700 * time.Millisecond)
		hang()
		time.Sleep(200 * time.Millisecond)
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			heal()
		case <-time.After(patience):
			c.Process.Kill()
			heal()
			t.Fatalf("%q has not ended %v after SIGTERM", words, patience)
		}
		status, lines := c.ProcessState.ExitCode(), strings.Count(said.String(), "\n")
		if status != 1 || lines != 1 || !strings.Contains(said.String(), "(--timeout)") {
			t.Errorf("%q: status %d, %q", words, status, said.String())
		}
	}
}

// burden is what legal clients do to an export whose storage is slow.
type burden struct {
	name string
	load func(k int) []byte // the k-th connection's requests, all at once
}

var burdens = []burden{
	{"Reads", manyReads},
	{"WrittenZeroes", zeroesAndWriters},
	{"FUAChain", fuaChain},
}

// manyReads asks for 32 times 1 MiB.
func manyReads(int) (b []byte) {
	for i := range 32 {
		b = append(b, header(cmdRead, 0, uint64(i), uint64(i)<<20, 1<<20)...)
	}
	return b
}

// zeroesAndWriters zeroes 100 MiB, and writes into what is being zeroed, which has to wait.
func zeroesAndWriters(k int) (b []byte) {
	if k == 0 {
		for i := range 4 {
			b = append(b, header(cmdZeroes, flagNoHole, uint64(i), 0, 100<<20)...)
		}
		return b
	}
	return writes(0, 60, 1<<20)
}

// fuaChain writes the same blocks again and again, each time to stay.
func fuaChain(int) []byte { return writes(flagFUA, 60, 0) }

// writes are n of 256 KiB, so far apart.
func writes(flags uint16, n int, apart uint64) (b []byte) {
	block := make([]byte, 256<<10)
	for i := range n {
		b = append(append(b,
			header(cmdWrite, flags, uint64(i), uint64(i)*apart, uint32(len(block)))...), block...)
	}
	return b
}

// warm reads enough replies that the server trusts the connection with much memory.
func warm(p *peer) error {
	for i := range 40 {
		if _, err := p.send(cmdRead, 0, uint64(i)<<19, 512<<10, nil); err != nil {
			return err
		}
	}
	for range 40 {
		if _, err := p.receive(); err != nil {
			return err
		}
	}
	return nil
}

// TestBurdenDoesNotDelayOtherExports checks that what the clients of an export may do, and what
// takes long, does not delay the clients of another.
func TestBurdenDoesNotDelayOtherExports(t *testing.T) {
	onlyRingnbd(t)
	for _, b := range burdens {
		t.Run(b.name, func(t *testing.T) {
			image, _, _ := fuseFile(t, "--filter=delay", "delay-read=30ms", "delay-write=30ms")
			server := serveRingnbd(t, measure.Unix,
				"--export", "good="+randomImage(t, 64<<20, 1), "--export", "busy="+image)
			p, err := connect(server.address, "good")
			if err != nil {
				t.Fatal(err)
			}
			before, err := victim(p, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			var busy []*peer
			for range 12 {
				q, err := connect(server.address, "busy")
				if err == nil {
					err = warm(q)
				}
				if err != nil {
					t.Fatal(err)
				}
				busy = append(busy, q)
			}
			for k, q := range busy {
				all := b.load(k)
				done := make(chan struct{})
				go func() { defer close(done); q.conn.Write(all) }()
				go func() { // it takes its replies
					for b := make([]byte, 1<<20); ; {
						if _, err := q.r.Read(b); err != nil {
							return
						}
					}
				}()
				t.Cleanup(func() { q.conn.Close(); <-done })
			}
			time.Sleep(50 * time.Millisecond)
			after, err := victim(p, 1500*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			for kind, name := range kinds {
				if len(after[kind]) == 0 {
					t.Errorf("not one %s in 1.5 s", name)
					continue
				}
				was, is := before[kind][len(before[kind])/2], after[kind][len(after[kind])/2]
				t.Logf("%s: p50 %v, p99 %v before; p50 %v, p99 %v beside it", name,
					was, p99(before[kind]), is, p99(after[kind]))
				// 120 and more is what it was with no bounds
				if is > max(10*was, 60*time.Millisecond) {
					t.Errorf("%s: p50 is %v, and was %v", name, is, was)
				}
			}
		})
	}
}
