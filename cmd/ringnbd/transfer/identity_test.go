// What a copy refuses to believe: ends that are one, or are not any more what they were.
//
// Invariant: each of these copies was accepted once.

package transfer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ringnbd/engine/client"
	"ringnbd/engine/testbed"
)

// refused runs a copy that must end with these words.
func refused(t *testing.T, o Options, words string) {
	t.Helper()
	if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%v; want %q", err, words)
	}
}

func TestAStateIsNotKeptInAnEnd(t *testing.T) {
	source, dir := image(t, 4<<20), t.TempDir()
	before, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	new := filepath.Join(dir, "new.img")
	for _, c := range []struct{ to, state string }{
		{new, new}, {new, link + "/new.img"}, {new,
			dir + "/../" + filepath.Base(dir) + "/new.img"}, {new, source}, {new + partSuffix, new},
	} {
		o := options(t, source, c.to)
		o.Resume = c.state
		refused(t, o, "is what is copied from or to; name another file")
		if _, err := os.Stat(c.to); err == nil {
			t.Errorf("%s was made", c.to)
		}
	}
	if after, err := os.ReadFile(source); err != nil || string(after) != string(before) {
		t.Errorf("the source was changed: %v", err)
	}
}

// begun is a copy that was interrupted with something done.
func begun(t *testing.T) Options {
	t.Helper()
	source, dir := image(t, 8<<20), t.TempDir()
	o := options(t, source, filepath.Join(dir, "new.img"))
	o.Resume, o.Requests, o.RequestSize = filepath.Join(dir, "state"), 1, 16<<10
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := run(ctx, o, func(done uint64) {
		if done > 2<<20 {
			cancel()
		}
	}); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	return o
}

func TestAMissingDestinationIsNotContinued(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"removed": os.Remove,
		"emptied": func(path string) error { return os.Truncate(path, 0) },
	} {
		o := begun(t)
		if err := spoil(o.Destination.Text); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first try must not make what the second one believes
			refused(t, o,
				"the destination is gone or empty, and should have what was copied before; to "+
					"copy from the beginning, remove "+o.Resume)
		}
		if s, err := os.Stat(o.Destination.Text); err == nil && s.Size() != 0 {
			t.Errorf("%s: has %d bytes", name, s.Size())
		}
	}
	o := begun(t)
	if err := errors.Join(os.Remove(o.Destination.Text),
		os.WriteFile(o.Destination.Text, nil, 0o666),
		os.Truncate(o.Destination.Text, 8<<20)); err != nil {
		t.Fatal(err)
	}
	if s, err := loadState(o.Resume); err != nil || s == nil ||
		s.Destination.Born == 0 && s.Destination.Inode == 0 {
		t.Fatalf("%+v, %v", s, err)
	} else if s.Destination.Born == 0 {
		t.Skip("the file system of the temporary directory does not tell when a file was made")
	}
	refused(t, o, "the destination is another file than when the copy began")
}

// What is born at another time is another file, also with the inode, the size and the time of
// modification of the one before.
func TestEndsAreKnownByTheirBirth(t *testing.T) {
	for words, spoil := range map[string]func(*resumeState){
		"the source is another file than when the copy began": func(s *resumeState) {
			s.Source.Born++
		},
		"the destination is another file than when the copy began": func(s *resumeState) {
			s.Destination.Born++
		},
	} {
		o := begun(t)
		s, err := loadState(o.Resume)
		if err != nil || s == nil {
			t.Fatalf("%+v, %v", s, err)
		}
		if s.Source.Born == 0 {
			t.Skip("the file system of the temporary directory does not tell when a file was made")
		}
		spoil(s)
		if err := s.save(o.Resume); err != nil {
			t.Fatal(err)
		}
		refused(t, o, words+"; to copy from the beginning, remove "+o.Resume)
	}
}

