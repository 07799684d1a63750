// Copies between files: what is copied, what is refused, and what a copy that was ended leaves
// behind. Servers are driven in cmd/ringnbd/live.

package transfer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringnbd/engine/client"
	"ringnbd/engine/testbed"
)

// image makes a file with data at some places, and holes and written zeroes elsewhere.
func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, uint64(size)))
	for range 40 {
		b := make([]byte, 1+r.IntN(300<<10))
		if r.IntN(4) > 0 {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		}
		at := r.Int64N(size)
		if _, err := f.WriteAt(b[:min(int64(len(b)), size-at)], at); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func options(t *testing.T, source, destination string) Options {
	t.Helper()
	o := Options{Connections: 2, RequestSize: 64 << 10}
	var errs [2]error
	o.Source, errs[0] = ParsePlace(source)
	o.Destination, errs[1] = ParsePlace(destination)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return o
}

func same(t *testing.T, a, b string) {
	t.Helper()
	x, errX := os.ReadFile(a)
	y, errY := os.ReadFile(b)
	if errX != nil || errY != nil || !bytes.Equal(x, y) {
		t.Errorf("%s and %s differ (%d and %d bytes; %v, %v)", a, b, len(x), len(y), errX, errY)
	}
}

func TestFilesAreCopiedWithTheirHoles(t *testing.T) {
	for _, size := range []int64{0, 1, 4095, 4 << 20, 40<<20 + 12345} {
		source := filepath.Join(t.TempDir(), "empty")
		if err := os.WriteFile(source, bytes.Repeat([]byte{1}, int(min(size, 5000))),
			0o666); err != nil {
			t.Fatal(err)
		}
		if size > 5000 {
			source = image(t, size)
		}
		for name, change := range map[string]func(*Options){
			"plain": func(*Options) {}, "allocated": func(o *Options) {
				o.Allocated = true
			}, "one": func(o *Options) { o.Requests, o.RequestSize = 1, 4096 },
			"large": func(o *Options) { o.RequestSize = 32 << 20 },
		} {
			o := options(t, source, filepath.Join(t.TempDir(), "new.img"))
			o.Verify = true
			change(&o)
			report, err := Run(context.Background(), o)
			if err != nil {
				t.Fatalf("%s, %d: %v", name, size, err)
			}
			same(t, source, o.Destination.Text)
			if report.Copied+report.Zeroed != uint64(size) {
				t.Errorf("%s: %+v of %d", name, report, size)
			}
			if got, full := testbed.Taken(t, o.Destination.Text), testbed.Taken(t,
				source); !o.Allocated && got > full {
				t.Errorf("%s: takes %d bytes, the source %d", name, got, full)
			} else if o.Allocated && got < size {
				t.Errorf("%s: takes %d bytes of %d", name, got, size)
			}
		}
	}
}

func TestAFullDestinationGetsHoles(t *testing.T) {
	source, size := image(t, 32<<20), 32<<20
	full := filepath.Join(t.TempDir(), "full.img")
	for _, allocated := range []bool{false, true} {
		if err := os.WriteFile(full, bytes.Repeat([]byte{0x55}, size), 0o666); err != nil {
			t.Fatal(err)
		}
		o := options(t, source, full)
		o.Allocated = allocated
		if _, err := Run(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		same(t, source, full)
		if got := testbed.Taken(t, full); (got >= int64(size)) != allocated {
			t.Errorf("allocated %v: takes %d bytes", allocated, got)
		}
	}
	// Who says that the destination is zero is believed.
	if err := os.WriteFile(full, bytes.Repeat([]byte{0x55}, size), 0o666); err != nil {
		t.Fatal(err)
	}
	o := options(t, source, full)
	o.DestinationIsZero, o.Verify = true, true
	if _, err := Run(context.Background(), o); err == nil ||
		!strings.Contains(err.Error(), "differs from") {
		t.Errorf("%v", err)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	make := func(name string, size int64) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o666), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	source, small, large := make("source", 8192), make("small", 4096), make("large", 16384)
	if err := os.Symlink(source, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, words string }{
		{source, small, "has 4096 bytes, fewer than the source's 8192"},
		{source, large, "more than the source's 8192, and is not truncated"},
		{source, source, "the same file"},
		{source, filepath.Join(dir, "link"), "the same file"},
		{source, dir, "is a directory"},
		{source, "/dev/null", "neither a file nor a block device"},
		{dir, small, "is a directory"},
		{filepath.Join(dir, "none"), small, "no such file"},
		{source, filepath.Join(dir, "none", "x"), "there is no directory"},
		{"nbd+unix:///?socket=" + dir + "/none", small, "is the server running?"},
	} {
		if _, err := Run(context.Background(), options(t, c.from, c.to)); err == nil ||
			!strings.Contains(err.Error(), c.words) {
			t.Errorf("%s -> %s: %v; want %q", c.from, c.to, err, c.words)
		}
	}
	for _, text := range []string{"nbds://host", "http://host/x", "", "a\x00b"} {
		if p, err := ParsePlace(text); err == nil {
			t.Errorf("%q: %+v", text, p)
		}
	}
	for text, path := range map[string]string{"disk.img": "disk.img", "file:a:b": "a:b",
		"./nbd://x": "./nbd://x", "dir/x://y": "dir/x://y"} {
		if p, err := ParsePlace(text); err != nil || !p.Target.File() || p.Target.Address != path {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
}

func TestAnInterruptedCopyContinues(t *testing.T) {
	source := image(t, 64<<20)
	dir := t.TempDir()
	o := options(t, source, filepath.Join(dir, "new.img"))
	o.Resume, o.Requests, o.RequestSize = filepath.Join(dir, "state"), 2, 16<<10
	skipped := uint64(0)
	for n := 0; ; n++ {
		ctx, cancel := context.WithCancel(context.Background())
		limit := uint64(n+1) * 10 << 20
		o.Show = func(p Progress) {
			if p.Done >= limit {
				cancel()
			}
		}
		// Show comes too rarely for a file of this size: it is asked between pieces as well.
		report, err := run(ctx, o, func(done uint64) { o.Show(Progress{Done: done}) })
		cancel()
		if report.Skipped < skipped {
			t.Errorf("run %d: %d bytes were done, then %d", n, skipped, report.Skipped)
		}
		skipped = report.Skipped
		if err == nil {
			if n < 3 {
				t.Errorf("only %d runs", n)
			}
			break
		}
		if !errors.Is(err, ErrInterrupted) || n > 10 {
			t.Fatalf("run %d: %v", n, err)
		}
		if s, err := loadState(o.Resume); err != nil || s == nil || len(s.Done) == 0 ||
			s.Done[0].Start != 0 {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	same(t, source, o.Destination.Text)
	if _, err := os.Stat(o.Resume); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state is still there: %v", err)
	}
}

// run is Run, with a hook after every piece.
func run(ctx context.Context, o Options, each func(done uint64)) (Report, error) {
	j := newJob(&o)
	if err := j.open(ctx); err != nil {
		return Report{}, err
	}
	j.source = hooked{j.source, func() { each(j.progress.Load()) }}
	return j.run(ctx)
}

// hooked is a source that tells when it is read.
type hooked struct {
	end
	hook func()
}

func (h hooked) read(ctx context.Context, lane int, r *client.Request, b []byte,
	offset uint64) error {
	h.hook()
	return h.end.read(ctx, lane, r, b, offset)
}

func TestAStateIsOfOneCopy(t *testing.T) {
	source, dir := image(t, 8<<20), t.TempDir()
	o := options(t, source, filepath.Join(dir, "new.img"))
	o.Resume = filepath.Join(dir, "state")
	begin := func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_ = os.Remove(o.Resume)
		_ = os.Remove(o.Destination.Text)
		first := o
		first.Opened = cancel // not before: opening may take longer than it is waited for
		if _, err := Run(ctx, first); !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
	}
	for words, spoil := range map[string]func(*Options) error{
		"the source was changed": func(*Options) error {
			return os.WriteFile(source, make([]byte, 8<<20), 0o666)
		},
		"the source has": func(o *Options) error {
			return errors.Join(os.Truncate(source, 4<<20), os.Truncate(o.Destination.Text, 4<<20))
		},
		"the destination is anothe": func(o *Options) error {
			return replace(o.Destination.Text, 8<<20)
		},
		"not to file:": func(o *Options) error {
			o.Destination = options(t, source, dir+"/other.img").Destination
			return nil
		},
		"is not the state of": func(o *Options) error {
			return os.WriteFile(o.Resume, []byte("{}"), 0o666)
		},
		"is damaged": func(o *Options) error {
			s, err := loadState(o.Resume)
			s.Done = []byteRange{{0, 1 << 40}}
			return errors.Join(err, s.save(o.Resume))
		},
	} {
		if err := os.Truncate(source, 8<<20); err != nil {
			t.Fatal(err)
		}
		begin()
		spoiled := o
		if err := spoil(&spoiled); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(context.Background(), spoiled); err == nil ||
			!strings.Contains(err.Error(), words) {
			t.Errorf("%v; want %q", err, words)
		}
		if _, err := os.Stat(dir + "/other.img"); err == nil {
			t.Error("a destination was made by a copy that was refused")
		}
	}
}

// replace makes a new file in place of one: with another inode, as the first still exists when the
// second is made.
func replace(path string, size int64) error {
	return errors.Join(os.WriteFile(path+".new", nil, 0o666), os.Truncate(path+".new", size),
		os.Rename(path+".new", path))
}

func TestVerifyReportsTheFirstDifference(t *testing.T) {
	source := image(t, 16<<20)
	o := options(t, source, filepath.Join(t.TempDir(), "new.img"))
	if _, err := Run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(o.Destination.Text, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{15 << 20, 9<<20 + 77} { // wherever that is: data, or a hole
		b := make([]byte, 1)
		_, _ = f.ReadAt(b, at)
		b[0]++
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	j := newJob(&o)
	if err := j.open(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer j.close(nil)
	if err := j.verify(context.Background(), context.Background()); err == nil ||
		!strings.HasSuffix(err.Error(), "at offset 9437261") {
		t.Errorf("%v", err)
	}
}

func TestASourceThatShrinks(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, bytes.Repeat([]byte{7}, 1<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	o := options(t, source, filepath.Join(t.TempDir(), "new.img"))
	_, err := run(context.Background(), o, func(uint64) { _ = os.Truncate(source, 1000) })
	if err == nil || !strings.Contains(err.Error(), ", and had 1048576 bytes when the copy began") {
		t.Errorf("%v", err)
	}
}

func TestPlansCoverTheSourceOnce(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		p := &plan{size: r.Uint64N(1 << 24), block: 1 << r.UintN(14),
			request: 1 << (14 + r.UintN(5)), stretch: 1 << 20}
		p.size -= p.size % p.block
		for at := uint64(0); at < p.size; {
			start := at + r.Uint64N(1<<20)*p.block%(1<<20)
			at = start + p.block + r.Uint64N(1<<20)/p.block*p.block
			if r.IntN(3) == 0 && at <= p.size {
				p.done = append(p.done, byteRange{start, at})
				at += p.block
			}
		}
		at, zero := uint64(0), false
		next := uint64(0)
		covered := slices.Clone(p.done)
		p.give = func(q piece) error {
			if q.offset < next || q.length == 0 || q.offset%p.block != 0 ||
				q.length%p.block != 0 && q.offset+q.length != p.size ||
				!q.zero && q.length > p.request || q.length > 1<<20 {
				t.Fatalf("seed %d: %+v after %d", seed, q, next)
			}
			next = q.offset + q.length
			covered = append(covered, byteRange{q.offset, next})
			return nil
		}
		for at < p.size {
			n := min(1+r.Uint64N(1<<uint(r.IntN(22))), p.size-at)
			if err := p.addExtent(extent{at, n, zero}); err != nil {
				t.Fatal(err)
			}
			at, zero = at+n, !zero
		}
		if err := p.finish(); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(covered, func(a, b byteRange) int {
			return int(int64(a.Start) - int64(b.Start))
		})
		at = 0
		for _, c := range covered {
			if c.Start != at {
				t.Fatalf("seed %d: %d to %d are %+v", seed, at, c.Start, p.done)
			}
			at = c.End
		}
		if at != p.size {
			t.Fatalf("seed %d: ends at %d of %d", seed, at, p.size)
		}
	}
}

func TestLedger(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		var l ledger
		var have [100]bool
		for range 30 {
			a := r.Uint64N(100)
			b := a + r.Uint64N(min(12, 100-a)+1)
			l.add(a, b)
			for i := a; i < b; i++ {
				have[i] = true
			}
		}
		list := l.copy()
		for i := 1; i < len(list); i++ {
			if list[i-1].End >= list[i].Start {
				t.Fatalf("seed %d: %v", seed, list)
			}
		}
		at := uint64(0)
		_ = missing(list, 0, 100, func(start, end uint64) error {
			for ; at < end; at++ {
				if have[at] != (at < start) {
					t.Fatalf("seed %d: %d: %v, missing %d to %d", seed, at, list, start, end)
				}
			}
			return nil
		})
		for ; at < 100; at++ {
			if !have[at] {
				t.Fatalf("seed %d: %d is not missing", seed, at)
			}
		}
	}
}

func TestRunsOfZeroes(t *testing.T) {
	b := make([]byte, 20)
	copy(b[6:], "abc")
	for _, c := range []struct {
		from, grain, skew, n int
		zero                 bool
	}{{0, 4, 0, 4, true}, {4, 4, 0, 8, false}, {12, 4, 0, 8, true}, {1, 4, 1, 3, true}, {0, 8, 5, 3,
		true}, {3, 8, 0, 8, false}, {0, 32, 0, 20, false}, {9, 4, 2, 11, true}} {
		if n, zero := leadingRun(b[c.from:], c.grain, c.skew); n != c.n || zero != c.zero {
			t.Errorf("%+v: %d %v", c, n, zero)
		}
	}
}

func TestWritebackIsBounded(t *testing.T) {
	var w writeback
	begun, checkNotReplaced := uint64(0), uint64(0)
	for at := uint64(0); at < 1<<30; at += 1 << 20 {
		begin, settle := w.noteWritten(at, 1<<20)
		if begin.End > 0 {
			if begin.Start != begun {
				t.Fatalf("%+v after %d", begin, begun)
			}
			begun = begin.End
		}
		if settle.End > 0 {
			if settle.Start != checkNotReplaced {
				t.Fatalf("%+v after %d", settle, checkNotReplaced)
			}
			checkNotReplaced = settle.End
		}
		if at+1<<20-checkNotReplaced > (maxWritebacks+1)*writebackSize {
			t.Fatalf("at %d, %d are settled", at, checkNotReplaced)
		}
	}
	if begun != 1<<30 || checkNotReplaced != 1<<30-maxWritebacks*writebackSize {
		t.Errorf("%d begun, %d settled", begun, checkNotReplaced)
	}
}
