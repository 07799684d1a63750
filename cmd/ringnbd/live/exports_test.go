// Exports and the command lines that serve them: the classic form, many exports, very large and
// synthetic exports.

package live_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

func TestClassicPortAndPath(t *testing.T) {
	a := newAddress(t, measure.TCP)
	s := startRingnbd(t, "serve", fmt.Sprint(a.Port), sparseImage(t, 1<<20))
	s.address = a
	p := s.dial(t)
	if err := p.write(512, []byte("classic")); err != nil {
		t.Error(err)
	}
	if p.size != 1<<20 {
		t.Errorf("size %d", p.size)
	}
}

func TestCreateMakesASparseImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.img")
	s := serveRingnbd(t, measure.Unix, "--create", "10G", path)
	if p := s.dial(t); p.size != 10<<30 {
		t.Errorf("size %d", p.size)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != 10<<30 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestManyExportsAreListedAndServed(t *testing.T) {
	need(t, "nbdinfo")
	const n = 200
	dir := t.TempDir()
	var arguments []string
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("%03d.img", i))
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, int64(i+1)<<20); err != nil {
			t.Fatal(err)
		}
		arguments = append(arguments, "--export", fmt.Sprintf("disk-%03d=%s", i, path))
	}
	s := serveRingnbd(t, measure.Unix, arguments...)
	if listed := nbdinfo(t, "--list", s.uri("")); len(listed.Exports) != n {
		t.Errorf("%d exports are listed, want %d", len(listed.Exports), n)
	}
	for _, i := range []int{0, 1, 99, n - 1} {
		p, err := connect(s.address, fmt.Sprintf("disk-%03d", i))
		if err != nil {
			t.Fatal(err)
		}
		if p.size != uint64(i+1)<<20 {
			t.Errorf("export %d has size %d", i, p.size)
		}
		if err := p.write(p.size-5, fmt.Appendf(nil, "%05d", i)); err != nil {
			t.Error(err)
		}
		p.disconnect()
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%03d.img", i)))
		if err != nil || !strings.HasSuffix(string(b), fmt.Sprintf("%05d", i)) {
			t.Errorf("export %d: its last bytes did not reach its image (%v)", i, err)
		}
	}
}

func TestHundredGiBSparseFile(t *testing.T) {
	const size = 100 << 30
	s := serve(t, measure.Unix, sparseImage(t, size))
	p := s.dial(t)
	if p.size != size {
		t.Errorf("size %d", p.size)
	}
	for _, offset := range []uint64{0, 4<<30 - 3, 50<<30 + 77, size - 70_000} {
		want := pattern(70_000, offset)
		if err := p.write(offset, want); err != nil {
			t.Fatal(err)
		}
		if got, err := p.read(offset, len(want)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d: %v, equal %t", offset, err, bytes.Equal(got, want))
		}
	}
	before := time.Now()
	if underTest != "nbd-server" {
		if _, err := p.done(cmdTrim, 0, 1<<30, 0xfffff000, nil); err != nil {
			t.Errorf("trim of almost 4 GiB: %v", err)
		}
	}
	if _, err := p.done(cmdZeroes, 0, 60<<30, 0xfffff000, nil); err != nil {
		t.Errorf("zeroes of almost 4 GiB: %v", err)
	}
	t.Logf("trim and zeroes of 4 GiB took %s", time.Since(before))
	got, err := p.read(50<<30+77, 70_000)
	if err != nil || !bytes.Equal(got, pattern(70_000, 50<<30+77)) {
		t.Errorf("between them: %v", err)
	}
}

// A huge TRIM or WRITE_ZEROES of one client delays other clients little.
func TestHugeTrimDoesNotDelayOthers(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.Unix, sparseImage(t, 1<<40))
	p, q := s.dial(t), s.dial(t)
	if err := q.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	const requests = 250 // of 4 GiB, together 1 TiB less 24 GiB
	go func() {
		for i := range requests {
			p.send(cmdTrim, 0, uint64(i+1)<<32, 0xfffff000, nil)
		}
	}()
	done := make(chan error, 1)
	go func() {
		for range requests {
			if r, err := p.receive(); err != nil || r.errno != 0 {
				done <- fmt.Errorf("error %d: %w", r.errno, err)
				return
			}
		}
		done <- nil
	}()
	var slowest time.Duration
	began := time.Now()
	for reads := 1; ; reads++ {
		before := time.Now()
		if _, err := q.read(0, 4096); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(before))
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			all := time.Since(began)
			t.Logf("%d reads in %v beside it, the slowest took %v", reads, all, slowest)
			if reads < 50 || slowest > all/2 {
				t.Errorf("%d reads in %v beside a trim of 1 TiB, the slowest took %v", reads, all,
					slowest)
			}
			return
		default:
		}
	}
}

func TestSyntheticExports(t *testing.T) {
	s := serveRingnbd(t, measure.Unix, "--export", "null=null:1G", "--export", "memory=memory:64M")
	null, err := connect(s.address, "null")
	if err != nil {
		t.Fatal(err)
	}
	memory, err := connect(s.address, "memory")
	if err != nil {
		t.Fatal(err)
	}
	data := pattern(100_000, 1)
	for _, p := range []*peer{null, memory} {
		if err := p.write(12_345, data); err != nil {
			t.Fatal(err)
		}
		if err := p.flush(); err != nil {
			t.Error(err)
		}
	}
	if got, err := null.read(12_345, len(data)); err != nil ||
		!bytes.Equal(got, make([]byte, len(data))) {
		t.Errorf("null does not read as zeroes (%v)", err)
	}
	if got, err := memory.read(12_345, len(data)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("memory does not read what was written (%v)", err)
	}
	if _, err := memory.done(cmdZeroes, 0, 12_346, 1000, nil); err != nil {
		t.Error(err)
	}
	clear(data[1:1001])
	if got, err := memory.read(12_345, len(data)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("memory after WRITE_ZEROES (%v)", err)
	}
	null.disconnect()
	memory.disconnect()
}