func TestASourceThatChanges(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"written": func(path string) error {
			return os.Chtimes(path, time.Time{}, time.Now().Add(time.Second))
		},
		"grown": func(path string) error { return os.Truncate(path, 9<<20) },
	} {
		for _, resume := range []bool{false, true} {
			o := options(t, image(t, 8<<20), filepath.Join(t.TempDir(), "new.img"))
			if resume {
				o.Resume = filepath.Join(t.TempDir(), "state")
			}
			once := atomic.Bool{}
			_, err := run(context.Background(), o, func(uint64) {
				if once.CompareAndSwap(false, true) {
					if err := change(o.Source.Text); err != nil {
						t.Error(err)
					}
				}
			})
			if err == nil || !strings.Contains(err.Error(), "was changed while it was copied") {
				t.Errorf("%s: %v", name, err)
			}
			if resume && name == "written" { // with the identity that the source had at first
				refused(t, o, "the source was changed since the copy began")
			}
		}
	}
}

// failing is a destination whose flush fails once.
type failing struct {
	end
	flushes atomic.Int32
}

func (f *failing) flush(context.Context) error {
	if f.flushes.Add(1) == 1 {
		return errors.New("first flush")
	}
	return nil
}

func TestAFlushThatFailedStaysFailed(t *testing.T) {
	o := options(t, image(t, 4<<20), filepath.Join(t.TempDir(), "new.img"))
	o.Resume = filepath.Join(t.TempDir(), "state")
	j := newJob(&o)
	if err := j.open(context.Background()); err != nil {
		t.Fatal(err)
	}
	j.destination = &failing{end: j.destination}
	if err := j.flush(context.Background()); err == nil {
		t.Fatal("the first flush succeeded")
	}
	if _, err := j.run(context.Background()); err == nil || err.Error() != "first flush" {
		t.Errorf("%v", err)
	}
	if s, err := loadState(o.Resume); err != nil || len(s.Done) != 0 {
		t.Errorf("noted as done: %+v, %v", s, err)
	}
}

// late is a destination whose first flush, that of a save in the background, ends when all was
// copied; and then the state cannot be written, but later it can.
type late struct {
	end
	job     *job
	flushes atomic.Int32
}

func (l *late) flush(ctx context.Context) error {
	part := l.job.options.Resume + partSuffix
	if l.flushes.Add(1) > 1 {
		return errors.Join(os.Remove(part), l.end.flush(ctx))
	}
	for l.job.progress.Load() < l.size() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // the slots return
	return errors.Join(os.WriteFile(part, []byte("the user's"), 0o666), l.end.flush(ctx))
}

// write waits until a save has begun, which is then the last.
func (l *late) write(ctx context.Context, lane int, r *client.Request, b []byte,
	offset uint64) error {
	for l.flushes.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	return l.end.write(ctx, lane, r, b, offset)
}

func TestAnErrorOfTheLastSaveIsReturned(t *testing.T) {
	o := options(t, image(t, 16<<20), filepath.Join(t.TempDir(), "new.img"))
	o.Resume = filepath.Join(t.TempDir(), "state")
	j := newJob(&o)
	j.saveEvery = time.Millisecond
	if err := j.open(context.Background()); err != nil {
		t.Fatal(err)
	}
	l := &late{end: j.destination, job: j}
	j.destination = l
	if _, err := j.run(context.Background()); err == nil ||
		!strings.Contains(err.Error(), "exists and is not the state") {
		t.Errorf("%v", err)
	}
	if n := l.flushes.Load(); n < 2 {
		t.Errorf("%d flushes", n)
	}
}

func TestAnErrorOfTheDiskIsKept(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &local{f: f}
	eio := l.unwritten(syscall.EIO)
	l.lost.Store(&eio)
	if err := l.flush(context.Background()); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
}

func TestADestinationLockedByAnotherIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.img")
	o := options(t, image(t, 4<<20), path)
	err := testbed.LockFirst(t, path, func() error {
		_, err := Run(context.Background(), o)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "in use by another ringnbd") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file that another program has was removed: %v", err)
	}
}

func TestADestinationThatIsReplacedIsNeitherWrittenNorRemoved(t *testing.T) {
	path := image(t, 4096)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &local{f: f, made: true, ours: true}
	if err := l.checkNotReplaced(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path+".new", []byte("another's"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := l.checkNotReplaced(); err == nil ||
		!strings.Contains(err.Error(), "replaced or removed") {
		t.Errorf("%v", err)
	}
	if err := l.discard(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the new file was removed: %v", err)
	}
}

func TestAReadOnlyDeviceIsRefusedBeforeReading(t *testing.T) {
	source := image(t, 1<<20)
	attach := exec.Command("losetup", "--read-only", "--find", "--show", image(t, 1<<20))
	out, err := attach.CombinedOutput()
	if err != nil {
		t.Skipf("no loop device on this machine: %s", out)
	}
	device := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", device).Run()
	refused(t, options(t, source, device), device+": the device is read-only")
}

func TestDevicesAreKnownBySerial(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777),
			os.WriteFile(path, []byte(text), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	write("disk/device/wwid", "naa.1 \n")
	write("disk/disk1/partition", "1\n")
	write("loop/loop/backing_file", "/a b\n")
	write("bare/size", "1\n")
	if err := os.Symlink("disk/disk1", filepath.Join(dir, "8:1")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"disk": "naa.1", "8:1": "naa.1 partition 1",
		"loop": "/a b", "bare": "", "none": ""} {
		if got := serial(filepath.Join(dir, name)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestStrangeEnds(t *testing.T) {
	dir, source := t.TempDir(), image(t, 4<<20)
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o666), os.Symlink("nowhere", link)); err != nil {
		t.Fatal(err)
	}
	// and does not wait for a writer
	refused(t, options(t, fifo, dir+"/new"), "neither a file nor a block device")
	refused(t, options(t, source, fifo), "neither a file nor a block device")
	refused(t, options(t, source, link), "is a symbolic link to nowhere, which does not exist")
	refused(t, options(t, "nbd://h/x", "nbd://h:10809/x"), "is the source and the destination")
	o := options(t, source, dir+"/new")
	o.Requests, o.RequestSize = 1024, 2<<20
	refused(t, o, "1,024 requests of 2 MiB in flight need 2 GiB of memory")
	if _, err := os.Stat(dir + "/new"); err == nil {
		t.Error("a destination was left by a copy that was refused")
	}
}

func TestAFileInPlaceOfAStateIsKept(t *testing.T) {
	o := begun(t)
	part := o.Resume + partSuffix
	if err := os.WriteFile(part, []byte("the user's"), 0o666); err != nil {
		t.Fatal(err)
	}
	o.RequestSize = 64 << 10
	refused(t, o, "exists and is not the state")
	if b, err := os.ReadFile(part); err != nil || string(b) != "the user's" {
		t.Errorf("%q, %v", b, err)
	}
	half, err := os.ReadFile(o.Resume)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, half[:len(half)/2], 0o666); err != nil { // as kill -9 leaves it
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	same(t, o.Source.Text, o.Destination.Text)
	if list, err := filepath.Glob(o.Resume + "*"); err != nil || len(list) != 0 {
		t.Errorf("left behind: %q, %v", list, err)
	}
	o = begun(t)
	b, err := os.ReadFile(o.Resume)
	if err != nil {
		t.Fatal(err)
	}
	spoiled := strings.Replace(string(b), `"done":[{"start":0`, `"done":[{"start":1`, 1)
	if spoiled == string(b) {
		t.Fatalf("%s", b)
	}
	if err := os.WriteFile(o.Resume, []byte(spoiled), 0o666); err != nil {
		t.Fatal(err)
	}
	refused(t, o, "is damaged; remove it")
}

// cancelling is a destination during whose flush the user has had enough.
type cancelling struct {
	end
	cancel func()
}

func (c *cancelling) flush(ctx context.Context) error {
	c.cancel()
	return c.end.flush(ctx)
}

func TestInterruptedWhileComparing(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := options(t, image(t, 4<<20), filepath.Join(t.TempDir(), "new.img"))
	o.Verify = true
	j := newJob(&o)
	if err := j.open(ctx); err != nil {
		t.Fatal(err)
	}
	j.destination = &cancelling{j.destination, cancel}
	if _, err := j.run(ctx); !errors.Is(err, ErrUncompared) || !errors.Is(err, ErrInterrupted) {
		t.Errorf("%v", err)
	}
	same(t, o.Source.Text, o.Destination.Text)
}
